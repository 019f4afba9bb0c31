"""Causal attention over a batch, and its gradient.

::

    forward   scores = q k^T / sqrt(D)     pattern = softmax(scores)         mixed = pattern v
    backward  dv = pattern^T dmixed        dpattern = dmixed v^T
              dscores = pattern * (dpattern - sum over keys of pattern * dpattern)
              dq = dscores k / sqrt(D)     dk = dscores^T q / sqrt(D)

The sum over keys is where sinks come from: a weight can only grow at the cost of the others. It also equals
``dmixed . mixed``, which is D wide instead of T.
"""

import math

import numpy as np


def angles(n_tokens, frequencies, like):
    """Return cosine and sine of positions 0..T-1, each (T, D/2), from float64 angles."""
    angle = np.arange(n_tokens, like=like)[:, None] * np.asarray(frequencies, like=like)
    return np.cos(angle).astype(like.dtype), np.sin(angle).astype(like.dtype)


def split_heads(x, n_samples, n_heads):
    """Cut rows into heads: (B * T, H * D) -> (B, H, T, D), a view."""
    return x.reshape(n_samples, -1, n_heads, x.shape[-1] // n_heads).swapaxes(1, 2)


def join_heads(x):
    """Join heads to rows: (B, H, T, D) -> (B * T, H * D), a copy; the inverse of `split_heads`."""
    B, H, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B * T, H * D)


def rotate(x, cos, sin):  # (B, H, T, D), 2 x (T, R/2) -> (B, H, T, D), contiguous
    """Rotate the two halves of every head, or of a part of it: ``(a, b) -> (a cos - b sin, b cos + a sin)``.

    Its backward rotates by the opposite angle: ``rotate(dy, cos, -sin)``.
    """
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    y = np.empty_like(x, order="C")
    np.multiply(a, cos, out=y[..., :half])
    np.multiply(b, cos, out=y[..., half : 2 * half])
    y[..., :half] -= b * sin
    y[..., half : 2 * half] += a * sin
    y[..., 2 * half :] = rest
    return y


def attention(q, k, v, bias, kind="softmax", sink_logits=None):
    """Mix the values each query may see: return them (B, H, T, D), and the pattern (B, H, T, T) for the backward pass.

    Queries are (B, H, T, D) and keys and values (B, K, T, D), queries and keys rotated. K divides H: H / K neighbouring
    query heads share a key head, folded into the rows of one product. `bias` (T, T) is `minisink.attention.additive` of
    a causal mask: 0 where a query may look, -inf above the diagonal; with ALiBi's slopes added it is (H, T, T). Of
    `kind`, softmax, softmax1 or relu, the last does not normalise at all: ``pattern = max(scores, 0)``. `sink_logits`
    (H,) are one more term in the denominator of each head; softmax1 is a sink logit of 0.
    """
    (B, H, T, D), K = q.shape, k.shape[1]
    scores = (q.reshape(B, K, H // K * T, D) * (1.0 / math.sqrt(D))) @ k.swapaxes(-1, -2)
    pattern = scores.reshape(B, H, T, T)  # from here on in place: the largest array of a layer
    pattern += bias
    if kind == "relu":
        np.maximum(pattern, 0.0, out=pattern)
    else:
        sink = 0.0 if kind == "softmax1" else -np.inf  # the logit of one more term of the denominator
        if sink_logits is not None:
            sink = sink_logits[:, None, None]
        largest = np.maximum(pattern.max(axis=-1, keepdims=True), sink)
        pattern -= largest
        np.exp(pattern, out=pattern)
        pattern *= 1.0 / (pattern.sum(axis=-1, keepdims=True) + np.exp(sink - largest))
    mixed = pattern.reshape(B, K, H // K * T, T) @ v  # (B, K, H/K * T, T) @ (B, K, T, D)
    return mixed.reshape(B, H, T, D), pattern


def attention_backward(dmixed, q, k, v, mixed, pattern, kind="softmax", into_sink=None):
    """Compute the gradients of `attention`: of q (B, H, T, D), and of k and v (B, K, T, D).

    What comes in has the shapes that it has there. A sink logit takes the weight ``1 - sum(pattern)`` and gives nothing
    to the mix, so its own gradient is ``-(1 - sum(pattern)) * dmixed . mixed``, which goes to `into_sink` (H,), if any.
    """
    (B, H, T, D), K = q.shape, k.shape[1]
    folded = (B, K, H // K * T, -1)
    dv = pattern.reshape(folded).swapaxes(-1, -2) @ dmixed.reshape(folded)
    dscores = (dmixed.reshape(folded) @ v.swapaxes(-1, -2)).reshape(B, H, T, T)  # dpattern, then in place
    if kind == "relu":
        dscores *= pattern > 0.0
    else:
        taken = np.einsum("bhtd,bhtd->bht", dmixed, mixed)[..., None]  # sum over keys of pattern * dpattern
        if into_sink is not None:
            into_sink[...] = ((pattern.sum(axis=-1, keepdims=True) - 1.0) * taken).sum(axis=(0, 2, 3))
        dscores -= taken
        dscores *= pattern
    scale = 1.0 / math.sqrt(D)
    dscores = dscores.reshape(folded)
    dq = (dscores @ k).reshape(B, H, T, D)
    dk = dscores.swapaxes(-1, -2) @ q.reshape(folded)
    dq *= scale
    dk *= scale
    return dq, dk, dv
