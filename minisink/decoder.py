"""One token in, logits out, at memory speed: the fused weights of `fused` over the ring of `ring`.

What `Model.forward` gives with a `KVCache` of the same policy, token by token; the tests hold them equal.
"""

import math

import numpy as np

from .cache import Policy
from .fused import after_norm, fuse_gpt2, fuse_llama, side_by_side
from .ops import gelu
from .ring import RingCache, attend_newest
from .streaming import Banded

PREFILL = 256  # tokens of a prompt taken at once


class Decoder:
    """Logits of the next token, one token at a time: what `Model.forward` gives with a `KVCache`, at memory speed.

    Holds a second copy of the weights, joined and laid out for this; the model's own are read when it is made.

    Parameters
    ----------
    model : Model
        On the host.
    policy : cache.Policy
    positions : {"slot", "original"}
    cache : RingCache, optional
        To go on with, instead of an empty one of this policy.

    Attributes
    ----------
    cache : RingCache
        All that changes.

    Raises
    ------
    ValueError
        When `cache` is not of this model, policy and positions.

    Examples
    --------
    >>> from minisink import keep_sinks, load
    >>> model = load("novels")
    >>> decode = Decoder(model, keep_sinks(4, 60))
    >>> logits = decode(model.encode("My dear"))
    >>> bool(abs(logits - model.forward(model.encode("My dear"))[-1]).max() < 1e-4)
    True
    """

    def __init__(self, model, policy, *, positions="slot", cache=None):
        config, weights = model.config, model.weights
        shape = config.n_layers, config.n_kv_heads, config.head_dim
        self.cache = RingCache(*shape, policy, positions=positions, dtype=model.dtype) if cache is None else cache
        if (self.cache.policy, self.cache.positions) != (policy, positions):
            raise ValueError(
                f"this cache has {self.cache.policy} and {self.cache.positions!r}, not {policy} and {positions!r}"
            )
        L, K, _, D = self.cache.keys.shape
        if (L, K, D) != shape or self.cache.keys.dtype != model.dtype:
            raise ValueError(
                f"this cache has {L} layers of {K} heads of {D} channels in {self.cache.keys.dtype}; "
                f"{model.name} has {shape[0]} of {shape[1]} of {shape[2]} in {model.dtype}"
            )
        self.model, self.config = model, config
        self.is_gpt2 = config.model_type == "gpt2"
        fuse = fuse_gpt2 if self.is_gpt2 else fuse_llama
        self.layers = [fuse(layer, config) for layer in weights.layers]
        if not self.is_gpt2:
            self.frequencies = config.frequencies  # (D/2,)
            self.phase_dtype = np.result_type(model.dtype, np.complex64)
        self.head, self.b_head = after_norm(
            [(weights.head, None, 1)], weights.norm, weights.norm_b if self.is_gpt2 else None
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
        live = cache.keys[:, :, :n_live], cache.values[:, :, :n_live]  # (L, K, S, D); the others are never looked at
        for layer, keys, values in zip(self.layers, *live, strict=True):
            qkv = affine(normed(x, eps, self.is_gpt2), layer.w_qkv, layer.b_qkv)  # (C,) -> ((H + 2 K) D,)
            mixed = attend_newest(qkv, keys, values, slot, n_apart, phases, layer.normalise)  # (H D,)
            x = x + affine(mixed, layer.wo, layer.bo)
            up = affine(normed(x, eps, self.is_gpt2), layer.w_up, layer.b_up)
            up = gelu(up) if self.is_gpt2 else gated(up[: config.d_ff], up[config.d_ff :])  # (F,)
            x += affine(up, layer.w_down, layer.b_down)
        cache.n_seen += 1  # at the very end: an interrupted step is simply taken again
        return affine(normed(x, eps, self.is_gpt2), self.head, self.b_head)  # (C,) -> (V,)

    def _phases(self):
        """``exp(i angle)`` of each pair, (P, 1, D/2): at the newest token's index and, if it differs, at its slot."""
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
