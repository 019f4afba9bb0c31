"""Position encodings: how a score knows how far a query is from a key.

Four are in use. Each is an *encoding* here: a function ``encoding(x, positions)`` applied to
queries and keys, plus, for one of them, a ``bias`` that is added to their scores.

==============  =============================================  ==========================
`Rotary`        rotates queries and keys, or part of them      Llama, GPT-NeoX, Falcon
`Slopes`        subtracts slope times distance from a score    MPT (ALiBi)
`unrotated`     nothing: positions were added earlier          GPT-2 (learned), or nowhere
==============  =============================================  ==========================

**Rotary.** Rotate a vector by an angle that grows with its position.

A head of width D is treated as D/2 pairs of channels; pair j of the vector at position p is rotated by the angle
``p * frequencies[j]`` (Su et al., arXiv:2104.09864, section 3.2). The score of a query at position m and a key at
position n then depends only on ``m - n``. A query at 7 fits a key at 4 exactly as well as one at 103 fits a key at 100:

>>> frequencies = rope_frequencies(6)
>>> q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 6))  # one token, one head, D = 6
>>> near = (rotate(q, 7, frequencies) * rotate(k, 4, frequencies)).sum()
>>> far = (rotate(q, 103, frequencies) * rotate(k, 100, frequencies)).sum()
>>> bool(abs(near - far) < 1e-12)
True

StreamingLLM relies on this: positions may be numbered *within the cache*, as long as the distances stay in the
range seen in training.
"""

import math
from typing import Any, NamedTuple

import numpy as np


def rope_frequencies(head_dim, theta=10000.0, scaling=None):  # -> (D/2,) float64
    """``theta ** (-2 j / D)``: radians per position of each pair; pair 0 is fastest, one radian.

    `scaling` is Hugging Face's ``rope_scaling``: "linear" divides all by its factor, "llama3" only the slow ones.

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
    raise ValueError(f"rope type {rule!r} is not supported; only 'default', 'linear' and 'llama3' are")


def _llama3(frequencies, scaling):
    """Llama 3.1: fast pairs stay the same, slow ones are divided by ``factor``, and those in between are blended."""
    trained = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = trained * frequencies / (2 * math.pi)  # full turns within the trained length
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 0: slow, 1: fast
    return blend * frequencies + (1.0 - blend) * frequencies / scaling["factor"]


def rotate(x, positions, frequencies):  # (..., T, H, D), (T,) or one for all, (D/2,) -> (..., T, H, D)
    """Rotate channels j and j + D/2 by the angle of pair j: ``(a, b) -> (a cos - b sin, b cos + a sin)``.

    Hugging Face checkpoints use this *split-half* pairing. Angles are computed in float64: at position 4,000,000
    a float32 angle is off by a quarter of a radian. A quarter turn takes (1, 0) to (0, 1):

    >>> rotate(np.array([[[1.0, 0.0]]]), np.array([1]), np.array([np.pi / 2])).round(4).tolist()
    [[[0.0, 1.0]]]
    """
    if (R := 2 * len(frequencies)) < x.shape[-1]:  # part of the head: GPT-NeoX rotates a quarter
        return np.concatenate((rotate(x[..., :R], positions, frequencies), x[..., R:]), axis=-1)
    angles = np.asarray(positions, like=x)[..., None] * np.asarray(frequencies, like=x)  # (T,), (D/2,) -> (T, D/2)
    cos = np.cos(angles).astype(x.dtype)[..., None, :]  # (T, 1, D/2): one angle for all heads
    sin = np.sin(angles).astype(x.dtype)[..., None, :]
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    swapped = np.concatenate((b, a), axis=-1)  # (a, b) cos + (b, a) (-sin, sin): whole rows are faster than halves
    return x * np.concatenate((cos, cos), axis=-1) + swapped * np.concatenate((-sin, sin), axis=-1)


class Rotary(NamedTuple):
    """Rotate pairs of channels: (j, j + R/2) of the first R, or (2 j, 2 j + 1), as in Meta's code and llama.cpp."""

    frequencies: Any  # (R/2,)
    interleaved: bool = False

    def __call__(self, x, positions):  # (..., T, H, D), (T,) -> (..., T, H, D)
        """Apply `rotate`, reordering interleaved pairs before and after."""
        if not self.interleaved:
            return rotate(x, positions, self.frequencies)
        R = 2 * len(self.frequencies)
        rotated = rotate(interleaved_to_split_half(x[..., :R]), positions, self.frequencies)
        return np.concatenate((split_half_to_interleaved(rotated), x[..., R:]), axis=-1)


class Slopes(NamedTuple):
    """ALiBi (Press et al., arXiv:2108.12409): nothing is rotated, and a score loses ``slope * distance``.

    >>> Slopes(np.array([0.5])).bias(np.array([9]), np.array([7, 8, 9])).tolist()
    [[[-1.0, -0.5, 0.0]]]
    """

    slopes: Any  # (H,)

    def __call__(self, x, positions):
        """Return `x` itself."""
        return x

    def bias(self, queries, keys):  # (T,), (S,) -> (H, T, S)
        """``-slope (m - n)`` for a query at position m and a key at n, to be added to their score."""
        return np.asarray(self.slopes)[:, None, None] * (np.asarray(keys) - np.asarray(queries)[:, None])


def alibi_slopes(n_heads, bias_max=8):  # -> (H,) float64
    """``2 ** (-bias_max i / H)`` for heads i = 1 to H; see `by_the_book.slope` if H is not a power of two.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    n = 2 ** math.ceil(math.log2(n_heads))
    slopes = 2.0 ** (-bias_max * np.arange(1, n + 1) / n)
    return slopes if n == n_heads else np.concatenate((slopes[1::2], slopes[::2]))[:n_heads]


def bias_of(encoding, queries, keys, like):  # (T,), (S,) -> (H, T, S) or None
    """Return what an encoding adds to the scores, with the dtype and device of `like`; None if it adds nothing."""
    bias = getattr(encoding, "bias", None)
    return None if bias is None else np.asarray(bias(queries, keys), like.dtype, like=like)


def kind_of(config):
    """Name how a model of this config encodes positions: "learned", "ALiBi" or "rotary"."""
    return "learned" if config.learned_positions else "ALiBi" if hasattr(config.encoding, "bias") else "rotary"


def unrotated(x, positions):
    """Return `x` itself: the encoding if positions were added before the first layer (GPT-2)."""
    return x


def interleaved_to_split_half(x):  # (..., D) -> (..., D)
    """Reorder channels from Meta's pairing (2j, 2j+1) to Hugging Face's (j, j + D/2), for queries and keys alike.

    >>> interleaved_to_split_half(np.array([0, 1, 2, 3, 4, 5])).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    return np.concatenate((x[..., 0::2], x[..., 1::2]), axis=-1)


def split_half_to_interleaved(x):  # (..., D) -> (..., D)
    """Undo `interleaved_to_split_half`.

    >>> split_half_to_interleaved(np.array([0, 2, 4, 1, 3, 5])).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    return x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2).swapaxes(-1, -2).reshape(x.shape)
