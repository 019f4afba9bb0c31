"""One pass over a batch, forward and back: Llama, and GPT-2 with its relatives MPT and GPT-NeoX.

Read each function as a pair of mirror images. It returns what it computes and `back`, in which each line undoes one of
the forward above it, last first: from the gradient of the output to that of x, writing those of the weights into
`grad`, a `LayerWeights` too. The residual stream makes it simple: ``x = x + f(x)`` becomes ``dx = dx + back(dx)``.
"""

import numpy as np

from .. import llama
from ..attention import additive, causal_mask
from ..positions import bias_of
from .attention import attention
from .backward import embedding_backward, gelu, gelu_erf, layer_norm, linear, rms_norm, swiglu

GELU = {"gelu_new": gelu, "gelu": gelu_erf}  # as in `ops.ACTIVATIONS`


def forward(ids, weights, config):  # (B, T) -> (B * T, V)
    """Return the logits of the next token after every token of every sample, and what `backward` needs.

    In that, ``saved["layers"][i]`` has the ``"pattern"`` (B, H, T, T) and the values ``"v"`` (B, K, T, D) to look at.
    Where positions are learned, T is at most ``config.max_positions``.
    """
    if config.model_type in ("qwen3", "falcon"):
        raise ValueError(f"a {config.model_type} can be run here, but not trained")
    (B, T), eps, places = ids.shape, config.norm_eps, np.arange(ids.shape[1])
    x = weights.embed[ids]  # (B, T) -> (B, T, C)
    x = (x + weights.position[:T] if config.learned_positions else x).reshape(B * T, -1)  # -> (N, C)
    bias, slopes = additive(causal_mask(T, T, like=x), x.dtype), bias_of(config.encoding, places, places, like=x)
    bias = bias if slopes is None else bias + slopes  # (T, T), or with ALiBi (H, T, T)
    layers = []
    for layer in weights.layers:
        x, kept = _layer(x, layer, config, B, bias)
        layers.append(kept)
    if isinstance(config, llama.Config):
        h, norm_back = rms_norm(x, weights.norm, eps)
    else:
        h, norm_back = layer_norm(x, weights.norm, weights.norm_b, eps)
    logits, head_back = linear(h, weights.head)  # (N, C) -> (N, V)
    return logits, {"ids": ids, "layers": layers, "norm_back": norm_back, "head_back": head_back}


def backward(dlogits, saved, config, into):  # (B * T, V)
    """Write the gradient of every weight into `Weights` for it, with `dlogits` from `backward.cross_entropy`.

    The layers are taken out of `saved` as they are used, so that memory is free again.
    """
    B, T = saved["ids"].shape
    dx = saved["head_back"](dlogits, into.head)  # tied: into the embedding's, transposed
    biases = () if isinstance(config, llama.Config) else (into.norm_b,)
    dx = saved["norm_back"](dx, into.norm, *biases)
    for grad in reversed(into.layers):
        dx = saved["layers"].pop()["back"](dx, grad)
    if config.learned_positions:
        into.position[...] = 0.0  # places beyond T were not used
        into.position[:T] = dx.reshape(B, T, -1).sum(axis=0)
    if not config.tied:
        into.embed[...] = 0.0
    embedding_backward(dx, saved["ids"].reshape(-1), into.embed)


def _layer(x, layer, config, B, bias):  # (N, C) -> (N, C)
    """Attention, then the MLP; or both side by side, reading the same x (GPT-NeoX)."""
    is_parallel = getattr(config, "parallel", False)
    read, attend_back, kept = _attend(x, layer, config, B, bias)
    attended = x + read
    mlp = _gated_mlp if isinstance(config, llama.Config) else _gelu_mlp
    added, mlp_back = mlp(x if is_parallel else attended, layer, config)

    def back(dx, grad):
        dattended = dx + mlp_back(dx, grad)
        return dattended + attend_back(dx if is_parallel else dattended, grad)

    return attended + added, kept | {"back": back}


