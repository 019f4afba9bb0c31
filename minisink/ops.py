"""The functions a transformer is made of, each with its equation.

Every function here is pure, takes arrays of any leading shape and works along the last axis.
The subject of the whole package hides in the first one: softmax weights *sum to one*, so a query
that has nothing to look for must still put its weight somewhere.
"""

import numpy as np


def softmax(x):
    """Softmax along the last axis: ``exp(x_i) / sum_j exp(x_j)``.

    Parameters
    ----------
    x : ndarray of shape (..., S)
        Scores; ``-inf`` marks a key that is masked out.

    Returns
    -------
    ndarray of shape (..., S)
        Weights that sum to one. A row in which *every* key is masked has nothing to divide by and is
        defined as all zeros.

    Notes
    -----
    ``softmax(x) == softmax(x - c)`` for any c; with c = max(x) no exponential overflows.

    Examples
    --------
    >>> softmax(np.array([0.0, 0.0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    >>> softmax(np.array([-np.inf, -np.inf])).tolist()
    [0.0, 0.0]
    """
    largest = x.max(axis=-1, keepdims=True)  # (..., S) -> (..., 1)
    largest = np.where(largest == -np.inf, 0.0, largest)  # a fully masked row: avoid inf - inf
    weights = x - largest
    np.exp(weights, out=weights)  # in place: the largest array of the whole model is not copied again
    total = weights.sum(axis=-1, keepdims=True)
    weights /= np.where(total == 0.0, 1.0, total)
    return weights


def softmax_with_sink(x, sink_logit):
    """Softmax with one more term in its denominator: ``exp(x_i) / (exp(sink) + sum_j exp(x_j))``.

    The *sink logit* takes part in the competition but has no key and no value: the weight it wins is
    dropped, so the row sums to less than one and a head may attend to nothing (gpt-oss learns one a head).

    Parameters
    ----------
    x : ndarray of shape (..., S)
        Scores; ``-inf`` marks a masked key.
    sink_logit : float or ndarray broadcastable to (..., 1)
        The logit of the sink.

    Returns
    -------
    ndarray of shape (..., S)
        Weights that sum to at most one.

    Examples
    --------
    >>> softmax_with_sink(np.array([0.0, 0.0]), 0.0).round(4).tolist()
    [0.3333, 0.3333]
    """
    largest = np.maximum(x.max(axis=-1, keepdims=True), sink_logit)  # (..., 1)
    weights = x - largest
    np.exp(weights, out=weights)
    weights /= np.exp(sink_logit - largest) + weights.sum(axis=-1, keepdims=True)
    return weights


def softmax1(x):
    """Softmax with a zero sink: ``exp(x_i) / (1 + sum_j exp(x_j))``.

    The "zero sink" of StreamingLLM, section 3.3: the same as one extra key and value of zeros, and the
    same as a sink logit of 0.

    Parameters
    ----------
    x : ndarray of shape (..., S)

    Returns
    -------
    ndarray of shape (..., S)
        Weights that sum to less than one.

    Examples
    --------
    >>> softmax1(np.array([0.0, 0.0, 0.0])).tolist()
    [0.25, 0.25, 0.25]
    """
    return softmax_with_sink(x, 0.0)


def relu(x):
    """``max(x, 0)``: weights that need not add up to anything, so nothing is left over to park."""
    return np.maximum(x, 0.0)


def log_softmax(x):
    """Logarithm of `softmax`: ``x_i - log sum_j exp(x_j)``, without overflow.

    Parameters
    ----------
    x : ndarray of shape (..., V)

    Returns
    -------
    ndarray of shape (..., V)
        Log-probabilities in nats.

    Examples
    --------
    >>> log_softmax(np.array([0.0, 0.0])).round(4).tolist()
    [-0.6931, -0.6931]
    """
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def linear(x, w, b=None):
    """Affine map ``x @ w + b``.

    Parameters
    ----------
    x : ndarray of shape (..., C)
    w : ndarray of shape (C, F)
    b : ndarray of shape (F,), optional

    Returns
    -------
    ndarray of shape (..., F)
    """
    return x @ w if b is None else x @ w + b


def rms_norm(x, weight, eps=1e-5):
    """Root-mean-square norm of Llama: ``weight * x / sqrt(mean(x**2) + eps)``.

    Parameters
    ----------
    x : ndarray of shape (..., C)
    weight : ndarray of shape (C,)
    eps : float

    Returns
    -------
    ndarray of shape (..., C)

    Examples
    --------
    >>> rms_norm(np.array([3.0, 4.0]), np.ones(2), 0.0).round(4).tolist()
    [0.8485, 1.1314]
    """
    return weight * (x / _root_mean_square(x, eps)).astype(x.dtype, copy=False)


def _root_mean_square(x, eps):
    """``sqrt(mean(x**2) + eps)``, (..., C) -> (..., 1); in float32 at least: float16 ends before 256 squared."""
    squares = np.square(x, dtype=np.result_type(x.dtype, np.float32))
    return np.sqrt(squares.mean(axis=-1, keepdims=True) + eps)


def layer_norm(x, weight, bias, eps=1e-5):
    """Layer norm of GPT-2: ``weight * (x - mean(x)) / sqrt(var(x) + eps) + bias``.

    Parameters
    ----------
    x : ndarray of shape (..., C)
    weight, bias : ndarray of shape (C,)
    eps : float

    Returns
    -------
    ndarray of shape (..., C)

    Examples
    --------
    >>> layer_norm(np.array([1.0, 3.0]), np.ones(2), np.zeros(2), 0.0).tolist()
    [-1.0, 1.0]
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    return weight * (centred / _root_mean_square(centred, eps)).astype(x.dtype, copy=False) + bias


def silu(x):
    """Sigmoid-weighted linear unit: ``x * sigmoid(x)``.

    The sigmoid is written with tanh, which saturates where ``exp(-x)`` would overflow.

    Parameters
    ----------
    x : ndarray

    Returns
    -------
    ndarray of the same shape

    Examples
    --------
    >>> silu(np.array([-1000.0, 0.0, 1.0])).round(4).tolist()
    [-0.0, 0.0, 0.7311]
    """
    half = 0.5 * x
    sigmoid2 = np.tanh(half)  # 2 sigmoid(x) - 1
    sigmoid2 += 1.0
    sigmoid2 *= half
    return sigmoid2


def gelu(x):
    """Gaussian error linear unit as GPT-2 computes it (``gelu_new``, the tanh approximation).

    ``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``

    Parameters
    ----------
    x : ndarray

    Returns
    -------
    ndarray of the same shape

    Examples
    --------
    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1588, 0.0, 0.8412]
    """
    return 0.5 * x * (1.0 + np.tanh(0.7978845608028654 * (x + 0.044715 * (x * x * x))))
