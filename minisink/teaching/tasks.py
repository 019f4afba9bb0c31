"""What can be checked: nine functions, each with its cases, its reference, its words and ways to shrink a case."""

import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..wrong_turns import TURNS
from ..wrong_turns.turn import WrongTurn
from . import cases, reference, words


@dataclass
class Task:
    """One function to write. A case is a dict of its arguments by name."""

    name: str
    arguments: str  # each with a letter per axis, "." for one that is never shortened, or its smallest value
    reference: Callable  # the right function
    draw: Callable  # from a generator to a list of cases, small ones first
    word: Callable  # from a case, an answer and the right one to a sentence
    turns: Sequence[WrongTurn]  # the known ones
    needs: tuple[str, ...] = ()  # the other tasks that a solution may call
    valid: Callable = lambda case: True
    styles: tuple[str, ...] = ("arrays", "lists")  # of arguments, see `in_style`
    kind: str = "numbers"  # or "slots" (whole numbers in order), "set" (in any order)
    points: int = 1

    def __post_init__(self):
        about = dict(each.partition(":")[::2] for each in self.arguments.split())
        self.params = tuple(about)  # names of the arguments
        self.least = {name: int(least) for name, least in about.items() if least.isdigit()}  # of whole numbers
        self.axes = {name: about[name] for name in about if about[name] and name not in self.least}  # of arrays

    @property
    def signature(self):
        """The function's name and arguments as in a file."""
        return f"{self.name}({'state, ' * (self.name == 'step')}{', '.join(self.params)})"

    def expected(self, case):
        """Return the right answer, float64; for a step, all outputs, (T, D)."""
        (*args,), outs, state = (case[name] for name in self.params), [], None
        with np.errstate(all="ignore"):  # whatever a notebook has set
            if self.name != "step":
                return np.asarray(self.reference(*args), np.float64)
            for q, k, v in zip(*args[:3], strict=True):
                out, state = self.reference(state, q, k, v, *args[3:])
                outs.append(np.ravel(out))
        return np.asarray(outs, np.float64)


def task(name, arguments, *needs, **about):
    """Return one of minisink's own tasks, whose parts are all found by its name."""
    parts = getattr(reference, name), getattr(cases, name), getattr(words, f"of_{name}"), TURNS[name]
    return Task(name, arguments, *parts, needs, **about)


MOST_POINTS = 1000  # for a task
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


def _rng(task, seed, *more):
    number = sorted(TASKS).index(task.name) if task.name in TASKS else zlib.crc32(task.name.encode())
    return np.random.default_rng([seed, number, *more])


def cases_of(task, seed):
    """Draw the cases of a task, small ones first; a different seed draws different ones."""
    return task.draw(_rng(task, seed))


def heads_of(task, seed):
    """Draw the cases with several heads; none if the task has no heads."""
    draw = getattr(cases, f"{task.name}_heads", None)
    return draw(_rng(task, seed, 1)) if draw else []


def in_style(task, case, style):
    """Return new arguments in the form a function gets them: arrays, lists, or arrays with an axis of heads."""
    args = []
    for name in task.params:
        x = case[name]
        if not isinstance(x, np.ndarray):
            args.append(deepcopy(x))
            continue
        if x.ndim == 2 and name in ("q", "k", "v", "x", "keys"):
            x = {"a head": x[:, None], "heads first": x[None], "a row of heads": x[:, None, None]}.get(style, x)
        elif x.ndim == 3:
            x = {"heads first": x.swapaxes(0, 1), "a row of heads": x[:, None]}.get(style, x)
        elif name == "q" and style == "a head":
            x = x[None]
        args.append(x.tolist() if style == "lists" else np.array(x, order="C"))
    return args


def simpler(task, case):
    """Yield cases that are a little smaller or plainer: fewer entries, smaller sizes, rounder numbers; or the same."""
    for letter in sorted(set("".join(task.axes.values())) - {"."}):
        axes = {name: letters.index(letter) for name, letters in task.axes.items() if letter in letters}
        size = next(case[name].shape[axis] for name, axis in axes.items())
        for i in reversed(range(size if size > 1 else 0)):
            smaller = case | {name: np.delete(case[name], i, axis) for name, axis in axes.items()}
            if letter == "T" and task.name == "step" and words.names_tokens(case["v"]):
                smaller["v"] = np.eye(size - 1, case["v"].shape[1])
            yield smaller
    for name, least in task.least.items():
        if case[name] > least:
            yield case | {name: case[name] - 1}
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


def same(a, b):
    """Whether two cases are the same."""
    return all(np.array_equal(a[name], b[name]) for name in a)


def as_plain(case):
    """Return a case in a form that JSON can hold."""
    return {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in case.items()}


# The file that a student starts from: a stub per task, whose docstring says what to write, in loops
HEAD, *STUBS = Path(__file__).with_name("template.txt").read_text(encoding="utf-8").rstrip().split("\n\n\ndef ")
LOOPS = {stub.partition("(")[0]: stub.split('"""')[1] for stub in STUBS}  # the docstrings, by task


def template(tasks=None, name="student.py"):
    """Return the text of a file that will be called `name`, with stubs for these tasks, or for all."""
    stubs = [f"def {stub}" for task, stub in zip(LOOPS, STUBS, strict=True) if tasks is None or task in tasks]
    return "\n\n\n".join([HEAD.format(name=name), *stubs]) + "\n"
