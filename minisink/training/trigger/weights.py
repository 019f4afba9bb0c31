"""From scores to weights: the rules proposed against sinks, each with its gradient.

Only keys that a query may see (``mask``) count. For weights p, scores s and the gradient g of the weights::

    softmax    p = exp(s) / sum exp(s)                      ds = p (g - sum p g)
    softmax1   p = exp(s) / (1 + sum exp(s))                the same: the weight of the 1 is dropped
    logit      p = exp(s) / (exp(z) + sum exp(s))           the same, and dz = -(1 - sum p) sum p g   (gpt-oss)
    relu       p = max(s, 0) / keys after BOS               ds = g / keys, where s > 0
    softpick   p = max(a, 0) / sum |a|,  a = exp(s) - 1     ds = exp(s) (g [a > 0] - sign(a) sum p g) / sum |a|
    gate       p as softmax; the output is multiplied by a sigmoid (`toy`)
"""

import numpy as np

from ...ops import relu, softmax_with_sink

KINDS = ("softmax", "softmax1", "logit", "gate", "softpick", "relu")
EPS = 1e-6  # softpick's, where all scores are 0


def weigh(scores, mask, kind, sink=0.0):  # (B, T, S), (T, S) -> (B, T, S)
    """Return the weights of each query on the keys it may see, by one of the `KINDS`; `sink` is the logit of "logit".

    >>> scores, mask = np.array([[[0.0, 0.0]]]), np.array([[True, True]])
    >>> {kind: weigh(scores, mask, kind)[0, 0].round(2).tolist() for kind in ("softmax", "softmax1", "relu")}
    {'softmax': [0.5, 0.5], 'softmax1': [0.33, 0.33], 'relu': [0.0, 0.0]}
    """
    if kind == "relu":
        return np.where(mask, relu(scores), 0.0) / _keys(mask, scores)
    if kind == "softpick":
        raised, _, total = _shifted_exp(scores, mask)
        return np.maximum(raised, 0.0) / total
    sink = {"softmax1": 0.0, "logit": sink}.get(kind, -np.inf)
    return softmax_with_sink(np.where(mask, scores, -np.inf), sink)


def weigh_backward(dpattern, pattern, scores, mask, kind):  # 3 x (B, T, S), (T, S) -> (B, T, S), float
    """Return the gradients of the scores, and of the logit of "logit"."""
    row_sum = (pattern * dpattern).sum(axis=-1, keepdims=True)
    if kind == "relu":
        return np.where(pattern > 0.0, dpattern, 0.0) / _keys(mask, scores), 0.0
    if kind == "softpick":
        raised, exp, total = _shifted_exp(scores, mask)
        return exp * (np.where(raised > 0.0, dpattern, 0.0) - np.sign(raised) * row_sum) / total, 0.0
    dsink = -((1.0 - pattern.sum(axis=-1, keepdims=True)) * row_sum).sum()
    return pattern * (dpattern - row_sum), float(dsink)


def _keys(mask, scores):
    """Count the keys after BOS that each query sees, or 1 at BOS: (T, 1). It is not a norm: it ignores the scores."""
    return np.maximum(mask.sum(axis=-1, keepdims=True) - 1, 1).astype(scores.dtype)


def _shifted_exp(scores, mask):
    """Return ``exp(s) - 1``, ``exp(s)``, ``sum |exp(s) - 1|``, all divided by one factor, so that nothing overflows."""
    masked = np.where(mask, scores, 0.0)
    largest = np.maximum(masked.max(axis=-1, keepdims=True), 0.0)
    exp, one = np.exp(masked - largest), np.exp(-largest)
    raised = exp - one  # 0 where it is masked
    return raised, exp, np.abs(raised).sum(axis=-1, keepdims=True) + EPS * one
