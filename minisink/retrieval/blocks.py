"""Retrieval for blocks of tokens at memory speed: `fast.blocks.Banded`, plus what each query fetches.

All queries of a block search the store at once, and one softmax covers the band and what each query fetches.
"""

import numpy as np

from ..attention import additive, mix, score
from ..fast.blocks import Banded
from ..fast.fused import side_by_side
from .cache import upper_bound
from .store import EvictedStore, WithStores, evicted_range, top_k

MAX_SCORES = 1 << 22  # queries that search at once: bounds the memory of a search through a long text


class RetrievalBlocks(WithStores, Banded):
    """Blocks of tokens over sinks, fetched blocks and window: equal to `cache.RetrievalPath`.

    ``stores`` holds an `EvictedStore` for each layer, or None before its first token. ``paired`` says whether channels
    are in pairs there, as in a decoder.
    """

    kind = "retrieval blocks"

    def __init__(self, n_layers, policy):
        super().__init__(n_layers, policy)
        self.stores: list = [None] * n_layers
        self.paired = False

    def mix(self, layer, q, k, v, rotate, **options):
        """Store the new tokens, then mix as `Banded.mix`, fetched blocks included."""
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
        start, stop = evicted_range(self.policy, token_index)  # (t,), stored indices
        view = self.stores[layer].view(start[0], stop[-1])
        start, stop = start - view.origin, stop - view.origin  # tokens of the view
        (t, H, D), (K, N, B, _) = q.shape, view.keys.shape
        head, query = np.arange(H)[:, None, None], np.arange(t)[:, None]
        kv_head = head // (H // K)

        token = np.arange(N * B)
        visible = ((token >= start[:, None]) & (token < stop[:, None])).reshape(t, N, B)
        bias = self.stores[layer].bias(view, self._encoding, token_index, like=q)  # (H, t, N, B) or None
        if self.policy.select == "bound":
            bounds = self._bounds(view, q, start, stop)
            if bias is not None:
                bounds += (bias + additive(np.asarray(visible, like=q), q.dtype)).max(axis=-1)
            top = top_k(bounds, self.policy.n_blocks)  # (H, t, n)
            rows = q.swapaxes(0, 1)[:, :, None, :, None] * (D**-0.5)  # (t, H, D) -> (H, t, 1, D, 1)
            scores = (view.keys[kv_head, top] @ rows)[..., 0]  # (H, t, n, B, D) @ (H, t, 1, D, 1) -> (H, t, n, B)
            scores += additive(np.asarray(visible, like=q)[query, top], scores.dtype)
            if bias is not None:
                scores += bias[head, query, top]
        else:
            keys = view.keys.reshape(K, N * B, D).swapaxes(0, 1)
            scores = score(q, keys).reshape(H, t, N, B)  # (t, H, D), (N B, K, D) -> (H, t, N B)
            for edge in (slice(0, start[-1] // B + 1), slice(stop[0] // B, N)):  # between them all is visible
                scores[:, :, edge] += additive(np.asarray(visible[:, edge], like=q), scores.dtype)
            if bias is not None:
                scores += bias
            top = top_k(scores.max(axis=-1), self.policy.n_blocks)  # (H, t, n)
            scores = scores[head, query, top]  # (H, t, n, B)
        return scores.reshape(H, t, -1), view.values[kv_head, top].reshape(H, t, -1, D)

    def _bounds(self, view, q, start, stop):  # (t, H, D), (t,), (t,) -> (H, t, N)
        """Return `upper_bound` of every block; recomputed per query for blocks only partly evicted."""
        (t, H, D), (K, N, B, _) = q.shape, view.keys.shape
        bounds = upper_bound(q, view.channel_min.swapaxes(0, 1), view.channel_max.swapaxes(0, 1))  # (K, N, D) each
        block, query = np.arange(N), np.arange(t)
        visible = (block * B < stop[:, None]) & ((block + 1) * B > start[:, None])  # (t, N)
        bounds += additive(np.asarray(visible, like=q), bounds.dtype)
        q = q.reshape(t, K, H // K, D).transpose(1, 2, 0, 3)  # -> (K, H/K, t, D)
        positive, negative = np.maximum(q, 0.0), np.minimum(q, 0.0)
        last, first = (stop - 1) // B, start // B  # blocks, (t,)
        for edge in [last] if (start % B == 0).all() else [last, first]:
            channel_min, channel_max = view.channel_range(edge, start, stop)  # (K, t, D)
            bound = (positive * channel_max[:, None] + negative * channel_min[:, None]).sum(axis=-1)  # (K, H/K, t)
            bounds[:, query, edge] = bound.reshape(H, t) * (D**-0.5)
        return bounds
