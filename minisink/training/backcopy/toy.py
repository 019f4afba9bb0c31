"""A one-head model that learns the Bigram-Backcopy task of `chain`, and what can be seen inside it while it does."""

import math

import numpy as np

from ... import llama
from ...cache import KVCache, keep_sinks, keep_window
from ...loss import nll_of
from ...model import Model
from ...system.device import array_module, to_host
from .. import llama as arch
from ..gradients import batch_gradient
from ..optimizer import SGD, AdamW, Schedule, clip
from ..parameters import as_weights, decayed, initial_vector
from .chain import BOS

# Peak learning rates that work. What ReLU gives is not held to a sum of one, so it bears less.
RATES = {"softmax": 5e-2, "softmax1": 5e-2, "relu": 2e-3, "sgd": 1.0}


def make_config(task, n_layers=1, width=64, length=64, kind="softmax"):
    """A Llama with attention only: one head, and an MLP of width 0, which adds nothing.

    Parameters
    ----------
    task : Task
    n_layers, width, length : int
    kind : {"softmax", "softmax1", "relu"}

    Returns
    -------
    llama.Config
    """
    if n_layers < 1:
        raise ValueError(f"layers is {n_layers}; it must be 1 or more")
    return llama.Config(
        d_model=width, n_layers=n_layers, n_heads=1, n_kv_heads=1, head_dim=width, d_ff=0,
        vocab_size=len(task.table), max_positions=length, bos=BOS if task.starts_with_bos else None,
        softmax=kind,
    )  # fmt: skip


class Toy:
    """A small model that learns the task, and what can be seen inside it.

    Parameters
    ----------
    task : Task
    n_layers : int
    kind : {"softmax", "softmax1", "relu"}
    optimizer : {"adamw", "sgd"}
    n_steps, batch, length : int
    rate : float, optional
        Peak learning rate; one of `RATES` by default.
    seed : int
    workers : int
        Threads; the numbers do not depend on it. On a GPU there is one.
    device : str
        "cpu" or "cuda".

    Raises
    ------
    ValueError
        For a number out of range, or a device that is not there.
    """

    def __init__(self, task, *, n_layers=1, kind="softmax", optimizer="adamw", n_steps=1200, batch=32, length=64,
                 rate=None, seed=0, workers=1, device="cpu"):  # fmt: skip
        if n_steps < 1:
            raise ValueError(f"steps is {n_steps}; it must be 1 or more")
        self.task, self.batch, self.length = task, batch, length
        self.workers = workers if device == "cpu" else 1
        self.xp = array_module(device)
        self.config = make_config(task, n_layers, length=length, kind=kind)
        self.vector = self.xp.asarray(initial_vector(arch, self.config, seed, std=0.05))
        self.random = np.random.default_rng([seed, 1])
        self.watched = task.draw(np.random.default_rng([seed, 2]), 64, length + 1)  # the same texts all along
        if optimizer == "adamw":
            part = decayed(arch, self.config)
            self.optimizer = AdamW.for_vector(self.vector, part, betas=(0.9, 0.99), weight_decay=0.1)
        else:
            self.optimizer = SGD()
        rate = rate or RATES[optimizer if optimizer == "sgd" else kind]
        self.schedule = Schedule(rate, n_steps, warmup=20, decay=0.7, final=0.1)
        self.floor = task.floor(length)
        self.n_steps_done = 0

    def step(self):
        """Learn from one batch; the loss before, in nats. ValueError when it is not finite."""
        ids = self.xp.asarray(self.task.draw(self.random, self.batch, self.length + 1)[0])
        loss, gradient = batch_gradient(arch, self.config, self.vector, ids[:, :-1], ids[:, 1:], workers=self.workers)
        norm = clip(gradient, 1.0)
        if not math.isfinite(loss + norm):
            raise ValueError(f"step {self.n_steps_done + 1}: the loss is {loss}; a lower --rate may help")
        self.optimizer.step(self.vector, gradient, self.schedule.rate(self.n_steps_done))
        self.n_steps_done += 1
        return loss

    def look(self):
        """What the model does on texts it does not learn from.

        The loss is the floor plus what the model loses to the chain itself *on the same texts*, which leaves
        out the luck of the draw.

        Returns
        -------
        dict
            ``loss`` and ``floor`` in nats a token; ``bos_from_nontrigger`` and ``bos_from_trigger``, the mean
            weight on the first token; ``value_ratio``, the norm of its value over the mean of the others'. With
            several layers, of the one with the strongest sink; ``layer`` says which.
        """
        ids, nll = self.watched
        inputs, targets = ids[:, :-1], ids[:, 1:]
        weights = as_weights(arch, self.config, self.vector)
        logits, saved = arch.forward(self.xp.asarray(inputs), weights, self.config)
        trigger = self.task.is_trigger(inputs)
        # not query 0, which sees itself only, nor query 1: without BOS a trigger there looks back at the first token
        from_trigger, from_other = trigger[:, 2:], ~trigger[:, 2:]
        layers = []
        for i, kept in enumerate(saved["layers"]):
            on_first = to_host(kept["pattern"][:, 0, 2:, 0])  # (B, T - 2)
            size = to_host(np.sqrt((kept["v"][:, 0] ** 2).sum(axis=-1)))  # (B, T)
            layers.append({
                "bos_from_nontrigger": float(on_first[from_other].mean()),
                "bos_from_trigger": float(on_first[from_trigger].mean()),
                "value_ratio": float(size[:, 0].mean() / size[:, 1:].mean()),
                "layer": i,
            })  # fmt: skip
        over = nll_of(logits, targets.reshape(-1)).mean(dtype=np.float64) - nll[:, 1:].mean()
        strongest = max(layers, key=lambda one: one["bos_from_nontrigger"])
        return {"loss": self.floor + float(over), "floor": self.floor} | strongest

    def stream(self, n_texts=4, n_tokens=1000, seed=0):
        """Loss on texts many times as long as those it learned from, with the caches of StreamingLLM.

        Parameters
        ----------
        n_texts, n_tokens, seed : int

        Returns
        -------
        dict
            Nats a token, over the same floor as in `look`: ``dense_nll``; ``window_nll`` with the trained length
            as window; ``streaming_nll`` with the same number of keys, one of them the first token.
        """
        ids, floor = self.task.draw(np.random.default_rng([seed, 3]), n_texts, n_tokens)
        policies = {"window": keep_window(self.length), "streaming": keep_sinks(1, self.length - 1), "dense": None}
        model = Model(self.config, as_weights(arch, self.config, self.vector), name="backcopy")
        result = {}
        for method, policy in policies.items():
            total = 0.0
            for text in ids:
                cache = None if policy is None else self._empty_cache(policy)
                logits = model.forward(text[:-1], cache=cache)
                total += float(nll_of(logits, text[1:]).mean(dtype=np.float64))
            result[f"{method}_nll"] = self.floor + total / n_texts - float(floor[:, 1:].mean())
        return result

    def _empty_cache(self, policy):
        return KVCache(self.config.n_layers, 1, self.config.head_dim, policy, like=self.vector)
