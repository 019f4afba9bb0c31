"""The functions a transformer is made of: pure, along the last axis, each with its equation.

The subject of the whole package hides in the first one: softmax weights *sum to one*. A query that looks for nothing
must still put its weight somewhere, and it puts it where every query can: on the first tokens, the attention sinks.
"""

import numpy as np


def softmax(x):  # (..., S) -> (..., S)
    """``exp(x_i) / sum_j exp(x_j)``: weights that sum to one.

    A key at ``-inf`` is masked out; where *every* key is, there is nothing to divide by, and all weights are zero.

    >>> softmax(np.array([0.0, 0.0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    >>> softmax(np.array([-np.inf, -np.inf])).tolist()
    [0.0, 0.0]
    """
    largest = x.max(axis=-1, keepdims=True)  # (..., 1): softmax(x) = softmax(x - c), and no exponential overflows
    largest = np.where(largest == -np.inf, 0.0, largest)  # a fully masked row: avoid inf - inf
    weights = x - largest
    np.exp(weights, out=weights)  # in place: the largest array of the whole model is not copied again
    total = weights.sum(axis=-1, keepdims=True)
    weights /= np.where(total == 0.0, 1.0, total)
    return weights


def softmax_with_sink(x, sink_logit):  # (..., S), broadcastable to (..., 1) -> (..., S)
    """``exp(x_i) / (exp(sink) + sum_j exp(x_j))``: one more logit competes, and what it wins is dropped.

    The *sink logit* is one more column, without key or value, taken off after the softmax: weights sum to less than
    one, and a head may attend to nothing. gpt-oss learns one per head.

    >>> softmax(np.array([0.0, 0.0, 0.0]))[:-1].round(4).tolist()
    [0.3333, 0.3333]
    >>> softmax_with_sink(np.array([0.0, 0.0]), 0.0).round(4).tolist()
    [0.3333, 0.3333]
    """
    largest = np.maximum(x.max(axis=-1, keepdims=True), sink_logit)  # (..., 1)
    weights = x - largest
    np.exp(weights, out=weights)
    weights /= np.exp(sink_logit - largest) + weights.sum(axis=-1, keepdims=True)
    return weights


def softmax1(x):  # (..., S) -> (..., S)
    """``exp(x_i) / (1 + sum_j exp(x_j))``: the "zero sink" of StreamingLLM, section 3.3: one more score of zero.

    >>> softmax1(np.array([0.0, 0.0, 0.0])).tolist()
    [0.25, 0.25, 0.25]
    """
    return softmax_with_sink(x, 0.0)


def relu(x):
    """``max(x, 0)``: weights that need not add up to anything, so nothing is left over to park."""
    return np.maximum(x, 0.0)


def log_softmax(x):  # (..., V) -> (..., V)
    """``x_i - log sum_j exp(x_j)``, in nats, without overflow.

    >>> log_softmax(np.array([0.0, 0.0])).round(4).tolist()
    [-0.6931, -0.6931]
    """
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def linear(x, w, b=None):  # (..., C), (C, F), (F,) -> (..., F)
    """``x w + b``."""
    return x @ w if b is None else x @ w + b


def rms_norm(x, weight, eps=1e-5):  # (..., C), (C,) -> (..., C)
    """``weight * x / sqrt(mean(x^2) + eps)``, the norm of Llama.

    >>> rms_norm(np.array([3.0, 4.0]), np.ones(2), 0.0).round(4).tolist()
    [0.8485, 1.1314]
    """
    return weight * (x / _root_mean_square(x, eps)).astype(x.dtype, copy=False)


def _root_mean_square(x, eps):  # (..., C) -> (..., 1)
    """``sqrt(mean(x^2) + eps)``."""
    return np.sqrt(np.square(x, dtype=accum_dtype(x.dtype)).mean(axis=-1, keepdims=True) + eps)


def accum_dtype(dtype):
    """Return the dtype to add up in: float32 at least, for float16 ends before 256 squared."""
    return np.result_type(dtype, np.float32)


def layer_norm(x, weight, bias, eps=1e-5):  # (..., C), (C,), (C,) -> (..., C)
    """``weight * (x - mean(x)) / sqrt(var(x) + eps) + bias``, the norm of GPT-2.

    >>> layer_norm(np.array([1.0, 3.0]), np.ones(2), np.zeros(2), 0.0).tolist()
    [-1.0, 1.0]
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    return weight * (centred / _root_mean_square(centred, eps)).astype(x.dtype, copy=False) + bias


def silu(x):
    """``x sigmoid(x) = x / 2 (1 + tanh(x / 2))``; tanh saturates where ``exp(-x)`` would overflow.

    >>> silu(np.array([-1000.0, 0.0, 1.0])).round(4).tolist()
    [-0.0, 0.0, 0.7311]
    """
    half = 0.5 * x
    return half * (1.0 + np.tanh(half))


def gelu(x):
    """``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``, as GPT-2 computes it (``gelu_new``).

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1588, 0.0, 0.8412]
    """
    return 0.5 * x * (1.0 + np.tanh(0.7978845608028654 * (x + 0.044715 * (x * x * x))))
