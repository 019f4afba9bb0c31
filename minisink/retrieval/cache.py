"""The readable path of retrieval: a store of evicted tokens, and one softmax over sinks, fetched blocks and window.

A token moves from its slot to the store when it is evicted, and every query scores every key in the store. `blocks` and
`ring` give the same numbers at memory speed. A store has N blocks of B tokens; a head fetches n of them: F = n B keys.
"""

from typing import Any, NamedTuple

import numpy as np

from ..attention import additive, score
from ..cache import KVCache, blocks
from ..ops import softmax
from ..paths import Cached, cached_attention, side_by_side
from ..positions import bias_of
from ..system.device import to_host

FIRST_BLOCK = 16  # initial room in tokens; a longer block grows as it fills
TIE = 1 / 1024  # block scores within this of the last one fetched count as equal to it


class Store:
    """The evicted tokens of one layer in blocks, in the order of the text; the last block may be partly filled.

    ``keys`` (un-rotated) and ``values`` are (N, B, K, D), ``token_index`` (N, B) is -1 where there is no token. With
    only one block, B is no larger than needed.
    """

    def __init__(self, empty, block, limit=None):  # (0, K, D)
        self.block, self.limit = block, limit  # tokens per block; tokens kept, or None for all
        self.n_evicted = 0  # tokens added since the start
        B = min(block, FIRST_BLOCK)
        self.keys = self.values = np.zeros_like(empty, shape=(0, B, *empty.shape[1:]))
        self.token_index = np.zeros((0, B), dtype=int)

    def __len__(self):
        """Blocks."""
        return len(self.keys)

    def add(self, key, value, token_index):  # (K, D), (K, D), int
        """Add the token that has just left the window, and forget tokens older than the limit."""
        (N, B), offset = self.token_index.shape, self.n_evicted % self.block  # in the last block
        if offset == 0:
            self._make_room(N + 1, B)
        elif offset == B:
            self._make_room(N, min(2 * B, self.block))
        self.keys[-1, offset], self.values[-1, offset], self.token_index[-1, offset] = key, value, token_index
        self.n_evicted += 1
        if self.limit is not None:
            self.token_index[self.token_index <= token_index - self.limit] = -1
        if (self.token_index[0] < 0).all():
            self.keys, self.values, self.token_index = self.keys[1:], self.values[1:], self.token_index[1:]

    def _make_room(self, N, B):
        old_N, old_B = self.token_index.shape
        self.keys, self.values = (widened(x, (N, B, *x.shape[2:])) for x in (self.keys, self.values))
        self.token_index = np.pad(self.token_index, ((0, N - old_N), (0, B - old_B)), constant_values=-1)


class Fetched(NamedTuple):
    """What each head fetches for one token; in unfilled slots the score is -inf and the token_index -1."""

    scores: Any  # (H, F)
    values: Any  # (H, F, D)
    token_index: Any  # (H, F)
    first_token: Any  # (H, n), one per block


def fetch(q, store, rotate, policy, layer, t):  # (1, H, D)
    """Return what token t fetches from a store: for each head the `n_blocks` best blocks, or all if there are fewer.

    The query is rotated by `window` and the keys are not rotated, so every key counts as `window` tokens back.
    """
    (_, H, D), (N, B, K, _) = q.shape, store.keys.shape
    if policy.positions == "original":
        place, places = np.array([t]), store.token_index
        query, keys = rotate(q, place), rotate(store.keys, places)
    else:
        place, places = np.array([policy.window]), 0 * store.token_index
        query, keys = rotate(q, place), store.keys
    filled = np.asarray(store.token_index >= 0, like=q)  # (N, B)
    scores = score(query, keys.reshape(N * B, K, D)).reshape(H, N, B)  # (H, 1, N B) -> (H, N, B)
    scores += additive(filled, scores.dtype)
    bias = bias_of(rotate, place, places.ravel(), like=q)  # (H, 1, N B)
    if bias is not None:
        scores += bias.reshape(H, N, B)
    block_scores = to_host(policy.block_scores(query, keys, scores, filled, layer=layer, t=t))  # (H, N)
    top = top_blocks(block_scores, policy.n_blocks)  # (H, n)

    head = np.arange(H)[:, None]
    kv_head = head // (H // K)
    scores, token_index = scores[head, top], store.token_index[top]  # (H, n, B)
    values = store.values[top, :, kv_head]  # (N, B, K, D) -> (H, n, B, D)
    first_token = np.where(token_index < 0, np.iinfo(int).max, token_index).min(axis=-1)  # (H, n)
    return Fetched(scores.reshape(H, -1), values.reshape(H, -1, D), token_index.reshape(H, -1), first_token)


