"""Run a cache over traces, and report where it first goes wrong and which mistake that looks like."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..cache import check_whole
from ..teaching.words import one_line
from .diagnosis import diagnose, differing_layers, right_under
from .golden import NAMES, load
from .policies import Maker
from .report import Report
from .run import TOLERANCES, Run, as_step, numbers_of
from .texts import Losses
from .traces import Trace, answered, under

SINGLE = 1e-5  # as a share of a whole model's largest loss


def check(
    cache: Callable[..., Any],
    traces: str | Trace | Iterable[str | Trace] = NAMES,
    *,
    policy: str | Maker | None = None,
    chunks: int | Sequence[int] | None = None,
    shared: bool = False,
    to: Callable[[np.ndarray], Any] | None = None,
    tolerance: float | None = None,
) -> Report:
    """Feed a cache token by token, and find the first token at which it differs from StreamingLLM or another policy.

    Parameters
    ----------
    cache : function or class
        ``step(state, q, k, v, *, n_sinks, window, theta) -> (out, state)`` or ``(out, state, seen)``: one token in one
        layer, q (H, D) and k, v (K, D) un-rotated; the state, None at first, is yours; `theta` is None for GPT-2,
        and for a trace with a different encoding, which is then passed as ``encoding=``. Or a class,
        ``Mine(n_sinks=, window=, theta=)`` with ``step(q, k, v) -> out``; each layer gets its own object. `seen`, a
        dict, or the result of ``show()``, may hold `token_index` (S,), `positions` (S,), `scores` (H, S) and rotated
        `keys` (S, K, D), with the slots in any order if token_index is included; they are compared too.
    traces : name, Trace, or several of them
        "llama", "gqa" and "gpt2" are the golden vectors; all three by default.
    policy : name or callable, optional
        What your cache is meant to do, if not StreamingLLM: "blocks:16" (or another number), "half", "original",
        "first-dense", or a function ``policy(n_sinks, window)`` that makes a `Policy` or `ByLayer`. Every trace is
        recomputed under it. By default each trace keeps its own policy.
    chunks : int or sequence of int, optional
        Tokens per call; the last size is repeated. Then q is (T, H, D), k and v are (T, K, D), a class has
        ``steps(q, k, v)``, and `seen` is what the last token of the chunk sees.
    shared : bool
        Whether all layers share one state, or one object. The step and ``show`` are then passed ``layer=`` too.
    to : callable, optional
        Converts NumPy's arrays to your kind, such as ``torch.from_numpy``; outputs may be any kind of array.
    tolerance : float, optional
        The largest difference allowed, as a share of the largest expected number. By default it follows the dtype of
        the answers: 1e-9 in float64, 1e-4 in float32, 0.03 in float16, 0.1 in bfloat16.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If the cache raises, or returns an output of the wrong shape, and nothing differs in any trace; or if `traces`
        is empty.

    Examples
    --------
    >>> from minisink.wrong_turns.chunks import SeesAhead
    >>> from minisink.wrong_turns.tokens import Cache, OneMore
    >>> print(check(Cache))  # doctest: +ELLIPSIS
    right in 12 traces of 24 tokens, off by at most ... of the largest number
      not checked: a prompt in chunks (chunks=), one object for all layers (shared=True), a second text after a reset...
    >>> report = check(OneMore, "gqa")
    >>> print(report.first)
    gqa, n_sinks=2, window=1: token 3, layer 0: slots differ: [0, 1, 2, 3]; expected [0, 1, 3]
      there the query sees tokens [0, 1, 3], at positions [0, 1, 2]
    >>> [wrong.name for wrong in report.looks_like]
    ['one key too many']
    >>> bool(check(SeesAhead)), [wrong.name for wrong in check(SeesAhead, chunks=(9, 1)).looks_like]
    (True, ['a chunk sees ahead'])
    """
    chosen, step = _as_traces(traces, policy), as_step(cache, chunks)
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance!r}; it must be 0 or more")
    sizes = None if chunks is None else _sizes(chunks)
    resets = inspect.isclass(cache) and callable(getattr(cache, "reset", None))
    read = partial(_readings, chosen, resets, step, sizes, shared, to, tolerance)
    runs = list(read())
    worst, errors = max(run.worst for run in runs), [run.error for run in runs if run.error]
    wrong = [run for run in runs if run.first]
    if not wrong:
        if errors:
            raise errors[0]
        unchecked = _unchecked(chosen, sizes, shared, resets or not inspect.isclass(cache))
        return Report(chosen, worst=worst, dtype=runs[0].dtype, unchecked=unchecked)
    earliest = min(wrong, key=lambda run: run.first.token)  # in a tie, the first trace
    looks_like, until = diagnose(runs, earliest)
    failed = tuple(trace for trace in chosen if not all(run.is_right for run in runs if run.trace is trace))
    about = differing_layers(runs), looks_like, until, worst, str(errors[0]) if errors else None, wrong[0].dtype
    return Report(chosen, earliest.first, failed, *about, right_under=right_under(earliest, read))


def _readings(traces, resets, *args, policy=None):
    """Run a cache over each trace and, if it was right, over the same one again, with the cache reset or a new one."""
    runs_of: dict[tuple, list[Run]] = {}  # by model, because another model's texts leave keys of a different size
    for given in traces:
        trace = given if policy is None else answered(under(given, policy))
        runs = runs_of.setdefault((trace.name, *trace.k.shape[1:]), [])
        runs.append(Run(trace, *args, before=() if resets else runs[:]))
        yield runs[-1]
        if runs[-1].is_right:
            states = runs[-1].states if resets else None
            try:
                for state in states or ():
                    state.reset()
            except Exception as error:
                raise ValueError(f"{trace}: reset raised {type(error).__name__}: {one_line(error)}") from error
            runs.append(Run(trace, *args, states=states, before=runs[-1:] if resets else runs[:]))
            yield runs[-1]


def _unchecked(traces, sizes, shared, resets):
    """Name what right outputs do not show, and how to check it."""
    longest, left = max(sizes or (1,)), []
    if all(longest <= max(1, trace.token_index.shape[2]) for trace in traces):
        left.append("a prompt in chunks (chunks=)" if longest == 1 else "a chunk longer than the cache (chunks=)")
    if all(trace.q.shape[1] == 1 for trace in traces):
        left.append("more than one layer (n_layers=)")
    elif not shared:
        left.append("one object for all layers (shared=True)")
    return (*left, *([] if resets else ["a second text after a reset (reset())"]))


def check_losses(losses: Any, trace: Trace | Losses, *, tolerance: float | None = None) -> int | None:
    """Return the first token on which a whole model's loss differs from the recorded one, or None.

    For an engine that runs `golden.model`, saved as a Hugging Face folder, over the ids of the trace, or a shipped
    model over the ids of `texts.Losses`. `losses` (T - 1,) are nats per token, from the second token; the token before
    the one returned is the first whose logits differ. ValueError for the wrong number of losses, or a trace with none.
    `tolerance` is a share of the largest loss. The default is 1e-5, ten times the error of an engine that rotates or
    works in single precision; in half precision it is as in `check`.
    """
    expected = getattr(trace, "losses", None)
    if expected is None:
        raise ValueError(f"{trace!r} is not a text that a model read: it has no losses; take one from conformance.load")
    nll, dtype = numbers_of(losses, "losses")
    if nll.shape != expected.shape:
        raise ValueError(f"losses have shape {nll.shape}; {trace} has {expected.shape}: one per token except the first")
    off = np.abs(nll - expected) / np.abs(expected).max()
    if tolerance is None:
        tolerance = TOLERANCES[dtype] if dtype in ("float16", "bfloat16") else SINGLE
    wrong = np.flatnonzero(~(off <= tolerance))
    return int(wrong[0]) + 1 if len(wrong) else None


def _as_traces(traces, policy):
    several = traces if isinstance(traces, Iterable) and not isinstance(traces, str) else [traces]
    chosen = [trace for each in several for trace in ([each] if isinstance(each, Trace) else load(each))]
    if not chosen:
        raise ValueError(f"traces is {traces!r}; give a Trace, or some of {', '.join(NAMES)}")
    for each in chosen:
        if len(each.q) == 0:
            raise ValueError(f"{each!r} holds no tokens to check")
    return tuple(chosen if policy is None else [answered(under(each, policy)) for each in chosen])


def _sizes(chunks):
    sizes = tuple(chunks) if isinstance(chunks, Iterable) else (chunks,)
    if not sizes:
        raise ValueError(f"chunks is {chunks!r}; give the sizes of the chunks; the last one is repeated")
    for size in sizes:
        check_whole("a chunk", size, 1)
    return sizes
