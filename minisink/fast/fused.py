"""The weights of a model, arranged for one token at a time.

Decoding reads every weight once per token and does little else, so what counts is how fast they come from memory:

- matrices that multiply the same vector are joined: one product for queries, keys and values, one for gate and up;
- they are stored as (in, out), so that ``x @ w`` adds up consecutive rows. OpenBLAS reads those
  from memory up to 1.8 times as fast as ``w.T @ x``.

`load` lays out a model's weights like this (`hf.layout`); matrices in another layout are copied here.
"""

from dataclasses import dataclass

import numpy as np

from ..ops import accum_dtype
from ..positions import Rotary, interleaved_to_split_half, split_half_to_interleaved
from ..system.device import place


@dataclass
class FusedLayer:
    """The weights of one layer, joined if they multiply the same vector; None for arrays the model lacks.

    Biases and sinks are in `ops.accum_dtype`. In float16 missing biases are zeros: adding one makes a product float32.
    """

    attn_norm: np.ndarray  # (C,)
    w_qkv: np.ndarray  # (C, (H + 2 K) D): queries, keys, values
    b_qkv: np.ndarray | None  # includes the norm's bias: ``(n + b) @ w == n @ w + b @ w``
    qk_norm: np.ndarray | None  # (H + K, D): of queries and keys
    sink: np.ndarray | None  # (H, 1): an extra term in the softmax, 0 for softmax1
    wo: np.ndarray  # (H D, C)
    bo: np.ndarray | None  # None if it is in b_down
    mlp_norm: np.ndarray  # (C,); `attn_norm` itself if the MLP has the same input as attention
    w_up: np.ndarray  # (C, 2 F): the gate, and up; (C, F) without a gate
    b_up: np.ndarray | None
    w_down: np.ndarray  # (F, C)
    b_down: np.ndarray | None  # includes bo if attention and MLP are added together


@dataclass
class Fused:
    """The weights of a model."""

    layers: list[FusedLayer]
    norm: np.ndarray  # (C,)
    head: np.ndarray  # (C, V)
    b_head: np.ndarray | None
    has_mean: bool  # whether norms subtract the mean: layer norms
    has_gate: bool
    parallel: bool  # whether the MLP reads what attention does

    @property
    def matrices(self):
        """Every large array, in the order in which a token uses them."""
        layers = [w for layer in self.layers for w in (layer.w_qkv, layer.wo, layer.w_up, layer.w_down)]
        return [*layers, self.head]


def fuse(weights, config):
    """Arrange the weights of a model for decoding, on their own device, as `Fused`.

    Raise ValueError for a model with relu instead of softmax, from the classroom task.
    """
    if config.softmax == "relu":
        raise ValueError("relu scores are not divided by a sum, so there is no fast path: use readable=True")
    first, parallel = weights.layers[0], getattr(config, "parallel", False)
    has_mean, has_gate = hasattr(first, "ln1"), hasattr(first, "w_gate")
    layers = [_fuse_layer(layer, config, has_mean, parallel) for layer in weights.layers]
    head, b_head = _join([(weights.head, None)], getattr(weights, "norm_b", None))
    return Fused(layers, weights.norm, head, b_head, has_mean, has_gate, parallel)


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


def _join(parts, bias):  # [(w, b), ...], (C,) or None -> (C, F), (F,) or None
    """Join matrices that multiply the same normed vector, and their biases, which absorb the norm's bias."""
    biases = []
    for w, b in parts:
        if bias is not None:
            shift = _in_accum_dtype(bias) @ _in_accum_dtype(w)
            b = shift if b is None else shift + b
        if b is None and w.dtype != accum_dtype(w.dtype):
            b = np.zeros_like(w, shape=w.shape[1])
        if b is not None:
            biases.append(_in_accum_dtype(b))
    return _join_matrices([w for w, _ in parts]), np.concatenate(biases) if biases else None


def _join_matrices(matrices):
    """Join matrices row by row: a view if `hf.layout` laid them out like this, otherwise a copy."""
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


def _fuse_layer(layer, config, has_mean, parallel):
    qkv, up, (attn_norm, attn_bias), (mlp_norm, mlp_bias) = (_parts_gpt2 if has_mean else _parts_llama)(layer, config)
    w_qkv, b_qkv = _join(qkv, attn_bias)
    w_up, b_up = _join(up, mlp_bias)
    qk_norm = None
    if getattr(layer, "q_norm", None) is not None:
        rows = np.repeat(np.stack((layer.q_norm, layer.k_norm)), (config.n_heads, config.n_kv_heads), axis=0)
        qk_norm = _in_accum_dtype(rows)  # (2, D) -> (H + K, D)
    bo, b_down = _in_accum_dtype(layer.bo), _in_accum_dtype(layer.b_down)
    if parallel and bo is not None:
        bo, b_down = None, bo if b_down is None else bo + b_down
    wo, w_down, sink = _in_rows(layer.wo), _in_rows(layer.w_down), _sink(layer, config)
    return FusedLayer(attn_norm, w_qkv, b_qkv, qk_norm, sink, wo, bo, mlp_norm, w_up, b_up, w_down, b_down)


def _parts_llama(layer, config):
    """Return what attention's input and the MLP's input are multiplied by, [(w, b), ...], and (norm, b) for each."""
    qkv = [(layer.wq, layer.bq), (layer.wk, layer.bk), (layer.wv, layer.bv)]
    up = [(layer.w_gate, layer.b_gate), (layer.w_up, layer.b_up)]
    return qkv, up, (layer.attn_norm, None), (layer.mlp_norm, None)


def _parts_gpt2(layer, config):
    """Do the same for GPT-2's names, which `families` use too."""
    H, K, D = config.n_heads, config.n_kv_heads, config.head_dim
    cuts = [H * D, (H + K) * D]
    biases = [None] * 3 if layer.b_qkv is None else np.split(layer.b_qkv, cuts)
    qkv = [*zip(np.split(layer.w_qkv, cuts, axis=1), biases, strict=True)]
    first = layer.ln1, layer.ln1_b
    return qkv, [(layer.w_up, layer.b_up)], first, first if layer.ln2 is None else (layer.ln2, layer.ln2_b)


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
