"""Which known wrong turns answer as a cache does."""

from __future__ import annotations

import numpy as np

from .wrong_turns import WRONG_TURNS


def diagnose(runs, first):
    """Those that answer alike everywhere; or else those that explain the first difference of the most traces.

    Parameters
    ----------
    runs : list of Run
    first : Difference
        The earliest of all.

    Returns
    -------
    tuple of Cache subclasses, int or None
        The wrong turns, and the last token up to which they answer alike in the trace of `first`; None for all.
    """
    shows = not any(run.first_of({"outputs"}) for run in runs)  # outputs are right: only what it shows can tell
    ends = [run.spans[-1].stop if run.spans else 0 for run in runs]
    found = [run.first_of({"slots", "positions"} if shows else {"outputs"}) for run in runs]
    if not any(found):
        return (), None  # memory, keys or scores alone: no wrong turn here is wrong in them
    due = [end if each is None else each.token + 1 for each, end in zip(found, ends, strict=True)]
    here = [run.trace for run in runs].index(first.trace)
    layers, alike = differing_layers(runs), {}
    for wrong in WRONG_TURNS:
        if _agreement(wrong, runs[here], layers, shows) >= due[here]:
            alike[wrong] = [_agreement(wrong, run, layers, shows) for run in runs]
    everywhere = tuple(wrong for wrong, tokens in alike.items() if tokens == ends)
    if everywhere or not alike:
        return everywhere, None
    worth = {wrong: (sum(np.greater_equal(tokens, due)), sum(tokens)) for wrong, tokens in alike.items()}
    best = tuple(wrong for wrong in alike if worth[wrong] == max(worth.values()))
    return best, min(alike[wrong][here] for wrong in best) - 1


def differing_layers(runs):
    """Layers in which anything differs; memory is that of all."""
    return sorted({each.layer for run in runs for each in run.differences if each.what != "memory"})


def _agreement(wrong, run, layers, shows):
    """Tokens, from the first on, on which a wrong turn gives what the cache gave: outputs, or what it shows."""
    trace = run.trace
    L = trace.q.shape[1]
    sizes = {"n_sinks": trace.n_sinks, "window": trace.window, "theta": trace.theta}
    caches = [wrong(**sizes)] * L if wrong.shared else [wrong(**sizes) for _ in range(L)]
    for tokens in run.spans:
        other = []  # tokens on which it answers something else
        for i, cache in enumerate(caches):
            out = cache.steps(trace.q[tokens, i], trace.k[tokens, i], trace.v[tokens, i])
            if i not in layers:
                continue
            off = np.abs(out - run.out[tokens, i]).max(axis=(1, 2)) / np.abs(trace.out[tokens, i]).max(axis=(1, 2))
            other += (tokens.start + np.flatnonzero(~(off <= run.allowed))).tolist()
            t, holds = tokens.stop - 1, cache.show()
            if shows and any(run.shown.get((name, t, i), holds[name]) != holds[name] for name in holds):
                other.append(t)
        if other:
            return min(other)
    return run.spans[-1].stop if run.spans else 0