class RetrievalPath(Cached):
    """A path (`paths.Path`): each new token sees the sinks, what it fetches, and the window."""

    cache: Any  # RetrievalCache

    def mix(self, layer, q, k, v, rotate, *, normalise=softmax, trace=None):  # type: ignore[override]
        """Append, evict into the store, number, rotate; fetch; attend to all three, -> (T, H, D).

        A dict as `trace` receives ``"scores"`` and ``"pattern"`` (H, T, S), a query's columns being sinks, fetched
        tokens and window; ``"token_index"`` (H, T, S), the token in each; and ``"fetched"`` (H, T, n_blocks), the
        first token of each block it fetched. Empty entries have ``-inf``, 0, -1 and -1.
        """
        policy, slots, store = self.cache.policy, self.cache.layers[layer], self.cache.stores[layer]
        mixed, traces = np.empty_like(q), []
        for new in blocks(slots, len(q)):  # once the slots are full, one token at a time
            if len(slots.keys) == policy.capacity:
                leaving = policy.n_sinks  # the slot of the oldest token that is not a sink
                store.add(slots.keys[leaving], slots.values[leaving], slots.token_index[leaving])
            traces.append({})
            if len(store) and policy.n_blocks:
                slots.append(k[new], v[new])
                fetched = fetch(q[new], store, rotate, policy, layer, t=slots.n_seen - 1)
                mixed[new] = attend_with(fetched, q[new], slots, policy.n_sinks, rotate, normalise, traces[-1])
            else:
                mixed[new] = attend_without(q[new], k[new], v[new], slots, rotate, normalise, traces[-1])
        if trace is not None:
            for name, fill in (("scores", -np.inf), ("pattern", 0.0), ("token_index", -1), ("fetched", -1)):
                trace[name] = side_by_side([part[name] for part in traces], fill)
        return mixed


def attend_without(q, k, v, slots, rotate, normalise, trace):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
    """Attend as in StreamingLLM, with nothing fetched."""
    mixed = cached_attention(q, k, v, slots, rotate, normalise=normalise, trace=trace)
    H, T, S = trace["pattern"].shape
    trace["token_index"], trace["fetched"] = np.broadcast_to(slots.token_index, (H, T, S)), np.full((H, T, 0), -1)
    return mixed


