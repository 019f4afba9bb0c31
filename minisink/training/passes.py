"""One pass over a batch, forward and back: Llama, and GPT-2 with its relatives MPT and GPT-NeoX.

Read each function as a pair of mirror images. It returns what it computes and `back`, in which each line undoes one of
the forward above it, last first: from the gradient of the output to that of x, writing those of the weights into
`grad`, also a `LayerWeights`. The residual stream makes it simple: ``x = x + f(x)`` becomes ``dx = dx + back(dx)``.
"""

from functools import reduce

import numpy as np

from .. import llama
from ..attention import additive, causal_mask
from ..positions import bias_of
from .attention import attention
from .backward import embedding_backward, gelu, gelu_erf, layer_norm, linear, rms_norm, swiglu

# Each half of a layer begins with a norm, followed by one or more matrices that read its output
LLAMA = {"attention": ("attn_norm", ["wq", "wk", "wv"]), "mlp": ("mlp_norm", ["w_gate", "w_up"])}
GPT2 = {"attention": ("ln1", ["w_qkv"]), "mlp": ("ln2", ["w_up"])}
GELU = {"gelu_new": gelu, "gelu": gelu_erf}  # as in `ops.ACTIVATIONS`


def forward(ids, weights, config):  # (B, T) -> (B * T, V)
    """Return the logits of the next token after every token of every sample, what is inside each layer, and `back`.

    Inside a layer are its ``"pattern"`` (B, H, T, T) and the values ``"v"`` (B, K, T, D). ``back(dlogits, grad)`` turns
    the gradient from `backward.cross_entropy` into that of every weight, in `grad`, which is also a `Weights`. It takes
    the layers out of their list as it uses them, to free memory. If positions are learned, T is at most
    ``config.max_positions``.
    """
    if config.model_type in ("qwen3", "falcon"):
        raise ValueError(f"a {config.model_type} can be run here, but not trained")
    (B, T), places = ids.shape, np.arange(ids.shape[1])
    x = weights.embed[ids]  # (B, T) -> (B, T, C)
    x = (x + weights.position[:T] if config.learned_positions else x).reshape(B * T, -1)  # -> (N, C)
    bias, slopes = additive(causal_mask(T, T, like=x), x.dtype), bias_of(config.encoding, places, places, like=x)
    bias = bias if slopes is None else bias + slopes  # (T, T), or with ALiBi (H, T, T)
    layers = []
    for layer in weights.layers:
        x, inside = _layer(x, layer, config, B, bias)
        layers.append(inside)
    h, norm_back = _norm(x, weights, "norm", config)
    logits, head_back = linear(h, weights.head)  # (N, C) -> (N, V)

    def back(dlogits, grad):  # (N, V)
        dx = norm_back(head_back(dlogits, grad.head), grad)  # tied: into the embedding's, transposed
        for layer_grad in reversed(grad.layers):
            dx = layers.pop()["back"](dx, layer_grad)
        if config.learned_positions:
            grad.position[...] = 0.0  # places beyond T were not used
            grad.position[:T] = dx.reshape(B, T, -1).sum(axis=0)
        if not config.tied:
            grad.embed[...] = 0.0
        embedding_backward(dx, ids.reshape(-1), grad.embed)

    return logits, layers, back


def _layer(x, layer, config, B, bias):  # (N, C) -> (N, C)
    """Attention, then the MLP; or both side by side, reading the same x (GPT-NeoX)."""
    is_parallel = getattr(config, "parallel", False)
    read, attend_back, inside = _attend(x, layer, config, B, bias)
    attended = x + read
    added, mlp_back = _mlp(x if is_parallel else attended, layer, config)

    def back(dx, grad):
        dattended = dx + mlp_back(dx, grad)
        return dattended + attend_back(dx if is_parallel else dattended, grad)

    return attended + added, inside | {"back": back}


def _attend(x, layer, config, B, bias):  # (N, C) -> (N, C)
    """``wo(attention(rotate(q), rotate(k), v))``; q, k and v from a matrix each (Llama), or all from one."""
    H, K, rotate = config.n_heads, config.n_kv_heads, config.encoding
    parts, read_back = _read(x, layer, "attention", config)  # (N, H * D), 2 x (N, K * D); or one (N, 3 C)
    heads = [part.reshape(B, len(x) // B, -1, config.head_dim) for part in parts]
    q, k, v = heads if len(heads) == 3 else np.split(heads[0], [H, H + K], axis=2)  # (B, T, H, D), 2 x (B, T, K, D)
    places, shape = np.arange(q.shape[1]), q.shape
    q, k = rotate(q, places), rotate(k, places)
    mixed, pattern, attention_back = attention(q, k, v, bias, config.softmax, layer.sink_logits)
    y, wo_back = _linear(mixed.reshape(len(x), -1), layer, "wo")  # (B, T, H, D) -> (N, H * D) -> (N, C)

    def back(dy, grad):
        dq, dk, dv = attention_back(wo_back(dy, grad).reshape(shape), grad.sink_logits)
        dqkv = [rotate(dq, -places), rotate(dk, -places), dv]
        dheads = dqkv if len(heads) == 3 else [np.concatenate(dqkv, axis=2)]
        return read_back([dhead.reshape(len(dy), -1) for dhead in dheads], grad)

    return y, back, {"pattern": pattern, "v": v}


def _mlp(x, layer, config):  # (N, C) -> (N, C)
    """``down(swiglu(gate(h), up(h)))``, or ``down(gelu(up(h)))``, of the normed x; one of width 0 adds nothing."""
    inner, read_back = _read(x, layer, "mlp", config)  # gate and up, or up: (N, F) each
    hidden, hidden_back = swiglu(*inner) if len(inner) == 2 else GELU[config.activation](*inner)
    y, down_back = _linear(hidden, layer, "w_down")  # (N, F) -> (N, C)

    def back(dy, grad):
        dinner = hidden_back(down_back(dy, grad))
        return read_back(dinner if len(inner) == 2 else [dinner], grad)

    return y, back


def _read(x, layer, half, config):  # (N, C) -> list of (N, F)
    """``h w + b`` with ``h = norm(x)``, for each matrix that this half of the layer begins with."""
    norm, matrices = (LLAMA if isinstance(config, llama.Config) else GPT2)[half]
    h, norm_back = _norm(x, layer, norm, config)
    parts, backs = zip(*(_linear(h, layer, name) for name in matrices), strict=True)

    def back(dparts, grad):
        return norm_back(reduce(np.add, [back(dpart, grad) for back, dpart in zip(backs, dparts, strict=True)]), grad)

    return parts, back


def _norm(x, weights, name, config):  # (N, C) -> (N, C)
    """RMSNorm, or LayerNorm with the bias of this name and ``_b``, if there is one."""
    if isinstance(config, llama.Config):
        y, back = rms_norm(x, getattr(weights, name), config.norm_eps)
        return y, lambda dy, grad: back(dy, getattr(grad, name))
    y, back = layer_norm(x, getattr(weights, name), getattr(weights, name + "_b"), config.norm_eps)
    return y, lambda dy, grad: back(dy, getattr(grad, name), getattr(grad, name + "_b"))


def _linear(x, layer, name):  # (N, C) -> (N, F)
    """``x w + b``, where the bias of ``"wq"`` is ``"bq"``."""
    bias = "b" + name[1:]
    y, back = linear(x, getattr(layer, name), getattr(layer, bias))
    return y, lambda dy, grad: back(dy, getattr(grad, name), getattr(grad, bias))
