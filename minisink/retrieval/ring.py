"""Retrieval for one token at memory speed: `fast.ring.RingCache`, and a search before the softmax."""

import numpy as np

from ..attention import additive
from ..fast.ring import RingAttention, RingCache, exponentials
from .blocks import RetrievalBlocks
from .store import EvictedStore, WithStores, evicted_range, stored_index, top_k


class RetrievalRing(WithStores, RingCache):
    """A `RingCache`, and an `EvictedStore` for each of its layers: ``stores``."""

    kind = "retrieval ring"

    def __init__(self, n_layers, n_kv_heads, head_dim, policy, *, dtype=np.float32, like=None):
        super().__init__(n_layers, n_kv_heads, head_dim, policy, dtype=dtype, like=like)
        self.stores = [EvictedStore(policy, self.keys, n_kv_heads, head_dim) for _ in range(n_layers)]

    @property
    def nbytes(self):
        """Bytes of the buffers, full or not, stores included."""
        return super().nbytes + sum(store.nbytes for store in self.stores)

    def attention(self, n_heads, encoding):
        """Return the attention of one token over this ring and what it fetches."""
        make = RetrievalAttention if self.policy.n_blocks else RingAttention
        return make(self, n_heads, encoding)

    def banded(self, policy, arrays, about):
        """Return these keys and values as blocks that continue the same stores."""
        blocks = RetrievalBlocks.from_state(policy, arrays, about)
        blocks.stores, blocks.paired = self.stores, True
        return blocks


