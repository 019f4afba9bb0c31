"""Wrong turns of measuring."""

import math
from functools import partial

import numpy as np

from .softmax import BELOW_ZERO, FROM_ZERO, largest_from_zero
from .turn import turns


def log_softmax(x):  # (T, V) -> (T, V)
    """Return ``x_i - log sum_j exp(x_j)``."""
    x = np.asarray(x, np.float64)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def right(logits, ids):
    """Return ``-log softmax(logits[t])[ids[t + 1]]``."""
    return -at_next(log_softmax(logits), ids)


def at_next(rows, ids):  # (T, V), (T,) -> (T - 1,)
    """Pick of each row the number of the next token."""
    return np.asarray(rows)[np.arange(len(ids) - 1), ids[1:]]


def at(rows, ids, first_row, first_token):
    """Pick of other rows and tokens, from these on."""
    n = len(ids) - max(first_row, first_token)
    return -log_softmax(rows)[np.arange(first_row, first_row + n), ids[first_token : first_token + n]]


def half_in_bits(logits, ids):
    """Take the sum's logarithm to the base of two, the logit itself in nats."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return np.log2(np.exp(x).sum(axis=-1))[:-1] - at_next(x, ids)


def over_exp(logits, ids):
    """Take the exponential of large numbers."""
    weights = np.exp(np.asarray(logits, np.float64))
    return -np.log(at_next(weights / weights.sum(axis=-1, keepdims=True), ids))


def in_python(logits, ids):
    """Go without NumPy: `math` raises where an exponential overflows."""
    return [math.log(sum(map(math.exp, row))) - row[i] for row, i in zip(logits, ids[1:], strict=False)]


def from_zero(logits, ids, log=np.log):
    """Take off zero where all logits lie below; `math.log` raises there."""
    largest = largest_from_zero(logits)
    sums = np.exp(logits - largest).sum(axis=-1)
    return largest[:-1, 0] + [log(x) for x in sums[:-1]] - at_next(logits, ids)


def of_softmax(logits, ids):
    """Go without NumPy by way of the softmax: the logarithm of nothing raises."""
    return [-math.log(p[i]) for p, i in zip(np.exp(log_softmax(logits)), ids[1:], strict=False)]


def underflows(least):
    """Return a loss by way of the softmax, with something added to a probability that may be nothing."""
    return lambda logits, ids: -np.log(at_next(np.exp(log_softmax(logits)) + least, ids))


def stripped(logits, ids):
    """Strip tokens like the first from both ends, as str.strip does with letters."""
    ids, kept = list(ids), list(range(len(ids)))
    while len(kept) > 2 and ids[kept[0]] == ids[0]:
        kept.pop(0)
    while len(kept) > 2 and ids[kept[-1]] == ids[0]:
        kept.pop()
    return right(np.asarray(logits)[kept], np.array(ids)[kept])


HINTED = {
    """What do the logits after token t say something about?
    Look at which row meets which token.
    About the token that comes next: logits[t] is held against ids[t + 1].""": {
        "held against the token itself, not the next one": (
            lambda logits, ids: at(logits, ids, 0, 0)[:-1],
            lambda logits, ids: at(logits, ids, 1, 1),
        ),
        "shifted the other way": lambda logits, ids: at(logits, ids, 1, 0),
    },
    """How many tokens of a text have another before them?
    Look at how many losses you return, and at the first and the last.
    T - 1: logits[t] is held against ids[t + 1], the first token has no loss, and behind the last comes none.""": {
        "a loss for each of the T tokens": lambda logits, ids: at(logits, ids, 0, 0),
        "a loss for the first token too, or behind the last": (
            lambda logits, ids: [0.0, *right(logits, ids)],
            lambda logits, ids: [np.nan, *right(logits, ids)],
            lambda logits, ids: [*right(logits, ids), 0.0],
        ),
        "the last token has no loss": lambda logits, ids: right(logits, ids)[:-1],
    },
    """How many losses has a text of T tokens?
    Look at your last line: it makes one number of many.
    Return the T - 1 losses: a mean, or a sum, hides the token at which something broke.""": {
        "the mean instead of a loss a token": lambda logits, ids: right(logits, ids).mean(),
        "the sum instead of a loss a token": lambda logits, ids: right(logits, ids).sum(),
    },
    """Which logarithm?
    Look at each logarithm that you take, and at its base.
    Nats are natural: np.log or math.log, neither log2 nor log10; exp(mean) is then the perplexity.""": {
        "bits instead of nats": lambda logits, ids: right(logits, ids) / np.log(2.0),
        "the logarithm to the base of ten": lambda logits, ids: right(logits, ids) / np.log(10.0),
        "bits and nats mixed: log2 of a sum of exp": half_in_bits,
    },
    """What is the loss of a token that was certain?
    Look at what you make of its probability last.
    Take -log p, which is 0 for a certain token; leave exp to whoever takes the mean.""": {
        "probabilities, without the logarithm": lambda logits, ids: np.exp(-right(logits, ids)),
        "perplexities, exp of the loss": lambda logits, ids: np.exp(right(logits, ids)),
    },
    """Which probabilities add up to one?
    Look at the axis of your sum.
    Those of all words after one token: sum over the vocabulary, the last axis.""": {
        "the softmax runs over the text (T), not over the vocabulary (V)": (
            lambda logits, ids: -at_next(log_softmax(np.asarray(logits).T).T, ids)
        ),
    },
    """Are logits log-probabilities?
    Look at what you take off the logit.
    They lack the denominator, a sum over the vocabulary: -(x_i - log sum_j exp(x_j)).""": {
        "logits without the softmax": lambda logits, ids: -at_next(logits, ids),
    },
    """Does your loss change when 1000 is added to every logit of a row?
    Look at the largest of the row: you take it off the sum; what about the logit of the token?
    Put it back after the logarithm: max + log(sum_j exp(x_j - max)) - x_i.""": {
        "the largest is taken off and not put back": (
            lambda logits, ids: right(logits, ids) - np.max(logits, axis=-1)[:-1]
        ),
    },
    BELOW_ZERO: {FROM_ZERO: (from_zero, partial(from_zero, log=math.log))},
    """What is exp(1000)?
    Look at what goes into exp.
    Take off the largest logit of the row first, put it back after: max + log(sum_j exp(x_j - max)) - x_i.""": {
        "the exponential overflows": (
            over_exp,
            lambda logits, ids: np.log(np.exp(logits).sum(axis=-1))[:-1] - at_next(logits, ids),
            in_python,
        ),
    },
    """Can a loss be below zero?
    Look at the sign of what you return.
    The loss is -log p: log p is negative for every p below one.""": {
        "the sign is missing": lambda logits, ids: -right(logits, ids),
    },
    """What is log(softmax([0, 1000])[0])?
    Look at what goes into your logarithm: exp(-1000) is 0, and adding a little only hides it.
    Not by way of the softmax: log(sum exp) - logit, with the largest taken off inside and put back.""": {
        "the softmax underflows": (
            *(underflows(least) for least in (0.0, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15)),
            of_softmax,
        ),
    },
    """Which row of logits belongs to token 5?
    Look at the index of the row: does it change with the token?
    Row t for token t + 1; where eviction matters, a row a step, not one pass.""": {
        # seen as: window = streaming = dense to the last digit
        "one row of logits for all tokens: measured in one pass (wrong turn 6)": (
            lambda logits, ids: right(np.repeat(np.asarray(logits)[:1], len(ids), axis=0), ids)
        ),
    },
    """Which tokens have no loss in your answer?
    Look at the line that drops tokens: stripping eats more than the one you meant.
    Drop none: only the first token has no loss, whatever it is.""": {
        "tokens are stripped from the ends (wrong turn 9)": stripped,  # seen as str.strip("<s>"), which eats letters
    },
}
TURNS = turns(HINTED)
