"""What can be checked: nine functions, their cases drawn from a seed, small ones first, and the words for an answer.

A case is a dict of arguments by name. `Task.axes` says which axis is which, so that a case can be made smaller by
taking one entry of an axis away; `Task.least` says which whole numbers may become smaller, and how small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import reference

TOLERANCE = 1e-4  # of the largest number in a row: float32 is far within, a wrong formula far beyond


@dataclass(frozen=True)
class Task:
    """One function to write."""

    name: str
    params: tuple[str, ...]
    draw: Callable  # (generator) -> list of cases
    word: Callable  # (case, got, expected) -> a sentence
    needs: tuple[str, ...] = ()  # the other tasks that a solution may call
    axes: dict = field(default_factory=dict)  # parameter: a letter an axis; "." is never shortened
    least: dict = field(default_factory=dict)  # parameter: the smallest it can be
    valid: Callable = lambda case: True
    dresses: tuple[str, ...] = ("arrays", "lists")
    kind: str = "numbers"  # or "slots" (whole numbers in order), "set" (in any order)

    @property
    def signature(self):
        """As it stands in a file."""
        return f"{self.name}({', '.join(self.params)})"

    def expected(self, case):
        """The right answer, float64; for a step, all outputs, (T, D)."""
        return in_float64(run(self.name, getattr(reference, self.name), [case[name] for name in self.params]))


def run(name, function, args):
    """What a function of ours answers; `step` is called token by token."""
    if name != "step":
        return function(*args)
    (q, k, v), rest, state, outs = args[:3], args[3:], None, []
    for t in range(len(q)):
        out, state = function(state, q[t], k[t], v[t], *rest)
        outs.append(out)
    return outs


def in_float64(value):
    """An answer as an array."""
    return np.asarray(value, np.float64)


def equal(got, expected, kind="numbers"):
    """Whether two answers are the same: shapes but for axes of length one, numbers within `TOLERANCE` of their row."""
    if got is None or np.squeeze(got).shape != np.squeeze(expected).shape:
        return False
    got = got.reshape(expected.shape)
    if kind == "set":
        return bool(np.array_equal(np.sort(got), np.sort(expected)))
    if kind == "slots":
        return bool(np.array_equal(got, expected))
    return bool(right_rows(got, expected).all())


def right_rows(got, expected):
    """Which rows are right; a vector is one row."""
    if not expected.size:
        return np.ones(1, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.where(np.isfinite(expected), np.abs(expected), 0.0)
        scale = np.maximum(finite.max(axis=-1, keepdims=True), 1e-12)
        near = np.abs(got - expected) <= TOLERANCE * scale
    near |= (got == expected) | (np.isnan(got) & np.isnan(expected))
    return near.all(axis=-1).reshape(-1)


# Words ----------------------------------------------------------------------------------------------


def show(value, most=10):
    """Numbers as a reader wants them.

    >>> show(np.array([[1.0, 0.26894142], [np.inf, -2.5]]))
    '[[1, 0.2689], [inf, -2.5]]'
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        shown = [show(item) for item in value[:most]]
        return "[" + ", ".join(shown + ["..."] * (len(value) > most)) + "]"
    return f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)


