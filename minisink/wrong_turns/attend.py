"""Wrong turns of attention."""

import numpy as np

from .softmax import FROM_ZERO, exp, largest_from_zero, over_sum, softmax
from .turn import turns


def scores(q, k, power=0.5):  # (T, D), (S, D) -> (T, S)
    """Return ``q · k / sqrt(D)``, or over another power of D."""
    return q @ k.T / q.shape[1] ** power


def masked(q, k, visible, hidden=-np.inf, power=0.5):
    """Return the scores, and something else for a key that is hidden."""
    return np.where(visible, scores(q, k, power), hidden)


def one_more_slot(q, k, v, visible):
    """Attend to a slot of zeros that was never filled: an accidental sink."""
    k, v = (np.concatenate((np.zeros((1, x.shape[1])), x)) for x in (k, v))
    return softmax(masked(q, k, np.insert(visible, 0, True, axis=1))) @ v


def over_queries(q, k, v, visible):
    """Take the softmax along the wrong axis."""
    return softmax(masked(q, k, visible, -1e30).T).T * visible @ v


def over_the_matrix(q, k, v, visible):
    """Take the sum over all rows."""
    x = masked(q, k, visible)
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum() @ v


def with_hidden(score):
    """Return an attention that gives a hidden key this score."""
    return lambda q, k, v, visible: softmax(masked(q, k, visible, score)) @ v


def from_zero(q, k, v, visible):
    """Take off zero where all scores lie below."""
    x = masked(q, k, visible)
    return over_sum(np.exp(x - largest_from_zero(x))) @ v


TITLED = {
    # seen where chunks of a prompt are ported
    "the mask is ignored: it sees its own future (wrong turn 4)": lambda q, k, v, _: softmax(scores(q, k)) @ v,
    "a masked score is zero, not minus infinity": with_hidden(0.0),
    "the mask is added to the scores, as 0 and 1": lambda q, k, v, seen: softmax(scores(q, k) + seen) @ v,
    "a masked score is -1, not minus infinity": with_hidden(-1.0),
    "a masked score is not low enough": tuple(map(with_hidden, (-1e3, -1e2, -1e1))),
    "a causal mask of its own, not the one that is given": (
        lambda q, k, v, seen: softmax(masked(q, k, np.tril(np.ones_like(seen)))) @ v
    ),
    "the mask is upside down": (
        lambda q, k, v, seen: softmax(np.where(seen, -1e9, scores(q, k))) @ v,
        lambda q, k, v, seen: softmax(masked(q, k, ~seen)) @ v,
    ),
    # seen in teaching notebooks
    "masked after the softmax, not renormalised (wrong turn 20)": (
        lambda q, k, v, seen: (softmax(scores(q, k)) * seen) @ v
    ),
    "scores are not divided by sqrt(D)": lambda q, k, v, seen: softmax(masked(q, k, seen, power=0.0)) @ v,
    "scores are divided by D, not by its root": lambda q, k, v, seen: softmax(masked(q, k, seen, power=1.0)) @ v,
    "scores are multiplied by sqrt(D)": lambda q, k, v, seen: softmax(masked(q, k, seen, power=-0.5)) @ v,
    "scores are divided by the root of S, not of D": (
        lambda q, k, v, seen: softmax(masked(q, k, seen, power=0.0) / len(k) ** 0.5) @ v
    ),
    "one more slot, of zeros (wrong turn 2)": one_more_slot,  # seen in a decode loop that started a slot late
    "softmax over queries, not keys": over_queries,
    "one softmax over the whole matrix": over_the_matrix,
    "the weights are not normalised": lambda q, k, v, seen: exp(masked(q, k, seen)) @ v,
    "the exponential overflows": lambda q, k, v, seen: over_sum(np.exp(masked(q, k, seen))) @ v,
    FROM_ZERO: from_zero,
    "keys are mixed, not values": lambda q, k, v, seen: softmax(masked(q, k, seen)) @ k,
}
TURNS = turns("attend", TITLED)
