"""Whether two answers are the same, in float64 and relative to the numbers around them."""

import numpy as np

HALF = 5e-3  # of the largest number: about the error of a few roundings to half precision
TOLERANCE = 1e-4  # of the largest number in a row: float32 is well within it, a wrong formula well outside


def equal(got, expected, kind="numbers"):
    """Whether two answers are the same: shapes except axes of length one, numbers within `TOLERANCE` of their row."""
    if got is None or np.squeeze(got).shape != np.squeeze(expected).shape:
        return False
    got = got.reshape(expected.shape)
    if kind == "numbers":
        return bool(right_rows(got, expected).all())
    return np.array_equal(got, expected) if kind == "slots" else np.array_equal(np.sort(got), np.sort(expected))


def right_rows(got, expected):
    """Return which rows are right; a vector counts as one row."""
    if not expected.size:
        return np.ones(1, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.where(np.isfinite(expected), np.abs(expected), 0.0)
        scale = np.maximum(finite.max(axis=-1, keepdims=True), 1e-12)
        near = np.abs(got - expected) <= TOLERANCE * scale
    near |= (got == expected) | (np.isnan(got) & np.isnan(expected))
    return near.all(axis=-1).reshape(-1)


def in_half(got, expected):
    """Whether an answer is right to half precision: close, and representable in float16.

    >>> third = np.array([1 / 3, 0.5])
    >>> in_half(np.float16(third), third), in_half(third.round(3), third)
    (True, False)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.abs(got - expected).max() <= HALF * np.abs(expected).max()
        return bool(near and np.array_equal(got.astype(np.float16), got))
