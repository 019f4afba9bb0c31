"""Retrieval for blocks of tokens at memory speed: `fast.blocks.Banded`, plus what each query fetches."""

import numpy as np

from ..attention import mix
from ..fast.blocks import Banded
from ..fast.fused import side_by_side
from .search import fetch
from .store import EvictedStore, WithStores, evicted_range

MAX_SCORES = 1 << 22  # queries that search at once: bounds the memory of a search through a long text


class RetrievalBlocks(WithStores, Banded):
    """Blocks of tokens attend to sinks, fetched blocks and window, with the same results as `cache.RetrievalPath`.

    ``stores`` holds an `EvictedStore` for each layer, or None before its first token. ``paired`` says whether
    channels are stored in pairs, as in a decoder.
    """

    kind = "retrieval blocks"

    def __init__(self, n_layers, policy, n_seen=0):
        super().__init__(n_layers, policy, n_seen)
        self.stores: list = [None] * n_layers
        self.paired = False

    def mix(self, layer, q, k, v, rotate, **options):
        """Store the new tokens, then mix as `Banded.mix` does, fetched blocks included."""
        policy, t = self.policy, self._n_seen[layer]
        if policy.n_blocks:
            if self.stores[layer] is None:
                self.stores[layer] = EvictedStore(policy, k, *k.shape[1:])
            if policy.positions == "original":
                token_index = np.arange(t, t + len(q))
                queries, keys = rotate(q, token_index), rotate(k, token_index)
            else:
                queries, keys = rotate(q, np.array([policy.window])), k
            if self.paired:
                queries, keys = side_by_side(queries, rotate), side_by_side(keys, rotate)
            self.stores[layer].put(t, keys, v)
            self._search_queries, self._encoding = queries, rotate  # (T, H, D)
        return super().mix(layer, q, k, v, rotate, **options)

    def _attend(self, layer, queries, scores, values, normalise):
        """Attend with one softmax to the slots, (H, t, S) scores, and to what each query fetches, -> (t, H, D)."""
        H, t, S = scores.shape
        first = self._n_seen[layer] + queries.start  # token_index
        n_before = max(0, self.policy.capacity - first)  # queries that come before the first eviction
        if not self.policy.n_blocks or n_before >= t:
            return super()._attend(layer, queries, scores, values, normalise)
        mixed = [super()._attend(layer, queries, scores[:, :n_before], values, normalise)] if n_before else []
        search_queries, stored_keys = self._search_queries[queries], self.stores[layer].keys
        at_once = max(1, MAX_SCORES // (H * stored_keys[0, :, :, 0].size))
        for start in range(n_before, t, at_once):
            part = slice(start, min(start + at_once, t))
            token_index = np.arange(first + part.start, first + part.stop)
            fetched_scores, fetched_values = self._fetch(layer, search_queries[part], token_index)
            pattern = normalise(np.concatenate((scores[:, part], fetched_scores), axis=-1))  # (H, t, S + F)
            from_fetched = pattern[:, :, None, S:] @ fetched_values  # (H, t, 1, F) @ (H, t, F, D) -> (H, t, 1, D)
            mixed.append(mix(pattern[..., :S], values) + from_fetched[:, :, 0].swapaxes(0, 1))
        return np.concatenate(mixed)

    def _fetch(self, layer, q, token_index):  # (t, H, D), (t,) -> (H, t, F), (H, t, F, D)
        store, (t, H, D) = self.stores[layer], q.shape
        start, stop = evicted_range(self.policy, token_index)  # (t,), stored indices
        view = store.view(start[0], stop[-1])
        bias = store.bias(view, self._encoding, token_index, like=q)  # (H, t, N, B) or None
        K = len(view.keys)
        q = q.reshape(t, K, H // K, D).transpose(1, 3, 2, 0) * (D**-0.5)  # -> (K, D, H/K, t)
        return fetch(view, q, start - view.origin, stop - view.origin, self.policy, bias)
