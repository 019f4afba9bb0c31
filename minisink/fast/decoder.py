"""One token in, logits out, at memory speed: the fused weights of `fused` over the ring of `ring`.

It gives the same logits as `Model.forward` with a `KVCache` of the same policy, token for token; tests make sure of it.

It runs on the device of the weights. On a GPU a token costs one copy to the device, of its angles; nothing comes back
until the caller fetches the logits: a step only queues work. With float16 weights everything except products with
weights is float32, including the cache: CuPy would copy float16 keys to float32 for every product with them.
"""

import math
from typing import Any

import numpy as np

from ..cache import Policy, newest_position
from ..gpt2 import check_learned
from ..ops import ACTIVATIONS, accum_dtype
from ..system.threads import one_thread
from .fused import fuse, halves_apart, side_by_side
from .ring import RingCache

PREFILL = 256  # how many tokens of a prompt or turn are taken in at once


class Decoder:
    """Logits of the next token, one token at a time: what `Model.forward` gives with a `KVCache`, at memory speed.

    It reads the model's own weights in the layout that `load` gives them, and a copy of matrices in another layout,
    such as those in training; make a new decoder after a change to the weights.

    All that changes from one token to the next is its `cache`, a `RingCache`: the one to continue, or by default an
    empty one with this `policy`. The `weights`, a `fused.Fused`, may come from another decoder of the same model. Raise
    ValueError if `cache` does not fit this model and policy.

    >>> from minisink import Streaming, load
    >>> model = load("novels")
    >>> decode = Decoder(model, Streaming(4, 60))
    >>> logits = decode(model.encode("My dear"))
    >>> bool(abs(logits - model.forward(model.encode("My dear"))[-1]).max() < 1e-4)
    True
    """

    def __init__(self, model, policy, *, cache=None, weights=None):
        config, embed = model.config, model.weights.embed
        shape, dtype = (config.n_layers, config.n_kv_heads, config.head_dim), accum_dtype(model.dtype)
        make = policy.ring_cache or RingCache
        self.cache: Any = make(*shape, policy, dtype=dtype, like=embed) if cache is None else cache
        if self.cache.policy != policy:
            raise ValueError(f"this cache has {self.cache.policy}, not {policy}")
        L, K, _, D = self.cache.keys.shape
        if (L, K, D) != shape or self.cache.keys.dtype != dtype:
            has = f"this cache has {L} layers of {K} heads of {D} channels in {self.cache.keys.dtype}"
            raise ValueError(f"{has}; {model.name} has {shape[0]} of {shape[1]} of {shape[2]} in {dtype}")
        self.model, self.config = model, config
        self.weights = fuse(model.weights, config) if weights is None else weights
        self.attention = self.cache.attention(config.n_heads, config.encoding)
        self._allocate(embed)

    def _allocate(self, embed):
        """Allocate the arrays for one token: those multiplied by weights in their dtype, the others in a wide one."""
        H, K, D, F = self.config.n_heads, self.config.n_kv_heads, self.config.head_dim, self.config.d_ff
        qkv, is_wide = self.attention.qkv, self.attention.qkv.dtype == embed.dtype
        self.normed = np.empty_like(embed, shape=self.config.d_model)
        self.mixed = np.empty_like(embed, shape=H * D)
        self.mixed_heads = self.mixed.reshape(H, D)
        self.hidden = np.empty_like(embed, shape=F)
        self.up = np.empty_like(qkv, shape=2 * F if self.weights.has_gate else F)
        self.half_gate, self.ungated, self.silu = self.up[:F], self.up[F:], np.empty_like(qkv, shape=F)
        self.mean = None  # the mean of a vector is its product with this
        if self.weights.has_mean:
            self.mean = np.full_like(qkv, 1.0 / self.config.d_model, shape=self.config.d_model)
        self.heads, self.head_mean = qkv[: (H + K) * D].reshape(H + K, D), np.full_like(qkv, 1.0 / D, shape=(D, 1))
        self.narrow_qkv = qkv if is_wide else np.empty_like(embed, shape=len(qkv))
        self.narrow_up = self.up if is_wide else np.empty_like(embed, shape=len(self.up))

    def __call__(self, ids):  # (T,) ints -> (V,)
        """Take in tokens, all except the last in blocks, and return the logits after the last."""
        ids = self.model.check_ids(ids)
        if len(ids) > 1:
            self._take_in(ids[:-1])
        return self.step(int(ids[-1]))

    def step(self, token):  # int -> (V,)
        """Take in one token, and return the logits of the next, on the device of the weights."""
        with one_thread(self.config.d_model):
            return self._step(token)

    def _step(self, token):
        attention, weights, eps, normed = self.attention, self.weights, self.config.norm_eps, self.normed
        narrow_qkv, narrow_up, mixed, mean = self.narrow_qkv, self.narrow_up, self.mixed, self.mean
        x = self._embedding(token)  # (C,)
        attention.begin(self.cache.n_seen)
        for i, layer in enumerate(weights.layers):  # `dot` starts faster than `@`
            norm(x, eps, layer.attn_norm, normed, mean).dot(layer.w_qkv, narrow_qkv)  # (C,) -> ((H + 2 K) D,)
            if layer.b_qkv is not None:
                np.add(narrow_qkv, layer.b_qkv, attention.qkv)
            if layer.qk_norm is not None:
                self._norm_heads(layer.qk_norm)
            attention.mix(i, self.mixed_heads, layer.sink)
            attended = mixed.dot(layer.wo)  # (H D,) -> (C,)
            if not weights.parallel:
                x += attended
                if layer.bo is not None:
                    x += layer.bo
            if layer.mlp_norm is not layer.attn_norm:
                norm(x, eps, layer.mlp_norm, normed, mean)
            normed.dot(layer.w_up, narrow_up)  # (C,) -> (2 F,)
            if layer.b_up is not None:
                np.add(narrow_up, layer.b_up, self.up)
            self._activate()
            if weights.parallel:
                x += attended
            x += self.hidden.dot(layer.w_down)  # (F,) -> (C,)
            if layer.b_down is not None:
                x += layer.b_down
        self.cache.n_seen += 1  # at the very end, so that an interrupted step can be repeated
        logits = norm(x, eps, weights.norm, normed, mean).dot(weights.head)  # (C,) -> (V,)
        if weights.b_head is not None:
            logits += weights.b_head
        return logits

    def _embedding(self, token):  # -> (C,)
        weights = self.model.weights
        x = weights.embed[token].astype(self.up.dtype)  # a copy
        if self.config.learned_positions:
            position = newest_position(self.cache.policy, self.cache.n_seen)
            check_learned([position], self.config)
            x += weights.position[position]
        return x

    def _norm_heads(self, weight):  # (H + K, D)
        """Apply `ops.rms_norm` to every query and key, in place."""
        roots = (self.heads * self.heads).dot(self.head_mean)  # (H + K, D) -> (H + K, 1)
        roots += self.config.norm_eps
        roots **= -0.5
        self.heads *= roots
        self.heads *= weight

    def _activate(self):
        """Write ``silu(gate) * up``, or the activation if there is no gate, from `up` into `hidden`."""
        if not self.weights.has_gate:
            self.hidden[:] = ACTIVATIONS[self.config.activation](self.up)
            return
        self.half_gate *= 0.5
        silu = np.tanh(self.half_gate, self.silu)
        silu *= self.half_gate
        silu += self.half_gate  # silu(2 h) = h + h tanh(h)
        np.multiply(silu, self.ungated, self.hidden)

    def _take_in(self, ids):
        """Take in a run of tokens in blocks, whatever the ring holds, and write the result into the slots."""
        cache, n = self.cache, self.cache.n_seen + len(ids)
        blocks = self._blocks(n)
        for start in range(0, len(ids), PREFILL):
            self.model.forward(ids[start : start + PREFILL], cache=blocks, rows=slice(-1, None))
        cache.make_room(n)
        n_held, n_recent = len(blocks.layers[0][0]), len(blocks.layers[0][2])
        order = [*range(n_held), *(cache.slot(t) for t in range(n - n_recent, n))]
        slots = np.asarray(order, dtype=int, like=cache.keys)
        for i, (sink_keys, sink_values, keys, values) in enumerate(blocks.layers):
            keys, values = np.concatenate((sink_keys, keys)), np.concatenate((sink_values, values))  # (S, K, D)
            keys = side_by_side(keys, self.config.encoding)
            cache.keys[i][:, slots] = keys.swapaxes(0, 1)  # (S, K, D) -> (K, S, D)
            cache.values[i][:, slots] = values.swapaxes(0, 1)
        cache.n_seen = n

    def _blocks(self, n):
        """Return the ring's contents as blocks that continue to token `n`: keys rotated as they were, in text order."""
        cache, t, dtype = self.cache, self.cache.n_seen, self.model.dtype
        policy = cache.policy
        if policy.window is None:  # blocks need a window: one longer than the text
            policy = Policy(policy.n_sinks, n + 1, policy.positions)
        blocks = cache.banded(policy)
        sinks = np.arange(min(policy.n_sinks, t))
        recent = np.array([cache.slot(i) for i in range(max(0, t - policy.window + 1), t)], dtype=int)
        slots = [np.asarray(part, like=cache.keys) for part in (sinks, recent)]
        for i, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
            parts = []
            for part in slots:
                rows = keys[:, part].swapaxes(0, 1).astype(dtype)  # (K, S, D) -> (S, K, D)
                parts += [halves_apart(rows, self.config.encoding)]
                parts += [values[:, part].swapaxes(0, 1).astype(dtype)]
            blocks.layers[i] = tuple(parts)  # as in `Banded`
        return blocks


def norm(x, eps, weight, out, mean=None):
    """Apply `ops.rms_norm` to one vector, (C,) -> (C,) in the dtype of `out`.

    With `mean`, all of it 1 / C, this is a layer norm: the mean of `x`, used nowhere else, is subtracted in place.
    """
    if mean is not None:
        x -= x.dot(mean)
    squares = x.dot(x)
    if isinstance(squares, np.generic):
        np.multiply(x, 1.0 / math.sqrt(float(squares) / len(x) + eps), out)
    else:  # on a GPU this number is an array, so nothing waits for it
        np.multiply(x, (squares / len(x) + eps) ** -0.5, out)
    out *= weight
    return out
