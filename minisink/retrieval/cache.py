"""The readable path of retrieval: a store of what was evicted, and attention over sinks, fetched blocks and window.

Nothing is fast here and everything is said: a token moves from its slot to its store when it is evicted, and every
query rotates and scores what is stored anew. `blocks` and `ring` give the same numbers at memory speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..attention import additive, causal_mask, mix, score
from ..cache import KVCache, blocks
from ..ops import softmax
from ..paths import side_by_side
from ..system.device import to_host

FIRST_BUFFER = 4  # blocks that a store has room for at first
STEP = 1 / 1024  # scores of blocks that are nearer than this are equal, and rounding decides nothing


def room_for(like, shape):
    """Zeros for what was evicted; when there is no memory for more, an error that says what helps."""
    try:
        return np.zeros_like(like, shape=shape)
    except MemoryError as error:
        raise MemoryError(f"what was evicted outgrows the memory ({error}); store=N keeps the newest N only") from error


class Store:
    """The evicted tokens of one layer in blocks, oldest first; the last one may be part empty.

    The buffers double when they are full. A place without a token has token_index -1.
    """

    def __init__(self, empty, block, limit=None):  # (0, K, D)
        self.limit = limit  # tokens kept, or None
        self.n_evicted = 0  # tokens taken in since the start
        self._keys = np.zeros_like(empty, shape=(FIRST_BUFFER, block, *empty.shape[1:]))
        self._values = np.zeros_like(self._keys)
        self._token_index = np.full((FIRST_BUFFER, block), -1)
        self._used = slice(0, 0)  # the blocks that are there

    @property
    def keys(self):  # (N, B, K, D)
        """Un-rotated."""
        return self._keys[self._used]

    @property
    def values(self):  # (N, B, K, D)
        """As they were evicted."""
        return self._values[self._used]

    @property
    def token_index(self):  # (N, B)
        """Place in the text of each token; -1 where there is none."""
        return self._token_index[self._used]

    def __len__(self):
        """Blocks."""
        return self._used.stop - self._used.start

    def add(self, key, value, token_index):  # (K, D), (K, D)
        """Take in the token that has just left the window, and let go of what is older than the limit."""
        place = self.n_evicted % self._token_index.shape[1]
        if place == 0:
            self._open_a_block()
        last = self._used.stop - 1
        self._keys[last, place], self._values[last, place] = key, value
        self._token_index[last, place] = token_index
        self.n_evicted += 1
        oldest = self.token_index[0]
        if self.limit is not None:
            oldest[oldest <= token_index - self.limit] = -1
        if (oldest < 0).all():
            self._used = slice(self._used.start + 1, self._used.stop)

    def _open_a_block(self):
        n, room = len(self), len(self._token_index)
        if self._used.stop == room:  # the buffers end here: double what is in use
            for name in ("_keys", "_values", "_token_index"):
                used, buffer = getattr(self, name)[self._used], getattr(self, name)
                bigger = room_for(buffer, (max(FIRST_BUFFER, 2 * n), *buffer.shape[1:]))
                bigger[:n] = used
                setattr(self, name, bigger)
            self._used = slice(0, n)
        self._token_index[n + self._used.start] = -1
        self._used = slice(self._used.start, self._used.stop + 1)

    @property
    def nbytes(self):
        """Bytes of the buffers, full or not."""
        return self._keys.nbytes + self._values.nbytes

    def state(self):
        """Arrays by name."""
        return {"store_keys": self.keys, "store_values": self.values, "store_index": self.token_index}

    def restore(self, keys, values, token_index, n_evicted):
        """Be what another store was when its `state` was taken."""
        self._keys, self._values, self._token_index = keys, values, token_index
        self._used, self.n_evicted = slice(0, len(keys)), n_evicted


class RetrievalCache(KVCache):
    """A `KVCache` of sinks and window, and beside each of its layers a `Store` of what was evicted.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim : int
        L, K and D of the model.
    policy : Retrieval
        Its `in_slots` governs the slots.
    like : ndarray, optional
        Array whose dtype and device cache and stores take; float32 on the host by default.

    Attributes
    ----------
    layers : list of LayerCache
        The slots, one a layer.
    stores : list of Store
        One a layer.
    """

    def __init__(self, n_layers: int, n_kv_heads: int, head_dim: int, policy: Any, *, like=None):
        super().__init__(n_layers, n_kv_heads, head_dim, policy.in_slots, like=like)
        self.policy = policy
        self.stores = [Store(layer.keys, policy.block, policy.store) for layer in self.layers]

    def __repr__(self):
        L, n_stored = len(self.stores), int((self.stores[-1].token_index >= 0).sum())
        about = f"{len(self)} slots and {n_stored} stored of {self.n_seen} tokens seen"
        return f"<RetrievalCache of {L} layers: {about}, {self.policy}>"

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, in the slots and in the stores."""
        return super().nbytes + sum(store.nbytes for store in self.stores)

    # To a file and back: see `snapshot` ---------------------------------------------------------

    kind = "retrieval"

    def state(self) -> tuple[dict, dict]:
        """Return everything needed to resume: arrays by name, and what JSON can hold."""
        arrays, about = super().state()
        for i, store in enumerate(self.stores):
            arrays |= {f"{name}.{i}": array for name, array in store.state().items()}
        return arrays, about | {"n_evicted": self.stores[-1].n_evicted}

    @classmethod
    def from_state(cls, policy: Any, arrays: dict, about: dict) -> RetrievalCache:
        """Rebuild the cache whose `state` this is."""
        cache: Any = super().from_state(policy, arrays, about)
        for i, store in enumerate(cache.stores):
            keys, values, index = (arrays[f"store_{part}.{i}"] for part in ("keys", "values", "index"))
            store.restore(keys, values, index, about["n_evicted"])
        return cache

    @property
    def path(self):
        """The path that fetches."""
        return Retrieved


