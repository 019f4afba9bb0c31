"""The weights of a model, arranged for one token at a time.

Decoding reads every weight once a token and does little else, so what counts is how fast they come from memory:

- matrices that meet the same vector are joined: one product for queries, keys and values, one for gate and up;
- they are stored as (in, out), so that ``x @ w`` adds up rows that lie one after the other. OpenBLAS reads those
  from memory up to twice as fast as it does ``w.T @ x``;
- whatever can be worked out beforehand goes into them: the weight of the norm before, the 1 / sqrt(D) of attention,
  the half inside silu. That leaves fewer, not smaller, steps: at this size a step costs its start;
- channels j and j + D/2 of queries and keys, which rotate together, move side by side: a pair is one complex number
  and a rotation one product. Scores are sums over channels, in whichever order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .attention import normaliser
from .ring import softmax_unmasked


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


@dataclass
class Fused:
    """The weights of one layer, joined where they meet the same vector; a bias the model does not have is None."""

    w_qkv: np.ndarray  # (C, (H + 2 K) D): queries divided by sqrt(D), keys, values
    b_qkv: np.ndarray | None
    wo: np.ndarray  # (H D, C)
    bo: np.ndarray | None
    w_up: np.ndarray  # (C, 2 F): half the gate, and up; (C, F) in GPT-2
    b_up: np.ndarray | None
    w_down: np.ndarray  # (F, C)
    b_down: np.ndarray | None
    normalise: Callable  # scores to pattern


def fuse_llama(layer, config):
    """A `Fused` layer of Llama, the channels of queries and keys in pairs."""
    D, scale = config.head_dim, 1.0 / math.sqrt(config.head_dim)

    def paired(w):  # (..., heads D) -> the same, each head's pairs side by side
        return None if w is None else side_by_side(w.reshape(*w.shape[:-1], -1, D)).reshape(w.shape)

    w_qkv, b_qkv = after_norm(
        [(paired(layer.wq), paired(layer.bq), scale), (paired(layer.wk), paired(layer.bk), 1), (layer.wv, layer.bv, 1)],
        layer.attn_norm,
    )
    w_up, b_up = after_norm([(layer.w_gate, layer.b_gate, 0.5), (layer.w_up, layer.b_up, 1)], layer.mlp_norm)
    wo, w_down = np.ascontiguousarray(layer.wo), np.ascontiguousarray(layer.w_down)
    return Fused(w_qkv, b_qkv, wo, layer.bo, w_up, b_up, w_down, layer.b_down, _normaliser(config, layer))


def fuse_gpt2(layer, config):
    """A `Fused` layer of GPT-2."""
    scales = (1.0 / math.sqrt(config.head_dim), 1, 1)
    parts = zip(np.split(layer.w_qkv, 3, axis=1), np.split(layer.b_qkv, 3), scales, strict=True)
    w_qkv, b_qkv = after_norm(parts, layer.ln1, layer.ln1_b)
    w_up, b_up = after_norm([(layer.w_up, layer.b_up, 1)], layer.ln2, layer.ln2_b)
    wo, w_down = np.ascontiguousarray(layer.wo), np.ascontiguousarray(layer.w_down)
    return Fused(w_qkv, b_qkv, wo, layer.bo, w_up, b_up, w_down, layer.b_down, _normaliser(config, layer))


def after_norm(parts, weight, bias=None):
    """Matrices that meet the same normed vector, side by side; they take in the norm's own weight and bias.

    ``(n * weight + bias) @ w + b == n @ (weight[:, None] * w) + (bias @ w + b)``; `parts` are (w, b, scale).
    """
    matrices, biases = [], []
    for w, b, scale in parts:
        matrices.append(weight[:, None] * w * scale)
        if bias is not None:
            b = bias @ w if b is None else bias @ w + b
        if b is not None:
            biases.append(b * scale)
    joined = np.ascontiguousarray(np.concatenate(matrices, axis=1))  # (C, ...)
    return joined, np.concatenate(biases) if biases else None


def _normaliser(config, layer):
    plain = config.softmax == "softmax" and layer.sink_logits is None
    return softmax_unmasked if plain else normaliser(config.softmax, layer.sink_logits)
