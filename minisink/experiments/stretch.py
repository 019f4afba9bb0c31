"""Which stretch of a text an experiment reads: its beginning, or by another seed another part of it."""

import numpy as np

from ..methods import lead_of


def stretch(model, ids, n_tokens, seed=0):
    """Return so many tokens of a text, or all there are, the begin-of-text token first if the text begins with it.

    A `seed` of 0 is the beginning. The others lie one after another, and begin again where the text ends.
    """
    n_lead = len(lead_of(model, ids, n_tokens))
    room = len(ids) - n_tokens
    start = seed * (n_tokens - n_lead) % (room + 1) if room > 0 else 0
    return np.concatenate((ids[:n_lead], ids[n_lead + start : start + n_tokens]))
