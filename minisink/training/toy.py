"""What the classroom's models share: attention alone, and a step of learning from texts.

A task, `backcopy` or `induction`, supplies the texts, and a `look` method that measures what can be seen inside.
"""

import math

import numpy as np

from .. import llama
from ..model import Model
from ..system.device import array_module
from ..system.threads import one_thread
from . import passes
from .gradients import batch_gradient
from .optimizer import SGD, AdamW, clip
from .parameters import as_weights, decayed, initial_vector


def attention_only(*, n_layers, n_heads, width=64, **fields):
    """Return the config of a Llama whose MLP has width 0, so it adds nothing. The heads share the model's width."""
    heads = {"n_heads": n_heads, "n_kv_heads": n_heads, "head_dim": width // n_heads}
    return llama.Config(d_model=width, n_layers=n_layers, d_ff=0, **heads, **fields)


class Toy:
    """A small model that learns from `batch` texts per step, drawn by ``draw(random, batch)``.

    They are (B, T + 1) ints: T tokens to read and the same, shifted by one, to predict. `std` is the standard deviation
    of the initial weights; `weight_decay` is AdamW's, and `optimizer` is "adamw" or "sgd". `seed` is for the initial
    weights, the texts, and the watched texts. The numbers do not depend on `workers`, the number of threads, which is 1
    on a GPU (`device` is "cpu" or "cuda").
    """

    def __init__(
        self, config, draw, schedule, *, std, weight_decay, optimizer="adamw", batch=32, seed=0, workers=1, device="cpu"
    ):
        if schedule.n_steps < 1:
            raise ValueError(f"steps is {schedule.n_steps}; it must be 1 or more")
        self.config, self.draw, self.schedule, self.batch = config, draw, schedule, batch
        self.workers, self.xp = workers if device == "cpu" else 1, array_module(device)
        self.vector = self.xp.asarray(initial_vector(config, seed, std=std))
        self.random = np.random.default_rng([seed, 1])
        self.random_watched = np.random.default_rng([seed, 2])  # for texts that are not learned from
        adamw = AdamW(self.vector, decayed(config), betas=(0.9, 0.99), weight_decay=weight_decay)
        self.optimizer = adamw if optimizer == "adamw" else SGD()
        self.n_steps_done = 0

    def step(self):
        """Learn from one batch; return the loss before the step, in nats. ValueError if it is not finite."""
        ids = self.xp.asarray(self.draw(self.random, self.batch))
        loss, gradient = batch_gradient(self.config, self.vector, ids[:, :-1], ids[:, 1:], workers=self.workers)
        norm = clip(gradient, 1.0)
        if not math.isfinite(loss + norm):
            raise ValueError(f"step {self.n_steps_done + 1}: the loss is {loss}; a lower --rate may help")
        self.optimizer.step(self.vector, gradient, self.schedule.rate(self.n_steps_done))
        self.n_steps_done += 1
        return loss

    def forward(self, ids):
        """Run the training forward pass on (B, T) ids: logits (B * T, V), and the pattern and values of each layer."""
        with one_thread(self.config.d_model):
            weights = as_weights(self.config, self.vector)
            return passes.forward(self.xp.asarray(ids), weights, self.config)[:2]

    def as_model(self, name):
        """Return a `Model` of the weights as they are now, which share their memory."""
        return Model(self.config, as_weights(self.config, self.vector), name=name)
