"""Wrong turns of softmax1."""

import math

import numpy as np

from .turn import Turn


def shifts_all_but_the_one(x):
    """The largest score is taken off the scores, and not off the one, which is exp(0)."""
    x = np.asarray(x, np.float64)
    weights = np.exp(x - x.max())
    return weights / (1.0 + weights.sum())


def is_softmax(x):
    """Without the one."""
    x = np.asarray(x, np.float64)
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def overflows(x):
    """The exponential of a large number is infinite."""
    with np.errstate(all="ignore"):
        weights = np.exp(np.asarray(x, np.float64))
        return weights / (1.0 + weights.sum())


def overflows_loudly(x):
    """The same with math, which raises."""
    weights = [math.exp(value) for value in x]
    return [weight / (1.0 + sum(weights)) for weight in weights]


def adds_one_outside(x):
    """One is added to the quotient's wrong side."""
    x = np.asarray(x, np.float64)
    weights = np.exp(x - x.max())
    return weights / weights.sum() / 2.0


SHIFT = ("What becomes of the 1 when the largest score is taken off?", "The 1 is exp(0): one more score, of zero.",
         "With c taken off, the denominator is exp(-c) + sum exp(x - c).")  # fmt: skip
STABLE = ("What is exp(1000)?", "Take off the largest score; and remember the zero that competes with it.",
          "c = max(max(x), 0): then neither exp(x - c) nor exp(-c) can overflow.")  # fmt: skip
ONE = ("May these weights add up to one?", "One more score of zero takes its share, and what it wins is dropped.",
       "exp(x_i) / (1 + sum_j exp(x_j)).")  # fmt: skip
TURNS = (
    Turn("the scores are shifted and the 1 is not", None, "softmax1 in public code", SHIFT, shifts_all_but_the_one),
    Turn("softmax instead of softmax1", None, "", ONE, is_softmax),
    Turn("the exponential overflows", None, "first versions everywhere", STABLE, overflows),
    Turn("the exponential overflows", None, "first versions everywhere", STABLE, overflows_loudly),
    Turn("half of the weight, whatever the scores", None, "", ONE, adds_one_outside),
)
