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


def attention(q, k, v, bias, kind="softmax", sink_logits=None):  # (B, T, H, D), 2 x (B, T, K, D) -> (B, T, H, D)
    """Mix the values each query may see: return the mix, the pattern (B, H, T, T), and a function for the gradients.

    Queries and keys are rotated. K divides H: H / K neighbouring query heads share a key head, folded into the rows of
    one product. `bias` (T, T) is `minisink.attention.additive` of a causal mask: 0 where a query may look, -inf above
    the diagonal; with ALiBi's slopes added it is (H, T, T). `kind` is softmax, softmax1 or relu, which does not
    normalise at all: ``pattern = max(scores, 0)``. `sink_logits` (H,) are one more term in the denominator of each
    head; softmax1 is a sink logit of 0. A sink takes the weight ``1 - sum(pattern)`` and adds nothing to the mix, so
    its gradient, written into `into_sink` (H,), is ``-(1 - sum(pattern)) * dmixed . mixed``.
    """
    (B, T, H, D), K = q.shape, k.shape[2]
    q, k, v = (x.swapaxes(1, 2).copy() for x in (q, k, v))  # (B, H, T, D), 2 x (B, K, T, D): each multiplied twice
    q = q.reshape(B, K, H // K * T, D)
    scale = 1.0 / math.sqrt(D)
    pattern = ((q * scale) @ k.swapaxes(-1, -2)).reshape(B, H, T, T)  # a layer's largest array: in place from here
    pattern += bias
    if kind == "relu":
        np.maximum(pattern, 0.0, out=pattern)
    else:
        sink = 0.0 if kind == "softmax1" else -np.inf  # the logit of one more term in the denominator
        if sink_logits is not None:
            sink = sink_logits[:, None, None]
        largest = np.maximum(pattern.max(axis=-1, keepdims=True), sink)
        pattern -= largest
        np.exp(pattern, out=pattern)
        pattern *= 1.0 / (pattern.sum(axis=-1, keepdims=True) + np.exp(sink - largest))
    folded = pattern.reshape(B, K, H // K * T, T)
    mixed = folded @ v  # (B, K, H/K * T, T) @ (B, K, T, D)

    def back(dmixed, into_sink=None):  # (B, T, H, D) -> (B, T, H, D), 2 x (B, T, K, D)
        dmixed = dmixed.swapaxes(1, 2).reshape(B, K, H // K * T, D)
        dv = folded.swapaxes(-1, -2) @ dmixed
        dscores = (dmixed @ v.swapaxes(-1, -2)).reshape(B, H, T, T)  # dpattern, then in place
        if kind == "relu":
            dscores *= pattern > 0.0
        else:
            taken = np.einsum("bkrd,bkrd->bkr", dmixed, mixed).reshape(B, H, T, 1)  # sum of pattern * dpattern
            if into_sink is not None:
                into_sink[...] = ((pattern.sum(axis=-1, keepdims=True) - 1.0) * taken).sum(axis=(0, 2, 3))
            dscores -= taken
            dscores *= pattern
        dscores = dscores.reshape(folded.shape)
        dq = ((dscores @ k) * scale).reshape(B, H, T, D)
        dk = (dscores.swapaxes(-1, -2) @ q) * scale
        return dq.swapaxes(1, 2), dk.swapaxes(1, 2), dv.swapaxes(1, 2)

    return mixed.reshape(B, H, T, D).swapaxes(1, 2), pattern, back
