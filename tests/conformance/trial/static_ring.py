"""A static cache, as an engine with compiled graphs has it: buffers of one size, and a mask. StreamingLLM.

The sinks lie in the first slots, the window in a ring behind them. Keys are rotated once, to their place in the text,
and never move; instead the query is rotated twice. The window meets it at its own place in the text, the sinks where
the last slot of the cache is: only differences of positions count.
"""

import numpy as np
from kernels import mix, rope, scores


class StaticRing:
    """The cache of one layer."""

    def __init__(self, *, n_sinks, window, theta):
        self.n_sinks, self.window, self.size, self.theta = n_sinks, window, n_sinks + window, theta
        self.keys = self.values = None  # (S, K, D) each, when it is known what they hold
        self.reset()

    def reset(self):
        """Begin another text: what is left in the buffers is masked until it is written over."""
        self.n_seen = 0

    def step(self, q, k, v):  # (H, D), 2 x (K, D) -> (H, D)
        """Take in one token."""
        return self.steps(q[None], k[None], v[None])[0]

    def steps(self, q, k, v):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Take in a prompt: what fits at once, and then token by token, for each of them overwrites another."""
        if self.keys is None:
            self.keys, self.values = (np.zeros((self.size, *x.shape[1:]), x.dtype) for x in (k, v))
        done, out = 0, []
        while done < len(q):
            part = slice(done, done + self.fitting(len(q) - done))
            out.append(self.attend(q[part], k[part], v[part]))
            done = part.stop
        return np.concatenate(out)

    def fitting(self, n_tokens):
        """Return how many of these tokens can be written before any of them attends."""
        return min(n_tokens, max(1, self.size - self.n_seen))

    def attend(self, q, k, v):
        """Write some tokens into their slots, and return the outputs of their queries."""
        t = np.arange(self.n_seen, self.n_seen + len(q))
        slots = self.slots(t)
        self.keys[slots], self.values[slots] = rope(k, t, self.theta), v
        self.n_seen += len(q)
        to_sinks = scores(rope(q, self.place_to_sinks(t), self.theta), self.keys[: self.n_sinks])
        to_window = scores(rope(q, self.place_to_window(t), self.theta), self.keys[self.n_sinks :])
        return mix(np.concatenate((to_sinks, to_window), axis=-1), self.values, self.mask(t))

    def slots(self, t):
        """Return the slots of these tokens."""
        return np.where(t < self.n_sinks, t, self.n_sinks + (t - self.n_sinks) % self.window)

    def place_to_sinks(self, t):
        """Return the positions at which the sinks meet these queries."""
        return np.minimum(t, self.size - 1)

    def place_to_window(self, t):
        """Return the positions at which the window meets them."""
        return t

    def mask(self, t):  # (T,) -> (T, S)
        """Return which slots are filled when each of them attends."""
        return np.arange(self.size) < np.minimum(t + 1, self.size)[:, None]
