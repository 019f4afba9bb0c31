"""Tables 2 and 3 of StreamingLLM in small: how many sinks a model needs, for caches of several sizes.

``minisink reproduce sink-count --text book.txt another.txt`` prints the perplexity of the beginnings of the texts,
together, with 0, 1, 2, 4 and 8 sinks in a cache of the same size, beside re-computation.
"""

import numpy as np

from ..loss import nll_blocks, perplexity
from ..methods import lead_of

CACHES = (64, 128, 256)
SINKS = (0, 1, 2, 4, 8)


def run(model, texts, *, caches=CACHES, sinks=SINKS, on_progress=lambda n_tokens: None):
    """Perplexity of some texts for every cache and number of sinks.

    Parameters
    ----------
    model : Model
    texts : list of ndarray of shape (T,), ints
        Each is streamed by itself. Where one begins with the model's begin-of-text token, so does every window that is
        re-computed.
    caches : sequence of int
        Keys a query sees; sinks and window share them.
    sinks : sequence of int
    on_progress : callable
        Called with the number of tokens that have just passed through the model (re-computation reads a whole cache
        for every one), or would have.

    Yields
    ------
    dict
        A row a cache: ``"cache"``; ``"sinks"``, a perplexity for each number of sinks; ``"recompute"``. NaN where the
        model has not learned the position (GPT-2), or a cache has no room for a window.
    """
    for cache in caches:
        with_sinks = [_together(model, texts, cache, on_progress, n_sinks=n, window=cache - n) for n in sinks]
        again = _together(model, texts, cache, on_progress, method="recompute", window=cache)
        yield {"cache": cache, "sinks": with_sinks, "recompute": again}


def _together(model, texts, cache, on_progress, *, window, **options):
    """Perplexity over all texts."""
    work = window if options.get("method") == "recompute" else 1
    unlearned = model.config.model_type == "gpt2" and cache > model.config.max_positions
    if unlearned or window < 1:
        on_progress(work * sum(len(ids) - 1 for ids in texts))
        return float("nan")
    losses = [np.empty(0)]
    for ids in texts:
        for nll in nll_blocks(model, ids, window=window, lead=lead_of(model, ids, window), **options):
            losses.append(nll)
            on_progress(work * len(nll))
    return perplexity(np.concatenate(losses))
