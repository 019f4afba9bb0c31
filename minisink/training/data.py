"""Samples from one long row of token ids.

Where a sample starts decides whether sinks form. With ``<s>`` in front of every sample, one token is always there and
always first: a place to park weight. Without it, the first token is a different one every time.
"""

import numpy as np


def split(ids, context, share=0.01):
    """Hold out the end of a text, a `share` of it but at least one sample of `context` tokens: (train, valid)."""
    n_held = max(context + 1, int(len(ids) * share))
    check_length(len(ids) - n_held, context, f"the text has {len(ids)} tokens; without the {n_held} to hold out it")
    return ids[:-n_held], ids[-n_held:]


def check_length(n_tokens, context, what="the text"):
    """Raise ValueError for a text too short for one sample and the token after it."""
    if n_tokens < context + 1:
        has = f"{max(n_tokens, 0)} tokens, where a context of {context} needs {context + 1}"
        raise ValueError(f"{what} is shorter than one sample: {has}")


def draw(random, ids, n_samples, context, bos=None):
    """Draw a batch of samples at random: inputs and targets, each (B, T) int64, and one token apart.

    A `bos` is put in front of every sample; the context includes it, and it is never a target.

    >>> inputs, targets = draw(np.random.default_rng(0), np.arange(5, 9), 1, 3, bos=0)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 5, 6]], [[5, 6, 7]])
    """
    return _samples_at(ids, random.integers(0, len(ids) - context, n_samples), context, bos)


def spread(ids, n_samples, context, bos=None):
    """Take evenly spaced samples, the same ones every time, for evaluation; otherwise like `draw`."""
    return _samples_at(ids, np.linspace(0, len(ids) - context - 1, n_samples).astype(np.int64), context, bos)


def _samples_at(ids, starts, context, bos):
    windows = ids[starts[:, None] + np.arange(context + 1)].astype(np.int64)  # (B, T + 1)
    if bos is not None:
        windows = np.insert(windows, 0, bos, axis=1)[:, :-1]
    return windows[:, :-1], windows[:, 1:]