class RetrievalAttention(RingAttention):
    """Attention of the newest token over a ring and over the blocks that each head fetches."""

    def __init__(self, cache, n_heads, encoding):
        super().__init__(cache, n_heads, encoding)
        K, G, D = self.sums.shape
        policy = cache.policy
        self.all_ones = np.ones_like(self.qkv, shape=(0, 1))
        head, original = np.arange(n_heads)[:, None], policy.positions == "original"
        self.kv_head = np.asarray(head // G, like=cache.keys)
        self.member = np.asarray(head % G, like=cache.keys)  # which of the G queries of its key/value head
        self.stored_keys = self.new_keys if original else self.unrotated_keys  # (K, D): the newest, as it is stored
        self.search_queries = self.queries[0]  # (K, D, G)
        self.search_phase = None
        if self.rates is not None and not original:  # the query is rotated by `window`: see `store`
            phase = np.exp(policy.window * self.rates)  # (1, D/2)
            self.search_phase = np.asarray(phase, self.pairs.dtype, like=cache.keys)
            rotated = np.empty_like(self.qkv, shape=(n_heads, 2 * self.pairs.shape[-1]))
            self.unrotated_pairs, self.search_pairs = self.pairs[0, :n_heads], rotated.view(self.pairs.dtype)
            self.search_queries = rotated[:, :D].reshape(K, G, D).swapaxes(1, 2)

    def begin(self, t):
        """Prepare for token t as `RingAttention.begin` does, and find what is evicted by then."""
        super().begin(t)
        policy, stores = self.cache.policy, self.cache.stores
        self.start, self.stop = (int(index) for index in evicted_range(policy, t))
        self.index = stored_index(policy, t)  # negative for a sink
        if self.index >= 0:
            for store in stores:  # before anything is written
                store.make_room(self.index, self.index + 1)
        self.search_bias = None
        if self.has_bias and self.stop:
            view, newest = stores[0].view(self.start, self.stop), np.array([t])
            self.search_bias = stores[0].bias(view, self.encoding, newest, like=self.qkv)[:, 0]  # (H, N, B)

    def mix(self, layer, out, sink=None):
        """Put the newest key and value into slot and store, and mix the values of slots and fetched tokens."""
        self.prepare(layer)
        store = self.cache.stores[layer]
        if self.index >= 0:
            store.put_one(self.index, self.stored_keys, self.new_values)
        if self.stop == 0:  # nothing is evicted yet
            return self.finish(layer, out, sink)
        if self.search_phase is not None:
            np.multiply(self.unrotated_pairs, self.search_phase, self.search_pairs)
        fetched_scores, fetched_values = self._fetch(store)  # (H, F), (H, F, D)
        scores = np.concatenate((self.scores, fetched_scores), axis=1)  # (H, S + F)
        n_keys = scores.shape[1]
        if n_keys > len(self.all_ones):
            self.all_ones = np.ones_like(self.qkv, shape=(2 * n_keys, 1))
        total = exponentials(scores, sink, self.all_ones[:n_keys])  # (H, 1)
        (K, G, _), S = self.sums.shape, self.scores.shape[1]
        np.matmul(scores[:, :S].reshape(K, G, S), self.live[layer][2], self.sums)  # (K, G, S) @ (K, S, D)
        self.sums_of_heads += (scores[:, None, S:] @ fetched_values)[:, 0]  # (H, 1, F) @ (H, F, D) -> (H, 1, D)
        np.divide(self.sums_of_heads, total, out)
        return None

    def _fetch(self, store):  # -> (H, F), (H, F, D)
        view = store.view(self.start, self.stop)
        start, stop = self.start - view.origin, self.stop - view.origin  # tokens of the view
        n_blocks, (K, N, B, D), G = self.cache.policy.n_blocks, view.keys.shape, self.sums.shape[1]
        if self.cache.policy.select == "bound":
            bounds = self._bounds(view, start, stop)
            if self.search_bias is not None:
                token = np.arange(N * B, like=bounds).reshape(N, B)
                evicted = additive((token >= start) & (token < stop), bounds.dtype)
                bounds += (self.search_bias + evicted).max(axis=-1)
            top = top_k(bounds, n_blocks)  # (H, n)
            queries = self.search_queries.swapaxes(1, 2).reshape(K * G, 1, D, 1)
            scores = (view.keys[self.kv_head, top] @ queries)[..., 0]  # (H, n, B, D) @ (H, 1, D, 1) -> (H, n, B)
            token = top[:, :, None] * B + np.arange(B, like=scores)
            scores = np.where((token >= start) & (token < stop), scores, -np.inf)
            if self.search_bias is not None:
                scores += np.take_along_axis(self.search_bias, top[:, :, None], axis=1)
        else:
            keys, queries = view.keys.reshape(K, N * B, D), np.ascontiguousarray(self.search_queries, like=view.keys)
            scores = keys @ queries  # (K, N B, D) @ (K, D, G) -> (K, N B, G)
            if self.search_bias is not None:
                scores += self.search_bias.reshape(K, G, N * B).swapaxes(1, 2)
            scores[:, :start], scores[:, stop:] = -np.inf, -np.inf
            scores = scores.reshape(K, N, B, G)
            top = top_k(block_max(scores).swapaxes(1, 2).reshape(K * G, N), n_blocks)  # (H, n)
            scores = scores[self.kv_head, top, :, self.member]  # (H, n, B)
        return scores.reshape(K * G, -1), view.values[self.kv_head, top].reshape(K * G, -1, D)

    def _bounds(self, view, start, stop):  # -> (H, N)
        """Return `cache.upper_bound` of every block; the first and the last may be partly evicted."""
        (K, N, _, _), G = view.keys.shape, self.sums.shape[1]
        channel_min, channel_max = view.channel_min.copy(), view.channel_max.copy()  # (K, N, D)
        edges = np.array([0, N - 1])
        partial = view.channel_range(edges, np.array([start, start]), np.array([stop, stop]))
        channel_min[:, edges], channel_max[:, edges] = partial
        q = self.search_queries
        bounds = channel_max @ np.maximum(q, 0.0) + channel_min @ np.minimum(q, 0.0)  # (K, N, D) @ (K, D, G)
        return bounds.swapaxes(1, 2).reshape(K * G, N)


def block_max(scores):  # (K, N, B, G) -> (K, N, G)
    """Return the best score of each block, in halves: three times as fast as ``scores.max(axis=2)``, which runs along
    G.

    >>> block_max(np.array([3.0, 1.0, 2.0, 0.0, 5.0]).reshape(1, 1, 5, 1)).tolist()
    [[[5.0]]]
    """
    while scores.shape[2] > 1:
        half = scores.shape[2] // 2
        best = np.maximum(scores[:, :, :half], scores[:, :, half : 2 * half])
        if scores.shape[2] % 2:
            best[:, :, 0] = np.maximum(best[:, :, 0], scores[:, :, -1])
        scores = best
    return scores[:, :, 0]
