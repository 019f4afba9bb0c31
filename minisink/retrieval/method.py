"""`Retrieval`, the method: sinks, a window, and how many evicted tokens come back."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ..attention import score
from ..cache import Policy, check_whole
from ..system.errors import warn_caller
from .blocks import RetrievalBlocks
from .cache import RetrievalCache, channel_range, upper_bound
from .ring import RetrievalRing

SELECT = ("best", "bound")


@dataclass(frozen=True)
class Retrieval(Policy):
    """Sinks and a window, plus `n_blocks` blocks of `block` evicted tokens fetched for each query.

    ``capacity`` counts the slots, ``n_sinks + window``, without the fetched tokens.

    Parameters
    ----------
    n_sinks, window, positions
        As in `methods.Streaming`. With "original", fetched tokens keep their place in the text too (the ablation:
        useless beyond the trained length).
    n_blocks : int
        The most blocks to fetch, 0 or more; with 0 this is StreamingLLM, bit for bit.
    block : int
        Tokens in a block, 1 or more; more than `window` gives a warning.
    select : {"best", "bound"}
        How to score a block: by its best key, or by an upper bound on that score, which reads two numbers per channel
        instead of every key (Quest, arXiv:2406.10774).
    store : int, optional
        Keep only this many evicted tokens, the newest; all of them by default.
    """

    n_sinks: int = 4
    window: int = 252
    positions: str = "slot"
    n_blocks: int = 8
    block: int = 16
    select: str = "best"
    store: int | None = None

    instead: ClassVar[str] = "; Dense() keeps everything, with nothing to bring back"
    kv_cache: ClassVar[Any] = RetrievalCache
    block_cache: ClassVar[Any] = RetrievalBlocks
    ring_cache: ClassVar[Any] = RetrievalRing

    def __post_init__(self):
        super().__post_init__()
        for decision in ("survivors", "positions_of"):
            if getattr(type(self), decision) is not getattr(Retrieval, decision):
                own = f"{type(self).__name__} overrides {decision}, but the slots of Retrieval are StreamingLLM's"
                raise ValueError(f"{own}; override block_scores")
        check_whole("n_blocks", self.n_blocks, 0)
        check_whole("block", self.block, 1)
        if self.store is not None:
            check_whole("store", self.store, 1, "; None keeps every evicted token")
        if self.select not in SELECT:
            raise ValueError(f"select is {self.select!r}; it must be one of {', '.join(SELECT)}")
        if self.n_blocks and self.block > self.window:
            longer = f"a block of {self.block} tokens is longer than the window of {self.window}"
            warn_caller(f"{longer}: each fetched block outweighs it")

    @property
    def in_slots(self) -> Policy:
        """The policy of the slots: StreamingLLM's."""
        return Policy(self.n_sinks, self.window, self.positions)

    @property
    def keeps_places(self) -> bool:
        """Whether fetched tokens keep their places in the text."""
        return self.positions == "original"

    @property
    def is_plain(self) -> bool:
        """Whether blocks are scored according to `select`; a subclass with its own scores takes the readable path."""
        return type(self).block_scores is Retrieval.block_scores

    def survivors(self, token_index):
        """Raise ValueError: a cache of slots alone would silently ignore the store."""
        raise ValueError(f"{self}: needs a store besides its slots; use a minisink.retrieval.RetrievalCache")

    def block_scores(self, query, keys, scores, filled, *, layer, t):  # (1, H, D), (N, B, K, D), (H, N, B), (N, B)
        """Return how well each block suits each head, (H, N), for token `t` in this layer; the highest are fetched."""
        if self.select == "best":
            return scores.max(axis=-1)
        H, N, B = scores.shape
        bias = scores - score(query, keys.reshape(N * B, *keys.shape[2:])).reshape(H, N, B)  # ALiBi's, per token
        return upper_bound(query, *channel_range(keys.swapaxes(1, 2), filled[:, None]))[:, 0] + bias.max(axis=-1)
