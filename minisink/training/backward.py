"""Each function of `minisink.ops` as training needs it: forward, and its gradient below.

For ``y = f(x)``, ``dy`` is the gradient of the loss with respect to y. Each function returns y and `back`, which turns
``dy`` into ``dx``, the gradient with respect to x. The chain rule needs no more. Gradients of *weights* are written
into the arrays named ``into_...``, which are views into one long vector (see `parameters`).

Rows are tokens: batch and time are folded, N = B * T, so that every matrix product is one large one.
"""

import math

import numpy as np

from ..ops import erf_of_root_half


def linear(x, w, b=None):  # (N, C), (C, F), (F,) -> (N, F)
    """``y = x w + b``; ``dx = dy w^T``, ``dw = x^T dy``, ``db = sum of dy over rows``."""

    def back(dy, into_w, into_b=None):  # (N, F) -> (N, C)
        np.matmul(x.T, dy, out=into_w)  # (C, N) @ (N, F)
        if into_b is not None:
            np.sum(dy, axis=0, out=into_b)
        return dy @ w.T  # (N, F) @ (F, C)

    return x @ w if b is None else x @ w + b, back


def embedding_backward(dy, ids, into_embed):  # (N, C), (N,), (V, C)
    """Undo ``y = embed[ids]``: each row of dy is added to the row it was read from.

    It is *added*: a token may occur many times, and a tied embedding also gets the output matrix's part.
    """
    if isinstance(dy, np.ndarray):
        np.add.at(into_embed, ids, dy)
    else:  # CuPy's `add.at` adds in thread order, so every run has different bits; one-hot rows fix the order
        one_hot = ids[:, None] == np.arange(len(into_embed), like=dy)  # (N, V)
        into_embed += one_hot.astype(dy.dtype).T @ dy  # (V, N) @ (N, C)


def rms_norm(x, weight, eps):  # (N, C), (C,) -> (N, C)
    """``y = weight * n`` with ``n = x * r`` and ``r = 1 / sqrt(mean(x^2) + eps)``.

    ``dx = r * (dn - n * mean(dn * n))`` with ``dn = dy * weight``. The mean is what the common factor r cancels:
    scaling x changes nothing.
    """
    r = 1.0 / np.sqrt(_row_mean(x, x) + eps)
    n = x * r

    def back(dy, into_weight):  # (N, C) -> (N, C)
        into_weight[...] = np.einsum("nc,nc->c", dy, n)
        dn = dy * weight
        return (dn - n * _row_mean(dn, n)) * r

    return n * weight, back


def layer_norm(x, weight, bias, eps):  # (N, C), (C,), (C,) -> (N, C)
    """``y = weight * n + bias`` with ``n = (x - mean(x)) * r`` and ``r = 1 / sqrt(var(x) + eps)``.

    ``dx = r * (dn - mean(dn) - n * mean(dn * n))``: shifting x changes nothing either.
    """
    n = x - x.mean(axis=-1, keepdims=True)
    r = 1.0 / np.sqrt(_row_mean(n, n) + eps)
    n *= r

    def back(dy, into_weight, into_bias):  # (N, C) -> (N, C)
        into_weight[...] = np.einsum("nc,nc->c", dy, n)
        if into_bias is not None:
            np.sum(dy, axis=0, out=into_bias)
        dn = dy * weight
        return (dn - dn.mean(axis=-1, keepdims=True) - n * _row_mean(dn, n)) * r

    return n * weight if bias is None else n * weight + bias, back


def swiglu(gate, up):  # 2 x (N, F) -> (N, F)
    """``y = silu(g) * up`` with ``silu(g) = g * s``, s the sigmoid of g, and slope ``s (1 + g (1 - s))``."""
    sigmoid = np.tanh(gate * 0.5) * 0.5 + 0.5

    def back(dy):  # (N, F) -> dgate, dup (N, F)
        silu = gate * sigmoid
        return (gate - silu + 1.0) * sigmoid * up * dy, silu * dy

    return gate * sigmoid * up, back


GELU_SCALE, GELU_CUBE = math.sqrt(2.0 / math.pi), 0.044715


def gelu(x):  # (N, F) -> (N, F)
    """``y = x (1 + t) / 2`` with ``t = tanh(u)`` and ``u = sqrt(2 / pi) (x + 0.044715 x^3)``.

    ``dx = dy * ((1 + t) + x (1 - t^2) u') / 2`` with ``u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)``.
    """
    t = np.tanh((x * x * (GELU_CUBE * GELU_SCALE) + GELU_SCALE) * x)

    def back(dy):  # (N, F) -> (N, F)
        slope = x * x * (3.0 * GELU_CUBE * GELU_SCALE) + GELU_SCALE  # u'
        return (slope * x * (1.0 - t * t) + t + 1.0) * 0.5 * dy

    return (t + 1.0) * x * 0.5, back


def gelu_erf(x):  # (N, F) -> (N, F)
    """``y = x p`` with ``p = (1 + erf(x / sqrt(2))) / 2``.

    ``dx = dy * (p + x p')`` with ``p' = exp(-x^2 / 2) / sqrt(2 pi)``: the bell curve.
    """
    p = (erf_of_root_half(x) + 1.0) * 0.5

    def back(dy):  # (N, F) -> (N, F)
        return (np.exp(x * x * -0.5) * x * (1.0 / math.sqrt(2.0 * math.pi)) + p) * dy

    return x * p, back


def cross_entropy(logits, targets, scale):  # (N, V), (N,) -> (), (N, V)
    """``loss = sum over rows of (log sum_j exp(logits_j) - logits_target)`` in nats, and its gradient.

    The gradient is ``softmax(logits) - 1[target]``: what the model expected minus what came. Times `scale`, it
    overwrites the logits, the largest array of a step; 1 / tokens of the whole batch makes the loss a mean.
    """
    rows = np.arange(len(targets), like=logits)
    logits -= logits.max(axis=-1, keepdims=True)
    at_target = logits[rows, targets]
    np.exp(logits, out=logits)
    total = logits.sum(axis=-1, keepdims=True)
    loss = (np.log(total[:, 0]) - at_target).sum()
    logits *= scale / total
    logits[rows, targets] -= scale
    return loss, logits


def _row_mean(a, b):  # 2 x (N, C) -> (N, 1)
    return np.einsum("nc,nc->n", a, b)[:, None] * (1.0 / a.shape[-1])
