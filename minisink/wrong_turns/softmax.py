"""Wrong turns of softmax and softmax1."""

import math

import numpy as np


def over_sum(weights):  # (..., S) -> (..., S)
    return weights / weights.sum(axis=-1, keepdims=True)


def exp(x):  # (..., S) -> (..., S)
    return np.exp(x - np.max(x, axis=-1, keepdims=True))


def softmax(x):  # (..., S) -> (..., S)
    """Return ``exp(x_i) / sum_j exp(x_j)``, NaN where everything is masked: the right softmax."""
    return over_sum(exp(x))


def largest_from_zero(x):  # (..., S) -> (..., 1)
    return np.maximum(np.max(x, axis=-1, keepdims=True), 0.0)


def from_zero(x):  # (..., S) -> (..., S)
    return over_sum(np.exp(x - largest_from_zero(x)))


def far_below_zero(x):
    weights = [math.exp(value - max(x)) for value in x]
    # the 1, shifted, may be too large for `math`; NumPy's infinity would do no harm
    return [weight / (math.exp(-max(x)) + sum(weights)) for weight in weights]


FROM_ZERO = "the search for the largest starts from zero, but all may be below"
SOFTMAX = {
    "the exponential overflows": lambda x: over_sum(np.exp(x)),
    FROM_ZERO: from_zero,
    "the mean or the smallest is subtracted, not the largest": lambda x: over_sum(np.exp(x - np.mean(x))),
    "divided by the largest, not by the sum": exp,
    "the weights are not normalised": lambda x: np.exp(x),
    "the logarithm of the weights": lambda x: np.log(softmax(x)),
    "softmax1 instead of softmax": lambda x: softmax(np.append(x, 0.0))[:-1],
    "a masked score, -inf, is taken for zero": lambda x: softmax(np.where(np.isneginf(x), 0.0, x)),
    "no exponential: scores divided by their sum": over_sum,
}
SOFTMAX1 = {
    "the scores are shifted and the 1 is not": lambda x: exp(x) / (1.0 + exp(x).sum()),  # seen in public code
    "the extra score is one, not zero": lambda x: softmax(np.append(x, 1.0))[:-1],
    "the 1 is shifted the wrong way": lambda x: exp(x) / (np.exp(np.max(x)) + exp(x).sum()),
    "softmax instead of softmax1": softmax,
    "a sigmoid: each score by itself, without the others": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "half of the weight, whatever the scores": lambda x: softmax(x) / 2.0,
    "the exponential overflows": (lambda x: np.exp(x) / (1.0 + np.exp(x).sum()), far_below_zero),
    "the weight of the extra term is returned too": (
        lambda x: softmax(np.append(x, 0.0)),
        lambda x: softmax(np.append(0.0, x)),
    ),
}
