"""Which stretch of a text an experiment reads: its beginning, or by another seed another part of it."""

import numpy as np

from ..methods import lead_of


def stretch(model, ids, n_tokens, seed=0):
    """So many tokens of a text, the begin-of-text token first if the text begins with it.

    Parameters
    ----------
    model : Model
    ids : ndarray of shape (T,), ints
        The whole text.
    n_tokens : int
        2 or more; all that there is, if it is less.
    seed : int
        0 is the beginning. The others lie one after another, and begin anew where the text ends.

    Returns
    -------
    ndarray of shape (n_tokens,), ints
    """
    lead = lead_of(model, ids, n_tokens)
    room = len(ids) - n_tokens
    start = seed * (n_tokens - len(lead)) % (room + 1) if room > 0 else 0
    return np.concatenate((lead, ids[len(lead) + start : start + n_tokens]))
