"""Decoding at memory speed: one token at a time over a ring buffer, equal to the readable path of `cache`.

A `cache.KVCache` does what the paper says, step by step: it moves its slots together after every eviction and
rotates every key to its slot at every step. None of that is needed, because the score of a query at position m and
a key at position n depends only on ``m - n``. With n_sinks = 2 and a window of 4, token 9 sees::

    token        0  1     6  7  8  9         the tokens left in the cache
    position     0  1     2  3  4  5         StreamingLLM: the slot; the query is at 5
    distance     5  4     3  2  1  0         all that the scores depend on
    9 - token    9  8     3  2  1  0         right for the window, wrong only for the sinks

So every key is rotated once, by its token_index, and never touched again. The query is rotated twice:

- by its own token_index (9) for the window, where the distance in the text is the distance in the cache;
- by its slot, ``min(t, capacity - 1)`` (5), for the sinks, whose slot *is* their token_index.

A key that never changes need not move either: the window is a ring, where token t takes the slot of token
``t - window``, which has just been evicted. The order of the keys does not matter to softmax.

With ``positions="original"`` every distance is the one in the text, and one rotation is enough. If nothing rotates
(ALiBi), each score gets the bias for its distance; the row of biases is made once per token, for all layers.

This file has the buffers and the attention of one token to them; `decoder` puts a whole model around it.
"""

import numpy as np

from ..cache import newest_position, refuse_own
from ..positions import Rotary, bias_of, unrotated
from .blocks import Banded

FIRST_BUFFER = 256  # initial slots of a cache, unless it keeps fewer


