"""Each function of `minisink.ops` once more: forward as training needs it, and its gradient.

For ``y = f(x)``, ``dy`` is the gradient of the loss with respect to y, and the function named ``..._backward``
gives the one with respect to x. The chain rule asks nothing else. Gradients of *weights* are written into the
arrays named ``into_...``, which are views into one long vector (see `parameters`).

Rows are tokens: batch and time are folded, N = B * T, so that every matrix product is one large one.
"""

import math

import numpy as np


def linear_backward(dy, x, w, into_w, into_b=None):
    """Backward of ``y = x @ w + b``: ``dx = dy @ w^T``, ``dw = x^T @ dy``, ``db = sum of dy over rows``.

    Parameters
    ----------
    dy : ndarray of shape (N, F)
    x : ndarray of shape (N, C)
    w : ndarray of shape (C, F)
    into_w : ndarray of shape (C, F)
        Receives dw.
    into_b : ndarray of shape (F,), optional
        Receives db.

    Returns
    -------
    ndarray of shape (N, C)
        dx.
    """
    np.matmul(x.T, dy, out=into_w)  # (C, N) @ (N, F)
    if into_b is not None:
        np.sum(dy, axis=0, out=into_b)
    return dy @ w.T  # (N, F) @ (F, C)


def embedding_backward(dy, ids, into_embed):
    """Backward of ``y = embed[ids]``: each row of dy is added to the row it was read from.

    Parameters
    ----------
    dy : ndarray of shape (N, C)
    ids : ndarray of shape (N,), ints
    into_embed : ndarray of shape (V, C)
        dy is *added*: a token may occur many times, and a tied embedding has another part.
    """
    if isinstance(dy, np.ndarray):
        np.add.at(into_embed, ids, dy)
    else:  # CuPy's `add.at` adds in the order its threads come by: other bits every run. One-hot rows have one order
        one_hot = ids[:, None] == np.arange(len(into_embed), like=dy)  # (N, V)
        into_embed += one_hot.astype(dy.dtype).T @ dy  # (V, N) @ (N, C)


def rms_norm(x, weight, eps):
    """``y = weight * n`` with ``n = x * r`` and ``r = 1 / sqrt(mean(x^2) + eps)``.

    Parameters
    ----------
    x : ndarray of shape (N, C)
    weight : ndarray of shape (C,)
    eps : float

    Returns
    -------
    y : ndarray of shape (N, C)
    saved : tuple
        n of shape (N, C) and r of shape (N, 1).
    """
    r = 1.0 / np.sqrt(_row_dot(x, x) * (1.0 / x.shape[-1]) + eps)
    n = x * r
    return n * weight, (n, r)


def rms_norm_backward(dy, saved, weight, into_weight):
    """``dx = r * (dn - n * mean(dn * n))`` with ``dn = dy * weight``; ``dweight = sum(dy * n)``.

    The mean is what the common factor r takes back: scaling x changes nothing.

    Parameters
    ----------
    dy : ndarray of shape (N, C)
    saved : tuple
        From `rms_norm`.
    weight, into_weight : ndarray of shape (C,)

    Returns
    -------
    ndarray of shape (N, C)
        dx.
    """
    n, r = saved
    into_weight[...] = np.einsum("nc,nc->c", dy, n)
    dx = dy * weight  # dn, turned into dx in place
    dx -= n * (_row_dot(dx, n) * (1.0 / n.shape[-1]))
    dx *= r
    return dx


def layer_norm(x, weight, bias, eps):
    """``y = weight * n + bias`` with ``n = (x - mean(x)) * r`` and ``r = 1 / sqrt(var(x) + eps)``.

    Parameters and returns as `rms_norm`, with a bias of shape (C,).
    """
    n = x - x.mean(axis=-1, keepdims=True)
    r = 1.0 / np.sqrt(_row_dot(n, n) * (1.0 / n.shape[-1]) + eps)
    n *= r
    y = n * weight
    y += bias
    return y, (n, r)


