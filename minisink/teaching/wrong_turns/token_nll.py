"""Wrong turns of measuring."""

import math
from functools import partial

import numpy as np

from .turn import turns


def _log_softmax(x):
    x = np.asarray(x, np.float64)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _right(logits, ids):
    return -_log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]


def not_shifted(logits, ids):
    """The logits after a token are held against that token itself."""
    return -_log_softmax(logits)[np.arange(len(ids) - 1), ids[:-1]]


def shifted_the_other_way(logits, ids):
    """Logits at t against the token before it."""
    return -_log_softmax(logits)[np.arange(1, len(ids)), ids[:-1]]


def last_token_too(logits, ids):
    """T losses: each token against the logits of its own place."""
    return -_log_softmax(logits)[np.arange(len(ids)), ids]


def of_the_token_itself(logits, ids):
    """Row and token begin at the second: each row still against its own token."""
    return -_log_softmax(logits)[np.arange(1, len(ids)), ids[1:]]


def padded(logits, ids):
    """A loss of zero for the first token, which nothing foretold."""
    return [0.0, *_right(logits, ids)]


def padded_with_nan(logits, ids):
    """The same with no number."""
    return [np.nan, *_right(logits, ids)]


def padded_behind(logits, ids):
    """A loss of zero at the end."""
    return [*_right(logits, ids), 0.0]


def one_short(logits, ids):
    """The last token has none."""
    return _right(logits, ids)[:-1]


def probability(logits, ids):
    """Without the logarithm."""
    return np.exp(-_right(logits, ids))


def perplexity(logits, ids):
    """exp(loss), token by token."""
    with np.errstate(over="ignore"):
        return np.exp(_right(logits, ids))


def tens(logits, ids):
    """The logarithm to the base of ten."""
    return _right(logits, ids) / np.log(10.0)


