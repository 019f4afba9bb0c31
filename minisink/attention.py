"""Attention: queries against keys, in four steps, each open to inspection.

::

    scores  = q · k / sqrt(D)            how well each query fits each key
    masked  = scores, -inf where a query may not look
    pattern = softmax(masked)            rows sum to one: the weight must go somewhere
    mixed   = pattern @ values           what each query reads

*Which* keys a query sees is another question: see `paths`.
"""

import math
from functools import partial

import numpy as np

from .ops import relu, softmax, softmax1, softmax_with_sink


def causal_mask(n_queries, n_keys, like=None):  # -> (T, S) bool
    """Let each query look at its own key and all before it; the T queries are the last tokens, at slots S - T to S - 1.

    >>> causal_mask(2, 4).astype(int).tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    return banded_mask(n_queries, n_keys, n_keys, like)


def banded_mask(n_queries, n_keys, window, like=None):  # -> (T, S) bool
    """Let each query look at its own key and the ``window - 1`` before it.

    >>> banded_mask(2, 4, 2).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 1, 1]]
    """
    like = np.empty(0) if like is None else like
    query_slot = np.arange(n_keys - n_queries, n_keys, like=like)[:, None]  # (T, 1): each query's own slot
    slot = np.arange(n_keys, like=like)  # (S,)
    return (slot <= query_slot) & (slot > query_slot - window)


def additive(visible, dtype):  # (T, S) bool -> (T, S)
    """Turn a mask into numbers to add to the scores: 0 where a query may look, -inf elsewhere.

    >>> additive(np.array([[True, False]]), np.float32).tolist()
    [[0.0, -inf]]
    """
    return np.where(visible, 0.0, -np.inf).astype(dtype)


def score(q, keys):  # (T, H, D), (S, K, D) -> (H, T, S)
    """``q · k / sqrt(D)``; H / K neighbouring query heads share a key head (grouped-query attention, arXiv:2305.13245).

    Heads that share a key become rows of a single product, so no key is copied.
    """
    (T, H, D), (S, K, _) = q.shape, keys.shape
    rows = q.reshape(T, K, H // K, D).transpose(1, 2, 0, 3) * (1.0 / math.sqrt(D))  # -> (K, H/K, T, D)
    products = rows.reshape(K, H // K * T, D) @ keys.transpose(1, 2, 0)  # @ (K, D, S) -> (K, H/K * T, S)
    return products.reshape(H, T, S)


def mix(pattern, values):  # (H, T, S), (S, K, D) -> (T, H, D)
    """Average the values by the pattern's weights."""
    (H, T, S), (_, K, D) = pattern.shape, values.shape
    mixed = pattern.reshape(K, H // K * T, S) @ values.swapaxes(0, 1)  # @ (K, S, D) -> (K, H/K * T, D)
    return mixed.reshape(H, T, D).swapaxes(0, 1)  # -> (T, H, D)


def attend(q, keys, values, visible=None, *, bias=None, normalise=softmax, trace=None):  # -> (T, H, D)
    """``softmax(q k^T / sqrt(D) + mask) v`` (Vaswani et al., arXiv:1706.03762, section 3.2.1).

    Queries (T, H, D) and keys (S, K, D) are already rotated. `visible` (T, S) is a mask, `bias` (H, T, S) is added to
    the scores (ALiBi); either may be None. `normalise` turns scores into a pattern. A dict passed as `trace` receives
    ``"scores"`` (masked) and ``"pattern"``, (H, T, S). Raises ValueError if there are no keys. With two equal keys:

    >>> attend(np.zeros((1, 1, 2)), np.zeros((2, 1, 2)), np.array([[[2.0, 0.0]], [[4.0, 0.0]]])).tolist()
    [[[3.0, 0.0]]]
    """
    if len(keys) == 0:
        raise ValueError("attention over no keys: the cache is empty")
    scores = score(q, keys)  # (H, T, S)
    if bias is not None:
        scores += bias
    if visible is not None:
        scores += additive(visible, scores.dtype)
    pattern = normalise(scores)  # (H, T, S)
    if trace is not None:
        trace["scores"], trace["pattern"] = scores, pattern
    return mix(pattern, values)


def normaliser(kind, sink_logits=None):
    """Return the function from scores to pattern; with learned `sink_logits` (H,) it is `softmax_with_sink`."""
    if sink_logits is not None:
        return partial(softmax_with_sink, sink_logit=sink_logits[:, None, None])
    return {"softmax": softmax, "softmax1": softmax1, "relu": relu}[kind]
