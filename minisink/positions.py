"""Rotary positions: rotate a vector by an angle that grows with its position.

A head of width D is read as D/2 pairs of channels; pair j of the vector at position p is rotated by the angle
``p * frequencies[j]`` (Su et al., arXiv:2104.09864, section 3.2). The score of a query at position m and a key at
position n then depends on ``m - n`` only. A query at 7 fits a key at 4 as well as a query at 103 fits a key at 100:

>>> frequencies = rope_frequencies(6)
>>> q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 6))  # one token, one head, D = 6
>>> near = (rotate(q, 7, frequencies) * rotate(k, 4, frequencies)).sum()
>>> far = (rotate(q, 103, frequencies) * rotate(k, 100, frequencies)).sum()
>>> bool(abs(near - far) < 1e-12)
True

That is what StreamingLLM leans on: positions may be numbered *within the cache*, as long as the distances stay in the
range seen in training.
"""

import math

import numpy as np


def rope_frequencies(head_dim, theta=10000.0, scaling=None):  # -> (D/2,) float64
    """``theta ** (-2 j / D)``: radians per position of each pair; pair 0 is fastest, one radian.

    `scaling` is Hugging Face's ``rope_scaling``: "linear" divides all by its factor, "llama3" the slow ones only.

    >>> rope_frequencies(4, theta=100.0).round(6).tolist()
    [1.0, 0.1]
    """
    frequencies = float(theta) ** (-np.arange(0, head_dim, 2) / head_dim)  # (D/2,)
    rule = "default" if scaling is None else scaling["rope_type"]
    if rule == "default":
        return frequencies
    if rule == "linear":
        return frequencies / scaling["factor"]
    if rule == "llama3":
        return _llama3(frequencies, scaling)
    raise ValueError(f"rope type {rule!r} is not supported; known are 'default', 'linear' and 'llama3'")


def _llama3(frequencies, scaling):
    """Llama 3.1: fast pairs stay, slow ones are divided by ``factor``, those between are blended."""
    trained = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = trained * frequencies / (2 * math.pi)  # full turns within the trained length
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 0: slow, 1: fast
    return blend * frequencies + (1.0 - blend) * frequencies / scaling["factor"]


def rotate(x, positions, frequencies):  # (..., T, H, D), (T,) or one for all, (D/2,) -> (..., T, H, D)
    """Rotate channels j and j + D/2 by the angle of pair j: ``(a, b) -> (a cos - b sin, b cos + a sin)``.

    This *split-half* pairing is that of Hugging Face checkpoints. Angles are taken in float64: at position 4,000,000 a
    float32 angle is off by a quarter of a radian. A quarter turn takes (1, 0) to (0, 1):

    >>> rotate(np.array([[[1.0, 0.0]]]), np.array([1]), np.array([np.pi / 2])).round(4).tolist()
    [[[0.0, 1.0]]]
    """
    angles = np.asarray(positions, like=x)[..., None] * np.asarray(frequencies, like=x)  # (T,), (D/2,) -> (T, D/2)
    cos = np.cos(angles).astype(x.dtype)[..., None, :]  # (T, 1, D/2): one angle for all heads
    sin = np.sin(angles).astype(x.dtype)[..., None, :]
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    swapped = np.concatenate((b, a), axis=-1)  # (a, b) cos + (b, a) (-sin, sin): whole rows are faster than halves
    return x * np.concatenate((cos, cos), axis=-1) + swapped * np.concatenate((-sin, sin), axis=-1)


def unrotated(x, positions):
    """Return `x` itself: this stands in for `rotate` where positions enter elsewhere (GPT-2)."""
    return x


def interleaved_to_split_half(x):  # (..., D) -> (..., D)
    """Reorder channels from Meta's pairing (2j, 2j+1) to Hugging Face's (j, j + D/2): of queries and keys alike.

    >>> interleaved_to_split_half(np.array([0, 1, 2, 3, 4, 5])).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    return np.concatenate((x[..., 0::2], x[..., 1::2]), axis=-1)
