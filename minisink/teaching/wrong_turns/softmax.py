"""Wrong turns of softmax."""

import math

import numpy as np

from .turn import turns


def overflows(x):
    """The exponential of a large number is infinite, of a very small one nothing."""
    with np.errstate(all="ignore"):
        weights = np.exp(np.asarray(x, np.float64))
        return weights / weights.sum()


def overflows_loudly(x):
    """The same with math, which raises."""
    weights = [math.exp(value) for value in x]
    return [weight / sum(weights) for weight in weights]


def divides_by_the_largest(x):
    """The largest weight becomes one, and the sum something else."""
    weights = np.exp(np.asarray(x, np.float64) - np.max(x))
    return weights / weights.max()


def not_normalised(x):
    """Exponentials alone."""
    with np.errstate(all="ignore"):
        return np.exp(np.asarray(x, np.float64))


def adds_one(x):
    """That is softmax1."""
    x = np.asarray(x, np.float64)
    largest = max(x.max(), 0.0)
    weights = np.exp(x - largest)
    return weights / (np.exp(-largest) + weights.sum())


def takes_off_the_mean(x):
    """The mean for the largest: what lies far above still overflows, and with a masked score it is infinite."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float64)
        return overflows(x - x.mean())


def takes_off_the_smallest(x):
    """The smallest for the largest."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float64)
        return overflows(x - x.min())


def masked_is_zero(x):
    """-inf is taken for a score of zero, which is none."""
    return _right(np.where(np.isneginf(x), 0.0, x))


def a_logarithm(x):
    """Log of the weights."""
    with np.errstate(all="ignore"):
        return np.log(_right(x))


def without_exp(x):
    """Scores over their sum."""
    with np.errstate(all="ignore"):
        return np.asarray(x, np.float64) / np.sum(x)


def _right(x):
    weights = np.exp(np.asarray(x, np.float64) - np.max(x))
    return weights / weights.sum()


HINT = ("What is exp(1000)?", "Subtracting one number from all scores changes no weight.",
        "Take off the largest score first: exp(x - max(x)) never overflows.")  # fmt: skip
SUM = ("What do your weights add up to?", "The denominator is a sum over all keys.",
       "exp(x_i) / sum_j exp(x_j): the weights must add up to one, and that is why there are sinks.")  # fmt: skip
EXP = ("What is the weight of a score below zero?", "A weight is never negative, and scores may add up to zero.",
       "exp(x_i) / sum_j exp(x_j): exp first, then the sum.")  # fmt: skip
MASKED = ("What is exp(-inf)?", "A masked key gets no weight, whatever the others have.",
          "Leave -inf as it is: exp(-inf - max) is 0 already.")  # fmt: skip
TURNS = turns(
    ("the exponential overflows", None, "first versions everywhere", HINT, overflows, overflows_loudly),
    ("divided by the largest, not by the sum", None, "", SUM, divides_by_the_largest),
    ("the weights are not normalised", None, "", SUM, not_normalised),
    ("the mean or the smallest is taken off, not the largest", None, "", HINT, takes_off_the_mean,
     takes_off_the_smallest),
    ("a masked score, -inf, is taken for zero", None, "", MASKED, masked_is_zero),
    ("the logarithm of the weights", None, "", SUM, a_logarithm),
    ("no exponential: scores divided by their sum", None, "", EXP, without_exp),
    ("softmax1 instead of softmax", None, "", SUM, adds_one),
)  # fmt: skip
