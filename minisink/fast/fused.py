"""The weights of a model, arranged for one token at a time.

Decoding reads every weight once per token and does little else, so what counts is how fast they come from memory:

- matrices that multiply the same vector are joined: one product for queries, keys and values, one for gate and up;
- they are stored as (in, out), so that ``x @ w`` adds up consecutive rows. OpenBLAS reads those
  from memory up to 1.8 times as fast as ``w.T @ x``.

`load` lays out a model's weights like this (`hf.layout`), and here its arrays are used as they are.

A model that fits into a processor's caches (`FITS`) is different: no product waits for memory, and each
step costs a fixed overhead. Such a model gets a second copy, *folded*: everything that can be computed beforehand goes
into the matrices, which leaves fewer steps.

- The weight of the preceding norm, the 1 / sqrt(D) of attention, the half inside silu.
- Channels of queries and keys that rotate together move side by side: a pair is one complex number and a rotation one
  product. Scores are sums over channels, in any order.
- Layer norms subtract the mean from the residual stream before every use of it. Here nothing with a mean is ever added
  to the stream, and the layer norm becomes the norm of Llama.

If the weights are not folded, each of these is one more step of the decoder.
"""

from dataclasses import dataclass

import numpy as np

from ..ops import accum_dtype
from ..positions import Rotary, interleaved_to_split_half, split_half_to_interleaved
from ..system.device import place

FITS = 2**26  # bytes of weights that are folded: roughly a processor's caches


@dataclass
class FusedLayer:
    """The weights of one layer, joined if they multiply the same vector; None for what the model lacks.

    Biases and sinks are in `ops.accum_dtype`. In float16 missing biases are zeros: adding one makes a product float32.
    """

    attn_norm: np.ndarray | None  # (C,); None if it is in w_qkv
    w_qkv: np.ndarray  # (C, (H + 2 K) D): queries (folded: divided by sqrt(D)), keys, values
    b_qkv: np.ndarray | None
    qk_norm: np.ndarray | None  # (H + K, D): of queries (folded: divided by sqrt(D)) and keys
    sink: np.ndarray | None  # (H, 1): one more term of the softmax, 0 for softmax1
    wo: np.ndarray  # (H D, C)
    bo: np.ndarray | None  # None if it is in b_down
    mlp_norm: np.ndarray | None  # (C,); None if it is in w_up
    w_up: np.ndarray  # (C, 2 F): the gate (folded: half of it), and up; (C, F) without a gate
    b_up: np.ndarray | None
    w_down: np.ndarray  # (F, C)
    b_down: np.ndarray | None  # and bo, if attention and MLP are added together


@dataclass
class Fused:
    """The weights of a model."""

    layers: list[FusedLayer]
    norm: np.ndarray | None  # (C,); None if it is in the head
    head: np.ndarray  # (C, V)
    b_head: np.ndarray | None
    folded: bool
    has_mean: bool  # whether norms subtract the mean: layer norms
    has_gate: bool
    parallel: bool  # whether the MLP reads what attention does
    one_norm: bool  # and the very same numbers: no second norm, or one that differs only by folded weights

    @property
    def matrices(self):
        """Every large array, in the order in which a token uses them."""
        layers = [w for layer in self.layers for w in (layer.w_qkv, layer.wo, layer.w_up, layer.w_down)]
        return [*layers, self.head]


def fuse(weights, config, *, folded=None):
    """Arrange the weights of a model for decoding, on the device where they are: `Fused`.

    `folded` says whether to make a copy in which everything possible is computed beforehand; otherwise only matrices
    that are not in the layout of `hf.layout` are copied. By default a model of up to `FITS` bytes is folded, except
    float16: it has no numbers between 0 and 6e-8, and few below 6e-5.

    Raise ValueError for a model with relu instead of softmax, from the classroom task.
    """
    if config.softmax == "relu":
        raise ValueError("relu scores are not divided by a sum, so there is no fast path: use readable=True")
    if folded is None:
        folded = weights.head.dtype == accum_dtype(weights.head.dtype) and n_bytes(weights) <= FITS
    first = weights.layers[0]
    has_mean, has_gate, parallel = hasattr(first, "ln1"), hasattr(first, "w_gate"), getattr(config, "parallel", False)
    one_norm = parallel and (folded or first.ln2 is None)
    layers = [_fuse_layer(layer, config, folded, has_mean, parallel) for layer in weights.layers]
    bias = getattr(weights, "norm_b", None)
    norm, head, b_head = after_norm([(weights.head, None, 1)], weights.norm, bias, folded=folded)
    return Fused(layers, norm, head, b_head, folded, has_mean, has_gate, parallel, one_norm)


def n_bytes(weights):
    """Bytes of the matrices that a token uses, and of the little there is besides."""
    arrays = [array for layer in weights.layers for array in vars(layer).values()]
    return sum(array.nbytes for array in (*arrays, weights.head) if array is not None)


def side_by_side(x, encoding):  # (..., D) -> (..., D)
    """Move channels that rotate together next to each other; the others stay.

    >>> side_by_side(np.array([0, 2, 4, 1, 3, 5, 6]), Rotary(np.ones(3))).tolist()
    [0, 1, 2, 3, 4, 5, 6]
    """
    return _rotating(split_half_to_interleaved, x, encoding)


