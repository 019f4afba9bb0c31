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
    Look at the denominator.
    The 1 is exp(0), one more score: with c taken off, the denominator is exp(-c) + sum_j exp(x_j - c).""": {
        "the scores are shifted and the 1 is not": lambda x: exp(x) / (1.0 + exp(x).sum()),  # seen in public code
    },
    """Of which score is the 1 in the denominator the exponential?
    Look at the score that you put beside the others.
    It is 0, not 1: exp(0) is 1.""": {
        "the extra score is one, not zero": lambda x: softmax(np.append(x, 1.0))[:-1],
    },
    """With c taken off every score, what becomes of the score of zero?
    Look at the sign in the extra term of the denominator.
    It becomes -c: the denominator is exp(-c) + sum_j exp(x_j - c).""": {
        "the 1 is shifted the wrong way": lambda x: exp(x) / (np.exp(np.max(x)) + exp(x).sum()),
    },
    """May these weights add up to one?
    Look at the denominator: a term is missing.
    One more score of zero takes its share, and what it wins is dropped: exp(x_i) / (1 + sum_j exp(x_j)).""": {
        "softmax instead of softmax1": softmax,
    },
    """Does a weight depend on the other scores?
    Look at the denominator: whose exponentials are in it?
    It is the same for all: 1 + sum_j exp(x_j), over every score.""": {
        "a sigmoid: each score alone, without the others": lambda x: 1.0 / (1.0 + np.exp(-x)),
    },
    """How much weight is left unspent when one score is very large?
    Look at what you do with the weights of the softmax.
    The share that stays unspent depends on the scores: exp(x_i) / (1 + sum_j exp(x_j)).""": {
        "half of the weight, whatever the scores": lambda x: softmax(x) / 2.0,
    },
    """What is exp(1000)?
    Look at every exp, that of the extra term too.
    Take off c = max(max(x), 0): then neither exp(x - c) nor exp(-c) can overflow.""": {
        "the exponential overflows": (
            lambda x: np.exp(x) / (1.0 + np.exp(x).sum()),
            in_python,
            lambda x: in_python(x, max(x)),  # far below zero exp(-largest) overflows
        ),
    },
    """How many weights do S scores have?
    Look at what you return.
    Drop the weight of the extra score once it has been in the sum.""": {
        "the weight of the extra term is returned too": (
            lambda x: softmax(np.append(x, 0.0)),
            lambda x: softmax(np.append(0.0, x)),
        ),
    },
}
TURNS = turns(HINTED)
