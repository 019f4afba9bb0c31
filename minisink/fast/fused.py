"""The weights of a model, arranged for one token at a time.

Decoding reads every weight once a token and does little else, so what counts is how fast they come from memory:

- matrices that meet the same vector are joined: one product for queries, keys and values, one for gate and up;
- they are stored as (in, out), so that ``x @ w`` adds up rows that lie one after the other. OpenBLAS reads those
  from memory up to 1.8 times as fast as it does ``w.T @ x``;
- whatever can be worked out beforehand goes into them: the weight of the norm before, the 1 / sqrt(D) of attention,
  the half inside silu. That leaves fewer, not smaller, steps: at this size a step costs its start;
- channels j and j + D/2 of queries and keys, which rotate together, move side by side: a pair is one complex number
  and a rotation one product. Scores are sums over channels, in whichever order;
- GPT-2 takes the mean off the residual stream before every use of it. Here nothing with a mean is ever added to the
  stream, and the layer norm becomes the norm of Llama.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class FusedLayer:
    """The weights of one layer, joined where they meet the same vector; what the model does not have is None.

    Biases and sinks are `wide`. A float16 model has every bias there is: adding one widens a product, if only by zeros.
    """

    attn_norm: np.ndarray | None  # (C,); None if it is in w_qkv
    w_qkv: np.ndarray  # (C, (H + 2 K) D): queries divided by sqrt(D), keys, values
    b_qkv: np.ndarray | None
    sink: np.ndarray | None  # (H, 1): one more term of the softmax, 0 for softmax1
    wo: np.ndarray  # (H D, C)
    bo: np.ndarray | None
    mlp_norm: np.ndarray | None  # (C,); None if it is in w_up
    w_up: np.ndarray  # (C, 2 F): half the gate, and up; (C, F) in GPT-2
    b_up: np.ndarray | None
    w_down: np.ndarray  # (F, C)
    b_down: np.ndarray | None


@dataclass
class Fused:
    """The weights of a model."""

    layers: list[FusedLayer]
    norm: np.ndarray | None  # (C,); None if it is in the head
    head: np.ndarray  # (C, V)
    b_head: np.ndarray | None

    @property
    def matrices(self):
        """Every large array, in the order in which a token meets them."""
        layers = [w for layer in self.layers for w in (layer.w_qkv, layer.wo, layer.w_up, layer.w_down)]
        return [*layers, self.head]


def fuse(weights, config):
    """Arrange the weights of a model for decoding; the large ones are copied, on the device where they are.

    Parameters
    ----------
    weights : llama.Weights or gpt2.Weights
    config : llama.Config or gpt2.Config

    Returns
    -------
    Fused

    Raises
    ------
    ValueError
        For a model with relu in place of softmax, which the classroom task trains.
    """
    if config.softmax == "relu":
        raise ValueError("scores through relu have no sum to divide by, so there is no fast path: use readable=True")
    is_gpt2 = config.model_type == "gpt2"
    layers = [(_fuse_gpt2 if is_gpt2 else _fuse_llama)(layer, config) for layer in weights.layers]
    norm, head, b_head = after_norm([(weights.head, None, 1)], weights.norm, weights.norm_b if is_gpt2 else None)
    return Fused(layers, norm, head, b_head)


def wide(dtype):
    """The dtype of sums and of whatever is not a product with a weight: float32 at least."""
    return np.result_type(dtype, np.float32)


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


def after_norm(parts, weight, bias=None):
    """Matrices that meet the same normed vector, side by side; they take in the norm's own weight and bias.

    ``(n * weight + bias) @ w + b == n @ (weight[:, None] * w) + (bias @ w + b)``; `parts` are (w, b, scale). In
    float16 the weight stays outside: it has no numbers between 0 and 6e-8, and few below 6e-5.

    Returns
    -------
    (ndarray of shape (C,) or None, ndarray of shape (C, F), ndarray of shape (F,) or None)
        The weight of the norm, if it stays outside; the matrices; their biases, if there are any.
    """
    inside = weight.dtype == wide(weight.dtype)
    matrices, biases = [], []
    for w, b, scale in parts:
        matrices.append(weight[:, None] * w * scale if inside else w * scale)
        if bias is not None:
            shift = _widened(bias) @ _widened(w)
            b = shift if b is None else shift + b
        if b is None and not inside:
            b = np.zeros_like(w, shape=w.shape[1])
        if b is not None:
            biases.append(_widened(b) * scale)
    joined = _in_rows(np.concatenate(matrices, axis=1))
    return None if inside else weight, joined, np.concatenate(biases) if biases else None


def _fuse_llama(layer, config):
    """A layer of Llama, the channels of queries and keys in pairs."""
    D, scale = config.head_dim, 1.0 / math.sqrt(config.head_dim)

    def paired(w):  # (..., heads D) -> the same, each head's pairs side by side
        return None if w is None else side_by_side(w.reshape(*w.shape[:-1], -1, D)).reshape(w.shape)

    q, k = (paired(layer.wq), paired(layer.bq), scale), (paired(layer.wk), paired(layer.bk), 1)
    v, gate, up = (layer.wv, layer.bv, 1), (layer.w_gate, layer.b_gate, 0.5), (layer.w_up, layer.b_up, 1)
    attn_norm, w_qkv, b_qkv = after_norm([q, k, v], layer.attn_norm)
    mlp_norm, w_up, b_up = after_norm([gate, up], layer.mlp_norm)
    wo, bo, w_down, b_down = _in_rows(layer.wo), _widened(layer.bo), _in_rows(layer.w_down), _widened(layer.b_down)
    sink = _sink(layer, config)
    return FusedLayer(attn_norm, w_qkv, b_qkv, sink, wo, bo, mlp_norm, w_up, b_up, w_down, b_down)


def _fuse_gpt2(layer, config):
    """A layer of GPT-2, whose output has no mean."""
    scales = (1.0 / math.sqrt(config.head_dim), 1, 1)
    qkv = zip(np.split(layer.w_qkv, 3, axis=1), np.split(layer.b_qkv, 3), scales, strict=True)
    attn_norm, w_qkv, b_qkv = after_norm(qkv, layer.ln1, layer.ln1_b)
    mlp_norm, w_up, b_up = after_norm([(layer.w_up, layer.b_up, 1)], layer.ln2, layer.ln2_b)
    wo, w_down = _in_rows(centred(layer.wo)), _in_rows(centred(layer.w_down))
    bo, b_down = _widened(centred(layer.bo)), _widened(centred(layer.b_down))
    sink = _sink(layer, config)
    return FusedLayer(attn_norm, w_qkv, b_qkv, sink, wo, bo, mlp_norm, w_up, b_up, w_down, b_down)


def centred(x):
    """Take the mean along the last axis off: ``(..., C) -> (..., C)``."""
    return x - x.mean(axis=-1, keepdims=True)


def _sink(layer, config):
    """The sink logit of each head, (H, 1); the one of softmax1 is 0."""
    if layer.sink_logits is not None:
        return _widened(layer.sink_logits)[:, None]
    if config.softmax == "softmax1":
        return np.zeros_like(layer.wo, shape=(config.n_heads, 1), dtype=wide(layer.wo.dtype))
    return None


def _widened(x):
    return None if x is None else x.astype(wide(x.dtype), copy=False)


def _in_rows(w):
    """With its rows one after the other."""
    return np.ascontiguousarray(w, like=w)
