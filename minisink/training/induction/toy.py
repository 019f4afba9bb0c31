"""A two-layer model in which induction heads grow, and what can be seen inside it as they do."""

from functools import partial

import numpy as np

from ...loss import nll_of
from ...system.device import to_host
from .. import toy
from ..optimizer import Schedule
from .segments import BOS, CHANCE, SEGMENT, VOCABULARY, ask, rows

LENGTH = 48  # tokens per text in training


class Toy(toy.Toy):
    """A small model that learns to predict a segment from memory when it reads it a second time.

    Other `options` are those of `training.toy.Toy`.
    """

    def __init__(self, *, n_layers=2, n_steps=600, rate=None, **options):
        text = {"vocab_size": VOCABULARY, "max_positions": LENGTH, "bos": BOS}
        config = toy.attention_only(n_layers=n_layers, n_heads=2, **text)
        schedule = Schedule(rate or 1e-2, n_steps, warmup=50, decay=0.3)
        super().__init__(config, partial(rows, length=LENGTH + 1), schedule, std=0.1, weight_decay=0.3, **options)
        self.watched = ask(self.random_watched, 32, gap=20)  # within the trained length, the same texts throughout

    def look(self):
        """Measure the model on texts it does not learn from.

        Return nats per symbol of a segment read for the ``first`` time (nobody can beat chance) and the ``second``.
        Also return the most weight, averaged over queries, that any head puts on the previous token, ``previous``, or,
        in the second reading, on the token that came next the first time, ``induction``; ``previous_head`` and
        ``induction_head`` tell which head that is, as (layer, head).
        """
        inputs, targets = self.watched[:, :-1], self.watched[:, 1:]
        logits, layers = self.forward(inputs)
        nll = nll_of(logits, targets.reshape(-1)).reshape(targets.shape)
        second = np.arange(1 - SEGMENT, 0) + inputs.shape[1]  # the queries of the second reading that can know the next
        later = np.arange(2, inputs.shape[1])
        pattern = np.array([to_host(layer["pattern"]).mean(axis=0) for layer in layers])  # (L, H, T, T)
        queries = {"previous": (later, later - 1), "induction": (second, 2 + np.arange(SEGMENT - 1))}
        look: dict = {"first": float(nll[:, :SEGMENT].mean()), "second": float(nll[:, 1 - SEGMENT :].mean())}
        for name, (query, key) in queries.items():
            weights = pattern[:, :, query, key].mean(axis=-1)  # (L, H)
            head = np.unravel_index(weights.argmax(), weights.shape)
            look |= {name: float(weights[head]), f"{name}_head": tuple(map(int, head))}
        return look


def bump(history):
    """Find induction: the first step of [(step, `Toy.look` result), ...] with less than half of chance; or None."""
    return next((step for step, row in history if row["second"] < CHANCE / 2), None)
