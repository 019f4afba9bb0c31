"""Rotary positions: turn a vector by an angle that grows with its position.

A head of width D is read as D/2 pairs of channels; pair j of the vector at position p is turned by the
angle ``p * frequencies[j]`` (Su et al., arXiv:2104.09864, section 3.2). The score of a query at position m
and a key at position n then depends on ``m - n`` only. That is what StreamingLLM leans on: positions may be
numbered *within the cache* as long as the differences stay in the range seen in training.
"""

import math

import numpy as np


def rope_frequencies(head_dim, theta=10000.0, scaling=None):
    """Angle per position of each channel pair: ``theta ** (-2 j / D)``.

    Parameters
    ----------
    head_dim : int
        D, even.
    theta : float
        The base; pair 0 turns fastest, one radian a position.
    scaling : dict, optional
        ``{"rope_type": "linear", "factor": f}`` divides every frequency by f.
        ``{"rope_type": "llama3", "factor", "low_freq_factor", "high_freq_factor",
        "original_max_position_embeddings"}`` divides the slow ones only (Llama 3.1).

    Returns
    -------
    ndarray of shape (D/2,), float64
        In radians a position.

    Raises
    ------
    ValueError
        For a scaling rule that is not one of these.

    Examples
    --------
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


def rotate(x, positions, frequencies):
    """Turn each head of each token to its position.

    Channel j pairs with channel j + D/2, the *split-half* pairing of Hugging Face checkpoints.

    Parameters
    ----------
    x : ndarray of shape (..., T, H, D)
        Queries or keys, un-rotated.
    positions : ndarray of shape (T,), or int
        The number given to the encoding for each token, or one for all.
    frequencies : ndarray of shape (D/2,)
        From `rope_frequencies`.

    Returns
    -------
    ndarray of shape (..., T, H, D)
        In the dtype of `x`. Angles are taken in float64: at position 4,000,000 a float32 angle is off
        by a quarter of a radian.

    Examples
    --------
    A quarter turn takes (1, 0) to (0, 1):

    >>> rotate(np.array([[[1.0, 0.0]]]), np.array([1]), np.array([np.pi / 2])).round(4).tolist()
    [[[0.0, 1.0]]]
    """
    positions = np.asarray(positions, like=x)
    angles = positions[..., None] * np.asarray(frequencies, like=x)  # (T,), (D/2,) -> (T, D/2)
    cos = np.cos(angles).astype(x.dtype)[..., None, :]  # (T, 1, D/2): one angle for all heads
    sin = np.sin(angles).astype(x.dtype)[..., None, :]
    half = x.shape[-1] // 2
    turned = np.empty_like(x)  # first a quarter turn: (a, b) -> (-b, a)
    turned[..., :half] = x[..., half:]
    turned[..., half:] = x[..., :half]
    turned *= np.concatenate((-sin, sin), axis=-1)
    turned += x * np.concatenate((cos, cos), axis=-1)  # any turn is cos times x and sin times its quarter turn
    return turned


def unrotated(x, positions):
    """Leave `x` as it is: the stand-in for `rotate` where positions enter elsewhere (GPT-2).

    Parameters
    ----------
    x : ndarray of shape (T, H, D)
    positions : ignored

    Returns
    -------
    ndarray of shape (T, H, D)
        `x` itself.
    """
    return x


def interleaved_to_split_half(x):
    """Reorder head channels from Meta's pairing (2j, 2j+1) to Hugging Face's (j, j + D/2).

    Rotating the reordered vector by split halves gives the reordered result of rotating the original by
    neighbours; scores do not change, because queries and keys are reordered alike.

    Parameters
    ----------
    x : ndarray of shape (..., D)
        Queries, keys, or the weight columns that produce them.

    Returns
    -------
    ndarray of shape (..., D)

    Examples
    --------
    >>> interleaved_to_split_half(np.array([0, 1, 2, 3, 4, 5])).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    return np.concatenate((x[..., 0::2], x[..., 1::2]), axis=-1)
