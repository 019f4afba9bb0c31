"""A paged cache, as a server has it: a pool of blocks, a table of those in use, a list of free ones.

A block holds 16 neighbouring tokens of the text and leaves as a whole, once the last of them is out of the window: its
policy is `Blockwise`. Keys are stored as they come, and rotated to their slots when they are gathered.
"""

import numpy as np
from kernels import mix, rope, scores

BLOCK = 16


class Paged:
    """The cache of one layer."""

    def __init__(self, *, n_sinks, window, theta):
        self.n_sinks, self.window, self.theta = n_sinks, window, theta
        self.sink_blocks = -(-n_sinks // BLOCK)  # that hold a sink, and stay
        self.n_blocks = self.sink_blocks + (window + BLOCK - 2) // BLOCK + 2  # a window, and one to spare
        self.pool = None  # (2, n_blocks, BLOCK, K, D): keys and values
        self.reset()

    def reset(self):
        """Begin another text: all blocks are free."""
        self.free, self.table, self.n_seen = list(range(self.n_blocks)), {}, 0

    def step(self, q, k, v):  # (H, D), 2 x (K, D) -> (H, D)
        """Take in one token: free the blocks that leave, write it, gather what is held and attend."""
        if self.pool is None:
            self.pool = np.zeros((2, self.n_blocks, BLOCK, *k.shape), k.dtype)
        number, offset = divmod(self.n_seen, BLOCK)
        for leaving in [each for each in self.table if self.sink_blocks <= each < self.oldest(self.n_seen)]:
            self.release(self.table.pop(leaving))
        if offset == 0:
            self.table[number] = self.free.pop()
        self.pool[:, self.table[number], offset] = k, v
        self.n_seen += 1
        keys, values = self.pool[:, list(self.table.values())].reshape(2, -1, *k.shape)  # (2, S, K, D)
        slots = np.arange(len(keys))
        newest = len(keys) - BLOCK + offset
        query, keys = rope(q[None], [newest], self.theta), rope(keys, slots, self.theta)
        return mix(scores(query, keys), values, slots[None] <= newest)[0]

    def steps(self, q, k, v):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Take in a prompt, token by token."""
        return np.array([self.step(*token) for token in zip(q, k, v, strict=True)])

    def oldest(self, t):
        """Return the number of the oldest block that has a token in the window of token t."""
        return (t - self.window + 1) // BLOCK

    def release(self, block):
        """Give a block back."""
        self.free.append(block)

    def show(self):
        """Return how many slots are in use: those of all blocks that are not free, but for the newest's last ones."""
        return {"n_held": (self.n_blocks - len(self.free)) * BLOCK - (-self.n_seen % BLOCK)}
