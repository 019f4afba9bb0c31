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
    """Return ``exp(x_i) / sum_j exp(x_j)``: the right one, for others to go wrong with."""
    return over_sum(exp(x))


def in_python(x):
    """Go without NumPy: `math` raises where an exponential overflows."""
    weights = [math.exp(value) for value in x]
    return [weight / sum(weights) for weight in weights]


HINTED = {
    """What is exp(1000)?
    Subtracting one number from all scores changes no weight.
    Take off the largest score first: exp(x - max(x)) never overflows.""": {
        "the exponential overflows": (lambda x: over_sum(np.exp(x)), in_python),
        "the mean or the smallest is taken off, not the largest": (
            lambda x: over_sum(np.exp(x - np.mean(x))),
            lambda x: over_sum(np.exp(x - np.min(x))),
        ),
    },
    """What do your weights add up to?
    The denominator is a sum over all keys.
    exp(x_i) / sum_j exp(x_j): the weights must add up to one, and that is why there are sinks.""": {
        "divided by the largest, not by the sum": exp,
        "the weights are not normalised": lambda x: np.exp(x),
        "the logarithm of the weights": lambda x: np.log(softmax(x)),
        "softmax1 instead of softmax": lambda x: softmax(np.append(x, 0.0))[:-1],
    },
    """What is exp(-inf)?
    A masked key gets no weight, whatever the others have.
    Leave -inf as it is: exp(-inf - max) is 0 already.""": {
        "a masked score, -inf, is taken for zero": lambda x: softmax(np.where(np.isneginf(x), 0.0, x)),
    },
    """What is the weight of a score below zero?
    A weight is never negative, and scores may add up to zero.
    exp(x_i) / sum_j exp(x_j): exp first, then the sum.""": {
        "no exponential: scores divided by their sum": over_sum,
    },
}
TURNS = turns(HINTED)
