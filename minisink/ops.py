"""The functions a transformer is made of: pure, along the last axis, each with its equation.

The subject of the whole package hides in the first one: softmax weights *sum to one*. A query that looks for nothing
must still put its weight somewhere, and it puts it where every query can: on the first tokens, the attention sinks.
"""

import math

import numpy as np

from .system.device import to_host


def softmax(x):  # (..., S) -> (..., S)
    """``exp(x_i) / sum_j exp(x_j)``: weights that sum to one.

    A key at ``-inf`` is masked out; if *every* key is, there is nothing to divide by, and all weights are zero.

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
    """``exp(x_i) / (exp(sink) + sum_j exp(x_j))``: one more logit competes, and its weight is dropped.

    The *sink logit* is an extra column without a key or value, dropped after the softmax, so the weights sum to less
    than one and a head can attend to nothing. gpt-oss learns one per head.

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
    """``exp(x_i) / (1 + sum_j exp(x_j))``: the "zero sink" of StreamingLLM (section 3.3), an extra score of zero.

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
    """Return the dtype for sums: at least float32, because float16 overflows at 256 squared."""
    return np.result_type(dtype, np.float32)


def layer_norm(x, weight, bias, eps=1e-5):  # (..., C), (C,), (C,) -> (..., C)
    """``weight * (x - mean(x)) / sqrt(var(x) + eps) + bias``, the norm of GPT-2; MPT has no bias, and passes None.

    >>> layer_norm(np.array([1.0, 3.0]), np.ones(2), np.zeros(2), 0.0).tolist()
    [-1.0, 1.0]
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    normed = weight * (centred / _root_mean_square(centred, eps)).astype(x.dtype, copy=False)
    return normed if bias is None else normed + bias


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


def gelu_erf(x):
    """``0.5 x (1 + erf(x / sqrt(2)))``: what `gelu` approximates, and the activation of GPT-NeoX, MPT and Falcon.

    >>> gelu_erf(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1587, 0.0, 0.8413]
    """
    out = erf_of_root_half(x)
    out += 1.0  # in place: this is the largest array of a block of tokens
    out *= x
    out *= 0.5
    return out


ERF = [0.797886071, 0.0363243296, -2.26612382e-05, -5.94125859e-05, 4.75350227e-06]  # P below, the constant first
ERF += [-2.08271087e-07, 5.34910272e-09, -7.04184791e-11, 2.06889304e-13, 3.23730457e-15]


def erf_of_root_half(x):
    """``erf(x / sqrt(2)) = tanh(x P(x^2))``: twice the normal distribution function, minus one.

    P is atanh(erf(x / sqrt(2))) / x at the Chebyshev nodes of 0 <= x^2 <= 27; GPT-2's `gelu` has roughly its first two
    terms. It is off by less than 1e-6 in float32; in float64 Python's own erf is called, one number at a time.

    >>> bool(abs(erf_of_root_half(np.float32([0.5, 1.0, 9.0])) - [0.3829249, 0.6826895, 1.0]).max() < 1e-6)
    True
    """
    if x.dtype == np.float64:
        return np.asarray(np.frompyfunc(math.erf, 1, 1)(to_host(x) * math.sqrt(0.5)).astype(np.float64), like=x)
    square = x * x
    square = np.minimum(square, 27.0, out=square)
    total = square * ERF[-1]
    for term in ERF[-2:0:-1]:  # Horner, in place
        total += term
        total *= square
    total += ERF[0]
    total *= x
    return np.tanh(total)


ACTIVATIONS = {"gelu": gelu_erf, "gelu_new": gelu}  # by their names in a config.json