def layer_norm_backward(dy, saved, weight, into_weight, into_bias):
    """``dx = r * (dn - mean(dn) - n * mean(dn * n))``: shifting x changes nothing either.

    Parameters and returns as `rms_norm_backward`; ``dbias = sum of dy over rows``.
    """
    n, r = saved
    into_weight[...] = np.einsum("nc,nc->c", dy, n)
    np.sum(dy, axis=0, out=into_bias)
    dx = dy * weight
    along = _row_dot(dx, n) * (1.0 / n.shape[-1])
    dx -= dx.mean(axis=-1, keepdims=True)
    dx -= n * along
    dx *= r
    return dx


def swiglu(gate, up):
    """``y = silu(gate) * up`` with ``silu(g) = g * s`` and the sigmoid ``s = (1 + tanh(g / 2)) / 2``.

    Parameters
    ----------
    gate, up : ndarray of shape (N, F)

    Returns
    -------
    y : ndarray of shape (N, F)
    sigmoid : ndarray of shape (N, F)
        s, kept for the backward pass.
    """
    sigmoid = gate * 0.5
    np.tanh(sigmoid, out=sigmoid)
    sigmoid *= 0.5
    sigmoid += 0.5
    y = gate * sigmoid
    y *= up
    return y, sigmoid


def swiglu_backward(dy, gate, up, sigmoid):
    """``dup = dy * g * s`` and ``dgate = dy * up * s * (1 + g * (1 - s))``.

    Parameters
    ----------
    dy, gate, up, sigmoid : ndarray of shape (N, F)
        `sigmoid` from `swiglu`.

    Returns
    -------
    dgate, dup : ndarray of shape (N, F)
    """
    dup = gate * sigmoid  # silu(g)
    dgate = gate - dup
    dgate += 1.0
    dgate *= sigmoid  # s + g s (1 - s): the slope of silu
    dgate *= up
    dgate *= dy
    dup *= dy
    return dgate, dup


GELU_SCALE, GELU_CUBE = math.sqrt(2.0 / math.pi), 0.044715


def gelu(x):
    """``y = x (1 + t) / 2`` with ``t = tanh(sqrt(2 / pi) (x + 0.044715 x^3))``.

    Parameters
    ----------
    x : ndarray of shape (N, F)

    Returns
    -------
    y : ndarray of shape (N, F)
    t : ndarray of shape (N, F)
        Kept for the backward pass.
    """
    t = x * x
    t *= GELU_CUBE * GELU_SCALE
    t += GELU_SCALE
    t *= x
    np.tanh(t, out=t)
    y = t + 1.0
    y *= x
    y *= 0.5
    return y, t


def gelu_backward(dy, x, t):
    """``dx = dy * ((1 + t) + x (1 - t^2) u') / 2`` with ``u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)``.

    Parameters
    ----------
    dy, x, t : ndarray of shape (N, F)
        `t` from `gelu`.

    Returns
    -------
    ndarray of shape (N, F)
        dx.
    """
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


def cross_entropy(logits, targets, scale):
    """``loss = sum over rows of (log sum_j exp(logits_j) - logits_target)``, and its gradient in place.

    The gradient is ``softmax(logits) - 1[target]``: what the model expected minus what came.

    Parameters
    ----------
    logits : ndarray of shape (N, V)
        Overwritten with the gradient, the largest array of a step.
    targets : ndarray of shape (N,), ints
    scale : float
        Factor of the gradient: 1 / tokens of the whole batch makes the loss a mean.

    Returns
    -------
    loss : ndarray of shape ()
        Sum over rows, in nats.
    dlogits : ndarray of shape (N, V)
        `logits` itself.
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


def _row_dot(a, b):
    """Dot product of every row of a with that of b: (N, C), (N, C) -> (N, 1)."""
    return np.einsum("nc,nc->n", a, b)[:, None]
