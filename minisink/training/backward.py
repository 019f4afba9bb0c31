"""Each function of `minisink.ops` once more: forward as training needs it, and its gradient.

For ``y = f(x)``, ``dy`` is the gradient of the loss with respect to y, and the function named ``..._backward``
gives the one with respect to x. The chain rule asks nothing else. Gradients of *weights* are written into the
arrays named ``into_...``, which are views into one long vector (see `parameters`).

Rows are tokens: batch and time are folded, N = B * T, so that every matrix product is one large one.
"""

import math

import numpy as np

from ..ops import erf_of_root_half


def linear_backward(dy, x, w, into_w, into_b=None):  # (N, F), (N, C), (C, F) -> (N, C)
    """Undo ``y = x @ w + b``: ``dx = dy @ w^T``, ``dw = x^T @ dy``, ``db = sum of dy over rows``."""
    np.matmul(x.T, dy, out=into_w)  # (C, N) @ (N, F)
    if into_b is not None:
        np.sum(dy, axis=0, out=into_b)
    return dy @ w.T  # (N, F) @ (F, C)


def embedding_backward(dy, ids, into_embed):  # (N, C), (N,), (V, C)
    """Undo ``y = embed[ids]``: each row of dy is added to the row it was read from.

    It is *added*: a token may occur many times, and a tied embedding has another part.
    """
    if isinstance(dy, np.ndarray):
        np.add.at(into_embed, ids, dy)
    else:  # CuPy's `add.at` adds in the order its threads come by: other bits every run. One-hot rows have one order
        one_hot = ids[:, None] == np.arange(len(into_embed), like=dy)  # (N, V)
        into_embed += one_hot.astype(dy.dtype).T @ dy  # (V, N) @ (N, C)


def rms_norm(x, weight, eps):  # (N, C), (C,) -> (N, C), (n (N, C), r (N, 1))
    """``y = weight * n`` with ``n = x * r`` and ``r = 1 / sqrt(mean(x^2) + eps)``; n and r are saved."""
    r = 1.0 / np.sqrt(_row_dot(x, x) * (1.0 / x.shape[-1]) + eps)
    n = x * r
    return n * weight, (n, r)


def rms_norm_backward(dy, saved, weight, into_weight):  # (N, C) -> (N, C)
    """``dx = r * (dn - n * mean(dn * n))`` with ``dn = dy * weight``; ``dweight = sum(dy * n)``.

    The mean is what the common factor r takes back: scaling x changes nothing.
    """
    n, r = saved
    into_weight[...] = np.einsum("nc,nc->c", dy, n)
    dx = dy * weight  # dn, turned into dx in place
    dx -= n * (_row_dot(dx, n) * (1.0 / n.shape[-1]))
    dx *= r
    return dx


def layer_norm(x, weight, bias, eps):  # (N, C), (C,), (C,) -> (N, C), (n (N, C), r (N, 1))
    """``y = weight * n + bias`` with ``n = (x - mean(x)) * r`` and ``r = 1 / sqrt(var(x) + eps)``."""
    n = x - x.mean(axis=-1, keepdims=True)
    r = 1.0 / np.sqrt(_row_dot(n, n) * (1.0 / n.shape[-1]) + eps)
    n *= r
    y = n * weight
    if bias is not None:
        y += bias
    return y, (n, r)


def layer_norm_backward(dy, saved, weight, into_weight, into_bias):  # (N, C) -> (N, C)
    """``dx = r * (dn - mean(dn) - n * mean(dn * n))``: shifting x changes nothing either; ``dbias = sum of dy``."""
    n, r = saved
    into_weight[...] = np.einsum("nc,nc->c", dy, n)
    if into_bias is not None:
        np.sum(dy, axis=0, out=into_bias)
    dx = dy * weight
    along = _row_dot(dx, n) * (1.0 / n.shape[-1])
    dx -= dx.mean(axis=-1, keepdims=True)
    dx -= n * along
    dx *= r
    return dx


def swiglu(gate, up):  # 2 x (N, F) -> (N, F), s (N, F)
    """``y = silu(gate) * up`` with ``silu(g) = g * s`` and ``s = (1 + tanh(g / 2)) / 2``, which is saved."""
    sigmoid = gate * 0.5
    np.tanh(sigmoid, out=sigmoid)
    sigmoid *= 0.5
    sigmoid += 0.5
    y = gate * sigmoid
    y *= up
    return y, sigmoid


def swiglu_backward(dy, gate, up, sigmoid):  # 4 x (N, F) -> dgate, dup (N, F)
    """``dup = dy * g * s`` and ``dgate = dy * up * s * (1 + g * (1 - s))``."""
    dup = gate * sigmoid  # silu(g)
    dgate = gate - dup
    dgate += 1.0
    dgate *= sigmoid  # s + g s (1 - s): the slope of silu
    dgate *= up
    dgate *= dy
    dup *= dy
    return dgate, dup


GELU_SCALE, GELU_CUBE = math.sqrt(2.0 / math.pi), 0.044715


def gelu(x):  # (N, F) -> (N, F), t (N, F)
    """``y = x (1 + t) / 2`` with ``t = tanh(sqrt(2 / pi) (x + 0.044715 x^3))``, which is saved."""
    t = x * x
    t *= GELU_CUBE * GELU_SCALE
    t += GELU_SCALE
    t *= x
    np.tanh(t, out=t)
    y = t + 1.0
    y *= x
    y *= 0.5
    return y, t


def gelu_backward(dy, x, t):  # 3 x (N, F) -> (N, F)
    """``dx = dy * ((1 + t) + x (1 - t^2) u') / 2`` with ``u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)``."""
    dx = x * x
    dx *= 3.0 * GELU_CUBE * GELU_SCALE
    dx += GELU_SCALE  # u'
    dx *= x
    slope = t * t
    np.subtract(1.0, slope, out=slope)  # 1 - t^2: the slope of tanh
    dx *= slope
    dx += t
    dx += 1.0
    dx *= 0.5
    dx *= dy
    return dx


def gelu_erf(x):  # (N, F) -> (N, F), p (N, F)
    """``y = x p`` with ``p = (1 + erf(x / sqrt(2))) / 2``, which is saved."""
    p = erf_of_root_half(x)
    p += 1.0
    p *= 0.5
    return x * p, p


def gelu_erf_backward(dy, x, p):  # 3 x (N, F) -> (N, F)
    """``dx = dy * (p + x p')`` with ``p' = exp(-x^2 / 2) / sqrt(2 pi)``: the bell curve."""
    dx = x * x
    dx *= -0.5
    np.exp(dx, out=dx)
    dx *= x
    dx *= 1.0 / math.sqrt(2.0 * math.pi)
    dx += p
    dx *= dy
    return dx


def cross_entropy(logits, targets, scale):  # (N, V), (N,) -> (), (N, V)
    """``loss = sum over rows of (log sum_j exp(logits_j) - logits_target)`` in nats, and its gradient.

    The gradient is ``softmax(logits) - 1[target]``: what the model expected minus what came. It overwrites the logits,
    the largest array of a step, times `scale`: 1 / tokens of the whole batch makes the loss a mean.
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


def _row_dot(a, b):  # 2 x (N, C) -> (N, 1)
    return np.einsum("nc,nc->n", a, b)[:, None]
