"""Wrong turns of softmax1."""

import math

import numpy as np

from .softmax import exp, softmax
from .turn import turns


def in_python(x, largest=0.0):
    """Go without NumPy: `math` raises where an exponential overflows."""
    weights = [math.exp(value - largest) for value in x]
    return [weight / (math.exp(-largest) + sum(weights)) for weight in weights]


TITLED = {
    "the scores are shifted and the 1 is not": lambda x: exp(x) / (1.0 + exp(x).sum()),  # seen in public code
    "the extra score is one, not zero": lambda x: softmax(np.append(x, 1.0))[:-1],
    "the 1 is shifted the wrong way": lambda x: exp(x) / (np.exp(np.max(x)) + exp(x).sum()),
    "softmax instead of softmax1": softmax,
    "a sigmoid: each score alone, without the others": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "half of the weight, whatever the scores": lambda x: softmax(x) / 2.0,
    "the exponential overflows": (
        lambda x: np.exp(x) / (1.0 + np.exp(x).sum()),
        in_python,
        lambda x: in_python(x, max(x)),  # far below zero exp(-largest) overflows
    ),
    "the weight of the extra term is returned too": (
        lambda x: softmax(np.append(x, 0.0)),
        lambda x: softmax(np.append(0.0, x)),
    ),
}
TURNS = turns("softmax1", TITLED)
