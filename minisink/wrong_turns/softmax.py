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


def largest_from_zero(x):  # (..., S) -> (..., 1)
    """Search for the largest from zero on."""
    return np.maximum(np.max(x, axis=-1, keepdims=True), 0.0)


BELOW_ZERO = """Which is the largest of -1000 and -1001?
    Look at what the search for the largest begins with.
    Begin with the first score, or with minus infinity: where all lie far below 0, exp(x - 0) is 0 for each."""
FROM_ZERO = "the largest is looked for from zero on, and all may lie below"
HINTED = {
    """What is exp(1000)?
    Look at what goes into exp.
    Take off the largest score first: exp(x - max(x)) never overflows, and no weight changes.""": {
        "the exponential overflows": (lambda x: over_sum(np.exp(x)), in_python),
    },
    BELOW_ZERO: {
        FROM_ZERO: (
            lambda x: over_sum(np.exp(x - largest_from_zero(x))),
            lambda x: in_python(x - largest_from_zero(x)),
        ),
    },
    """Which score is the largest once you have taken something off, and what is its exponential?
    Look at what you take off before exp.
    Take off max(x): then no exponent is above zero.""": {
        "the mean or the smallest is taken off, not the largest": (
            lambda x: over_sum(np.exp(x - np.mean(x))),
            lambda x: over_sum(np.exp(x - np.min(x))),
        ),
    },
    """What do your weights add up to?
    Look at what you divide the exponentials by.
    By their sum, sum_j exp(x_j): the weights must add up to one, and that is why there are sinks.""": {
        "divided by the largest, not by the sum": exp,
        "the weights are not normalised": lambda x: np.exp(x),
    },
    """Can a weight be below zero?
    Look at what you take of the weights last.
    Return the weights, exp(x_i) / sum_j exp(x_j), without a logarithm.""": {
        "the logarithm of the weights": lambda x: np.log(softmax(x)),
    },
    """How much weight is left unspent?
    Look at the denominator: one term is too many.
    Leave out the 1, or the extra score of zero: softmax spends all of its weight.""": {
        "softmax1 instead of softmax": lambda x: softmax(np.append(x, 0.0))[:-1],
    },
    """What is exp(-inf)?
    Look at the line that treats -inf apart.
    Leave -inf as it is: exp(-inf - max) is 0 already, and a masked key gets no weight.""": {
        "a masked score, -inf, is taken for zero": lambda x: softmax(np.where(np.isneginf(x), 0.0, x)),
    },
    """What is the weight of a score below zero?
    Look at what you add up: the scores themselves?
    Take exp of each score first, then divide by the sum of these.""": {
        "no exponential: scores divided by their sum": over_sum,
    },
}
TURNS = turns(HINTED)
