"""Retrieval for one token at memory speed: `fast.ring.RingCache`, plus a search before the softmax."""

import numpy as np

from ..fast.ring import RingAttention, RingCache, exponentials
from .blocks import RetrievalBlocks
from .search import fetch
from .store import EvictedStore, WithStores, evicted_range, stored_index


class RetrievalRing(WithStores, RingCache):
    """A `RingCache` plus an `EvictedStore` for each layer, in ``stores``."""

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

    def banded(self, policy):
        """Return a cache for blocks of tokens that continues from here, with the same stores."""
        blocks = RetrievalBlocks(len(self.keys), policy, self.n_seen)
        blocks.stores, blocks.paired = self.stores, True
        return blocks


class RetrievalAttention(RingAttention):
    """Attention of the newest token over a ring and over the blocks that each head fetches."""

    def __init__(self, cache, n_heads, encoding):
        super().__init__(cache, n_heads, encoding)
        K, G, D = self.sums.shape
        policy = cache.policy
        self.all_ones = np.ones_like(self.qkv, shape=(0, 1))
        original = policy.positions == "original"
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
        """Prepare for token t as `RingAttention.begin` does, and find what has been evicted by then."""
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
            self.search_bias = stores[0].bias(view, self.encoding, newest, like=self.qkv)  # (H, 1, N, B)

    def finish(self, layer, out, sink=None):
        """Put the newest key and value into the store too, and mix the values of slots and fetched tokens."""
        store = self.cache.stores[layer]
        if self.index >= 0:
            store.put_one(self.index, self.stored_keys, self.new_values)
        if self.stop == 0:  # nothing is evicted yet
            return super().finish(layer, out, sink)
        if self.search_phase is not None:
            np.multiply(self.unrotated_pairs, self.search_phase, self.search_pairs)
        view = store.view(self.start, self.stop)
        start, stop = np.array([self.start - view.origin]), np.array([self.stop - view.origin])  # tokens of the view
        queries = self.search_queries[..., None]  # (K, D, G, 1)
        fetched_scores, fetched_values = fetch(view, queries, start, stop, self.cache.policy, self.search_bias)
        scores = np.concatenate((self.scores, fetched_scores[:, 0]), axis=1)  # (H, S + F)
        n_keys = scores.shape[1]
        if n_keys > len(self.all_ones):
            self.all_ones = np.ones_like(self.qkv, shape=(2 * n_keys, 1))
        total = exponentials(scores, sink, self.all_ones[:n_keys])  # (H, 1)
        (K, G, _), S = self.sums.shape, self.scores.shape[1]
        np.matmul(scores[:, :S].reshape(K, G, S), self.live[layer][2], self.sums)  # (K, G, S) @ (K, S, D)
        self.sums_of_heads += (scores[:, None, S:] @ fetched_values[:, 0])[:, 0]  # (H, 1, F) @ (H, F, D) -> (H, 1, D)
        np.divide(self.sums_of_heads, total, out)
        return None
