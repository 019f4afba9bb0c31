"""Wrong turns of softmax1."""

import math

import numpy as np

from .softmax import exp, softmax
from .turn import turns


def in_python(x, largest=0.0):
    """Go without NumPy: `math` raises where an exponential overflows."""
    weights = [math.exp(value - largest) for value in x]
    return [weight / (math.exp(-largest) + sum(weights)) for weight in weights]


HINTED = {
    """What becomes of the 1 when the largest score is taken off?
    The 1 is exp(0): one more score, of zero.
    With c taken off, the denominator is exp(-c) + sum exp(x - c).""": {
        "the scores are shifted and the 1 is not": lambda x: exp(x) / (1.0 + exp(x).sum()),  # seen in public code
        "the extra score is one, not zero": lambda x: softmax(np.append(x, 1.0))[:-1],
        "the 1 is shifted the wrong way": lambda x: exp(x) / (np.exp(np.max(x)) + exp(x).sum()),
    },
    """May these weights add up to one?
    One more score of zero takes its share, and what it wins is dropped.
    exp(x_i) / (1 + sum_j exp(x_j)).""": {
        "softmax instead of softmax1": softmax,
        "a sigmoid: each score alone, without the others": lambda x: 1.0 / (1.0 + np.exp(-x)),
        "half of the weight, whatever the scores": lambda x: softmax(x) / 2.0,
    },
    """What is exp(1000)?
    Take off the largest score; and remember the zero that competes with it.
    c = max(max(x), 0): then neither exp(x - c) nor exp(-c) can overflow.""": {
        "the exponential overflows": (
            lambda x: np.exp(x) / (1.0 + np.exp(x).sum()),
            in_python,
            lambda x: in_python(x, max(x)),  # far below zero exp(-largest) overflows
        ),
    },
    """How many weights do S scores have?
    The extra score takes its share, and nobody gets it.
    Drop the extra weight from the answer, after it has been in the sum.""": {
        "the weight of the extra term is returned too": (
            lambda x: softmax(np.append(x, 0.0)),
            lambda x: softmax(np.append(0.0, x)),
        ),
    },
}
TURNS = turns(HINTED)
