"""Run a cache over traces, and say where it first goes wrong and what that looks like."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..system.device import to_host
from ..system.terminal import count
from .golden import NAMES, load
from .traces import Trace
from .wrong_turns import WRONG_TURNS, Cache

EXTRAS = (
    "token_index",
    "positions",
    "keys",
    "scores",
)  # what a cache may show of itself, in the order they are compared
CALLED = {"token_index": "slots", "positions": "positions", "keys": "keys", "scores": "scores", "out": "outputs"}
TOLERANCES = {64: 1e-9, 32: 1e-4, 16: 3e-2}  # by the bits of what comes back, relative to the largest number expected
MOST = 3  # wrong turns that a report names
SMALL = 0.02  # a difference that never exceeds this share of the largest number is rounding, not another token


@dataclass(frozen=True)
class Difference:
    """One place where a cache differs from a trace.

    Attributes
    ----------
    trace : Trace
    token, layer : int
    what : {"slots", "positions", "keys", "scores", "outputs", "memory"}
    says : str
        What came, and what was expected.
    """

    trace: Trace
    token: int
    layer: int
    what: str
    says: str

    def __str__(self):
        held, places = self.trace.held(self.token), self.trace.places(self.token)
        at = "embedded at" if self.trace.theta is None else "at positions"
        differ = "differs" if self.what == "memory" else "differ"
        line = f"{self.trace}: token {self.token}, layer {self.layer}: {self.what} {differ}: {self.says}"
        return f"{line}\n  there the query sees tokens {held}, {at} {places}"


@dataclass(frozen=True)
class Report:
    """What `check` found; true if the cache is right.

    Attributes
    ----------
    first : Difference or None
        The earliest token at which anything differs.
    failed : tuple of Trace
        Traces in which something differs.
    n_traces, n_tokens : int
        What was run.
    looks_like : tuple of Cache subclasses
        The known wrong turns that answer as the cache does.
    until : int or None
        The last token up to which they do, in the trace of `first`; None if they do everywhere.
    worst : float
        The largest difference of an output, as a share of the largest number expected.
    """

    first: Difference | None
    failed: tuple[Trace, ...]
    n_traces: int
    n_tokens: int
    looks_like: tuple[type[Cache], ...] = ()
    until: int | None = None
    worst: float = 0.0

    def __bool__(self):
        return self.first is None

    def __str__(self):
        if self.first is None:
            return f"right in {count(self.n_traces, 'trace')} of {count(self.n_tokens, 'token')}"
        lines = [str(self.first), f"  wrong in {len(self.failed)} of {count(self.n_traces, 'trace')}"]
        upto = "" if self.until is None else f"up to token {self.until} "
        for wrong in self.looks_like[:MOST]:
            lines.append(f"  {upto}it looks like {wrong.name!r}: {' '.join(str(wrong.__doc__).split())}")
        if not self.looks_like and self.first.what == "outputs" and self.worst < SMALL:
            lines.append(
                f"  outputs are off by {self.worst:.1g} of the largest at most: rounding rather than another token; "
                "take angles in double precision, rotate stored keys once, or check in float64"
            )
        elif not self.looks_like and self.first.what != "memory":
            lines.append("  it looks like no wrong turn known here")
        return "\n".join(lines)


def check(
    cache: Callable[..., Any],
    traces: str | Trace | Iterable[str | Trace] = NAMES,
    *,
    to: Callable[[np.ndarray], Any] | None = None,
    tolerance: float | None = None,
) -> Report:
    """Feed a cache token by token, and find the first token at which it differs from StreamingLLM.

    Parameters
    ----------
    cache : function or class
        A function of one step, ``step(state, q, k, v, *, n_sinks, window, theta) -> (out, state)``, or ``(out, state,
        seen)``: one token of one layer; the state, None at first, is yours. q (H, D), k and v (K, D) come un-rotated,
        and out (H, D) is what the query takes home. `theta` is None where nothing is rotated (GPT-2).
        Or a class, ``Mine(n_sinks=, window=, theta=)`` with ``step(q, k, v) -> out``; each layer gets one.
        `seen`, a dict, or the attributes of the object, may hold `token_index` (S,), `positions` (S,), `scores` (H, S)
        and rotated `keys` (S, K, D), in any order of slots if token_index is there; they are compared as well. A
        token_index below 0 is an empty slot. Positions are compared where something
        rotates; elsewhere they are the embedding's affair.
    traces : name, Trace, or several of them
        "llama", "gqa" and "gpt2" are the golden vectors; all three by default.
    to : callable, optional
        Makes an array of yours of a NumPy array, such as ``torch.from_numpy``. Answers may be anything that NumPy or
        ``.numpy()`` makes an array of.
    tolerance : float, optional
        Share of the largest expected number that a difference may have. By default it follows the dtype of what comes
        back: 1e-9 in float64, 1e-4 in float32, 0.03 in half precision.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        When the cache answers something of another shape, or `traces` names nothing.

    Examples
    --------
    >>> from minisink.conformance.wrong_turns import OneMore
    >>> print(check(Cache))
    right in 12 traces of 24 tokens
    >>> report = check(OneMore, "gqa")
    >>> print(report.first)
    gqa, n_sinks=2, window=1: token 3, layer 0: slots differ: [0, 1, 2, 3]; expected [0, 1, 3]
      there the query sees tokens [0, 1, 3], at positions [0, 1, 2]
    >>> [wrong.name for wrong in report.looks_like]
    ['one key too many']
    """
    chosen = _chosen(traces)
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance!r}; it must be 0 or more")
    step, runs, found = _step_of(cache), [], []
    for trace in chosen:
        run = _Run(trace, step, to, tolerance)
        runs.append(run)
        found += [run.first] if run.first else []
    n_tokens = max(len(trace.q) for trace in chosen)
    if not found:
        return Report(None, (), len(chosen), n_tokens)
    first = min(found, key=lambda difference: difference.token)  # the earliest; of several the trace that came first
    looks_like, until = _diagnosis(runs, first)
    failed = tuple(difference.trace for difference in found)
    return Report(first, failed, len(chosen), n_tokens, looks_like, until, max(run.worst for run in runs))


def check_losses(losses: Any, trace: Trace, *, tolerance: float | None = None) -> int | None:
    """The first token on which a whole model's loss differs from the recorded one, or None.

    For an engine that runs `golden.model`, saved as a Hugging Face folder, over the ids of the trace.

    Parameters
    ----------
    losses : array of shape (T - 1,)
        Nats a token, from the second token on.
    trace : Trace
        A recorded one.
    tolerance : float, optional
        As in `check`.

    Returns
    -------
    int or None
        A token_index; the token before it is the first whose logits differ.

    Raises
    ------
    ValueError
        For another number of losses, or a trace that has none.
    """
    if trace.losses is None:
        raise ValueError(f"{trace!r} is no text that a model read: it has no losses; take one of conformance.load")
    got, bits = _array(losses)
    if got.shape != trace.losses.shape:
        raise ValueError(f"losses have shape {got.shape}; {trace} has {trace.losses.shape}: one a token but the first")
    off = np.abs(got - trace.losses) / np.abs(trace.losses).max()
    wrong = np.flatnonzero(~(off <= (TOLERANCES[bits] if tolerance is None else tolerance)))
    return int(wrong[0]) + 1 if len(wrong) else None


# One run --------------------------------------------------------------------------------------------


class _Run:
    """A cache over a trace, layer by layer for every token as in a model: what it answered, where it first differs."""

    def __init__(self, trace, step, to, tolerance):
        T, L, _, _ = trace.q.shape
        self.trace, self.step, self.to, self.tolerance = trace, step, to or (lambda array: array), tolerance
        self.out, self.worst, self.bits = np.zeros_like(trace.out), 0.0, 64
        self.differences, self.shown = [], {}
        states, held = [None] * L, np.zeros(T, int)
        for t in range(T):
            for i in range(L):
                self.out[t, i], states[i], seen = self._answer(states[i], t, i)
                self._compare(t, i, seen)
            held[t] = _numbers(states)
        self.first = self.differences[0] if self.differences else self._memory(held)

    def _answer(self, state, t, i):
        trace = self.trace
        given = [self.to(array[t, i].copy()) for array in (trace.q, trace.k, trace.v)]
        answer = self.step(state, *given, n_sinks=trace.n_sinks, window=trace.window, theta=trace.theta)
        if not isinstance(answer, tuple) or len(answer) not in (2, 3):
            raise ValueError(f"step returned {_short(answer)}; it must return (out, state) or (out, state, seen)")
        out, self.bits = _array(answer[0])
        seen = answer[2] if len(answer) == 3 and answer[2] is not None else {}
        if not isinstance(seen, dict):
            raise ValueError(f"seen is {_short(seen)}; it must be a dict of {', '.join(EXTRAS)}")
        if out.shape != trace.out.shape[2:]:
            raise ValueError(f"out has shape {out.shape}; it must be (H, D), here {trace.out.shape[2:]}")
        unknown = sorted(set(seen) - set(EXTRAS))
        if unknown:
            raise ValueError(f"seen holds {unknown[0]!r}; known are {', '.join(EXTRAS)}")
        return out, answer[1], {name: _array(array)[0] for name, array in seen.items() if array is not None}

    def _compare(self, t, i, seen):
        """Slots, positions, keys, scores, outputs: only the first that differs counts."""
        seen, trace = _in_order(seen), self.trace
        n = len(trace.held(t))
        wanted = {"token_index": trace.held(t), "positions": trace.places(t)}
        wanted |= {"keys": trace.keys[t, i, :n], "scores": trace.scores[t, i, :, :n]}
        for name in EXTRAS[:2]:
            if name in seen and (name, trace.theta) != ("positions", None):  # those of GPT-2 are not the cache's affair
                got = seen[name].tolist()
                self.shown[name, t, i] = got
                if got != wanted[name]:
                    self._differ(t, i, name, f"{_short(got)}; expected {_short(wanted[name])}")
        for name in EXTRAS[2:]:
            if name in seen:
                self._numbers_differ(t, i, name, seen[name], wanted[name])
        self.worst = max(self.worst, self._numbers_differ(t, i, "out", self.out[t, i], trace.out[t, i]))

    def _numbers_differ(self, t, i, name, got, wanted):
        if got.shape != wanted.shape:
            self._differ(t, i, name, f"of shape {got.shape}; expected {wanted.shape}")
            return 0.0
        off = np.abs(got - wanted).max() / np.abs(wanted).max()
        if not off <= self.allowed:  # so that a NaN differs
            self._differ(t, i, name, f"off by {off:.2g} of the largest number")
        return np.inf if np.isnan(off) else float(off)

    def _differ(self, t, i, name, says):
        self.differences.append(Difference(self.trace, t, i, CALLED[name], says))

    @property
    def allowed(self):
        """What a difference may be."""
        return TOLERANCES[self.bits] if self.tolerance is None else self.tolerance

    def _memory(self, held):
        """Outputs may be right while nothing leaves the memory: at the end it is larger than ever since it was full."""
        n, T = self.trace.capacity, len(held)
        early, late = held[n : max(n, T - n)], held[T - n :]
        if len(early) >= n and late.min() > early.max():
            says = f"the state holds {early[0]} numbers after token {n} and {late[-1]} at the end; "
            says += "what is evicted must leave it, not only be masked"
            return Difference(self.trace, T - 1, 0, "memory", says)
        return None


def _in_order(seen):
    """Slots by token_index, empty ones left out; as they are where no token_index is given."""
    index = seen.get("token_index")
    if index is None or index.ndim != 1:
        return seen
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    axes = {name: seen[name].ndim - 1 if name == "scores" else 0 for name in seen}
    fits = {name: seen[name].ndim > 0 and seen[name].shape[axes[name]] == len(index) for name in seen}
    return {name: seen[name].take(order, axes[name]) if fits[name] else seen[name] for name in seen}


def _step_of(cache: Callable[..., Any]) -> Callable[..., Any]:
    """A class as a function of one step, its object being the state."""
    if not callable(cache):
        raise ValueError(f"cache is {_short(cache)}; it must be a function of one step, or a class")
    if not inspect.isclass(cache):
        return cache
    make: Callable[..., Any] = cache

    def step(state, q, k, v, *, n_sinks, window, theta):
        state = make(n_sinks=n_sinks, window=window, theta=theta) if state is None else state
        out = state.step(q, k, v)
        attributes = {name: getattr(state, name, None) for name in EXTRAS[:2]}
        seen = {name: value for name, value in attributes.items() if not callable(value)}  # a method shows nothing
        return out, state, seen

    return step


# What it looks like ---------------------------------------------------------------------------------


def _diagnosis(runs, first):
    """The wrong turns that answer as the cache does: everywhere, or else up to a token after the first difference."""
    if first.what == "memory":
        return (), None
    run = next(run for run in runs if run.trace is first.trace)
    shown = all(np.isfinite(each.worst) and each.worst <= each.allowed for each in runs)  # outputs are right
    everywhere, longest = [], {}
    for wrong in WRONG_TURNS:
        agrees = _agreement(wrong, run, shown)
        if agrees <= first.token:
            continue
        longest[wrong] = agrees
        if all(_agreement(wrong, each, shown) == len(each.out) for each in runs):
            everywhere.append(wrong)
    if everywhere or not longest:
        return tuple(everywhere), None
    until = max(longest.values())
    return tuple(wrong for wrong, agrees in longest.items() if agrees == until), until - 1


def _agreement(wrong, run, shown):
    """Tokens, from the first on, on which a wrong turn gives what the cache gave: outputs, or what it shows."""
    trace, step = run.trace, _step_of(wrong)
    T, L, _, _ = trace.q.shape
    states = [None] * L
    for t in range(T):
        for i in range(L):
            given = trace.q[t, i], trace.k[t, i], trace.v[t, i]
            sizes = {"n_sinks": trace.n_sinks, "window": trace.window, "theta": trace.theta}
            out, states[i], seen = step(states[i], *given, **sizes)
            off = np.abs(out - run.out[t, i]).max() / np.abs(trace.out[t, i]).max()
            differs = shown and any(run.shown.get((name, t, i), seen[name]) != seen[name] for name in seen)
            if differs or not off <= run.allowed:
                return t
    return T


# Arrays of any kind ---------------------------------------------------------------------------------


def _array(x):
    """A NumPy array in float64 or of integers, and the bits of the floats that came."""
    if hasattr(x, "detach"):  # torch
        x = x.detach().cpu()
        bits = re.search(r"float(\d+)", str(x.dtype))
        x = (x.double() if bits else x).numpy()
        return x, int(bits[1]) if bits else 64
    try:
        array = np.asarray(to_host(x))
        if array.dtype.kind in "iub":
            return array, 64
        return array.astype(np.float64), min(64, max(16, 8 * array.dtype.itemsize))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{_short(x)} is no array of numbers") from error


def _numbers(state, known=None):
    """How many numbers the arrays in a state hold, whatever it is made of."""
    known = set() if known is None else known
    if id(state) in known:
        return 0
    known.add(id(state))
    if hasattr(state, "shape") and hasattr(state, "dtype"):
        return int(np.prod(tuple(state.shape), dtype=int))
    if isinstance(state, dict):
        return sum(_numbers(each, known) for each in state.values())
    if isinstance(state, (list, tuple)):
        return sum(_numbers(each, known) for each in state)
    return _numbers(vars(state), known) if hasattr(state, "__dict__") and not inspect.isclass(state) else 0


def _short(x):
    text = " ".join(repr(x).split())
    return text if len(text) <= 100 else text[:97] + "..."


def _chosen(traces):
    chosen: list[Trace] = []
    for each in [traces] if isinstance(traces, (str, Trace)) else traces:
        chosen += [each] if isinstance(each, Trace) else load(each)
    if not chosen:
        raise ValueError(f"traces is {traces!r}; give a Trace, or some of {', '.join(NAMES)}")
    return chosen
