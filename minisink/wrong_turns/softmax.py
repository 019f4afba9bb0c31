"""Wrong turns of softmax."""

import math

import numpy as np

from .turn import turns


def over_sum(weights):  # (..., S) -> (..., S)
    """Divide by the sum."""
    return weights / weights.sum(axis=-1, keepdims=True)


def exp(x):  # (..., S) -> (..., S)
    """Take exponentials that do not overflow."""
    return np.exp(x - np.max(x, axis=-1, keepdims=True))


def softmax(x):  # (..., S) -> (..., S)
    """Return ``exp(x_i) / sum_j exp(x_j)``, NaN where all is masked: the right one, for others to go wrong with."""
    return over_sum(exp(x))


def in_python(x):
    """Go without NumPy: `math` raises where an exponential overflows."""
    weights = [math.exp(value) for value in x]
    return [weight / sum(weights) for weight in weights]


def largest_from_zero(x):  # (..., S) -> (..., 1)
    """Search for the largest from zero on."""
    return np.maximum(np.max(x, axis=-1, keepdims=True), 0.0)


def from_zero(x):  # (..., S) -> (..., S)
    """Take off zero where all scores lie below."""
    return over_sum(np.exp(x - largest_from_zero(x)))


FROM_ZERO = "the largest is looked for from zero on, and all may lie below"
TITLED = {
    "the exponential overflows": (lambda x: over_sum(np.exp(x)), in_python),
    FROM_ZERO: (from_zero, lambda x: in_python(x - largest_from_zero(x))),
    "the mean or the smallest is taken off, not the largest": (
        lambda x: over_sum(np.exp(x - np.mean(x))),
        lambda x: over_sum(np.exp(x - np.min(x))),
    ),
    "divided by the largest, not by the sum": exp,
    "the weights are not normalised": lambda x: np.exp(x),
    "the logarithm of the weights": lambda x: np.log(softmax(x)),
    "softmax1 instead of softmax": lambda x: softmax(np.append(x, 0.0))[:-1],
    "a masked score, -inf, is taken for zero": lambda x: softmax(np.where(np.isneginf(x), 0.0, x)),
    "no exponential: scores divided by their sum": over_sum,
}
TURNS = turns("softmax", TITLED)
