"""A right cache, small enough to be got wrong in one place at a time: one layer, tokens in a list."""

from __future__ import annotations

import numpy as np

from ...attention import attend
from ...positions import rope_frequencies, rotate


class Cache:
    """StreamingLLM, as `minisink.cache` has it: append, evict, number, rotate, attend.

    Parameters
    ----------
    n_sinks, window : int
    theta : float or None
        Base of the rotary angles; None where nothing is rotated.

    Attributes
    ----------
    token_index : list of int
        Tokens held, in slot order; `keys` and `values` beside them, (K, D) each, un-rotated.
    n_seen : int
        Tokens taken in.
    """

    name = "right"
    shared = False  # whether all layers are one object

    def __init__(self, *, n_sinks: int, window: int, theta: float | None):
        self.n_sinks, self.window, self.theta = n_sinks, window, theta
        self.capacity, self.n_seen = n_sinks + window, 0
        self.token_index, self.keys, self.values = [], [], []

    def step(self, q, k, v):  # (H, D), 2 x (K, D) -> (H, D)
        """What the newest token takes home."""
        self.token_index, self.keys, self.values = [*self.token_index, self.n_seen], [*self.keys, k], [*self.values, v]
        self.n_seen += 1
        stay = self.survivors(len(self.token_index))
        self.token_index = [self.token_index[slot] for slot in stay]
        self.keys, self.values = [self.keys[slot] for slot in stay], [self.values[slot] for slot in stay]
        if not stay:
            return np.zeros_like(q)
        return self.attend(q, np.array(self.keys), np.array(self.values))

    def steps(self, q, k, v):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """What the tokens of a chunk take home: what they would one by one."""
        return np.array([self.step(*each) for each in zip(q, k, v, strict=True)])

    def show(self):
        """What it holds, for `check` to compare."""
        return {"token_index": self.token_index, "positions": self.positions}

    def survivors(self, n):
        """Slots that stay, of n."""
        return list(range(n)) if n <= self.capacity else [*range(self.n_sinks), *range(n - self.window, n)]

    @property
    def positions(self):
        """Position of each slot: the slot."""
        return list(range(len(self.token_index)))

    @property
    def own(self):
        """Position of the query."""
        return self.positions[-1]

    def attend(self, q, keys, values):  # (H, D), 2 x (S, K, D) -> (H, D)
        """Rotated query and keys, softmax, mix."""
        return attend(self.rotated(q[None], [self.own]), self.rotated(keys, self.positions), values)[0]

    def rotated(self, x, positions):  # (T, H, D), (T,) -> (T, H, D)
        """What attention meets."""
        return x if self.theta is None else rotate(x, np.array(positions), rope_frequencies(x.shape[-1], self.theta))