def attend_with(fetched, q, slots, n_sinks, rotate, normalise, trace):  # (1, H, D) -> (1, H, D)
    """Attend to sinks, fetched tokens, and window with one softmax."""
    newest, positions = slots.positions[-1:], slots.positions
    scores = score(rotate(q, newest), rotate(slots.keys, positions))[:, 0]  # (H, S)
    bias = bias_of(rotate, newest, positions, like=q)  # (H, 1, S)
    if bias is not None:
        scores += bias[:, 0]
    H, S = scores.shape
    values = np.repeat(slots.values.swapaxes(0, 1), H // slots.values.shape[1], axis=0)  # (S, K, D) -> (H, S, D)

    def between(of_slots, of_fetched):  # (H, S, ...), (H, F, ...) -> (H, S + F, ...)
        return np.concatenate((of_slots[:, :n_sinks], of_fetched, of_slots[:, n_sinks:]), axis=1)

    scores = between(scores, fetched.scores)[:, None]  # (H, 1, S + F)
    pattern = normalise(scores)
    trace["scores"], trace["pattern"], trace["fetched"] = scores, pattern, fetched.first_token[:, None]
    trace["token_index"] = between(np.broadcast_to(slots.token_index, (H, S)), fetched.token_index)[:, None]
    return (pattern @ between(values, fetched.values)).swapaxes(0, 1)  # (H, 1, S + F) @ (H, S + F, D) -> (1, H, D)


def top_blocks(block_scores, n_blocks):  # (H, N) -> (H, at most n_blocks)
    """Return the blocks with the highest scores, in the order of the text; ties go to the newer.

    A repeated word has exactly the same key in layer 0, so blocks do tie, up to rounding. All scores within
    `TIE` of the last one fetched therefore count as equal.

    >>> top_blocks(np.array([[3.0, 1.0, 3.00001, 2.0]]), 2).tolist(), top_blocks(np.array([[3.00001, 3.0]]), 1).tolist()
    ([[0, 2]], [[1]])
    """
    steps, n_left = steps_from_last(block_scores, n_blocks)
    return np.sort(steps.argsort(axis=1, kind="stable")[:, n_left:], axis=1)


def steps_from_last(block_scores, n_blocks):  # (..., N) -> (..., N), float64, and an int
    """Return how many `TIE` steps each score is above the last one fetched, 0 for a tie, and how many are not fetched.

    >>> steps, n_left = steps_from_last(np.array([3.0, 1.0, 3.00001, 2.0, -np.inf]), 2)
    >>> steps.tolist(), n_left
    ([0.0, -1024.0, 0.0, -512.0, -inf], 3)
    """
    n_left = max(0, block_scores.shape[-1] - n_blocks)
    last = np.partition(block_scores, n_left, axis=-1)[..., n_left, None]
    last = np.maximum(last, -1e30)  # if fewer blocks have a score than are fetched
    steps = (block_scores - last).astype(np.float64)
    steps *= 0.5 / TIE
    return np.rint(steps, steps), n_left


def channel_range(keys, filled):  # (..., B, D), (..., B) -> 2 x (..., D)
    """Return the lowest and the highest number in each channel of a block."""
    filled = filled[..., None]
    return np.where(filled, keys, np.inf).min(axis=-2), np.where(filled, keys, -np.inf).max(axis=-2)


def upper_bound(q, channel_min, channel_max):  # (T, H, D), 2 x (N, K, D) -> (H, T, N)
    """Return a score that no key in a block exceeds, taking the better end of each channel's range (Quest).

    >>> q, keys = np.array([[[2.0, -1.0]]]), np.array([[[[1.0, 0.0], [0.0, -3.0]]]])  # (1, 1, D), (N, K, B, D)
    >>> score(q, keys[0].swapaxes(0, 1)).round(4).tolist()  # of two keys in one block
    [[[1.4142, 2.1213]]]
    >>> upper_bound(q, *channel_range(keys, np.ones((1, 1, 2), bool))).round(4).tolist()
    [[[3.5355]]]
    """
    return score(np.maximum(q, 0.0), channel_max) + score(np.minimum(q, 0.0), channel_min)


PARTS = ("keys", "values", "token_index")  # of a store


class RetrievalCache(KVCache):
    """A `KVCache` of sinks and window, plus a `Store` of evicted tokens for each layer, in ``stores``.

    `policy` is a `Retrieval`; the slots follow its `in_slots`.
    """

    def __init__(self, n_layers: int, n_kv_heads: int, head_dim: int, policy: Any, *, like=None):
        super().__init__(n_layers, n_kv_heads, head_dim, policy.in_slots, like=like)
        self.policy = policy
        self.stores = [Store(layer.keys, policy.block, policy.store) for layer in self.layers]

    path = RetrievalPath
    kind = "retrieval"

    def __repr__(self):
        L, n_stored = len(self.stores), int((self.stores[-1].token_index >= 0).sum())
        about = f"{len(self)} slots and {n_stored} stored of {self.n_seen} tokens seen"
        return f"<RetrievalCache of {L} layers: {about}, {self.policy}>"

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, in the slots and in the stores."""
        return super().nbytes + sum(store.keys.nbytes + store.values.nbytes for store in self.stores)

    def state(self) -> tuple[dict, dict]:
        """Return everything needed to resume: arrays by name, and JSON-able metadata."""
        arrays, about = super().state()
        for i, store in enumerate(self.stores):
            arrays |= {f"store_{part}.{i}": getattr(store, part) for part in PARTS}
        return arrays, about | {"n_evicted": self.stores[-1].n_evicted}

    @classmethod
    def from_state(cls, policy: Any, arrays: dict, about: dict) -> "RetrievalCache":
        """Rebuild the cache whose `state` this is."""
        cache: Any = super().from_state(policy, arrays, about)
        for i, store in enumerate(cache.stores):
            store.n_evicted = about["n_evicted"]
            for part in PARTS:
                setattr(store, part, arrays[f"store_{part}.{i}"])
        return cache


def widened(array, shape):
    """Return a copy of a larger shape, padded with zeros; if memory runs out, name the remedy."""
    try:
        return np.pad(array, [(0, wider - held) for wider, held in zip(shape, array.shape, strict=True)])
    except MemoryError as error:
        raise MemoryError(f"evicted tokens do not fit in memory ({error}); store=N keeps only the newest N") from error
