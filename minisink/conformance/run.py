"""A cache over a trace: its answers, token by token and layer by layer, and where they differ."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..system.device import to_host
from ..system.terminal import in_runs
from ..teaching.child import numbers_in
from ..teaching.words import one_line
from .report import Difference

EXTRAS = ("token_index", "positions", "keys", "scores", "n_held")  # what a cache may show, in order of comparison
CALLED = {name: name for name in EXTRAS} | {"token_index": "slots", "out": "outputs", "memory": "memory"}
TOLERANCES = {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.1}  # by dtype, as a share of the largest number
EXACT = 1e-9  # for any other dtype


class Run:
    """A cache over one trace."""

    def __init__(self, trace, step, chunks=None, shared=False, to=None, tolerance=None, *, states=None, before=()):
        T, L, _, _ = trace.q.shape
        self.before = before  # runs over texts that the cache may remember
        self.again = bool(before) and before[-1].trace is trace
        self.trace, self.step, self.alone, self.tolerance = trace, step, chunks is None, tolerance
        self.to = to or (lambda array: array)
        self.out, self.worst, self.dtype = np.zeros_like(trace.out), 0.0, ""  # answers, their largest difference
        self.spans: list[slice] = []  # the chunks given, as far as the cache got
        self.shown: dict = {}  # tokens, positions and slots held that it showed, by name, token and layer
        self.differences: list[Difference] = []
        self.error: ValueError | None = None  # what ended the run: the cache's error, or its bad answer
        self.states = states = states or [None] * (1 if shared else L)
        held = np.zeros(T, int)
        for tokens in spans(T, chunks or (1,)):
            try:
                for i in range(L):
                    index, layer = (0, {"layer": i}) if shared else (i, {})
                    states[index], seen = self._ask(states[index], tokens, i, layer)
                    self._compare(tokens, i, seen)
            except ValueError as error:
                self.error = error
                break
            self.spans.append(tokens)
            held[tokens] = numbers_in(states, float)
        if not self.differences:
            self._compare_slots()  # even after an error: a pool that gets no slots back runs empty
        if not self.differences and not self.error:
            self._compare_memory(held)
        self.first = self.first_of(CALLED.values())
        self.is_right = not self.first and not self.error
        self.end = self.spans[-1].stop if self.spans else 0

    def first_of(self, quantities):
        """Return the first difference in some of slots, positions, keys, scores, outputs and memory."""
        matching = [difference for difference in self.differences if difference.what in quantities]
        return min(matching, key=lambda difference: difference.token, default=None)

    @property
    def allowed(self):
        """The largest difference that counts as right."""
        return TOLERANCES.get(self.dtype, EXACT) if self.tolerance is None else self.tolerance

    def _ask(self, state, tokens, i, layer):
        """Ask for one step, store its output in `out`, and return the new state and what the cache shows."""
        trace, where = self.trace, f"{self.trace}: token {tokens.start}, layer {i}"
        at = tokens.start if self.alone else tokens  # without chunks there is no axis of tokens
        try:
            arrays = [self.to(array[at, i].copy()) for array in (trace.q, trace.k, trace.v)]
            answer = self.step(state, *arrays, **trace.sizes, **layer)
        except Exception as error:
            raise ValueError(f"{where}: the cache raised {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(answer, tuple) or len(answer) not in (2, 3):
            raise ValueError(
                f"{where}: step returned {_short(answer)}; it must return (out, state) or (out, state, seen)"
            )
        out, self.dtype = numbers_of(answer[0], f"{where}: out")
        axes, shape = "(H, D)" if self.alone else "(T, H, D)", trace.out[at, i].shape
        if out.shape != shape:
            raise ValueError(f"{where}: out has shape {out.shape}; it must be {axes}, here {shape}")
        self.out[at, i] = out
        seen = answer[2] if len(answer) == 3 and answer[2] is not None else {}
        if not isinstance(seen, dict):
            raise ValueError(f"{where}: seen is {_short(seen)}; it must be a dict of {', '.join(EXTRAS)}")
        if unknown := [name for name in seen if name not in EXTRAS]:
            raise ValueError(f"{where}: seen holds {unknown[0]!r}; known are {', '.join(EXTRAS)}")
        seen = {name: numbers_of(array, f"{where}: {name}")[0] for name, array in seen.items() if array is not None}
        if (n_held := seen.get("n_held")) is not None and (n_held.shape, n_held.dtype.kind) != ((), "i"):
            raise ValueError(f"{where}: n_held is {_short(n_held)}; it must be a whole number of slots")
        return answer[1], seen

    def _compare(self, tokens, i, seen):
        """Compare what is held after the last token of a chunk, and the output of each token."""
        seen, trace, t = _in_order(seen), self.trace, tokens.stop - 1
        for name, expected in (("token_index", trace.held), ("positions", trace.places)):
            if name in seen and not (trace.embeds and name == "positions"):  # GPT-2's are not the cache's concern
                got = self.shown[name, t, i] = seen[name].tolist()
                if got != (wanted := expected(t, i)):
                    self._differ(t, i, name, f"{_short(got)}; expected {_short(wanted)}")
        for name, expected in (("keys", trace.keys_at), ("scores", trace.scores_at)):
            if name in seen:
                self._compare_numbers(t, i, name, seen[name], expected(t, i))
        if "n_held" in seen:
            self.shown["n_held", t, i] = int(seen["n_held"])
        for t in range(tokens.start, tokens.stop):
            self.worst = max(self.worst, self._compare_numbers(t, i, "out", self.out[t, i], trace.out[t, i]))

    def _compare_numbers(self, t, i, name, got, expected):
        if got.shape != expected.shape:
            self._differ(t, i, name, f"of shape {got.shape}; expected {expected.shape}")
            return 0.0
        off = float(np.abs(got - expected).max() / np.abs(expected).max())
        if not np.isfinite(off):
            self._differ(t, i, name, "NaN or infinity is among them")
            return np.inf
        if off > self.allowed:
            self._differ(t, i, name, f"off by {off:.2g} of the largest number")
        return off

    def _compare_memory(self, n_held):
        """Detect growing memory: more is held at the end than soon after the cache filled up."""
        T, _, n = self.trace.token_index.shape
        needed = (self.trace.token_index >= 0).sum(axis=(1, 2))
        (early, late), (least, most) = ([each[n : max(n, T - n)], each[T - n :]] for each in (n_held, needed))
        if len(early) >= n and late.min() > early.max() and most.min() <= least.max():  # and the policy's does not grow
            message = f"the state holds {early[0]} numbers after token {n} and {late[-1]} at the end"
            self._differ(T - 1, 0, "memory", f"{message}; what is evicted must leave it, not just be masked")

    def _compare_slots(self):
        """Compare the slots taken and not given back with what the policy needs, in pages if it uses any."""
        given = {(t, i): n for (name, t, i), n in self.shown.items() if name == "n_held"}
        page, trace, block = math.gcd(*given.values()) or 1, self.trace, getattr(self.trace.policy, "block", 1)
        sinks = -(-trace.n_sinks // block) * block  # tokens that are never evicted
        for (t, i), n in given.items():
            held = trace.held(t, i)
            pages = len({token // page for token in held})  # otherwise the sinks are in separate pages
            apart = -(-min(sinks, len(held)) // page) + len({(token - sinks) // page for token in held[sinks:]})
            if n > (needed := page * max(pages, apart)):
                message = f"{n} slots are held, {needed} are needed{f' in pages of {page}' * (page > 1)}"
                self._differ(t, i, "memory", f"{message}; what is evicted must be given back")

    def _differ(self, t, i, name, message):
        self.differences.append(Difference(self.trace, t, i, CALLED[name], message, self.again))


def spans(n_tokens, sizes):
    """Cut tokens into chunks of these sizes, repeating the last.

    >>> spans(9, (4, 2))
    [slice(0, 4, None), slice(4, 6, None), slice(6, 8, None), slice(8, 9, None)]
    """
    chunks: list[slice] = []
    while not chunks or chunks[-1].stop < n_tokens:
        start = chunks[-1].stop if chunks else 0
        chunks.append(slice(start, min(n_tokens, start + sizes[min(len(chunks), len(sizes) - 1)])))
    return chunks


def as_step(cache: Callable[..., Any], chunks: Any) -> Callable[..., Any]:
    """Turn a class into a function of one step, with an object of the class as the state."""
    if not callable(cache):
        raise ValueError(f"cache is {_short(cache)}; it must be a function of one step, or a class")

    def step(state, q, k, v, *, layer=None, **sizes):
        state = cache(**sizes) if state is None else state
        layer = {} if layer is None else {"layer": layer}
        out = (state.step if chunks is None else state.steps)(q, k, v, **layer)
        show = getattr(state, "show", None)
        return out, state, show(**layer) if callable(show) else {}

    return step if inspect.isclass(cache) else cache


def _in_order(seen):
    """Sort slots by token_index and drop empty ones; without a token_index, change nothing."""
    index = seen.get("token_index")
    if index is None or index.ndim != 1:
        return seen
    order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    axes = {name: -1 if name == "scores" else 0 for name, array in seen.items() if array.ndim}
    fits = {name: axis for name, axis in axes.items() if seen[name].shape[axis] == len(index)}
    return seen | {name: seen[name].take(order, axis) for name, axis in fits.items()}


# Arrays of any kind ---------------------------------------------------------------------------------


def numbers_of(x, name):
    """Return `x` as a NumPy array of float64 or integers, and the name of the dtype that it had."""
    try:
        if hasattr(x, "detach"):  # torch
            x, dtype = x.detach().cpu(), str(x.dtype).removeprefix("torch.")
            array = (x.double() if x.is_floating_point() else x).numpy()
        else:
            array = np.asarray(to_host(x))
            dtype = array.dtype.name
        if array.dtype.kind not in "iubf":
            raise TypeError(array.dtype)
        return array.astype(np.float64) if array.dtype.kind == "f" else array, dtype
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {_short(x)}, not an array of real numbers") from error


def _short(x):
    are_ints = isinstance(x, list) and all(isinstance(number, int) for number in x)
    text = in_runs(x) if are_ints else one_line(repr(x))
    return text if len(text) <= 100 else text[:97] + "..."
