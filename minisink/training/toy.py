"""What the classroom's models share: attention alone, and a step of learning from texts drawn for it.

A task of its own, `backcopy` or `induction`, says which texts, and what can be seen inside.
"""

import math

import numpy as np

from .. import llama
from ..model import Model
from ..system.device import array_module
from . import llama as arch
from .gradients import batch_gradient
from .optimizer import SGD, AdamW, clip
from .parameters import as_weights, decayed, initial_vector

BATCH = 32  # texts a step


def attention_only(*, vocab_size, length, n_layers, n_heads, width=64, softmax="softmax", bos=None,
                   sink_logit=False):  # fmt: skip
    """A Llama without an MLP: one of width 0, which adds nothing.

    Parameters
    ----------
    vocab_size, length, n_layers, n_heads : int
        `length` is the longest text of the training; `n_layers` 1 or more.
    width : int
        Of the model; the heads share it.
    softmax : {"softmax", "softmax1", "relu"}
    bos : int, optional
    sink_logit : bool
        One a head, learned: see `ops.softmax_with_sink`.

    Returns
    -------
    llama.Config
    """
    if n_layers < 1:
        raise ValueError(f"layers is {n_layers}; it must be 1 or more")
    return llama.Config(
        d_model=width, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_heads, head_dim=width // n_heads, d_ff=0,
        vocab_size=vocab_size, max_positions=length, bos=bos, softmax=softmax,
        sink_logit=sink_logit,
    )  # fmt: skip


class Toy:
    """A small model that learns, a step at a time.

    Parameters
    ----------
    config : llama.Config
    schedule : Schedule
    std : float
        Deviation of the initial weights.
    weight_decay : float
        Of AdamW.
    optimizer : {"adamw", "sgd"}
    batch : int
        Texts a step.
    seed : int
        Of the initial weights, and of the texts.
    workers : int
        Threads; the numbers do not depend on it. On a GPU there is one.
    device : str
        "cpu" or "cuda".

    Raises
    ------
    ValueError
        For no step at all, or a device that is not there.
    """

    def __init__(self, config, *, schedule, std, weight_decay, optimizer="adamw", batch=BATCH, seed=0, workers=1,
                 device="cpu"):  # fmt: skip
        if schedule.n_steps < 1:
            raise ValueError(f"steps is {schedule.n_steps}; it must be 1 or more")
        self.config, self.schedule, self.batch = config, schedule, batch
        self.workers = workers if device == "cpu" else 1
        self.xp = array_module(device)
        self.vector = self.xp.asarray(initial_vector(config, seed, std=std))
        self.random = np.random.default_rng([seed, 1])
        if optimizer == "adamw":
            part = decayed(config)
            self.optimizer = AdamW.for_vector(self.vector, part, betas=(0.9, 0.99), weight_decay=weight_decay)
        else:
            self.optimizer = SGD()
        self.n_steps_done = 0

    def draw(self):
        """Texts for one step, (B, T + 1) ints: T tokens each to read and the same, one further, to predict."""
        raise NotImplementedError

    def look(self):
        """What the model does on texts it does not learn from: a dict of floats."""
        raise NotImplementedError

    def step(self):
        """Learn from one batch; the loss before, in nats. ValueError when it is not finite."""
        ids = self.xp.asarray(self.draw())
        loss, gradient = batch_gradient(arch, self.config, self.vector, ids[:, :-1], ids[:, 1:], workers=self.workers)
        norm = clip(gradient, 1.0)
        if not math.isfinite(loss + norm):
            raise ValueError(f"step {self.n_steps_done + 1}: the loss is {loss}; a lower --rate may help")
        self.optimizer.step(self.vector, gradient, self.schedule.rate(self.n_steps_done))
        self.n_steps_done += 1
        return loss

    def forward(self, ids):
        """The training forward of (B, T) ids: logits (B * T, V), and what was saved, patterns and values among it."""
        return arch.forward(self.xp.asarray(ids), as_weights(self.config, self.vector), self.config)

    def as_model(self, name):
        """A `Model` of the weights as they are now, which share their memory."""
        return Model(self.config, as_weights(self.config, self.vector), name=name)
