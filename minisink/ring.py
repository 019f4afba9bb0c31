"""Decoding at memory speed: one token at a time over a ring buffer, equal to the readable path of `cache`.

A `cache.KVCache` does what the paper says, step by step: it moves its slots together after every eviction and
rotates every key to its slot at every step. None of that is needed, because the score of a query at position m and
a key at position n depends on ``m - n`` only. With n_sinks = 2 and a window of 4, token 9 meets::

    token        0  1     6  7  8  9         what is left in the cache
    position     0  1     2  3  4  5         StreamingLLM: the slot; the query stands at 5
    distance     5  4     3  2  1  0         all that the scores know
    9 - token    9  8     3  2  1  0         right for the window as it is, wrong for the sinks only

So every key is rotated once, by its token_index, and never touched again. The query is rotated twice:

- by its own token_index (9) for the window, where the distance in the text is the distance in the cache;
- by its slot, ``min(t, capacity - 1)`` (5), for the sinks, whose slot *is* their token_index.

A key that never changes need not move either: the window is a ring, where token t takes the slot of token
``t - window``, which has just left. Softmax does not care in which order it meets the keys.

The rest of this file is bookkeeping for speed. Decoding reads every weight once a token, so the matrices that meet
the same vector are joined, and laid out as (in, out) rows: ``x @ w`` adds up rows that lie one after the other,
which OpenBLAS reads from memory up to twice as fast as ``w.T @ x``. Channels j and j + D/2, which rotate together,
are moved side by side, so that a pair is one complex number and a rotation one product.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .attention import normaliser
from .cache import Policy, check_positions
from .ops import gelu
from .streaming import Banded

PREFILL = 256  # tokens of a prompt taken at once
FIRST_BUFFER = 64  # slots that a cache without a limit starts with


class RingCache:
    """Keys and values of every layer in buffers that are allocated once.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim : int
        L, K and D.
    policy : cache.Policy
        Without a window the buffers double whenever they are full.
    positions : {"slot", "original"}
        As in `cache.KVCache`.
    dtype : numpy dtype

    Attributes
    ----------
    keys : ndarray of shape (L, K, S, D)
        Rotated to their token_index, pairs of channels side by side; S is the capacity.
    values : ndarray of shape (L, K, S, D)
    n_seen : int
        Tokens taken in since the start, evicted ones included.
    """

    def __init__(self, n_layers, n_kv_heads, head_dim, policy, *, positions="slot", dtype=np.float32):
        check_positions(positions)
        self.policy = policy
        self.positions = positions
        S = policy.capacity or FIRST_BUFFER
        self.keys = np.zeros((n_layers, n_kv_heads, S, head_dim), dtype)
        self.values = np.zeros_like(self.keys)
        self.n_seen = 0

    def __len__(self):
        """Slots filled."""
        return self.n_seen if self.policy.capacity is None else min(self.n_seen, self.policy.capacity)

    @property
    def nbytes(self):
        """Bytes of the buffers, full or not."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def token_index(self):
        """ndarray of shape (len(self),): place in the text of the token in each slot."""
        tokens = np.arange(max(0, self.n_seen - (self.policy.window or self.n_seen)), self.n_seen)
        held = np.arange(len(self))  # the sinks, and everything before the first eviction
        held[[self.slot(t) for t in tokens]] = tokens
        return held

    def slot(self, t):
        """The slot of token t: its own for a sink, round and round for the others.

        Parameters
        ----------
        t : int

        Returns
        -------
        int
        """
        n_sinks, window = self.policy.n_sinks, self.policy.window
        return t if window is None or t < n_sinks else n_sinks + (t - n_sinks) % window

    def position(self, t):
        """The position at which token t enters: ``min(t, capacity - 1)``, or t itself for "original"."""
        capacity = self.policy.capacity
        return t if self.positions == "original" or capacity is None else min(t, capacity - 1)

    def make_room(self, n_tokens):
        """Double the buffers of a cache without a limit until they hold `n_tokens`."""
        while self.policy.capacity is None and n_tokens > self.keys.shape[2]:
            self.keys = np.concatenate((self.keys, np.zeros_like(self.keys)), axis=2)
            self.values = np.concatenate((self.values, np.zeros_like(self.values)), axis=2)


