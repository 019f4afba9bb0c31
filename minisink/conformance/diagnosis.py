"""Find the known wrong turns that reproduce a cache's answers."""

import numpy as np

from ..wrong_turns import ENCODINGS, WRONG_TURNS
from ..wrong_turns.engine import NotReset
from ..wrong_turns.tokens import Crops
from .traces import under

TRIED = ("streaming", "half", "original", "first-dense", *(f"blocks:{2**n}" for n in range(1, 6)))


def diagnose(runs, earliest):
    """Return the wrong turns with the same answers everywhere, or else those that explain the most first differences.

    Also return the last token up to which they agree in `earliest`, the run with the first difference; None if on all.
    """
    shows = not any(run.first_of({"outputs"}) for run in runs)  # outputs are right: only what the cache shows can tell
    ends = [run.end for run in runs]
    firsts = [run.first_of({"slots", "positions"} if shows else {"outputs"}) for run in runs]
    if not any(firsts):  # only keys and scores differ, which no wrong turn here explains
        return (Crops,) if earliest.first.what == "memory" else (), None
    needed = [end if each is None else each.token + 1 for each, end in zip(firsts, ends, strict=True)]
    index, layers, alike = runs.index(earliest), differing_layers(runs), {}
    for wrong in WRONG_TURNS + ENCODINGS * any(run.trace.encoding for run in runs):
        if _agreement(wrong, runs, index, layers, shows) >= needed[index]:
            alike[wrong] = [_agreement(wrong, runs, i, layers, shows) for i in range(len(runs))]
    everywhere = [wrong for wrong, tokens in alike.items() if tokens == ends]
    if everywhere or not alike:
        matching = [wrong for wrong in everywhere if _agreement(wrong, runs, index, layers, True) == ends[index]]
        return _by_name(matching or everywhere), None
    explained = {wrong: (sum(np.greater_equal(tokens, needed)), sum(tokens)) for wrong, tokens in alike.items()}
    best = [wrong for wrong in alike if explained[wrong] == max(explained.values())]
    return _by_name(best), min(alike[wrong][index] for wrong in best) - 1


def differing_layers(runs):
    """Return the layers in which anything other than memory differs."""
    return tuple(sorted({each.layer for run in runs for each in run.differences if each.what != "memory"}))


def right_under(run, read):
    """Return the names of the policies under which everything is right; `read(policy=name)` reruns every trace.

    Other policies are ruled out at the first difference, which is in `run`.
    """
    t, i, found = run.first.token, run.first.layer, []
    for name in TRIED:
        trace = under(run.trace, name)
        holds = {"token_index": trace.held(t, i), "positions": trace.places(t, i)}
        alike = all(run.shown.get((each, t, i), wanted) == wanted for each, wanted in holds.items())
        off = np.abs(trace.answer_at(t, i) - run.out[t, i]).max() / np.abs(run.trace.out[t, i]).max()
        if trace is not run.trace and alike and off <= run.allowed:
            evicts = False
            for again in read(policy=name):
                evicts |= again.trace.evicts
                if not again.is_right:
                    break
            else:
                found += [name] * evicts
    return tuple(found)


def _by_name(wrong_turns):
    """Return the first wrong turn of each name, without its variants."""
    return tuple({wrong.name: wrong for wrong in reversed(wrong_turns)}.values())[::-1]


def _agreement(wrong, runs, i, layers, shows):
    """Count the tokens, from the start, on which a wrong turn gives what the cache gave in the i-th run."""
    run, caches = runs[i], []
    for text in (*run.before, run) if wrong is NotReset else (run,):
        trace, differing = text.trace, []  # tokens of the last text on which its answers differ
        policy = None if trace.policy_name == "streaming" else trace.policy
        caches = wrong.layers(trace.q.shape[1], caches, policy=policy, **trace.sizes)
        for tokens in text.spans:
            for layer, cache in enumerate(caches):
                out = cache.steps(*(array[tokens, layer] for array in (trace.q, trace.k, trace.v)))
                if text is not run or layer not in layers:
                    continue
                right, t, holds = trace.out[tokens, layer], tokens.stop - 1, cache.show()
                off = np.abs(out - run.out[tokens, layer]).max(axis=(1, 2)) / np.abs(right).max(axis=(1, 2))
                differing += (tokens.start + np.flatnonzero(~(off <= run.allowed))).tolist()
                if shows and any(run.shown.get((name, t, layer), holds[name]) != holds[name] for name in holds):
                    differing.append(t)
            if differing:
                return min(differing)
    return run.end