def halves_apart(x, encoding):  # (..., D) -> (..., D)
    """Undo `side_by_side`."""
    return _rotating(interleaved_to_split_half, x, encoding)


def _rotating(move, x, encoding):
    if not isinstance(encoding, Rotary) or encoding.interleaved:
        return x
    R = 2 * len(encoding.frequencies)
    return np.concatenate((move(x[..., :R]), x[..., R:]), axis=-1)


def after_norm(parts, weight, bias=None, *, folded):  # [(w, b, scale), ...] -> (C,) or None, (C, F), (F,) or None
    """Join matrices that multiply the same normed vector; folded, they absorb the norm's weight.

    ``(n * weight + bias) @ w + b == n @ (weight[:, None] * w) + (bias @ w + b)``. Return the weight of the norm, if it
    stays outside, the matrices, and their biases, if any.
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
    """Join matrices row by row: a view if `hf.layout` laid them out like this, or else a copy."""
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


def _fuse_layer(layer, config, folded, has_mean, parallel):
    """Fuse a layer; folded, channels of queries and keys are in pairs, and inputs of layer norms have no mean."""
    qkv, up, attn_norm, mlp_norm = (_parts_gpt2 if has_mean else _parts_llama)(layer, config)
    scale, qk_norm, D = config.head_dim**-0.5 if folded else 1, None, config.head_dim
    if getattr(layer, "q_norm", None) is not None:
        rows = [np.broadcast_to(layer.q_norm * scale, (config.n_heads, D))]
        qk_norm = np.concatenate((*rows, np.broadcast_to(layer.k_norm, (config.n_kv_heads, D))))
        qk_norm, scale = _in_accum_dtype(side_by_side(qk_norm, config.encoding) if folded else qk_norm), 1

    def paired(w):  # (..., heads D) -> the same, each head's pairs side by side
        by_head = None if w is None else w.reshape(*w.shape[:-1], -1, D)
        return side_by_side(by_head, config.encoding).reshape(w.shape) if folded and w is not None else w

    (q, bq), (k, bk), (v, bv) = qkv
    qkv = [(paired(q), paired(bq), scale), (paired(k), paired(bk), 1), (v, bv, 1)]
    up = [*((w, b, 0.5 if folded else 1) for w, b in up[:-1]), (*up[-1], 1)]  # half of a gate
    attn_norm, w_qkv, b_qkv = after_norm(qkv, *attn_norm, folded=folded)
    mlp_norm, w_up, b_up = after_norm(up, *mlp_norm, folded=folded)
    out = (layer.wo, layer.bo, layer.w_down, layer.b_down)
    wo, bo, w_down, b_down = map(centred, out) if folded and has_mean else out
    wo, bo, w_down, b_down = _in_rows(wo), _in_accum_dtype(bo), _in_rows(w_down), _in_accum_dtype(b_down)
    if parallel and bo is not None:
        bo, b_down = None, bo if b_down is None else bo + b_down
    sink = _sink(layer, config)
    return FusedLayer(attn_norm, w_qkv, b_qkv, qk_norm, sink, wo, bo, mlp_norm, w_up, b_up, w_down, b_down)


def _parts_llama(layer, config):
    """Return what multiplies the vector before attention and before the MLP, [(w, b), ...], and (norm, b) of each."""
    qkv = [(layer.wq, layer.bq), (layer.wk, layer.bk), (layer.wv, layer.bv)]
    up = [(layer.w_gate, layer.b_gate), (layer.w_up, layer.b_up)]
    return qkv, up, (layer.attn_norm, None), (layer.mlp_norm, None)


def _parts_gpt2(layer, config):
    """Do the same with GPT-2's names, which `families` use too."""
    H, K, D = config.n_heads, config.n_kv_heads, config.head_dim
    cuts = [H * D, (H + K) * D]
    biases = [None] * 3 if layer.b_qkv is None else np.split(layer.b_qkv, cuts)
    qkv = [*zip(np.split(layer.w_qkv, cuts, axis=1), biases, strict=True)]
    first = layer.ln1, layer.ln1_b
    return qkv, [(layer.w_up, layer.b_up)], first, first if layer.ln2 is None else (layer.ln2, layer.ln2_b)


def centred(x):  # (..., C) -> (..., C)
    """Subtract the mean along the last axis."""
    return None if x is None else x - x.mean(axis=-1, keepdims=True)


def _sink(layer, config):
    """Return the sink logit of each head, (H, 1): 0 for softmax1, None for softmax."""
    if layer.sink_logits is not None:
        return _in_accum_dtype(layer.sink_logits)[:, None]
    if config.softmax == "softmax1":
        return np.zeros_like(layer.wo, shape=(config.n_heads, 1), dtype=accum_dtype(layer.wo.dtype))
    return None


def _in_accum_dtype(x):
    return None if x is None else x.astype(accum_dtype(x.dtype), copy=False)


def _in_rows(w):
    return np.ascontiguousarray(w, like=w)