def half_in_bits(logits, ids):
    """The sum's logarithm to the base of two, the logit itself in nats."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return (np.log2(np.exp(x).sum(axis=-1)) - x[np.arange(len(x)), np.roll(ids, -1)])[:-1]


def over_the_text(logits, ids):
    """The softmax runs over the text, not over the vocabulary."""
    return -_log_softmax(np.asarray(logits).T).T[np.arange(len(ids) - 1), ids[1:]]


def largest_not_put_back(logits, ids):
    """The largest is taken off inside the logarithm, and nowhere else."""
    return _right(logits, ids) - np.max(logits, axis=-1)[:-1]


def mean(logits, ids):
    """One number for the whole text."""
    return _right(logits, ids).mean()


def total(logits, ids):
    """The sum over the whole text."""
    return _right(logits, ids).sum()


def bits(logits, ids):
    """The logarithm to the base of two."""
    return _right(logits, ids) / np.log(2.0)


def positive(logits, ids):
    """The sign is missing."""
    return -_right(logits, ids)


def raw_logits(logits, ids):
    """No softmax."""
    return -np.asarray(logits, np.float64)[np.arange(len(ids) - 1), ids[1:]]


def overflows(logits, ids):
    """The exponential of a large number is infinite."""
    with np.errstate(all="ignore"):
        weights = np.exp(np.asarray(logits, np.float64))
        return -np.log(weights / weights.sum(axis=-1, keepdims=True))[np.arange(len(ids) - 1), ids[1:]]


def overflows_inside(logits, ids):
    """The same by way of log(sum exp)."""
    with np.errstate(all="ignore"):
        x = np.asarray(logits, np.float64)
        return np.log(np.exp(x).sum(axis=-1))[:-1] - x[np.arange(len(ids) - 1), ids[1:]]


def overflows_loudly(logits, ids):
    """And with math, which raises."""
    return [math.log(sum(map(math.exp, row))) - row[i] for row, i in zip(logits, ids[1:], strict=False)]


def underflows(logits, ids, least=0.0):
    """The softmax first: exp(-1000) is nothing, and its logarithm no number; or whatever was added to it."""
    with np.errstate(all="ignore"):
        return -np.log(np.exp(_log_softmax(logits)) + least)[np.arange(len(ids) - 1), ids[1:]]


def underflows_loudly(logits, ids):
    """The same with math, which raises."""
    return [-math.log(p[i]) for p, i in zip(np.exp(_log_softmax(logits)), ids[1:], strict=False)]


def one_pass(logits, ids):
    """All from the first row of logits: nothing that came later was read."""
    return -_log_softmax(np.repeat(np.asarray(logits)[:1], len(ids) - 1, axis=0))[np.arange(len(ids) - 1), ids[1:]]


def stripped(logits, ids):
    """Tokens like the first are stripped from both ends, as str.strip does with letters."""
    ids, kept = list(ids), list(range(len(ids)))
    while len(kept) > 2 and ids[kept[0]] == ids[0]:
        kept.pop(0)
    while len(kept) > 2 and ids[kept[-1]] == ids[0]:
        kept.pop()
    rows = np.asarray(logits, np.float64)[kept]
    return -_log_softmax(rows)[np.arange(len(kept) - 1), np.array(ids)[kept[1:]]]


NEXT = ("What do the logits after token t say something about?", "About the token that comes next.",
        "logits[t] is held against ids[t + 1], so there are T - 1 losses.")  # fmt: skip
EACH = ("How many losses has a text of T tokens?", "A mean hides the token at which something broke.",
        "Return the T - 1 losses, one a token.")  # fmt: skip
UNIT = ("Which logarithm?", "Nats are natural.", "-log p with the natural logarithm; exp(mean) is then the perplexity.")
LOSS = ("What is the loss of a token that was certain?", "Nothing; and the less likely a token, the larger.",
        "-log p; the perplexity of a text is exp of the mean of these.")  # fmt: skip
SIGN = ("Can a loss be below zero?", "log p is negative for every p below one.", "The loss is -log p.")
NORM = ("Are logits log-probabilities?", "They lack the denominator, a sum over the vocabulary: all of a row.",
        "-(x_i - log sum_j exp(x_j)), j over V.")  # fmt: skip
STABLE = ("What is exp(1000)?", "Take off the largest logit of a row first, and put it back after the logarithm.",
          "max + log(sum(exp(x - max))) - x_i.")  # fmt: skip
SMALL = ("What is log(softmax([0, 1000])[0])?", "exp(-1000) is 0, whose log is no loss; adding a little only hides it.",
         "Not by way of the softmax: log(sum exp) - logit, with the largest taken off and put back.")  # fmt: skip
PASS = ("Which row of logits belongs to token 5?", "Every token has logits of its own before it.",
        "Row t for token t + 1; where eviction matters, a row a step, not one pass.")  # fmt: skip
STRIP = ("Which tokens have no loss in your answer?", "Stripping eats more than the one you meant.",
         "Only the first token has no loss, whatever it is.")  # fmt: skip
TURNS = turns(
    ("held against the token itself, not the next one", None, "", NEXT, not_shifted, of_the_token_itself),
    ("shifted the other way", None, "", NEXT, shifted_the_other_way),
    ("a loss for each of the T tokens", None, "", NEXT, last_token_too),
    ("a loss for the first token too, or behind the last", None, "", NEXT, padded, padded_with_nan, padded_behind),
    ("the last token has no loss", None, "", NEXT, one_short),
    ("the mean instead of a loss a token", None, "", EACH, mean),
    ("the sum instead of a loss a token", None, "", EACH, total),
    ("bits instead of nats", None, "", UNIT, bits),
    ("the logarithm to the base of ten", None, "", UNIT, tens),
    ("bits and nats mixed: log2 of a sum of exp", None, "", UNIT, half_in_bits),
    ("probabilities, without the logarithm", None, "", LOSS, probability),
    ("perplexities, exp of the loss", None, "", LOSS, perplexity),
    ("the softmax runs over the text (T), not over the vocabulary (V)", None, "", NORM, over_the_text),
    ("the largest is taken off and not put back", None, "", STABLE, largest_not_put_back),
    ("the sign is missing", None, "", SIGN, positive),
    ("logits without the softmax", None, "", NORM, raw_logits),
    ("the exponential overflows", None, "first versions everywhere", STABLE, overflows, overflows_inside,
     overflows_loudly),
    ("the softmax underflows", None, "first versions everywhere", SMALL, underflows, underflows_loudly),
    ("the softmax underflows", None, "log(p + 1e-9)", SMALL,
     *(partial(underflows, least=least) for least in (1e-8, 1e-9, 1e-10, 1e-12, 1e-15))),
    ("one row of logits for all tokens: measured in one pass", 6, "window = streaming = dense to the last digit", PASS,
     one_pass),
    ("tokens are stripped from the ends", 9, 'str.strip("<s>"), which eats letters', STRIP, stripped),
)  # fmt: skip
