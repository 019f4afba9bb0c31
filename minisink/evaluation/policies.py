"""Other engines' policies: they evict whole blocks or half of the window at once, StreamingLLM one token."""

from dataclasses import dataclass

import numpy as np

from ..cache import check_whole
from ..methods import Streaming


@dataclass(frozen=True)
class Blockwise(Streaming):
    """A block of tokens stays while any of them is a sink or in the window (OpenVINO; caches made of pages).

    Blocks are counted from the start of the text. Up to ``block - 1`` more tokens are held, and up to as many again if
    `n_sinks` is not a multiple of `block`.

    >>> Blockwise(2, 3, block=4).survivors(np.arange(14)).tolist()
    [0, 1, 2, 3, 8, 9, 10, 11, 12, 13]
    """

    block: int = 16

    def __post_init__(self):
        check_whole("block", self.block, 1)
        super().__post_init__()

    def survivors(self, token_index):
        """Keep the sinks' blocks, and those whose last token is still in the window."""
        start = token_index - token_index % self.block  # (S,), of the token's block
        return np.flatnonzero((start < self.n_sinks) | (start + self.block > token_index[-1] - self.window + 1))

    @property
    def capacity(self) -> int:
        """The most keys that a query sees."""
        return -(-self.n_sinks // self.block) * self.block + self.window + self.block - 1


@dataclass(frozen=True)
class HalfAtOnce(Streaming):
    """When there is no room for a new token, the older half of the window is evicted (llama.cpp's context shift).

    >>> HalfAtOnce(1, 4).survivors(np.arange(6)).tolist()
    [0, 3, 4, 5]
    """

    def survivors(self, token_index):
        """Keep everything while there is room; then evict the oldest ``window // 2``, at least one."""
        S, half = len(token_index), max(1, self.window // 2)
        leave = -(-max(0, S - self.n_sinks - self.window) // half) * half  # one half, if tokens arrive one at a time
        return np.concatenate((np.arange(min(S, self.n_sinks)), np.arange(self.n_sinks + leave, S)))