class RingCache:
    """Keys and values of every layer in buffers that double until they hold what the policy keeps.

    Without a window they double whenever they are full. ``keys`` and ``values`` are
    (L, K, S, D), where S grows up to the capacity; keys are rotated to their token_index, with pairs of channels side
    by side. ``n_seen`` counts the tokens taken in since the start, evicted ones included. The cache is on
    the device of the array `like`, by default on the host.
    """

    def __init__(self, n_layers, n_kv_heads, head_dim, policy, *, dtype=np.float32, like=None):
        refuse_own(policy)
        self.policy = policy
        S = min(policy.capacity or FIRST_BUFFER, FIRST_BUFFER)
        like = np.empty(0) if like is None else like
        self.keys = np.zeros_like(like, dtype, shape=(n_layers, n_kv_heads, S, head_dim))
        self.values = np.zeros_like(self.keys)
        self.n_seen = 0

    def __len__(self):
        """Return the number of filled slots."""
        return self.n_seen if self.policy.capacity is None else min(self.n_seen, self.policy.capacity)

    def __repr__(self):
        layers, _, slots, _ = self.keys.shape
        about = f"{len(self)} of {slots} slots, {self.n_seen} tokens seen, {self.policy}"
        return f"<{type(self).__name__} of {layers} layers: {about}>"

    @property
    def nbytes(self):
        """Bytes of the buffers, full or not."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def token_index(self):
        """ndarray of shape (len(self),): the place in the text of the token in each slot."""
        tokens = np.arange(max(0, self.n_seen - (self.policy.window or self.n_seen)), self.n_seen)
        index = np.arange(len(self))  # the sinks, and everything before the first eviction
        index[[self.slot(t) for t in tokens]] = tokens
        return index

    def slot(self, t):
        """Return the slot of token t: its own index for a sink, around the ring for the others."""
        n_sinks, window = self.policy.n_sinks, self.policy.window
        return t if window is None or t < n_sinks else n_sinks + (t - n_sinks) % window

    def make_room(self, n_tokens):
        """Double the buffers until they hold `n_tokens`, or everything the policy keeps."""
        S, capacity = self.keys.shape[2], self.policy.capacity
        needed = n_tokens if capacity is None else min(n_tokens, capacity)
        while S < needed:
            S = 2 * S if capacity is None else min(2 * S, capacity)
        if n_more := S - self.keys.shape[2]:
            more = ((0, 0), (0, 0), (0, n_more), (0, 0))  # slots of zeros
            self.keys, self.values = np.pad(self.keys, more), np.pad(self.values, more)

    kind = "ring"

    def state(self):
        """Return everything needed to resume: arrays by name, and JSON-able metadata."""
        return {"keys": self.keys, "values": self.values}, {"n_seen": self.n_seen}

    @classmethod
    def from_state(cls, policy, arrays, about):
        """Rebuild the cache whose `state` this is."""
        L, K, _, D = arrays["keys"].shape
        cache = cls(L, K, D, policy, dtype=arrays["keys"].dtype, like=arrays["keys"])
        cache.keys, cache.values, cache.n_seen = arrays["keys"], arrays["values"], about["n_seen"]
        return cache

    def attention(self, n_heads, encoding):
        """Return the attention of one token over this ring."""
        return RingAttention(self, n_heads, encoding)

    def banded(self, policy):
        """Return a cache for blocks that continues where this one ends, still without its keys and values."""
        return Banded(len(self.keys), policy, self.n_seen)


class RingAttention:
    """Attention of the newest token over a ring, layer by layer.

    Its work arrays and their views are made only once: at this size making a view costs as much
    as using it. The caller writes the queries, keys and values of the newest token, un-rotated, into one of them,
    ``qkv`` of shape ((H + 2 K) D,).

    `encoding` is one of those in `positions`. Channels that rotate together are moved side by side: a pair is
    then one complex number, and a rotation one product. Scores are sums over channels, so their order does not matter.
    """

    def __init__(self, cache, n_heads, encoding):  # RingCache, H
        rotates, self.has_bias = isinstance(encoding, Rotary), hasattr(encoding, "bias")
        if not rotates and not self.has_bias and encoding is not unrotated:
            raise ValueError(f"the fast path does not support the encoding {encoding!r}; use readable=True")
        _, K, _, D = cache.keys.shape
        H, G = n_heads, n_heads // K  # G queries share a key
        self.cache, self.encoding = cache, encoding
        self.qkv = np.empty_like(cache.keys, shape=(H + 2 * K) * D)
        heads = self.qkv.reshape(-1, D)  # (H + 2 K, D)
        given, self.new_values = heads[: H + K], heads[H + K :]
        qk = np.zeros_like(given, shape=(H + K, D + D % 2))
        self.moves = _moves(given, qk[:, :D], H, encoding)
        self.unrotated_keys = qk[H:, :D]
        self.rates, self.bias, rotated = None, None, qk[None]
        if rotates:
            complex_dtype = np.result_type(qk.dtype, np.complex64)
            self.rates = np.zeros((1, qk.shape[1] // 2), complex)  # 0 for a pair that does not rotate
            self.rates[0, : len(encoding.frequencies)] = 1j * np.asarray(encoding.frequencies)
            self.pairs = rotated.view(complex_dtype)  # (1, H + K, D/2)
            rotated = np.empty_like(qk, shape=(2, *qk.shape))  # to the token's own index, and to its slot
            self.rotated = rotated.view(complex_dtype)
        self.new_keys = rotated[0][H:, :D]
        self.queries = [each[:H, :D].reshape(K, G, D).swapaxes(1, 2) for each in rotated]  # each (K, D, G)
        self.sums = np.empty_like(self.qkv, shape=(K, G, D))  # weighted values
        self.sums_of_heads = self.sums.reshape(H, D)
        self.n_live = 0

    def begin(self, t):
        """Prepare for token t, before its first layer: its slot, and how far queries and keys rotate."""
        cache = self.cache
        cache.make_room(t + 1)
        self.slot, position = cache.slot(t), newest_position(cache.policy, t)
        n_live = min(t + 1, cache.keys.shape[2])
        if n_live != self.n_live:
            self._view_slots(n_live)
        self.n_apart = 0
        if self.rates is not None:
            self.n_apart = cache.policy.n_sinks if position != t else 0  # sinks nearer in slots than in the text
            places = (t, position) if self.n_apart else (t,)
            phases = np.exp(np.multiply.outer(places, self.rates))  # (P,), (1, D/2) -> (P, 1, D/2): exp(i angle)
            self.phases = np.asarray(phases, self.rotated.dtype, like=cache.keys)
            self.seen = self.rotated[: len(places)]
        if self.has_bias:
            n_sinks, positions = cache.policy.n_sinks, np.arange(n_live)  # a sink is at its slot
            back = (self.slot - positions[n_sinks:]) % (cache.policy.window or n_live)  # how far back the others are
            positions[n_sinks:] = position - back
            self.bias = bias_of(self.encoding, np.array([position]), positions, like=cache.keys)[:, 0]  # (H, S)

    def _view_slots(self, n_live):
        """Make views of the live slots, the only ones used, and room for their scores."""
        cache, n_sinks = self.cache, self.cache.policy.n_sinks
        K, G, _ = self.sums.shape
        layers = zip(cache.keys, cache.values, strict=True)
        self.live = [(keys[:, :n_live], keys[:, :n_sinks], values[:, :n_live]) for keys, values in layers]
        self.columns = np.empty_like(self.qkv, shape=(K, n_live, G))  # scores as computed
        self.to_sinks = self.columns[:, :n_sinks]
        scores = self.columns if G == 1 else np.empty_like(self.columns)
        self.scores = scores.reshape(K * G, n_live)  # (H, S)
        self.weights = scores.reshape(K, G, n_live)  # the same memory
        self.ones = np.ones_like(self.qkv, shape=(n_live, 1))
        self.n_live = n_live

    def mix(self, layer, out, sink=None):  # int, (H, D), (H, 1) or None
        """Write the newest key and value into their slot, and mix the values of all live slots into `out`.

        `sink` is the logit of an extra term in the softmax, without a key or value.

        Scores are ``keys @ q``, which reads the keys in order; BLAS is much slower at ``q @ keys.T``
        with several queries, and a GPU would copy every key for it. The weights are divided by their sum after the
        values are mixed, which takes D divisions instead of S.
        """
        self.prepare(layer)
        self.finish(layer, out, sink)

    def prepare(self, layer):
        """Write the newest key and value into their slot, and score the live keys: `scores` (H, S)."""
        keys, sink_keys, values = self.live[layer]
        for given, scale, wanted in self.moves:
            np.multiply(given, scale, wanted)
        if self.rates is not None:
            np.multiply(self.pairs, self.phases, self.seen)  # (1, H + K, D/2) * (P, 1, D/2)
        keys[:, self.slot] = self.new_keys
        values[:, self.slot] = self.new_values
        np.matmul(keys, self.queries[0], self.columns)  # (K, S, D) @ (K, D, G) -> (K, S, G)
        if self.n_apart:
            np.matmul(sink_keys, self.queries[1], self.to_sinks)
        if self.weights.shape[1] > 1:
            self.weights[:] = self.columns.swapaxes(1, 2)  # (K, S, G) -> (K, G, S)
        if self.bias is not None:
            self.scores += self.bias

    def finish(self, layer, out, sink=None):
        """Take the softmax of `scores`, and mix the live values into `out`."""
        total = exponentials(self.scores, sink, self.ones)  # (H, S) -> (H, 1)
        np.matmul(self.weights, self.live[layer][2], self.sums)  # (K, G, S) @ (K, S, D) -> (K, G, D)
        np.divide(self.sums_of_heads, total, out)


def _moves(given, wanted, n_heads, encoding):  # 2 x (H + K, D)
    """Return the products ``given * scale -> wanted`` that divide queries by sqrt(D), and put pairs side by side."""
    rows, D = given.shape
    scale = np.ones_like(given, shape=(rows, 1))
    scale[:n_heads] = D**-0.5
    if not isinstance(encoding, Rotary) or encoding.interleaved:
        return [(given, scale, wanted)]
    R = 2 * len(encoding.frequencies)
    halves = given[:, :R].reshape(rows, 2, R // 2)
    pairs = wanted[:, :R].reshape(rows, R // 2, 2).swapaxes(1, 2)  # channels j and j + R/2 side by side
    return [(halves, scale[:, None], pairs), *([(given[:, R:], scale, wanted[:, R:])] if R < D else [])]


def exponentials(scores, sink, ones):  # (H, S), (H, 1) or None, (S, 1) -> (H, 1)
    """Replace scores by their exponentials, in place, and return the sum that softmax divides by."""
    largest = scores.max(axis=1, keepdims=True)  # (H, 1)
    if sink is not None:
        largest = np.maximum(largest, sink)
    scores -= largest
    np.exp(scores, scores)
    total = scores.dot(ones)  # (H, 1)
    if sink is not None:
        total += np.exp(sink - largest)
    return total