class Retrieved:
    """A path (`paths.Path`): new tokens over sinks, what each of them fetches, and window."""

    def __init__(self, cache: RetrievalCache):
        self.cache = cache

    def positions(self, n_tokens):  # -> (T,)
        """The slot at which each token comes in, or its place in the text: as in StreamingLLM."""
        return self.cache.next_positions(n_tokens)

    def mix(self, layer, q, k, v, rotate, *, normalise=softmax, trace=None):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Append, evict into the store, number, rotate; fetch; attend to all three.

        A dict as `trace` receives ``"scores"`` and ``"pattern"`` (H, T, S), the columns of a query its sinks, what it
        fetched, its window; ``"token_index"`` (H, T, S), the token in each; and ``"fetched"`` (H, T, n_blocks), the
        first token of each block it fetched. They have ``-inf``, 0, -1 and -1 where there is nothing.
        """
        policy, slots, store = self.cache.policy, self.cache.layers[layer], self.cache.stores[layer]
        mixed, seen = np.empty_like(q), []
        for new in blocks(slots, len(q)):  # once the slots are full, one token at a time
            if len(slots.keys) == policy.capacity:  # the oldest that is not a sink is about to leave
                old = policy.n_sinks
                store.add(slots.keys[old], slots.values[old], slots.token_index[old])
            slots.append(k[new], v[new])
            near, fetched = _near(q[new], slots, rotate), None  # (H, T, S)
            if len(store) and policy.n_blocks:
                fetched = fetch(q[new], store, rotate, policy, layer, slots.n_seen - 1)
            mixed[new] = _one_softmax(near, slots, fetched, policy.n_sinks, normalise, seen)
        if trace is not None:
            for name, fill in (("scores", -np.inf), ("pattern", 0.0), ("token_index", -1), ("fetched", -1)):
                trace[name] = side_by_side([part[name] for part in seen], fill)
        return mixed


def _near(q, slots, rotate):  # (T, H, D) -> (H, T, S)
    """Scores of the newest tokens against the slots, as in `paths.cached_attention`."""
    positions = slots.positions
    keys, queries = rotate(slots.keys, positions), rotate(q, positions[-len(q) :])
    scores = score(queries, keys)
    scores += additive(causal_mask(len(q), len(keys), like=q), scores.dtype)
    return scores


def fetch(q, store, rotate, policy, layer, t):  # (1, H, D)
    """The best blocks of a store for token t: scores (H, F), values (H, F, D), token_index (H, F), first tokens (H, n).

    ``F = n * block`` for the n blocks there are, at most `n_blocks`. The query is rotated `window` far and the keys are
    not, so it stands `window` tokens after each of them.
    """
    (_, H, D), (N, B, K, _) = q.shape, store.keys.shape
    if policy.positions == "original":
        query, keys = rotate(q, np.array([t])), rotate(store.keys, store.token_index)
    else:
        query, keys = rotate(q, np.array([policy.window])), store.keys
    there = np.asarray(store.token_index >= 0, like=q)  # (N, B)
    far = score(query, keys.reshape(N * B, K, D)).reshape(H, N, B)  # (H, 1, N B) -> (H, N, B)
    far += additive(there, far.dtype)
    worth = to_host(policy.block_scores(query, keys, far, there, layer=layer, t=t))  # (H, N)
    blocks = best_of(worth, store.token_index.max(axis=1), policy.n_blocks)  # (H, n)
    head, group = np.arange(H)[:, None], np.arange(H)[:, None] // (H // K)
    values = store.values[blocks, :, group]  # (N, B, K, D) -> (H, n, B, D): of each head's own key/value head
    index = store.token_index[blocks]  # (H, n, B)
    first = np.where(index < 0, np.iinfo(int).max, index).min(axis=-1)  # (H, n)
    return far[head, blocks].reshape(H, -1), values.reshape(H, -1, D), index.reshape(H, -1), first


def extremes(keys, there):  # (N, B, K, D), (N, B) -> 2 x (N, K, D)
    """The lowest and the highest number in each channel of a block."""
    there = there[:, :, None, None]
    return np.where(there, keys, np.inf).min(axis=1), np.where(there, keys, -np.inf).max(axis=1)


def bound(query, lowest, highest):  # (1, H, D), 2 x (N, K, D) -> (H, N)
    """No key of a block scores higher: in each channel the query meets the number that suits it best (Quest).

    >>> query, keys = np.array([[[2.0, -1.0]]]), np.array([[[[1.0, 0.0]], [[0.0, -3.0]]]])  # one block of two keys
    >>> score(query, keys[0]).round(4).tolist(), bound(query, *extremes(keys, np.ones((1, 2), bool))).round(4).tolist()
    ([[[1.4142, 2.1213]]], [[3.5355]])
    """
    return (score(np.maximum(query, 0.0), highest) + score(np.minimum(query, 0.0), lowest))[:, 0]


def best_of(worth, newest, n_blocks):  # (H, N), (N,) -> (H, at most n_blocks)
    """The places of the blocks worth most, in the order of the text; of equal ones the newer, by its `newest` token.

    A word that came before has the very same key in layer 0, so blocks do tie, but for rounding.

    >>> best_of(np.array([[3.0, 1.0, 3.00001, 2.0]]), np.array([9, 19, 29, 39]), 2).tolist()
    [[0, 2]]
    >>> best_of(np.array([[3.00001, 1.0, 3.0, 2.0]]), np.array([9, 19, 29, 39]), 1).tolist()
    [[2]]
    """
    steps = np.rint(worth.astype(np.float64) / STEP)
    newest = np.broadcast_to(newest, worth.shape)
    chosen = np.lexsort((newest, steps))[:, max(0, worth.shape[1] - n_blocks) :]
    in_order = np.take_along_axis(newest, chosen, axis=1).argsort(axis=1)
    return np.take_along_axis(chosen, in_order, axis=1)


def _one_softmax(near, slots, fetched, n_sinks, normalise, seen):  # (H, T, S) -> (T, H, D)
    """Attention over sinks, what was fetched, and window together; `seen` receives what was looked at."""
    (H, T, S) = near.shape
    held = np.broadcast_to(slots.token_index, (H, T, S))
    if fetched is None:
        pattern = normalise(near)
        seen.append({"scores": near, "pattern": pattern, "token_index": held, "fetched": np.full((H, T, 0), -1)})
        return mix(pattern, slots.values)
    far, values, index, first = fetched
    s, f = n_sinks, n_sinks + far.shape[1]
    scores = np.concatenate((near[..., :s], far[:, None], near[..., s:]), axis=-1)  # (H, 1, s + F + window)
    pattern = normalise(scores)
    token_index = np.concatenate((held[..., :s], index[:, None], held[..., s:]), axis=-1)
    seen.append({"scores": scores, "pattern": pattern, "token_index": token_index, "fetched": first[:, None]})
    to_slots = np.concatenate((pattern[..., :s], pattern[..., f:]), axis=-1)  # (H, 1, S)
    return mix(to_slots, slots.values) + (pattern[..., s:f] @ values).swapaxes(0, 1)  # (H, 1, D) -> (1, H, D)
