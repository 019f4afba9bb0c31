"""GPT-2 over a batch: the forward pass that keeps what the backward pass needs, and the backward pass.

The mirror images of `training.llama`, with LayerNorm, a GELU MLP, and positions that are learned and added.
"""

import numpy as np

from ..attention import additive, causal_mask
from ..ops import linear
from .attention import attention, attention_backward, join_heads, split_heads
from .backward import embedding_backward, gelu, gelu_backward, layer_norm, layer_norm_backward, linear_backward


def forward(ids, weights, config):  # (B, T) -> (B * T, V)
    """Do as `llama.forward`; T is at most ``config.max_positions``."""
    B, T = ids.shape
    H, eps = config.n_heads, config.norm_eps
    x = (weights.embed[ids] + weights.position[:T]).reshape(B * T, -1)  # (B, T) -> (N, C)
    bias = additive(causal_mask(T, T, like=x), x.dtype)
    layers = []
    for layer in weights.layers:
        h, norm1 = layer_norm(x, layer.ln1, layer.ln1_b, eps)
        qkv = split_heads(linear(h, layer.w_qkv, layer.b_qkv), B, 3 * H)  # (N, 3C) -> (B, 3H, T, D)
        q, k, v = (qkv[:, i * H : (i + 1) * H].copy() for i in range(3))  # (B, H, T, D)
        mixed, pattern = attention(q, k, v, bias, config.softmax, layer.sink_logits)
        rows = join_heads(mixed)  # (B, H, T, D) -> (N, C)
        x = x + linear(rows, layer.wo, layer.bo)
        h2, norm2 = layer_norm(x, layer.ln2, layer.ln2_b, eps)
        up = linear(h2, layer.w_up, layer.b_up)  # (N, F)
        hidden, t = gelu(up)
        x = x + linear(hidden, layer.w_down, layer.b_down)
        kept = {"h": h, "norm1": norm1, "q": q, "k": k, "v": v, "mixed": mixed, "pattern": pattern, "rows": rows}
        layers.append(kept | {"h2": h2, "norm2": norm2, "up": up, "t": t, "hidden": hidden})
    h, norm = layer_norm(x, weights.norm, weights.norm_b, eps)
    saved = {"ids": ids, "layers": layers, "h": h, "norm": norm}
    return h @ weights.head, saved  # (N, C) -> (N, V)


def backward(dlogits, saved, weights, config, into):  # (B * T, V)
    """Do as `llama.backward`."""
    B, T = saved["ids"].shape
    dx = linear_backward(dlogits, saved["h"], weights.head, into.head)  # tied: into the embedding's, transposed
    dx = layer_norm_backward(dx, saved["norm"], weights.norm, into.norm, into.norm_b)
    for layer, grad in zip(reversed(weights.layers), reversed(into.layers), strict=True):
        kept = saved["layers"].pop()
        dhidden = linear_backward(dx, kept["hidden"], layer.w_down, grad.w_down, grad.b_down)
        dup = gelu_backward(dhidden, kept["up"], kept["t"])
        dh = linear_backward(dup, kept["h2"], layer.w_up, grad.w_up, grad.b_up)
        dx += layer_norm_backward(dh, kept["norm2"], layer.ln2, grad.ln2, grad.ln2_b)
        dx = _attention_backward(dx, kept, layer, grad, config.softmax)
    into.position[...] = 0.0  # places beyond T were not used
    into.position[:T] = dx.reshape(B, T, -1).sum(axis=0)
    if not config.tied:
        into.embed[...] = 0.0
    embedding_backward(dx, saved["ids"].reshape(-1), into.embed)


def _attention_backward(dx, kept, layer, grad, kind):
    """Run the backward pass of ``x + wo(attention(q, k, v))`` with q, k, v from ``h = layer_norm(x)``."""
    B, H = kept["q"].shape[:2]
    dmixed = linear_backward(dx, kept["rows"], layer.wo, grad.wo, grad.bo)
    dmixed = split_heads(dmixed, B, H).copy()  # in one piece, for it is multiplied twice
    dqkv = attention_backward(
        dmixed, kept["q"], kept["k"], kept["v"], kept["mixed"], kept["pattern"], kind, grad.sink_logits
    )
    dqkv = join_heads(np.concatenate(dqkv, axis=1))  # three (B, H, T, D) -> (N, 3C)
    dh = linear_backward(dqkv, kept["h"], layer.w_qkv, grad.w_qkv, grad.b_qkv)
    dx += layer_norm_backward(dh, kept["norm1"], layer.ln1, grad.ln1, grad.ln1_b)
    return dx
