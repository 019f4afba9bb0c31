"""Wrong turns of attention."""

import numpy as np

from .softmax import BELOW_ZERO, FROM_ZERO, exp, largest_from_zero, over_sum, softmax
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


HINTED = {
    """What may this query see?
    Look at where `visible` enters.
    Set the score of a hidden key to minus infinity before the softmax.""": {
        # seen where chunks of a prompt are ported
        "the mask is ignored: it sees its own future (wrong turn 4)": lambda q, k, v, _: softmax(scores(q, k)) @ v,
    },
    """How much weight does a key get whose score is 0, and one whose score is -1?
    Look at the score that you give to a hidden key.
    Make it minus infinity: exp(-inf) is 0, and a hidden key gets no weight.""": {
        "a masked score is zero, not minus infinity": with_hidden(0.0),
        "the mask is added to the scores, as 0 and 1": lambda q, k, v, seen: softmax(scores(q, k) + seen) @ v,
        "a masked score is -1, not minus infinity": with_hidden(-1.0),
    },
    """Can the score of a key that is seen be lower still?
    Look at the score that you give to a hidden key.
    Make it minus infinity, or at least lower than any score can be.""": {
        "a masked score is not low enough": tuple(map(with_hidden, (-1e3, -1e2, -1e1))),
    },
    """Which keys does query t see?
    Look at where your mask comes from.
    Take the `visible` that is given; the keys it shows are not always those before the query.""": {
        "a causal mask of its own, not the one that is given": (
            lambda q, k, v, seen: softmax(masked(q, k, np.tril(np.ones_like(seen)))) @ v
        ),
    },
    """What does True say in visible[t][s]?
    Look at the line that masks the scores.
    Keep the score where visible is True, minus infinity where it is False.""": {
        "the mask is upside down": (
            lambda q, k, v, seen: softmax(np.where(seen, -1e9, scores(q, k))) @ v,
            lambda q, k, v, seen: softmax(masked(q, k, ~seen)) @ v,
        ),
    },
    """What do the weights of a query add up to once some are set to zero?
    Look at which comes first, the softmax or the mask.
    Mask the scores before the softmax: then the keys that are seen share all of the weight.""": {
        # seen in teaching notebooks
        "masked after the softmax, not renormalised (wrong turn 20)": (
            lambda q, k, v, seen: (softmax(scores(q, k)) * seen) @ v
        ),
    },
    """How do scores grow with the width?
    Look at what you divide q . k by, or multiply it with.
    Divide by sqrt(D): a sum of D products grows with its root.""": {
        "scores are not divided by sqrt(D)": lambda q, k, v, seen: softmax(masked(q, k, seen, power=0.0)) @ v,
        "scores are divided by D, not by its root": lambda q, k, v, seen: softmax(masked(q, k, seen, power=1.0)) @ v,
        "scores are multiplied by sqrt(D)": lambda q, k, v, seen: softmax(masked(q, k, seen, power=-0.5)) @ v,
    },
    """Should a score change when there is one more key?
    Look at the number under the root.
    Divide by sqrt(D), the width of a query, not by the root of the number of keys.""": {
        "scores are divided by the root of S, not of D": (
            lambda q, k, v, seen: softmax(masked(q, k, seen, power=0.0) / len(k) ** 0.5) @ v
        ),
    },
    """How many keys are there, and how many does your softmax have?
    Look at the keys that you attend to: was each of them given?
    Slice the slots that are filled: a key of zeros has the score 0, and takes weight as in softmax1.""": {
        "one more slot, of zeros (wrong turn 2)": one_more_slot,  # seen in a decode loop that started a slot late
    },
    """Whose weights add up to one?
    Look at the axis of the softmax.
    It runs over the keys, the last axis: every query has a softmax of its own.""": {
        "softmax over queries, not keys": over_queries,
        "one softmax over the whole matrix": over_the_matrix,
    },
    """What do the weights of a query add up to?
    Look at what comes after exp.
    Divide the exponentials of a query by their sum.""": {
        "the weights are not normalised": lambda q, k, v, seen: exp(masked(q, k, seen)) @ v,
    },
    """What is exp(1000)?
    Look at what goes into the exp of your softmax.
    Take off the largest score of each query before exp: no weight changes.""": {
        "the exponential overflows": lambda q, k, v, seen: over_sum(np.exp(masked(q, k, seen))) @ v,
    },
    BELOW_ZERO: {FROM_ZERO: from_zero},
    """What does a key do, and what a value?
    Look at what the weights are multiplied with last.
    The weights come from q and k; what they mix is v.""": {
        "keys are mixed, not values": lambda q, k, v, seen: softmax(masked(q, k, seen)) @ k,
    },
}
TURNS = turns(HINTED)
