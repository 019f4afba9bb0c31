"""What an engine has besides its caches: rotary positions, and attention with grouped heads and a mask."""

import numpy as np


def rope(x, positions, theta):  # (T, H, D), (T,) -> (T, H, D)
    """Rotate channels j and j + D/2 to these positions: angles in double precision, the rest in the dtype of x."""
    if theta is None:
        return x
    D = x.shape[-1]
    angles = np.multiply.outer(positions, theta ** (-np.arange(0, D, 2) / D))[:, None]  # (T, 1, D/2)
    return turned(x, np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype))


def turned(x, cos, sin):
    """Turn each pair of channels by the angle whose cosine and sine these are."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


def scores(q, keys):  # (T, H, D), (S, K, D) -> (T, H, S)
    """Score every query against every key; H / K neighbouring query heads share a key head."""
    (T, H, D), (S, K, _) = q.shape, keys.shape
    return np.einsum("tkgd,skd->tkgs", q.reshape(T, K, H // K, D), keys).reshape(T, H, S) / D**0.5


def mix(scores, values, mask):  # (T, H, S), (S, K, D), (T, S) -> (T, H, D)
    """Average the values, by the softmax of the scores that the mask lets through."""
    (T, H, S), K = scores.shape, values.shape[1]
    scores = np.where(mask[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = (weights / weights.sum(axis=-1, keepdims=True)).reshape(T, K, H // K, S)
    return np.einsum("tkgs,skd->tkgd", weights, values).reshape(T, H, -1)
