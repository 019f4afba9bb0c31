"""What can be checked: nine functions, each with its cases, its reference, its words and what makes a case smaller.

A case is a dict of arguments by name. `Task.axes` says which axis is which, so that a case can be made smaller by
taking one entry of an axis away; `Task.least` says which whole numbers may become smaller, and how small.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..wrong_turns import TURNS
from ..wrong_turns.turn import WrongTurn
from . import cases, reference, words


@dataclass(frozen=True)
class Task:
    """One function to write."""

    name: str
    arguments: str  # behind each a letter per axis, "." for one that is never shortened, or the smallest it can be
    reference: Callable  # the right function
    draw: Callable  # from a generator to a list of cases, small ones first
    word: Callable  # from a case, an answer and the right one to a sentence
    turns: Sequence[WrongTurn]  # that are known
    needs: tuple[str, ...] = ()  # the other tasks that a solution may call
    valid: Callable = lambda case: True
    styles: tuple[str, ...] = ("arrays", "lists")  # of arguments, see `in_style`
    kind: str = "numbers"  # or "slots" (whole numbers in order), "set" (in any order)
    points: int = 1

    @property
    def about(self):
        """The value of each argument, by name."""
        return {name: behind for name, _, behind in (each.partition(":") for each in self.arguments.split())}

    @property
    def params(self):
        """Names of the arguments."""
        return tuple(self.about)

    @property
    def axes(self):
        """Letters of the arrays that can be shortened, by name."""
        return {name: letters for name, letters in self.about.items() if letters and not letters.isdigit()}

    @property
    def least(self):
        """The smallest that whole numbers can be, by name."""
        return {name: int(least) for name, least in self.about.items() if least.isdigit()}

    @property
    def number(self):
        """Which cases a seed draws."""
        return sorted(TASKS).index(self.name) if self.name in TASKS else zlib.crc32(self.name.encode())

    @property
    def signature(self):
        """The code as in a file."""
        return f"{self.name}({'state, ' * (self.name == 'step')}{', '.join(self.params)})"

    def expected(self, case):
        """Return the right answer, float64; for a step, all outputs, (T, D)."""
        args = [case[name] for name in self.params]
        right = np.asarray(run(self.name, self.reference, args), np.float64)
        return right.reshape(len(right), -1) if self.name == "step" else right


@np.errstate(all="ignore")  # whatever a notebook has set
def run(name, function, args):
    """Call a function of ours; `step` token by token."""
    if name != "step":
        return function(*args)
    (q, k, v), rest, state, outs = args[:3], args[3:], None, []
    for t in range(len(q)):
        out, state = function(state, q[t], k[t], v[t], *rest)
        outs.append(out)
    return outs


def task(name, arguments, *needs, **about):
    """Return a task of minisink's own, of which everything bears the name."""
    parts = getattr(reference, name), getattr(cases, name), getattr(words, f"of_{name}"), TURNS[name]
    return Task(name, arguments, *parts, needs, **about)


MOST_POINTS = 1000  # of a task
HEADS = ("arrays", "lists", "a head")
PARTS = ("softmax", "attend", "rotate", "survivors", "positions_of")
ALL = (
    task("softmax", "x:S", valid=lambda case: np.isfinite(case["x"]).any()),
    task("softmax1", "x:S", valid=lambda case: np.isfinite(case["x"]).any()),
    task("attend", "q:T. k:S. v:S. visible:TS", "softmax", styles=(*HEADS, "heads first"), valid=cases.all_see),
    task("rotate", "x:T. positions:T theta", styles=HEADS),
    task("survivors", "n_slots:1 n_sinks:0 window:1", styles=("arrays",), kind="slots"),
    task("positions_of", "token_index n_sinks:0 window:1", "survivors", valid=cases.can_hold, kind="slots"),
    task("step", "q:T. k:T. v:T. n_sinks:0 window:1 theta", *PARTS, styles=(*HEADS, "a row of heads")),
    task("token_nll", "logits:T. ids:T", "softmax", valid=lambda case: len(case["ids"]) > 1),
    task("retrieve", "q keys:N. block:1 k:1 window:1 theta", "rotate", valid=cases.clear, styles=HEADS, kind="set"),
)
TASKS = {each.name: each for each in ALL}


def cases_of(task, seed):
    """Draw the cases of a task, small ones first; another seed draws others."""
    return task.draw(np.random.default_rng([seed, task.number]))


def heads_of(task, seed):
    """Draw the cases with several heads; none for a task without."""
    draw = getattr(cases, f"{task.name}_heads", None)
    return draw(np.random.default_rng([seed, task.number, 1])) if draw else []


def in_style(task, case, style):
    """Return the arguments as a function gets them: arrays, lists, or with an axis of heads."""
    args = []
    for name in task.params:
        x = case[name]
        if isinstance(x, np.ndarray) and style != "lists":
            if x.ndim == 2 and name in ("q", "k", "v", "x", "keys"):
                x = {"a head": x[:, None], "heads first": x[None], "a row of heads": x[:, None, None]}.get(style, x)
            elif x.ndim == 3:
                x = {"heads first": x.swapaxes(0, 1), "a row of heads": x[:, None]}.get(style, x)
            elif name == "q" and style == "a head":
                x = x[None]
            args.append({"array": x.ravel().tolist(), "shape": list(x.shape), "dtype": str(x.dtype)})
        else:
            args.append(x.tolist() if isinstance(x, np.ndarray) else x)
    return args


def simpler(task, case):
    """Cases that are a little smaller or plainer: fewer entries, smaller sizes, rounder numbers; or still the same."""
    for letter in sorted(set("".join(task.axes.values())) - {"."}):
        for name, letters in task.axes.items():
            if letter in letters:
                size = case[name].shape[letters.index(letter)]
        for i in reversed(range(size if size > 1 else 0)):
            yield _drop_index(task, case, letter, i)
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
                yield case | {name: plain}
            for place in zip(*np.nonzero(x), strict=True) if 1 < np.count_nonzero(x) <= 6 else ():
                thinner = x.copy()
                thinner[place] = 0.0
                yield case | {name: thinner}
        elif task.name == "rotate" and name == "positions":
            for places in (np.minimum(x, 1), x // 2):
                yield case | {name: places}


def _drop_index(task, case, letter, i):
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
    """Return a case as JSON can hold it."""
    return {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in case.items()}
