"""GPT-2, MPT and GPT-NeoX over a batch: a forward pass that keeps what the backward pass needs, and that.

The mirror images of `training.llama`, with LayerNorm and a GELU MLP. They differ by their positions: learned ones are
added (GPT-2), a slope is taken off the scores (MPT), a part of each head rotates (GPT-NeoX, whose attention and MLP run
side by side).
"""

import numpy as np

from ..attention import additive, causal_mask
from ..ops import linear
from ..positions import Rotary, bias_of
from .attention import angles, attention, attention_backward, join_heads, rotate, split_heads
from .backward import (
    embedding_backward,
    gelu,
    gelu_backward,
    gelu_erf,
    gelu_erf_backward,
    layer_norm,
    layer_norm_backward,
    linear_backward,
)

GELU = {"gelu_new": (gelu, gelu_backward), "gelu": (gelu_erf, gelu_erf_backward)}  # as in `ops.ACTIVATIONS`


def forward(ids, weights, config):  # (B, T) -> (B * T, V)
    """Do as `llama.forward`; where positions are learned T is at most ``config.max_positions``."""
    B, T = ids.shape
    H, eps, encoding = config.n_heads, config.norm_eps, config.encoding
    x = weights.embed[ids]  # (B, T) -> (B, T, C)
    x = (x + weights.position[:T] if config.learned_positions else x).reshape(B * T, -1)  # -> (N, C)
    bias, slopes = additive(causal_mask(T, T, like=x), x.dtype), bias_of(encoding, np.arange(T), np.arange(T), like=x)
    bias = bias if slopes is None else bias + slopes  # (T, T), or (H, T, T)
    turn = angles(T, encoding.frequencies, like=x) if isinstance(encoding, Rotary) else None
    layers = []
    for layer in weights.layers:
        h, norm1 = layer_norm(x, layer.ln1, layer.ln1_b, eps)
        qkv = split_heads(linear(h, layer.w_qkv, layer.b_qkv), B, 3 * H)  # (N, 3C) -> (B, 3H, T, D)
        q, k, v = (qkv[:, i * H : (i + 1) * H].copy() for i in range(3))  # (B, H, T, D)
        if turn:
            q, k = rotate(q, *turn), rotate(k, *turn)
        mixed, pattern = attention(q, k, v, bias, config.softmax, layer.sink_logits)
        rows = join_heads(mixed)  # (B, H, T, D) -> (N, C)
        attended = x + linear(rows, layer.wo, layer.bo)
        h2, norm2 = layer_norm(x if config.parallel else attended, layer.ln2, layer.ln2_b, eps)
        up = linear(h2, layer.w_up, layer.b_up)  # (N, F)
        hidden, t = GELU[config.activation][0](up)
        x = attended + linear(hidden, layer.w_down, layer.b_down)
        kept = {"h": h, "norm1": norm1, "q": q, "k": k, "v": v, "mixed": mixed, "pattern": pattern, "rows": rows}
        layers.append(kept | {"h2": h2, "norm2": norm2, "up": up, "t": t, "hidden": hidden})
    h, norm = layer_norm(x, weights.norm, weights.norm_b, eps)
    saved = {"ids": ids, "layers": layers, "h": h, "norm": norm, "turn": turn}
    return h @ weights.head, saved  # (N, C) -> (N, V)


def backward(dlogits, saved, weights, config, into):  # (B * T, V)
    """Do as `llama.backward`."""
    B, T = saved["ids"].shape
    dx = linear_backward(dlogits, saved["h"], weights.head, into.head)  # tied: into the embedding's, transposed
    dx = layer_norm_backward(dx, saved["norm"], weights.norm, into.norm, into.norm_b)
    for layer, grad in zip(reversed(weights.layers), reversed(into.layers), strict=True):
        kept = saved["layers"].pop()
        through_mlp = _mlp_backward(dx, kept, layer, grad, config.activation)
        if config.parallel:  # both halves saw the same x
            dx = dx + through_mlp + _attention_backward(dx, kept, layer, grad, saved["turn"], config.softmax)
        else:
            dx += through_mlp
            dx += _attention_backward(dx, kept, layer, grad, saved["turn"], config.softmax)
    if config.learned_positions:
        into.position[...] = 0.0  # places beyond T were not used
        into.position[:T] = dx.reshape(B, T, -1).sum(axis=0)
    if not config.tied:
        into.embed[...] = 0.0
    embedding_backward(dx, saved["ids"].reshape(-1), into.embed)


def _mlp_backward(dx, kept, layer, grad, activation):
    """Run the backward pass of ``down(gelu(up(h)))`` with ``h = layer_norm(x)``."""
    dhidden = linear_backward(dx, kept["hidden"], layer.w_down, grad.w_down, grad.b_down)
    dup = GELU[activation][1](dhidden, kept["up"], kept["t"])
    dh = linear_backward(dup, kept["h2"], layer.w_up, grad.w_up, grad.b_up)
    return layer_norm_backward(dh, kept["norm2"], layer.ln2, grad.ln2, grad.ln2_b)


def _attention_backward(dx, kept, layer, grad, turn, kind):
    """Run the backward pass of ``wo(attention(q, k, v))`` with q, k, v from ``h = layer_norm(x)``."""
    B, H = kept["q"].shape[:2]
    dmixed = linear_backward(dx, kept["rows"], layer.wo, grad.wo, grad.bo)
    dmixed = split_heads(dmixed, B, H).copy()  # in one piece, for it is multiplied twice
    dq, dk, dv = attention_backward(
        dmixed, kept["q"], kept["k"], kept["v"], kept["mixed"], kept["pattern"], kind, grad.sink_logits
    )
    if turn:
        cos, sin = turn
        dq, dk = rotate(dq, cos, -sin), rotate(dk, cos, -sin)
    dqkv = join_heads(np.concatenate((dq, dk, dv), axis=1))  # three (B, H, T, D) -> (N, 3C)
    dh = linear_backward(dqkv, kept["h"], layer.w_qkv, grad.w_qkv, grad.b_qkv)
    return layer_norm_backward(dh, kept["norm1"], layer.ln1, grad.ln1, grad.ln1_b)