def _attend(x, layer, config, B, bias):  # (N, C) -> (N, C)
    """``wo(attention(rotate(q), rotate(k), v))``."""
    heads = _llama_heads if isinstance(config, llama.Config) else _gpt2_heads
    q, k, v, heads_back = heads(x, layer, config, B)
    shape, rotate, places = q.shape, config.encoding, np.arange(q.shape[1])
    q, k = rotate(q, places), rotate(k, places)
    mixed, pattern, attention_back = attention(q, k, v, bias, config.softmax, layer.sink_logits)
    y, wo_back = linear(mixed.reshape(len(x), -1), layer.wo, layer.bo)  # (B, T, H, D) -> (N, H * D) -> (N, C)

    def back(dy, grad):
        dmixed = wo_back(dy, grad.wo, grad.bo).reshape(shape)
        dq, dk, dv = attention_back(dmixed, grad.sink_logits)
        return heads_back(rotate(dq, -places), rotate(dk, -places), dv, grad)

    return y, back, {"pattern": pattern, "v": v}


def _llama_heads(x, layer, config, B):  # (N, C) -> (B, T, H, D), 2 x (B, T, K, D)
    """Project ``h = rms_norm(x)`` to queries, keys and values, by one matrix each."""
    h, norm_back = rms_norm(x, layer.attn_norm, config.norm_eps)
    q, q_back = linear(h, layer.wq, layer.bq)  # (N, C) -> (N, H * D)
    k, k_back = linear(h, layer.wk, layer.bk)  # (N, C) -> (N, K * D)
    v, v_back = linear(h, layer.wv, layer.bv)

    def back(dq, dk, dv, grad):
        dh = q_back(dq.reshape(q.shape), grad.wq, grad.bq)
        dh += k_back(dk.reshape(k.shape), grad.wk, grad.bk)
        dh += v_back(dv.reshape(v.shape), grad.wv, grad.bv)
        return norm_back(dh, grad.attn_norm)

    return *(each.reshape(B, len(x) // B, -1, config.head_dim) for each in (q, k, v)), back


def _gpt2_heads(x, layer, config, B):  # (N, C) -> 3 x (B, T, H, D)
    """Project ``h = layer_norm(x)`` to queries, keys and values, by one matrix for all."""
    h, norm_back = layer_norm(x, layer.ln1, layer.ln1_b, config.norm_eps)
    qkv, qkv_back = linear(h, layer.w_qkv, layer.b_qkv)  # (N, C) -> (N, 3 C)
    q, k, v = np.split(qkv.reshape(B, len(x) // B, -1, config.head_dim), 3, axis=2)

    def back(dq, dk, dv, grad):
        dqkv = np.concatenate((dq, dk, dv), axis=2).reshape(qkv.shape)
        return norm_back(qkv_back(dqkv, grad.w_qkv, grad.b_qkv), grad.ln1, grad.ln1_b)

    return q, k, v, back


def _gated_mlp(x, layer, config):  # (N, C) -> (N, C)
    """``down(swiglu(gate(h), up(h)))`` with ``h = rms_norm(x)``; one of width 0 adds nothing."""
    h, norm_back = rms_norm(x, layer.mlp_norm, config.norm_eps)
    gate, gate_back = linear(h, layer.w_gate, layer.b_gate)  # (N, C) -> (N, F)
    up, up_back = linear(h, layer.w_up, layer.b_up)
    gated, swiglu_back = swiglu(gate, up)
    y, down_back = linear(gated, layer.w_down, layer.b_down)  # (N, F) -> (N, C)

    def back(dy, grad):
        dgate, dup = swiglu_back(down_back(dy, grad.w_down, grad.b_down))
        dh = gate_back(dgate, grad.w_gate, grad.b_gate)
        dh += up_back(dup, grad.w_up, grad.b_up)
        return norm_back(dh, grad.mlp_norm)

    return y, back


def _gelu_mlp(x, layer, config):  # (N, C) -> (N, C)
    """``down(gelu(up(h)))`` with ``h = layer_norm(x)``."""
    h, norm_back = layer_norm(x, layer.ln2, layer.ln2_b, config.norm_eps)
    up, up_back = linear(h, layer.w_up, layer.b_up)  # (N, C) -> (N, F)
    hidden, gelu_back = GELU[config.activation](up)
    y, down_back = linear(hidden, layer.w_down, layer.b_down)  # (N, F) -> (N, C)

    def back(dy, grad):
        dup = gelu_back(down_back(dy, grad.w_down, grad.b_down))
        return norm_back(up_back(dup, grad.w_up, grad.b_up), grad.ln2, grad.ln2_b)

    return y, back