def side_by_side(x):
    """Move channel j and its partner j + D/2 next to each other.

    Parameters
    ----------
    x : ndarray of shape (..., D)

    Returns
    -------
    ndarray of shape (..., D)

    Examples
    --------
    >>> side_by_side(np.array([0, 2, 4, 1, 3, 5])).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    D = x.shape[-1]
    return x.reshape(*x.shape[:-1], 2, D // 2).swapaxes(-1, -2).reshape(x.shape)


@dataclass
class Fused:
    """The weights of one layer, joined where they meet the same vector; a bias the model does not have is None."""

    w_qkv: np.ndarray  # (C, (H + 2 K) D): queries divided by sqrt(D), keys, values
    b_qkv: np.ndarray | None
    wo: np.ndarray  # (H D, C)
    bo: np.ndarray | None
    w_up: np.ndarray  # (C, 2 F): half the gate, and up; (C, F) in GPT-2
    b_up: np.ndarray | None
    w_down: np.ndarray  # (F, C)
    b_down: np.ndarray | None
    normalise: Callable  # scores to pattern


def fuse_llama(layer, config):
    """A `Fused` layer of Llama, the channels of queries and keys in pairs."""
    D, scale = config.head_dim, 1.0 / math.sqrt(config.head_dim)

    def paired(w):  # (..., heads D) -> the same, each head's pairs side by side
        return None if w is None else side_by_side(w.reshape(*w.shape[:-1], -1, D)).reshape(w.shape)

    w_qkv, b_qkv = _after_norm(
        [(paired(layer.wq), paired(layer.bq), scale), (paired(layer.wk), paired(layer.bk), 1), (layer.wv, layer.bv, 1)],
        layer.attn_norm,
    )
    w_up, b_up = _after_norm([(layer.w_gate, layer.b_gate, 0.5), (layer.w_up, layer.b_up, 1)], layer.mlp_norm)
    wo, w_down = np.ascontiguousarray(layer.wo), np.ascontiguousarray(layer.w_down)
    return Fused(w_qkv, b_qkv, wo, layer.bo, w_up, b_up, w_down, layer.b_down, _normaliser(config, layer))


def fuse_gpt2(layer, config):
    """A `Fused` layer of GPT-2."""
    scales = (1.0 / math.sqrt(config.head_dim), 1, 1)
    parts = zip(np.split(layer.w_qkv, 3, axis=1), np.split(layer.b_qkv, 3), scales, strict=True)
    w_qkv, b_qkv = _after_norm(parts, layer.ln1, layer.ln1_b)
    w_up, b_up = _after_norm([(layer.w_up, layer.b_up, 1)], layer.ln2, layer.ln2_b)
    wo, w_down = np.ascontiguousarray(layer.wo), np.ascontiguousarray(layer.w_down)
    return Fused(w_qkv, b_qkv, wo, layer.bo, w_up, b_up, w_down, layer.b_down, _normaliser(config, layer))


def _after_norm(parts, weight, bias=None):
    """Matrices that meet the same normed vector, side by side; they take in the norm's own weight and bias.

    ``(n * weight + bias) @ w + b == n @ (weight[:, None] * w) + (bias @ w + b)``; `parts` are (w, b, scale).
    """
    matrices, biases = [], []
    for w, b, scale in parts:
        matrices.append(weight[:, None] * w * scale)
        if bias is not None:
            b = bias @ w if b is None else bias @ w + b
        biases.append(None if b is None else b * scale)
    joined = np.ascontiguousarray(np.concatenate(matrices, axis=1))  # (C, ...)
    return joined, None if biases[0] is None else np.concatenate(biases)


def _normaliser(config, layer):
    plain = config.softmax == "softmax" and layer.sink_logits is None
    return softmax_unmasked if plain else normaliser(config.softmax, layer.sink_logits)


def softmax_unmasked(scores):
    """`ops.softmax` in place, without its care for rows where every key is masked: every slot here is live.

    Parameters
    ----------
    scores : ndarray of shape (..., S)
        Overwritten.

    Returns
    -------
    ndarray of shape (..., S)
        `scores`.

    Examples
    --------
    >>> softmax_unmasked(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=-1, keepdims=True)
    return scores