def count(n, what):
    """A number and its noun.

    >>> count(1, "sink"), count(3, "token")
    ('1 sink', '3 tokens')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def cache_of(case):
    """The sizes in words."""
    return f"{count(case['n_sinks'], 'sink')} and a window of {case['window']}"


def whole(values):
    """Whole numbers as such."""
    return [int(x) if float(x).is_integer() else round(float(x), 4) for x in np.ravel(values)]


def _plainly(case, got, expected, task):
    call = ", ".join(show(case[name]) for name in task.params)
    return f"{task.name}({call}) gave {show(got)}; expected {show(expected)}"


def _word_row(case, got, expected):
    return f"for x = {show(case['x'])} you gave {show(got)}; expected {show(expected)}"


def _word_attend(case, got, expected):
    row = int(np.argmin(right_rows(got, expected)))
    seen = np.flatnonzero(case["visible"][row]).tolist()
    return (
        f"query {row} sees keys {seen}{_given(case, 'q', 'k', 'v')}; you gave it {show(got[row])}; expected "
        f"{show(expected[row])}"
    )


def _word_rotate(case, got, expected):
    row = int(np.argmin(right_rows(got, expected)))
    position, x = case["positions"][row], case["x"][row]
    return (
        f"{show(x)} at position {position}, theta {show(case['theta'])}: you gave {show(got[row])}; "
        f"expected {show(expected[row])}"
    )


def _word_survivors(case, got, expected):
    kept, right = whole(got), whole(expected)
    return f"after {count(case['n_slots'], 'token')} with {cache_of(case)} your cache kept {kept}; expected {right}"


def _word_positions(case, got, expected):
    held = case["token_index"].tolist()
    return f"the tokens {held}, with {cache_of(case)}: your positions are {whole(got)}; expected {whole(expected)}"


def _word_step(case, got, expected):
    rows = right_rows(got, expected[: len(got)])
    t = int(np.argmin(rows))
    after = f"after {count(t + 1, 'token')} with {cache_of(case)}"
    kept, right = (np.flatnonzero(np.abs(row) > 1e-7).tolist() for row in (got[t], expected[t]))
    if not _identity(case["v"]) or max(kept, default=0) > t:  # an output names no tokens
        return f"{after} your output is {show(got[t])}; expected {show(expected[t])}"
    weights, wanted = got[t][right], expected[t][right]
    if kept != right and np.isfinite(got[t]).all():
        return f"{after} your cache kept {kept}; expected {right}"
    return f"{after} the weights on tokens {right} are {show(weights)}; expected {show(wanted)}"


def _identity(v):
    T, D = v.shape
    return T <= D and np.array_equal(v, np.eye(T, D))


def _word_nll(case, got, expected):
    wrong = np.flatnonzero(~(np.abs(got - expected) <= TOLERANCE * np.maximum(np.abs(expected), 1e-3)))
    t = int(wrong[0]) if len(wrong) else 0
    return (
        f"token {t + 1} is {case['ids'][t + 1]}, the logits before it {show(case['logits'][t])}: your loss is "
        f"{show(float(got[t]))} nats; expected {show(float(expected[t]))}"
    )


def _word_retrieve(case, got, expected):
    n, block = len(case["keys"]), case["block"]
    return (
        f"of {count(n, 'key')} in blocks of {block}, {case['window']} back, theta {show(case['theta'])}, the best "
        f"{case['k']} for this query{_given(case, 'q', 'keys')}: you chose {whole(got)}; expected {whole(expected)}"
    )


def _given(case, *names):
    """The arguments themselves, where they are few."""
    if sum(case[name].size for name in names) > 16:
        return ""
    return "".join(f", {name} = {show(case[name])}" for name in names)


# Cases ----------------------------------------------------------------------------------------------


def _few(rng, *shape):
    """Small whole numbers: what a reader can follow."""
    return rng.integers(-2, 3, size=shape).astype(np.float64)


def _reals(rng, *shape):
    return rng.normal(size=shape).round(3)


def _draw_rows(rng):
    cases = [np.array([0.0]), np.array([0.0, 0.0]), np.array([0.0, 1.0]), np.array([2.0, 0.0, -1.0])]
    cases += [_few(rng, S) for S in range(2, 6)] + [_reals(rng, S) for S in range(2, 8)]
    for S in range(3, 6):  # a key that is masked
        row = _reals(rng, S)
        row[rng.integers(S)] = -np.inf
        cases.append(row)
    cases += [np.array([-3.0, -5.0]), _few(rng, 4) - 60.0, np.array([1000.0, 1001.0]), _few(rng, 3) + 800.0]
    cases += [np.array([-1000.0, -1002.0])]
    return [{"x": x} for x in cases]


def _draw_attend(rng):
    cases = [{"q": np.zeros((1, 1)), "k": np.zeros((1, 1)), "v": np.ones((1, 1)), "visible": np.ones((1, 1), bool)}]
    for T, S, D in [(1, 2, 1), (1, 2, 4), (2, 2, 4), (2, 3, 1), (1, 3, 4), (3, 3, 2), (2, 4, 4), (3, 5, 2), (3, 4, 6)]:
        for draw in (_few, _reals):
            for masked in (False, True):
                visible = rng.random((T, S)) < 0.6 if masked else np.ones((T, S), bool)
                visible[np.arange(T), rng.integers(S, size=T)] = True
                cases.append({"q": draw(rng, T, D), "k": draw(rng, S, D), "v": draw(rng, S, D), "visible": visible})
    causal = np.tril(np.ones((4, 4), bool))
    cases.append({"q": _reals(rng, 4, 2), "k": _reals(rng, 4, 2), "v": _reals(rng, 4, 2), "visible": causal})
    big = np.array([[40.0, 40.0, 0.0, 0.0]])
    cases.append({"q": big, "k": np.concatenate((big, big - 1.0)), "v": np.eye(2, 4), "visible": np.ones((1, 2), bool)})
    return cases


def _draw_rotate(rng):
    cases = [{"x": np.array([[1.0, 0.0]]), "positions": np.array([p]), "theta": 100.0} for p in (0, 1, 2)]
    for T, D in [(1, 4), (2, 4), (1, 6), (3, 2), (3, 4), (4, 6), (5, 8)]:
        for theta in (100.0, 10000.0):
            for draw in (_few, _reals):
                positions = rng.integers(0, 30, size=T)
                cases.append({"x": draw(rng, T, D), "positions": positions, "theta": theta})
    cases.append({"x": _reals(rng, 3, 6), "positions": np.array([7, 120, 250]), "theta": 10000.0})
    return cases


def _by_size(cases):
    return sorted(cases, key=lambda case: sum(x for x in case.values() if isinstance(x, int)))


def _draw_survivors(rng):
    small = [
        {"n_slots": n, "n_sinks": s, "window": w} for n in range(1, 10) for s in range(4) for w in range(1, 5)
    ]  # all of them: the first that fails is the smallest
    large = [dict(zip(small[0], map(int, x), strict=True)) for x in rng.integers((10, 0, 1), (60, 9, 20), (12, 3))]
    return _by_size(small) + large


def _draw_positions(rng):
    cases = []
    for case in _draw_survivors(rng):
        held = np.array(reference.survivors(**case))
        cases.append({"token_index": held, "n_sinks": case["n_sinks"], "window": case["window"]})
    return sorted(cases, key=lambda case: len(case["token_index"]))


def _held(case):
    """Whether a cache of that size can hold these tokens."""
    held = case["token_index"].tolist()
    return held == reference.survivors(held[-1] + 1, case["n_sinks"], case["window"]) if held else False


def _draw_step(rng):
    cases = []
    for n_sinks, window in [(0, 1), (1, 1), (0, 2), (1, 2), (2, 1), (0, 3), (2, 3), (1, 4), (3, 2)]:
        T = min(n_sinks + window + 3, 8)  # values that name their token, and nothing else: who is kept?
        zeros = np.zeros((T, 8))
        cases.append(_text(zeros, zeros, np.eye(T, 8), n_sinks, window, 100.0))
    for n_sinks, window in [(0, 2), (1, 2), (0, 3), (1, 3), (2, 2), (2, 3), (3, 3)]:
        T = min(n_sinks + window + 3, 8)  # and with queries and keys: where do they stand?
        cases.append(_text(_few(rng, T, 8), _few(rng, T, 8), np.eye(T, 8), n_sinks, window, 100.0))
    for n_sinks, window, D, T in [(0, 4, 4, 9), (1, 3, 4, 12), (2, 4, 6, 14), (4, 5, 4, 16), (3, 1, 2, 9)]:
        theta = float(rng.choice([100.0, 10000.0]))
        cases.append(_text(_reals(rng, T, D), _reals(rng, T, D), _reals(rng, T, D), n_sinks, window, theta))
    cases.append(_text(_reals(rng, 48, 4), _reals(rng, 48, 4), _reals(rng, 48, 4), 1, 3, 100.0))  # does memory grow?
    return cases


def _text(q, k, v, n_sinks, window, theta):
    return {"q": q, "k": k, "v": v, "n_sinks": n_sinks, "window": window, "theta": theta}


def _draw_nll(rng):
    cases = []
    for T, V in [(2, 2), (3, 2), (2, 3), (3, 3), (4, 3), (5, 4), (7, 5)]:
        for draw in (_few, _reals):
            cases.append({"logits": draw(rng, T, V), "ids": rng.integers(V, size=T)})
    cases.append({"logits": _reals(rng, 4, 3), "ids": np.array([1, 2, 0, 1])})
    cases.append({"logits": _few(rng, 4, 3) + 1000.0, "ids": np.array([0, 2, 1, 1])})
    cases.append({"logits": _few(rng, 3, 4) - 1000.0, "ids": np.array([3, 2, 0])})
    return cases


def _draw_retrieve(rng):
    cases = []
    small = [(2, 1, 1, 2), (3, 1, 1, 2), (4, 2, 1, 2), (3, 2, 1, 2), (4, 2, 2, 4), (6, 2, 1, 4)]
    large = [(6, 3, 2, 4), (7, 2, 2, 2), (9, 4, 2, 4), (12, 3, 2, 6), (12, 4, 1, 4), (10, 3, 3, 4)]
    for N, block, k, D in small + large:
        for window in (1, 3, 8):
            while True:
                case = {"q": _reals(rng, D), "keys": _reals(rng, N, D), "block": block, "k": k, "window": window}
                case["theta"] = float(rng.choice([100.0, 10000.0]))
                if _clear(case):
                    break
            cases.append(case)
    return cases


def _clear(case):
    """Whether the k-th block and the next are far enough apart for rounding to decide nothing."""
    named = {name: case[name] for name in ("q", "keys", "block", "window", "theta")}
    worth = sorted(reference.block_worth(**named), reverse=True)
    return len(worth) <= case["k"] or worth[case["k"] - 1] - worth[case["k"]] > 0.05


# The nine -------------------------------------------------------------------------------------------

SIZES = {"n_sinks": 0, "window": 1}
TASKS = {
    task.name: task
    for task in (
        Task("softmax", ("x",), _draw_rows, _word_row, axes={"x": "S"},
             valid=lambda case: np.isfinite(case["x"]).any()),
        Task("softmax1", ("x",), _draw_rows, _word_row, axes={"x": "S"},
             valid=lambda case: np.isfinite(case["x"]).any()),
        Task("attend", ("q", "k", "v", "visible"), _draw_attend, _word_attend, ("softmax",),
             axes={"q": "T.", "k": "S.", "v": "S.", "visible": "TS"},
             valid=lambda case: case["visible"].any(axis=1).all(),
             dresses=("arrays", "lists", "a head", "heads first")),
        Task("rotate", ("x", "positions", "theta"), _draw_rotate, _word_rotate, axes={"x": "T.", "positions": "T"},
             dresses=("arrays", "lists", "a head")),
        Task("survivors", ("n_slots", "n_sinks", "window"), _draw_survivors, _word_survivors,
             least={"n_slots": 1} | SIZES, dresses=("arrays",), kind="slots"),
        Task("positions_of", ("token_index", "n_sinks", "window"), _draw_positions, _word_positions, ("survivors",),
             valid=_held, least=SIZES, kind="slots"),
        Task("step", ("q", "k", "v", "n_sinks", "window", "theta"), _draw_step, _word_step,
             ("softmax", "attend", "rotate", "survivors", "positions_of"),
             axes={"q": "T.", "k": "T.", "v": "T."}, least=SIZES,
             dresses=("arrays", "lists", "a head", "a row of heads")),
        Task("token_nll", ("logits", "ids"), _draw_nll, _word_nll, ("softmax",), axes={"logits": "T.", "ids": "T"},
             valid=lambda case: len(case["ids"]) > 1),
        Task("retrieve", ("q", "keys", "block", "k", "window", "theta"), _draw_retrieve, _word_retrieve, ("rotate",),
             axes={"keys": "N."}, least={"block": 1, "k": 1, "window": 1}, valid=_clear,
             dresses=("arrays", "lists", "a head"), kind="set"),
    )
}  # fmt: skip
SIGNATURES = {name: task.signature for name, task in TASKS.items()} | {
    "step": "step(state, q, k, v, n_sinks, window, theta)"
}


def cases_of(task, seed):
    """The cases of a task, small ones first; another seed draws others."""
    return task.draw(np.random.default_rng([seed, sorted(TASKS).index(task.name)]))


def dressed(task, case, dress):
    """The arguments as a function gets them: arrays, lists, or with an axis of one head between time and width."""
    args = []
    for name in task.params:
        x = case[name]
        if isinstance(x, np.ndarray) and dress != "lists":
            if x.ndim == 2 and name in ("q", "k", "v", "x", "keys"):
                x = {"a head": x[:, None], "heads first": x[None], "a row of heads": x[:, None, None]}.get(dress, x)
            elif name == "q" and dress == "a head":
                x = x[None]
            args.append({"array": x.ravel().tolist(), "shape": list(x.shape), "dtype": str(x.dtype)})
        else:
            args.append(x.tolist() if isinstance(x, np.ndarray) else x)
    return args


def simpler(task, case):
    """Cases that are a little smaller or plainer than this one: fewer entries, smaller sizes, rounder numbers."""
    for letter in sorted(set("".join(task.axes.values())) - {"."}):
        for name, letters in task.axes.items():
            if letter in letters:
                size = case[name].shape[letters.index(letter)]
        for i in reversed(range(size if size > 1 else 0)):
            yield _without(task, case, letter, i)
    for name, least in task.least.items():
        if case[name] > least:
            yield case | {name: case[name] - 1}
    if task.name == "positions_of":
        last = int(case["token_index"][-1])
        yield case | {"token_index": np.array(reference.survivors(last, case["n_sinks"], case["window"]), int)}
        for name in ("n_sinks", "window"):
            fewer = {key: case[key] for key in ("n_sinks", "window")}
            fewer[name] = max(task.least[name], fewer[name] - 1)
            yield case | fewer | {"token_index": np.array(reference.survivors(last + 1, **fewer))}
    for name, x in case.items():
        if isinstance(x, np.ndarray) and x.dtype == np.float64 and not (name == "v" and _identity(np.atleast_2d(x))):
            for plain in (np.zeros_like(x), np.sign(x), np.round(x), np.round(x, 1)):
                if not np.array_equal(plain, x):
                    yield case | {name: plain}
            for place in zip(*np.nonzero(x), strict=True) if 1 < np.count_nonzero(x) <= 6 else ():
                thinner = x.copy()
                thinner[place] = 0.0
                yield case | {name: thinner}
        elif name == "positions":
            for places in (np.minimum(x, 1), x // 2):
                if not np.array_equal(places, x):
                    yield case | {name: places}


def _without(task, case, letter, i):
    smaller = dict(case)
    for name, letters in task.axes.items():
        if letter in letters:
            smaller[name] = np.delete(case[name], i, axis=letters.index(letter))
    if letter == "T" and "v" in smaller and task.name == "step" and _identity(case["v"]):
        smaller["v"] = np.eye(len(case["v"]) - 1, case["v"].shape[1])
    return smaller


def same(a, b):
    """Whether two cases are one."""
    return all(np.array_equal(a[name], b[name]) for name in a)


def as_plain(case):
    """A case as JSON can hold it."""
    return {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in case.items()}
