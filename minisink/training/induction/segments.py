"""The induction task: the smallest world in which something can be remembered, and forgotten.

A random text cannot be predicted: every symbol costs log(32) nats, which is chance. But a *segment* that is read a
second time can be copied, by a head that finds where the current symbol occurred before and reads what came after it
(Olsson et al., arXiv:2209.11895). Two layers can learn that, but one cannot: a head in the first layer marks each token
with the previous one, and a head in the second looks the mark up.

::

    BOS  k c a m  r s  k c a m  k c a m  u e b ...     segment, a gap or none, the segment twice more; the next one
    BOS  k c a m  r s t u e h ... l d  k c a m         the question: how much of it is known after the gap
"""

import math

import numpy as np

BOS = 0
N_SYMBOLS = 32
VOCABULARY = N_SYMBOLS + 1  # BOS is not a symbol
SEGMENT = 12  # symbols that a text of `ask` holds twice
CHANCE = math.log(N_SYMBOLS)  # nats per symbol: the loss of a model that remembers nothing


def rows(random, n_rows, length):
    """Draw texts to learn from, (B, T) int64.

    Each is BOS and then, over and over, a segment of 4 to 19 symbols, half the time a gap of up to 15 others, and the
    segment twice more. (With rarer repeats, nothing is learned for a long time.)
    """
    ids = np.full((n_rows, length), BOS, np.int64)
    for row in ids:
        t = 1
        while t < length:
            segment = random.integers(1, VOCABULARY, random.integers(4, 20))
            gap = random.integers(1, VOCABULARY, random.integers(0, 16) * random.integers(0, 2))
            unit = np.concatenate((segment, gap, segment, segment))[: length - t]
            row[t : t + len(unit)] = unit
            t += len(unit)
    return ids


def ask(random, n_rows, gap):
    """Draw test texts, (B, 1 + SEGMENT + gap + SEGMENT): BOS, a segment, `gap` other symbols, the segment again.

    All but the first symbol of the second reading, i.e. the last ``SEGMENT - 1``, can be known.
    """
    if gap < 0:
        raise ValueError(f"gap is {gap}; it must be 0 or more symbols")
    ids = np.full((n_rows, 1 + SEGMENT + gap + SEGMENT), BOS, np.int64)
    ids[:, 1:-SEGMENT] = random.integers(1, VOCABULARY, (n_rows, SEGMENT + gap))
    ids[:, -SEGMENT:] = ids[:, 1 : 1 + SEGMENT]
    return ids
