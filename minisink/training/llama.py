"""Llama over a batch: the forward pass that keeps what the backward pass needs, and the backward pass.

Read them as mirror images: each line of `backward` undoes one of `forward`, last first. The residual stream
makes it simple: ``x = x + f(x)`` becomes ``dx = dx + f_backward(dx)``.
"""

from ..attention import additive, causal_mask
from ..ops import linear
from .attention import angles, attention, attention_backward, join_heads, rotate, split_heads
from .backward import embedding_backward, linear_backward, rms_norm, rms_norm_backward, swiglu, swiglu_backward


def forward(ids, weights, config):  # (B, T) -> (B * T, V)
    """Return the logits of the next token after every token of every sample, and what `backward` needs.

    Of that, ``saved["layers"][i]["pattern"]`` of shape (B, H, T, T) is the one to look at.
    """
    B, T = ids.shape
    H, K, eps = config.n_heads, config.n_kv_heads, config.norm_eps
    x = weights.embed[ids.reshape(-1)]  # (B, T) -> (N, C)
    cos, sin = angles(T, config.frequencies, like=x)
    bias = additive(causal_mask(T, T, like=x), x.dtype)
    layers = []
    for layer in weights.layers:
        h, norm1 = rms_norm(x, layer.attn_norm, eps)
        q = rotate(split_heads(linear(h, layer.wq, layer.bq), B, H), cos, sin)  # (N, C) -> (B, H, T, D)
        k = rotate(split_heads(linear(h, layer.wk, layer.bk), B, K), cos, sin)  # (N, C) -> (B, K, T, D)
        v = split_heads(linear(h, layer.wv, layer.bv), B, K)
        mixed, pattern = attention(q, k, v, bias, config.softmax, layer.sink_logits)
        rows = join_heads(mixed)  # (B, H, T, D) -> (N, H * D)
        x = x + linear(rows, layer.wo, layer.bo)
        kept = {"h": h, "norm1": norm1, "q": q, "k": k, "v": v, "mixed": mixed, "pattern": pattern, "rows": rows}
        layers.append(kept)
        if config.d_ff == 0:
            continue  # attention only: an MLP of width 0 adds nothing
        h, norm2 = rms_norm(x, layer.mlp_norm, eps)
        gate, up = linear(h, layer.w_gate, layer.b_gate), linear(h, layer.w_up, layer.b_up)  # (N, F)
        gated, sigmoid = swiglu(gate, up)
        x = x + linear(gated, layer.w_down, layer.b_down)
        kept |= {"h2": h, "norm2": norm2, "gate": gate, "up": up, "gated": gated, "sigmoid": sigmoid}
    h, norm = rms_norm(x, weights.norm, eps)
    saved = {"ids": ids, "layers": layers, "h": h, "norm": norm, "cos": cos, "sin": sin}
    return h @ weights.head, saved  # (N, C) -> (N, V)


def backward(dlogits, saved, weights, config, into):  # (B * T, V)
    """Write the gradient of every weight `into` others, with `dlogits` from `backward.cross_entropy`.

    The layers are taken out of `saved` as they are used, so that memory is free again.
    """
    dx = linear_backward(dlogits, saved["h"], weights.head, into.head)  # tied: into the embedding's, transposed
    dx = rms_norm_backward(dx, saved["norm"], weights.norm, into.norm)
    for layer, grad in zip(reversed(weights.layers), reversed(into.layers), strict=True):
        kept = saved["layers"].pop()
        if config.d_ff:
            dx = _mlp_backward(dx, kept, layer, grad)
        else:
            grad.mlp_norm[...] = 0.0
        dx = _attention_backward(dx, kept, layer, grad, saved, config.softmax)
    if not config.tied:
        into.embed[...] = 0.0
    embedding_backward(dx, saved["ids"].reshape(-1), into.embed)


def _mlp_backward(dx, kept, layer, grad):
    """Run the backward pass of ``x + down(swiglu(gate(h), up(h)))`` with ``h = rms_norm(x)``."""
    dgated = linear_backward(dx, kept["gated"], layer.w_down, grad.w_down, grad.b_down)
    dgate, dup = swiglu_backward(dgated, kept["gate"], kept["up"], kept["sigmoid"])
    dh = linear_backward(dgate, kept["h2"], layer.w_gate, grad.w_gate, grad.b_gate)
    dh += linear_backward(dup, kept["h2"], layer.w_up, grad.w_up, grad.b_up)
    dx += rms_norm_backward(dh, kept["norm2"], layer.mlp_norm, grad.mlp_norm)
    return dx


def _attention_backward(dx, kept, layer, grad, saved, kind):
    """Run the backward pass of ``x + wo(attention(rotate(q), rotate(k), v))`` with q, k, v from ``h = rms_norm(x)``."""
    B, H = kept["q"].shape[:2]
    cos, minus_sin = saved["cos"], -saved["sin"]
    dmixed = linear_backward(dx, kept["rows"], layer.wo, grad.wo, grad.bo)
    dmixed = split_heads(dmixed, B, H).copy()  # in one piece, for it is multiplied twice
    dq, dk, dv = attention_backward(
        dmixed, kept["q"], kept["k"], kept["v"], kept["mixed"], kept["pattern"], kind, grad.sink_logits
    )
    h = kept["h"]
    dh = linear_backward(join_heads(rotate(dq, cos, minus_sin)), h, layer.wq, grad.wq, grad.bq)
    dh += linear_backward(join_heads(rotate(dk, cos, minus_sin)), h, layer.wk, grad.wk, grad.bk)
    dh += linear_backward(join_heads(dv), h, layer.wv, grad.wv, grad.bv)
    dx += rms_norm_backward(dh, kept["norm1"], layer.attn_norm, grad.attn_norm)
    return dx