def normed(x, eps, centre):
    """`ops.rms_norm` of one vector (C,), or `ops.layer_norm` if it is to be centred, without weights."""
    if centre:
        x = x - np.add.reduce(x) / len(x)
    return x * (1.0 / math.sqrt(x.dot(x) / len(x) + eps))


def affine(x, w, b):
    """``x @ w + b`` of one vector; ``dot`` starts faster than ``@``."""
    y = x.dot(w)  # (C,), (C, F) -> (F,)
    if b is not None:
        y += b
    return y


def gated(half_gate, up):
    """``silu(gate) * up``, since silu(2 h) = h + h tanh(h)."""
    up *= half_gate
    return up + up * np.tanh(half_gate)


def attend_newest(qkv, keys, values, slot, n_apart, phases, normalise):
    """Attention of the newest token over the live slots, its own among them.

    Parameters
    ----------
    qkv : ndarray of shape ((H + 2 K) D,)
        Its queries, divided by sqrt(D), keys and values; un-rotated.
    keys : ndarray of shape (K, S, D)
        Of the live slots; the new key is written to `slot`.
    values : ndarray of shape (K, S, D)
    slot : int
    n_apart : int
        Keys of the first slots that are met by the query as `phases` turns it second.
    phases : ndarray of shape (P, 1, D/2), complex, or None
        ``exp(i angle)`` of each pair of channels, at the token's own index first; None where nothing rotates.
    normalise : callable
        Scores (H, 1, S) to pattern.

    Returns
    -------
    ndarray of shape (H D,)
    """
    K, S, D = keys.shape
    heads = qkv.reshape(-1, D)  # (H + 2 K, D)
    H = len(heads) - 2 * K
    qk = heads[None, : H + K]  # (1, H + K, D)
    if phases is not None:
        qk = (qk.view(phases.dtype) * phases).view(qkv.dtype)  # (1, H + K, D/2) * (P, 1, D/2) -> (P, H + K, D)
    q = qk[:, :H].reshape(-1, K, H // K, D)
    keys[:, slot] = qk[0, H:]
    values[:, slot] = heads[H + K :]
    scores = q[0] @ keys.swapaxes(1, 2)  # (K, H/K, D) @ (K, D, S) -> (K, H/K, S)
    if n_apart:
        scores[:, :, :n_apart] = q[1] @ keys[:, :n_apart].swapaxes(1, 2)
    pattern = normalise(scores.reshape(H, 1, S)).reshape(K, H // K, S)
    return (pattern @ values).reshape(-1)  # (K, H/K, S) @ (K, S, D) -> (K, H/K, D) -> (H D,)


class Decoder:
    """Logits of the next token, one token at a time: what `Model.forward` gives with a `KVCache`, at memory speed.

    Holds a second copy of the weights, joined and laid out for this; the model's own are read when it is made.

    Parameters
    ----------
    model : Model
        On the host.
    policy : cache.Policy
    positions : {"slot", "original"}

    Attributes
    ----------
    cache : RingCache
        All that changes. Another of the same shape may be put in its place.
    """

    def __init__(self, model, policy, *, positions="slot"):
        config, weights = model.config, model.weights
        self.model, self.config = model, config
        self.is_gpt2 = config.model_type == "gpt2"
        fuse = fuse_gpt2 if self.is_gpt2 else fuse_llama
        self.layers = [fuse(layer, config) for layer in weights.layers]
        if not self.is_gpt2:
            self.frequencies = config.frequencies  # (D/2,)
            self.phase_dtype = np.result_type(model.dtype, np.complex64)
        self.head, self.b_head = _after_norm(
            [(weights.head, None, 1)], weights.norm, weights.norm_b if self.is_gpt2 else None
        )
        self.cache = RingCache(
            config.n_layers, config.n_kv_heads, config.head_dim, policy, positions=positions, dtype=model.dtype
        )

    def __call__(self, ids):
        """Take in tokens; the first prompt goes in blocks, everything after it one by one.

        Parameters
        ----------
        ids : sequence or ndarray of shape (T,), ints

        Returns
        -------
        ndarray of shape (V,)
            Logits after the last.

        Raises
        ------
        ValueError
            For bad ids, or a GPT-2 asked for a position it has not learned.
        """
        ids = self.model.check_ids(ids)
        if self.cache.n_seen == 0 and len(ids) > 1:
            self._prefill(ids[:-1])
            ids = ids[-1:]
        for token in ids.tolist():
            logits = self.step(token)
        return logits

    def step(self, token):
        """Take in one token.

        Parameters
        ----------
        token : int

        Returns
        -------
        ndarray of shape (V,)
            Logits of the next.

        Raises
        ------
        ValueError
            For a GPT-2 asked for a position it has not learned.
        """
        config, cache, eps = self.config, self.cache, self.config.norm_eps
        t = cache.n_seen
        cache.make_room(t + 1)
        slot, n_live = cache.slot(t), min(t + 1, cache.values.shape[2])
        x = self.model.weights.embed[token]  # (C,)
        x, phases = (x + self._learned_position(), None) if self.is_gpt2 else (x, self._phases())
        n_apart = cache.policy.n_sinks if phases is not None and len(phases) > 1 else 0
        for layer, keys, values in zip(self.layers, cache.keys[:, :, :n_live], cache.values[:, :, :n_live], strict=True):
            qkv = affine(normed(x, eps, self.is_gpt2), layer.w_qkv, layer.b_qkv)  # (C,) -> ((H + 2 K) D,)
            mixed = attend_newest(qkv, keys, values, slot, n_apart, phases, layer.normalise)  # (H D,)
            x = x + affine(mixed, layer.wo, layer.bo)
            up = affine(normed(x, eps, self.is_gpt2), layer.w_up, layer.b_up)
            up = gelu(up) if self.is_gpt2 else gated(up[: config.d_ff], up[config.d_ff :])  # (F,)
            x += affine(up, layer.w_down, layer.b_down)
        cache.n_seen += 1  # at the very end: an interrupted step is simply taken again
        return affine(normed(x, eps, self.is_gpt2), self.head, self.b_head)  # (C,) -> (V,)

    def _phases(self):
        """``exp(i angle)`` of each pair (P, 1, D/2): at the newest token's own index and, if it differs, at its slot."""
        t = self.cache.n_seen
        position = self.cache.position(t)
        turns = np.array([[t]] if position == t else [[t], [position]], np.float64)  # (P, 1)
        return np.exp(1j * turns * self.frequencies)[:, None].astype(self.phase_dtype)  # (P, 1) * (D/2,) angles

    def _learned_position(self):
        """The vector (C,) that GPT-2 adds to the newest token."""
        position, learned = self.cache.position(self.cache.n_seen), self.model.weights.position
        if position >= len(learned):
            raise ValueError(
                f"position {position} lies beyond the {len(learned)} learned positions of this GPT-2; "
                "use method='recompute', or positions='slot' with a capacity that fits"
            )
        return learned[position]

    def _prefill(self, ids):
        """Take in the beginning of a text in blocks, and put what they leave into its slots."""
        cache, config, n = self.cache, self.config, len(ids)
        n_sinks, window = cache.policy.n_sinks, cache.policy.window or n + 1
        blocks = Banded(config.n_layers, Policy(n_sinks, window), positions=cache.positions)
        for start in range(0, n, PREFILL):
            self.model.forward(ids[start : start + PREFILL], cache=blocks, rows=slice(-1, None))
        cache.make_room(n)
        for i, (sink_keys, sink_values, keys, values) in enumerate(blocks.layers):
            recent = np.arange(n - len(keys), n)
            slots = np.concatenate((np.arange(len(sink_keys)), [cache.slot(t) for t in recent])).astype(int)
            keys, values = np.concatenate((sink_keys, keys)), np.concatenate((sink_values, values))  # (S, K, D)
            keys = keys if self.is_gpt2 else side_by_side(keys)
            cache.keys[i][:, slots] = keys.swapaxes(0, 1)  # (S, K, D) -> (K, S, D)
            cache.values[i][:, slots] = values.swapaxes(0, 1)
        cache.n_seen = n
