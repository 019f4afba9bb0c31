"""What can be checked: nine functions, each with its cases, its reference, its words and what makes a case smaller.

A case is a dict of arguments by name. `Task.axes` says which axis is which, so that a case can be made smaller by
taking one entry of an axis away; `Task.least` says which whole numbers may become smaller, and how small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import cases, reference, words


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


SIZES = {"n_sinks": 0, "window": 1}
TASKS = {
    task.name: task
    for task in (
        Task("softmax", ("x",), cases.rows, words.of_row, axes={"x": "S"},
             valid=lambda case: np.isfinite(case["x"]).any()),
        Task("softmax1", ("x",), cases.rows, words.of_row, axes={"x": "S"},
             valid=lambda case: np.isfinite(case["x"]).any()),
        Task("attend", ("q", "k", "v", "visible"), cases.attend, words.of_attend, ("softmax",),
             axes={"q": "T.", "k": "S.", "v": "S.", "visible": "TS"},
             valid=lambda case: case["visible"].any(axis=1).all(),
             dresses=("arrays", "lists", "a head", "heads first")),
        Task("rotate", ("x", "positions", "theta"), cases.rotate, words.of_rotate, axes={"x": "T.", "positions": "T"},
             dresses=("arrays", "lists", "a head")),
        Task("survivors", ("n_slots", "n_sinks", "window"), cases.survivors, words.of_survivors,
             least={"n_slots": 1} | SIZES, dresses=("arrays",), kind="slots"),
        Task("positions_of", ("token_index", "n_sinks", "window"), cases.positions, words.of_positions, ("survivors",),
             valid=cases.can_hold, least=SIZES, kind="slots"),
        Task("step", ("q", "k", "v", "n_sinks", "window", "theta"), cases.step, words.of_step,
             ("softmax", "attend", "rotate", "survivors", "positions_of"),
             axes={"q": "T.", "k": "T.", "v": "T."}, least=SIZES,
             dresses=("arrays", "lists", "a head", "a row of heads")),
        Task("token_nll", ("logits", "ids"), cases.nll, words.of_nll, ("softmax",), axes={"logits": "T.", "ids": "T"},
             valid=lambda case: len(case["ids"]) > 1),
        Task("retrieve", ("q", "keys", "block", "k", "window", "theta"), cases.retrieve, words.of_retrieve, ("rotate",),
             axes={"keys": "N."}, least={"block": 1, "k": 1, "window": 1}, valid=cases.clear,
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
        names_tokens = name == "v" and words.names_tokens(x)  # and must go on doing so
        if isinstance(x, np.ndarray) and x.dtype == np.float64 and not names_tokens:
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
    if letter == "T" and "v" in smaller and task.name == "step" and words.names_tokens(case["v"]):
        smaller["v"] = np.eye(len(case["v"]) - 1, case["v"].shape[1])
    return smaller


def same(a, b):
    """Whether two cases are one."""
    return all(np.array_equal(a[name], b[name]) for name in a)


def as_plain(case):
    """A case as JSON can hold it."""
    return {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in case.items()}
