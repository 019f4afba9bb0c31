"""The fast paths for many tokens at once, each tested to equal the readable path.

`Banded` runs a window or streaming cache in blocks. Once the cache is full a query is always at slot
``capacity - 1``; *recent* keys are as far behind it in slots as in tokens; *sinks* are at slots 0 to
``n_sinks - 1``. Rotary scores depend only on differences, so instead of moving every key at every step the
query is rotated twice: to its place in the text for the recent keys, to its slot for the sinks. Then
keys are rotated once, for good, and a whole block of queries attends to them under a banded mask. (ALiBi's
bias, which depends on the distance, is also computed twice, and added to the mask.)

`Windows` rebuilds many windows side by side, each from scratch: the sliding window with re-computation.

Both are passed to `Model.forward` as its cache.
"""

import numpy as np

from ..attention import additive, banded_mask, mix, score
from ..cache import newest_position, refuse_own
from ..ops import softmax
from ..paths import causal_attention
from ..positions import bias_of, unrotated

PARTS = ("sink_keys", "sink_values", "keys", "values")  # arrays per layer of `Banded`
QUERIES = 64  # handled at once, of a block: the fewer, the fewer keys are scored only to be masked out


class Banded:
    """Blocks of tokens over a window or streaming cache: equal to a `KVCache` with the same policy.

    ``n_seen`` counts the tokens taken in since the start. For each layer, ``layers`` holds the keys and values of
    the sinks, and of the last ``window - 1`` tokens (sinks too), as (S, K, D), with keys rotated to their token_index.
    """

    def __init__(self, n_layers, policy, n_seen=0):
        refuse_own(policy)
        self.policy, self.n_seen = policy, n_seen
        self.layers: list = [None] * n_layers
        self._n_seen = [n_seen] * n_layers  # per layer; the same for all outside a forward pass
        self._masks = {}  # for the current block, by the first query of a group

    def __repr__(self):
        return f"<{type(self).__name__} of {len(self.layers)} layers: {self.n_seen} tokens seen, {self.policy}>"

    def positions(self, n_tokens):
        """Return the position (T,) of each new token when it is the newest."""
        if any(n != self.n_seen for n in self._n_seen):
            raise ValueError("this cache was left half-way by an interrupted forward pass; start a new one")
        return newest_position(self.policy, np.arange(self.n_seen, self.n_seen + n_tokens))

    def mix(self, layer, q, k, v, rotate, *, normalise=softmax, trace=None):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Mix what T new tokens read from the sinks, the recent tokens and each other.

        The arguments are those of `paths.Path`, queries and keys un-rotated. Raise ValueError for a trace, which would
        stay empty: use the readable path to look inside.
        """
        _refuse_trace(trace)
        T, n_sinks, window = len(q), self.policy.n_sinks, self.policy.window
        token_index = np.arange(self.n_seen, self.n_seen + T)
        last_slot = self.policy.capacity - 1
        full = self.policy.positions == "slot" and self.n_seen >= last_slot  # every query is at the last slot
        q_slot = q if full else rotate(q, newest_position(self.policy, token_index))
        qk = rotate(np.concatenate((q, k), axis=1), token_index)  # (T, H + K, D): one set of angles for both
        q, k = qk[:, : q.shape[1]], qk[:, q.shape[1] :]
        old = self.layers[layer] or (k[:0], v[:0], k[:0], v[:0])
        missing = n_sinks - len(old[0])
        sink_keys, sink_values = np.concatenate((old[0], k[:missing])), np.concatenate((old[1], v[:missing]))
        keys, values = np.concatenate((old[2], k)), np.concatenate((old[3], v))  # (R, K, D)
        seen_sinks = rotate(sink_keys, -last_slot) if full else sink_keys  # rotate the few sinks, not all queries
        if layer == 0:
            self._masks = {}  # shared by all layers of this block

        mixed = np.empty_like(q_slot)
        for start in range(0, T, QUERIES):
            stop = min(start + QUERIES, T)
            first = max(0, len(keys) - T + start - (window - 1))  # no query sees keys before this
            last = len(keys) - T + stop
            to_sinks = score(q_slot[start:stop], seen_sinks)  # (H, t, n_sinks)
            to_recent = score(q[start:stop], keys[first:last])  # (H, t, R)
            scores = np.concatenate((to_sinks, to_recent), axis=-1)  # (H, t, n_sinks + R): one softmax over both
            if start not in self._masks:
                self._masks[start] = self._additive(token_index[start:stop], len(sink_keys), last - first, rotate, q)
            scores += self._masks[start]
            seen_values = np.concatenate((sink_values, values[first:last]))
            mixed[start:stop] = self._attend(layer, slice(start, stop), scores, seen_values, normalise)

        keep = max(0, len(keys) - (window - 1))  # the next query adds its own key
        self.layers[layer] = (sink_keys, sink_values, keys[keep:], values[keep:])
        self._n_seen[layer] += T
        if layer == len(self.layers) - 1:
            self.n_seen += T
        return mixed

    def _attend(self, layer, queries, scores, values, normalise):
        """Return the output of some queries of the block; retrieval adds keys for them to look at."""
        return mix(normalise(scores), values)

    def _additive(self, queries, n_sinks, R, encoding, like):  # (t,) token indices
        """Return what is added to the scores of some queries, (t, n_sinks + R), or (H, t, n_sinks + R) with a bias."""
        token, T = int(queries[0]), len(queries)
        mask = additive(self._visible(token, T, n_sinks, R, like), like.dtype)
        to_sinks = bias_of(encoding, newest_position(self.policy, queries), np.arange(n_sinks), like)
        to_recent = bias_of(encoding, queries, np.arange(token + T - R, token + T), like)
        return mask if to_sinks is None else mask + np.concatenate((to_sinks, to_recent), axis=-1)

    def _visible(self, token, T, n_sinks, R, like):
        """Return which keys `token` and the T - 1 after it see, (T, n_sinks + R): sinks always, others for `window`."""
        queries = np.arange(token, token + T, like=like)[:, None]
        recent = np.arange(token + T - R, token + T, like=like)  # (R,)
        to_sinks = np.arange(n_sinks, like=like) <= queries
        to_recent = banded_mask(T, R, self.policy.window, like) & (recent >= self.policy.n_sinks)
        return np.concatenate((to_sinks, to_recent), axis=1)

    kind = "blocks"

    def state(self):
        """Return everything needed to resume: arrays by name, and JSON-able metadata."""
        self.positions(0)  # raises after an interrupted pass
        arrays = {}
        for i, layer in enumerate(self.layers if self.n_seen else ()):
            arrays |= {f"{part}.{i}": array for part, array in zip(PARTS, layer, strict=True)}
        return arrays, {"n_seen": self.n_seen, "n_layers": len(self.layers)}

    @classmethod
    def from_state(cls, policy, arrays, about):
        """Rebuild the cache whose `state` this is."""
        cache = cls(about["n_layers"], policy, about["n_seen"])
        if cache.n_seen:
            cache.layers = [tuple(arrays[f"{part}.{i}"] for part in PARTS) for i in range(about["n_layers"])]
        return cache


class Windows:
    """Windows of `length` tokens that do not see each other; each begins at position 0."""

    def __init__(self, length):
        self.length = length

    def positions(self, n_tokens):
        """Return positions (T,): 0 to ``length - 1``, repeated."""
        return np.arange(n_tokens) % self.length

    def mix(self, layer, q, k, v, rotate, *, normalise=softmax, trace=None):
        """Attend densely within each window; shapes and errors as in `Banded.mix`."""
        _refuse_trace(trace)
        B, L = len(q) // self.length, self.length
        mixed = np.empty_like(q).reshape(B, L, *q.shape[1:])
        q, k, v = (x.reshape(B, L, *x.shape[1:]) for x in (q, k, v))  # (T, H, D) -> (B, L, H, D)
        if not hasattr(rotate, "bias"):  # the same positions in every window
            q, k, rotate = rotate(q, np.arange(L)), rotate(k, np.arange(L)), unrotated
        for b in range(B):
            mixed[b] = causal_attention(q[b], k[b], v[b], rotate, block=64, normalise=normalise)
        return mixed.reshape(B * L, *mixed.shape[2:])


def _refuse_trace(trace):
    if trace is not None:
        raise ValueError("the fast path has nothing to show in a trace; pass a minisink.KVCache, or no cache")
