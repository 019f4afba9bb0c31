"""Wrong turns of softmax1."""

import math

import numpy as np

from .turn import turns


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


def overflows_downwards(x):
    """Shifted by the largest score: exp(-largest) overflows where that is far below zero, in math."""
    largest = max(x)
    weights = [math.exp(value - largest) for value in x]
    return [weight / (math.exp(-largest) + sum(weights)) for weight in weights]


def one_more_weight(x):
    """The weight of the extra term is returned with the others."""
    return is_softmax(np.append(x, 0.0))


def one_more_weight_first(x):
    """The same, at the front."""
    return is_softmax(np.append(0.0, x))


def a_score_of_one(x):
    """The extra term is exp(1), not 1."""
    return is_softmax(np.append(x, 1.0))[:-1]


def shifts_the_one_upwards(x):
    """exp(largest) for exp(-largest)."""
    x = np.asarray(x, np.float64)
    weights = np.exp(x - x.max())
    with np.errstate(over="ignore"):
        return weights / (np.exp(x.max()) + weights.sum())


def each_alone(x):
    """The sum has the score itself only."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


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
DROP = ("How many weights do S scores have?", "The extra score takes its share, and nobody gets it.",
        "Drop the extra weight from the answer, after it has been in the sum.")  # fmt: skip
TURNS = turns(
    ("the scores are shifted and the 1 is not", None, "softmax1 in public code", SHIFT, shifts_all_but_the_one),
    ("softmax instead of softmax1", None, "", ONE, is_softmax),
    ("the exponential overflows", None, "first versions everywhere", STABLE, overflows, overflows_loudly,
     overflows_downwards),
    ("the weight of the extra term is returned too", None, "", DROP, one_more_weight, one_more_weight_first),
    ("the extra score is one, not zero", None, "", SHIFT, a_score_of_one),
    ("the 1 is shifted the wrong way", None, "", SHIFT, shifts_the_one_upwards),
    ("a sigmoid: each score alone, without the others", None, "", ONE, each_alone),
    ("half of the weight, whatever the scores", None, "", ONE, adds_one_outside),
)  # fmt: skip
