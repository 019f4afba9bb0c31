"""The weights of a model, arranged for one token at a time.

Decoding reads every weight once a token and does little else, so what counts is how fast they come from memory:

- matrices that meet the same vector are joined: one product for queries, keys and values, one for gate and up;
- they are stored as (in, out), so that ``x @ w`` adds up rows that lie one after the other. OpenBLAS reads those
  from memory up to 1.8 times as fast as it does ``w.T @ x``.

`load` lays the weights of a model out like that (`hf.layout`), and here its arrays are taken as they lie.

A model that fits into the caches of a processor (`FITS`) is another matter: there no product waits for memory, and a
step costs its start. Such a model gets a second copy, *folded*: whatever can be worked out beforehand goes into the
matrices, which leaves fewer steps.

- The weight of the norm before, the 1 / sqrt(D) of attention, the half inside silu.
- Channels j and j + D/2 of queries and keys, which rotate together, move side by side: a pair is one complex number
  and a rotation one product. Scores are sums over channels, in whichever order.
- GPT-2 takes the mean off the residual stream before every use of it. Here nothing with a mean is ever added to the
  stream, and the layer norm becomes the norm of Llama.

Each of these is one more step of the decoder where the weights are not folded.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..ops import accum_dtype
from ..system.device import place

FITS = 2**26  # bytes of weights that are folded: what the caches of a processor hold, more or less


@dataclass
class FusedLayer:
    """The weights of one layer, joined where they meet the same vector; what the model does not have is None.

    Biases and sinks are in `ops.accum_dtype`. In float16 missing biases are zeros: adding one makes a product float32.
    """

    attn_norm: np.ndarray | None  # (C,); None if it is in w_qkv
    w_qkv: np.ndarray  # (C, (H + 2 K) D): queries (folded: divided by sqrt(D)), keys, values
    b_qkv: np.ndarray | None
    sink: np.ndarray | None  # (H, 1): one more term of the softmax, 0 for softmax1
    wo: np.ndarray  # (H D, C)
    bo: np.ndarray | None
    mlp_norm: np.ndarray | None  # (C,); None if it is in w_up
    w_up: np.ndarray  # (C, 2 F): the gate (folded: half of it), and up; (C, F) in GPT-2
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
    folded: bool

    @property
    def matrices(self):
        """Every large array, in the order in which a token meets them."""
        layers = [w for layer in self.layers for w in (layer.w_qkv, layer.wo, layer.w_up, layer.w_down)]
        return [*layers, self.head]


def fuse(weights, config, *, folded=None):
    """Arrange the weights of a model for decoding, on the device where they are: `Fused`.

    `folded` says whether to make a copy with all in it that can be worked out beforehand; otherwise only matrices that
    do not lie as `hf.layout` lays them are copied. By default a model of up to `FITS` bytes is folded, but for float16:
    it has no numbers between 0 and 6e-8, and few below 6e-5.

    Raise ValueError for a model with relu in place of softmax, which the classroom task trains.
    """
    if config.softmax == "relu":
        raise ValueError("scores through relu have no sum to divide by, so there is no fast path: use readable=True")
    is_gpt2 = config.model_type == "gpt2"
    if folded is None:
        folded = weights.head.dtype == accum_dtype(weights.head.dtype) and n_bytes(weights) <= FITS
    layers = [(_fuse_gpt2 if is_gpt2 else _fuse_llama)(layer, config, folded) for layer in weights.layers]
    head = [(weights.head, None, 1)]
    norm, head, b_head = after_norm(head, weights.norm, weights.norm_b if is_gpt2 else None, folded=folded)
    return Fused(layers, norm, head, b_head, folded)


def n_bytes(weights):
    """Bytes of the matrices that a token meets, and of what little there is besides."""
    arrays = [array for layer in weights.layers for array in vars(layer).values()]
    return sum(array.nbytes for array in (*arrays, weights.head) if array is not None)


def side_by_side(x):  # (..., D) -> (..., D)
    """Move channel j and its partner j + D/2 next to each other.

    >>> side_by_side(np.array([0, 2, 4, 1, 3, 5])).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    D = x.shape[-1]
    return x.reshape(*x.shape[:-1], 2, D // 2).swapaxes(-1, -2).reshape(x.shape)


def after_norm(parts, weight, bias=None, *, folded):  # [(w, b, scale), ...] -> (C,) or None, (C, F), (F,) or None
    """Join matrices that meet the same normed vector; folded, they take in the norm's own weight.

    ``(n * weight + bias) @ w + b == n @ (weight[:, None] * w) + (bias @ w + b)``. Returned are the weight of the norm,
    if it stays outside, the matrices, and their biases, if there are any.
    """
    is_narrow = weight.dtype != accum_dtype(weight.dtype)
    matrices, biases = [], []
    for w, b, scale in parts:
        matrices.append(weight[:, None] * w * scale if folded else w)
        if bias is not None:
            shift = _in_accum_dtype(bias) @ _in_accum_dtype(w)
            b = shift if b is None else shift + b
        if b is None and is_narrow:
            b = np.zeros_like(w, shape=w.shape[1])
        if b is not None:
            biases.append(_in_accum_dtype(b) * scale)
    return None if folded else weight, _join_matrices(matrices), np.concatenate(biases) if biases else None


def _join_matrices(matrices):
    """Join matrices row by row: where `hf.layout` laid them so it is that part of its vector, or else a copy."""
    C, widths, vector = len(matrices[0]), [w.shape[1] for w in matrices], matrices[0].base
    if isinstance(vector, type(matrices[0])) and vector.ndim == 1:
        start = (place(matrices[0])[0] - place(vector)[0]) // vector.itemsize
        part = vector[start : start + C * sum(widths)]
        if len(part) == C * sum(widths):
            joined = part.reshape(C, sum(widths))
            columns = np.split(joined, np.cumsum(widths)[:-1].tolist(), axis=1)
            if all(place(w) == place(column) for w, column in zip(matrices, columns, strict=True)):
                return joined
    return _in_rows(np.concatenate(matrices, axis=1))


def _fuse_llama(layer, config, folded):
    """Fuse a layer of Llama; folded, the channels of queries and keys are in pairs."""
    D = config.head_dim
    scale, half = (1.0 / math.sqrt(D), 0.5) if folded else (1, 1)

    def paired(w):  # (..., heads D) -> the same, each head's pairs side by side
        return side_by_side(w.reshape(*w.shape[:-1], -1, D)).reshape(w.shape) if folded and w is not None else w

    q, k = (paired(layer.wq), paired(layer.bq), scale), (paired(layer.wk), paired(layer.bk), 1)
    v, gate, up = (layer.wv, layer.bv, 1), (layer.w_gate, layer.b_gate, half), (layer.w_up, layer.b_up, 1)
    attn_norm, w_qkv, b_qkv = after_norm([q, k, v], layer.attn_norm, folded=folded)
    mlp_norm, w_up, b_up = after_norm([gate, up], layer.mlp_norm, folded=folded)
    wo, bo = _in_rows(layer.wo), _in_accum_dtype(layer.bo)
    w_down, b_down = _in_rows(layer.w_down), _in_accum_dtype(layer.b_down)
    sink = _sink(layer, config)
    return FusedLayer(attn_norm, w_qkv, b_qkv, sink, wo, bo, mlp_norm, w_up, b_up, w_down, b_down)


def _fuse_gpt2(layer, config, folded):
    """Fuse a layer of GPT-2; folded, what it adds to the stream has no mean."""
    scales = (1.0 / math.sqrt(config.head_dim) if folded else 1, 1, 1)
    qkv = zip(np.split(layer.w_qkv, 3, axis=1), np.split(layer.b_qkv, 3), scales, strict=True)
    attn_norm, w_qkv, b_qkv = after_norm(qkv, layer.ln1, layer.ln1_b, folded=folded)
    mlp_norm, w_up, b_up = after_norm([(layer.w_up, layer.b_up, 1)], layer.ln2, layer.ln2_b, folded=folded)
    out = (layer.wo, layer.bo, layer.w_down, layer.b_down)
    wo, bo, w_down, b_down = map(centred, out) if folded else out
    wo, bo, w_down, b_down = _in_rows(wo), _in_accum_dtype(bo), _in_rows(w_down), _in_accum_dtype(b_down)
    sink = _sink(layer, config)
    return FusedLayer(attn_norm, w_qkv, b_qkv, sink, wo, bo, mlp_norm, w_up, b_up, w_down, b_down)


def centred(x):  # (..., C) -> (..., C)
    """Take the mean along the last axis off."""
    return x - x.mean(axis=-1, keepdims=True)


def _sink(layer, config):
    """Return the sink logit of each head, (H, 1); softmax1's is 0; softmax has none."""
    if layer.sink_logits is not None:
        return _in_accum_dtype(layer.sink_logits)[:, None]
    if config.softmax == "softmax1":
        return np.zeros_like(layer.wo, shape=(config.n_heads, 1), dtype=accum_dtype(layer.wo.dtype))
    return None


def _in_accum_dtype(x):
    return None if x is None else x.astype(accum_dtype(x.dtype), copy=False)


def _in_rows(w):
    return np.ascontiguousarray(w, like=w)
