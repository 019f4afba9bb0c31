"""One training run: draw samples, take a step, evaluate now and then, save everything.

`Training` holds everything that changes, and can `step`, `evaluate` and `save`. The caller (`run`, or a command)
decides when, so that an interrupt falls between two steps and loses nothing.
"""

import math
import time
import zlib
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..hf.folder import raw_of
from ..loss import token_nll
from ..methods import Streaming, Window
from ..model import Model
from ..system.device import array_module, to_host
from ..system.files import save_state
from . import data, log, state
from .gradients import batch_gradient, batch_loss
from .optimizer import AdamW, Schedule, clip
from .parameters import as_weights, decayed, go_on_from, initial_vector, share
from .recipe import Recipe

STREAM = 2048  # held-out tokens on which the gap is measured


@dataclass(eq=False)
class Training:
    """A model being trained.

    Raise ValueError for a text shorter than a sample, a folder that cannot be used, or the state of a different run.
    """

    config: Any
    recipe: Recipe
    ids: np.ndarray  # (T,), the text
    valid: np.ndarray  # held-out text to evaluate on
    folder: Path  # for the state, the log, the model and its tokenizer
    tokenizer: Any = None
    _: KW_ONLY
    resume: bool = False  # whether to continue from the folder's state
    start: Any = None  # `Weights` to begin from instead of random ones: see `parameters.go_on_from`
    device: str = "cpu"  # or "cuda", where a piece is the whole batch
    workers: int = 1  # on the CPU: see `gradients.batch_gradient`
    dtype: str = "float32"  # of the saved model

    def __post_init__(self):
        config, recipe = self.config, self.recipe
        data.check_length(len(self.ids), recipe.context)
        data.check_length(len(self.valid), recipe.context, "the held-out text")
        self.bos = config.bos if recipe.sample_start == "bos" else None
        self.schedule = Schedule(recipe.rate, recipe.n_steps, recipe.warmup, recipe.decay)
        self.xp, on_cpu = array_module(self.device), self.device == "cpu"
        self.pieces: dict = {"piece": None, "workers": self.workers} if on_cpu else {"piece": recipe.batch}
        self.identity: dict = {"config": raw_of(config), "recipe": asdict(recipe) | {"betas": list(recipe.betas)}}
        for text, ids in (("text", self.ids), ("held-out text", self.valid)):
            self.identity[text] = {"tokens": len(ids), "checksum": zlib.crc32(np.ascontiguousarray(ids).data)}
        state.check_writable(self.folder, resume=self.resume)
        vector = initial_vector(config, recipe.seed, std=recipe.std, shared=recipe.shared)
        if self.start is not None:
            go_on_from(config, self.start, vector)
        self.vector = self.xp.asarray(vector)
        how = {"betas": recipe.betas, "weight_decay": recipe.weight_decay}
        self.optimizer = AdamW(self.vector, decayed(config, recipe.shared), **how)
        self.vectors = {"weights": self.vector, "m": self.optimizer.m, "v": self.optimizer.v}  # they change in place
        self.n_steps_done, self.seconds, self.losses = 0, 0.0, []
        self.random = np.random.default_rng([recipe.seed, 1])
        if self.resume:
            self._go_on()

    def _go_on(self):
        """Continue from the folder's state."""
        about, vectors = state.load(self.folder, self.identity, len(self.vector))
        log.cut(self.folder / log.FILE, about["step"])
        for name, vector in self.vectors.items():
            vector[...] = self.xp.asarray(vectors[name])
        self.n_steps_done = self.optimizer.t = about["step"]
        self.seconds, self.losses, self.random = about["seconds"], about["losses"], state.random_from(about["random"])

    def step(self):
        """Draw a batch and update the weights; ValueError, before they change, if loss or gradient is not finite.

        Return the ``loss`` before the update, in nats per token, the ``rate``, and the ``norm`` of the gradient.
        """
        started = time.perf_counter()
        recipe = self.recipe
        batch = data.draw(self.random, self.ids, recipe.batch, recipe.context, self.bos)
        inputs, targets = map(self.xp.asarray, batch)
        loss, gradient = batch_gradient(self.config, self.vector, inputs, targets, **self.pieces)
        if recipe.shared:
            share(self.config, gradient)
        norm = clip(gradient, recipe.clip)
        if not math.isfinite(loss + norm):
            what = f"the loss is {loss} and the norm of the gradient {norm}, so training stopped"
            raise ValueError(f"step {self.n_steps_done + 1}: {what}; {self.last_good()}, at a lower --rate")
        rate = self.schedule.rate(self.n_steps_done)
        self.optimizer.step(self.vector, gradient, rate)
        self.n_steps_done += 1
        self.losses.append(loss)
        self.seconds += time.perf_counter() - started
        return {"loss": loss, "rate": rate, "norm": norm}

    def last_good(self):
        """Describe the checkpoint that is left."""
        if not (self.folder / state.FILE).exists():
            return f"no checkpoint had been written to {self.folder} yet: begin again"
        step = state.load(self.folder, self.identity, len(self.vector))[0]["step"]
        return f"the checkpoint of step {step} in {self.folder} is good: begin from it, with --init"

    def model(self):
        """Return the model as it is now; it shares its weights with the training."""
        weights = as_weights(self.config, self.vector)
        return Model(self.config, weights, self.tokenizer, name=self.folder.name)

    def evaluate(self, last):
        """Evaluate on held-out text after a step that returned `last`; add a row to the log, and return it.

        In it, ``sink_i`` is the weight on the first token in layer i, and ``window_nll`` and ``one_sink_nll`` are the
        losses on one long text with a cache of half the context.
        """
        batch = data.spread(self.valid, self.recipe.batch, self.recipe.context, self.bos)
        inputs, targets = map(self.xp.asarray, batch)
        valid_loss, sinks = batch_loss(self.config, self.vector, inputs, targets, piece=self.pieces["piece"])
        model, cache = self.model(), self.recipe.context // 2
        text = np.concatenate(([] if self.bos is None else [self.bos], self.valid[:STREAM])).astype(np.int64)
        methods = {"window_nll": Window(cache), "one_sink_nll": Streaming(1, cache - 1)}
        row = {
            "step": self.n_steps_done,
            "tokens": self.n_steps_done * self.recipe.batch * self.recipe.context,
            "seconds": round(self.seconds, 2),
            "rate": float(f"{last['rate']:.6g}"),
            "norm": round(last["norm"], 4),
            "loss": round(sum(self.losses) / max(1, len(self.losses)), 5),
            "valid_loss": round(valid_loss, 5),
        }
        row |= {name: round(float(token_nll(model, text, method).mean()), 5) for name, method in methods.items()}
        row |= {f"sink_{i}": round(sink, 4) for i, sink in enumerate(sinks)}
        self.losses = []
        log.add(self.folder / log.FILE, row)
        return row

    def save(self):
        """Write the state, and the model as a Hugging Face folder."""
        vectors = {name: to_host(vector) for name, vector in self.vectors.items()}
        about: dict = {"step": self.n_steps_done, "seconds": self.seconds, "losses": self.losses}
        about |= {"random": self.random.bit_generator.state, "identity": self.identity}
        save_state(self.folder / state.FILE, state.STATE, about, vectors)
        weights = as_weights(self.config, vectors["weights"].astype(self.dtype))
        Model(self.config, weights, self.tokenizer).save(self.folder)


def run(training, *, eval_every=50, save_every=200, on_step=lambda last, row: None, stop=lambda: False):
    """Train to the end, or until ``stop()``, which is checked before every step; return the log's last row, if any.

    The last step is saved either way; `eval_every` and `save_every` count steps between rows and between checkpoints.
    ``on_step(last, row)`` is called with what `Training.step` returned and the row of the log, or None.
    """
    row, n_steps = None, training.recipe.n_steps
    while training.n_steps_done < n_steps and not stop():
        last = training.step()
        at_end = training.n_steps_done == n_steps
        looked = training.evaluate(last) if at_end or training.n_steps_done % eval_every == 0 else None
        row = looked or row
        on_step(last, looked)
        if training.n_steps_done % save_every == 0:
            training.save()
    training.save()
    return row
