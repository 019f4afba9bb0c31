"""A cache that is shifted in place, like llama.cpp's: when it is full, half of the window is evicted at once.

Cells hold rotated keys. Which position each cell stands at is counted once for all layers; when the older half leaves,
the cells of the rest keep their place in memory, and their keys are rotated back by as many positions. Its policy is
`HalfAtOnce`.
"""

import numpy as np
from kernels import mix, rope, scores

FREE = -1


class ShiftInPlace:
    """The cache of all layers."""

    def __init__(self, *, n_sinks, window, theta):
        self.n_keep, self.n_ctx, self.theta = n_sinks, n_sinks + window, theta
        self.keys, self.values = [], []  # (n_ctx, K, D) for each layer
        self.reset()

    def reset(self):
        """Begin another text: all cells are free."""
        self.n_past, self.position = 0, np.full(self.n_ctx, FREE)

    def step(self, q, k, v, layer):  # (H, D), 2 x (K, D) -> (H, D)
        """Take in one token of a layer."""
        return self.steps(q[None], k[None], v[None], layer)[0]

    def steps(self, q, k, v, layer):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Take in a prompt of a layer, in the batches that the first layer has planned."""
        if layer == len(self.keys):
            self.keys.append(np.zeros((self.n_ctx, *k.shape[1:]), k.dtype))
            self.values.append(np.zeros((self.n_ctx, *v.shape[1:]), v.dtype))
        if layer == 0:
            self.plan = list(self.batches(len(q)))
        done, out = 0, []
        for moved, by, cells, position in self.plan:
            self.shift(layer, moved, by)
            part, done = slice(done, done + len(cells)), done + len(cells)
            self.keys[layer][cells], self.values[layer][cells] = rope(k[part], position[cells], self.theta), v[part]
            found = scores(rope(q[part], position[cells], self.theta), self.keys[layer])
            visible = (position != FREE) & (position <= position[cells][:, None])
            out.append(mix(found, self.values[layer], visible))
        return np.concatenate(out)

    def batches(self, n_tokens):
        """Plan a prompt: which cells shift, by how much, which are written, and the position of each after that."""
        while n_tokens:
            moved, by = [], 0
            if (self.position != FREE).all():  # no room: the older half behind the first n_keep leaves
                by = max(1, (self.n_ctx - self.n_keep) // 2)
                age = np.argsort(self.position)
                moved = self.moved(age, by)
                self.position[age[self.n_keep : self.n_keep + by]] = FREE
                self.position[age[self.n_keep + by :]] -= by
                self.reduce(by)
            cells = np.flatnonzero(self.position == FREE)[:n_tokens]
            self.position[cells] = np.arange(self.n_past, self.n_past + len(cells))
            self.n_past += len(cells)
            n_tokens -= len(cells)
            yield moved, by, cells, self.position.copy()

    def moved(self, age, by):
        """Return the cells whose keys must follow, of all cells in the order of their age."""
        return age[self.n_keep + by :]

    def reduce(self, by):
        """Take off what the newest position has moved down by."""
        self.n_past -= by

    def shift(self, layer, moved, by):
        """Rotate the keys of some cells of a layer back."""
        if len(moved):
            self.keys[layer][moved] = rope(self.keys[layer][moved], np.full(len(moved), -by), self.theta)
