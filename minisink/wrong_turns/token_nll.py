"""Wrong turns in measuring the loss."""

import numpy as np

from ..ops import log_softmax
from .softmax import FROM_ZERO, largest_from_zero, over_sum


def at_next(rows, ids, first_row=0, first_token=1):  # (T, V), (T,) -> (T - 1,)
    """Pick each token's number from its row, starting at `first_token` and `first_row`."""
    n = len(ids) - max(first_row, first_token)
    return np.asarray(rows)[np.arange(first_row, first_row + n), ids[first_token : first_token + n]]


def right(logits, ids, *first):
    """Return ``-log softmax(logits[t])[ids[t + 1]]``, or start from a different row and token."""
    return -at_next(log_softmax(logits), ids, *first)


def half_in_bits(logits, ids):
    x = logits - np.max(logits, axis=-1, keepdims=True)
    return np.log2(np.exp(x).sum(axis=-1))[:-1] - at_next(x, ids)


def from_zero(logits, ids):
    largest = largest_from_zero(logits)
    sums = np.exp(logits - largest).sum(axis=-1)
    return largest[:-1, 0] + np.log(sums[:-1]) - at_next(logits, ids)


def underflows(least):
    """Return a loss that goes through the softmax, with `least` added to a probability that may be zero."""
    return lambda logits, ids: -np.log(at_next(np.exp(log_softmax(logits)) + least, ids))


def stripped(logits, ids):
    """Strip tokens like the first from both ends, as str.strip does with letters."""
    ids, kept = list(ids), list(range(len(ids)))
    while len(kept) > 2 and ids[kept[0]] == ids[0]:
        kept.pop(0)
    while len(kept) > 2 and ids[kept[-1]] == ids[0]:
        kept.pop()
    return right(np.asarray(logits)[kept], np.array(ids)[kept])


TOKEN_NLL = {
    "compared with the token itself, not the next one": (
        lambda logits, ids: right(logits, ids, 0, 0)[:-1],
        lambda logits, ids: right(logits, ids, 1, 1),
    ),
    "shifted the other way": lambda logits, ids: right(logits, ids, 1, 0),
    "a loss for each of the T tokens": lambda logits, ids: right(logits, ids, 0, 0),
    "a loss for the first token too, or after the last": (
        lambda logits, ids: [0.0, *right(logits, ids)],
        lambda logits, ids: [np.nan, *right(logits, ids)],
        lambda logits, ids: [*right(logits, ids), 0.0],
    ),
    "the last token has no loss": lambda logits, ids: right(logits, ids)[:-1],
    "the mean instead of a loss per token": lambda logits, ids: right(logits, ids).mean(),
    "the sum instead of a loss per token": lambda logits, ids: right(logits, ids).sum(),
    "bits instead of nats": lambda logits, ids: right(logits, ids) / np.log(2.0),
    "the base-10 logarithm": lambda logits, ids: right(logits, ids) / np.log(10.0),
    "bits and nats mixed: log2 of a sum of exp": half_in_bits,
    "probabilities, without the logarithm": lambda logits, ids: np.exp(-right(logits, ids)),
    "perplexities, exp of the loss": lambda logits, ids: np.exp(right(logits, ids)),
    "the softmax runs over the text (T), not over the vocabulary (V)": (
        lambda logits, ids: -at_next(log_softmax(np.asarray(logits).T).T, ids)
    ),
    "logits without the softmax": lambda logits, ids: -at_next(logits, ids),
    "the largest is subtracted but not added back": (
        lambda logits, ids: right(logits, ids) - np.max(logits, axis=-1)[:-1]
    ),
    FROM_ZERO: from_zero,
    "the exponential overflows": (
        lambda logits, ids: -np.log(at_next(over_sum(np.exp(logits)), ids)),
        lambda logits, ids: np.log(np.exp(logits).sum(axis=-1))[:-1] - at_next(logits, ids),
    ),
    "the sign is missing": lambda logits, ids: -right(logits, ids),
    "the softmax underflows": tuple(underflows(least) for least in (0.0, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15)),
    # seen as: window = streaming = dense to the last digit
    "one row of logits for all tokens: measured in one pass (wrong turn 6)": (
        lambda logits, ids: right(np.repeat(np.asarray(logits)[:1], len(ids), axis=0), ids)
    ),
    "tokens are stripped from the ends (wrong turn 9)": stripped,  # seen as str.strip("<s>"), which eats letters
}
