"""How hand-ins and live functions are graded: which tasks are judged, in what order, and the report."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import __version__
from ..system.terminal import put
from .child import answer
from .copies import fingerprints, same_as, whole
from .handin import readable
from .judge import judge, result
from .own_tasks import read_tasks
from .report import all_right, as_text, passed_over
from .sandbox import SECONDS, Answers, Sandbox
from .shelf import of_minisink
from .tasks import TASKS, Task, in_style

LONGER = ("d", "ed", "s")  # `rotated` is not a misspelt `rotate`
MORE_FILES = 8  # of a hand-in that are searched for tasks missing from the first


@dataclass(frozen=True)
class Grading:
    """The tasks asked for, and their points."""

    tasks: tuple[str, ...] | None = None  # None for all that the file has
    seed: int = 0
    hint: int = 0
    seconds: float = SECONDS
    points: Mapping[str, int] = field(default_factory=dict)  # by task, where they differ from its own
    known: Mapping[str, Task] = field(default_factory=lambda: TASKS)

    @property
    def names(self):
        """The tasks that have a row."""
        return [name for name in self.known if self.tasks is None or name in self.tasks]

    def report(self, rows, file=None, notes=()):
        """Return everything that ``--json`` prints: rows with their points, the totals, the file, the seed."""
        points = {name: task.points for name, task in self.known.items()} | {**self.points}
        rows = [row | {"score": row["score"] * points[row["task"]], "max_score": points[row["task"]]} for row in rows]
        about = {"version": __version__, "seed": self.seed, "file": file and readable(file)}
        about |= {"notes": list(map(readable, notes)), "tasks": rows, "same_as": whole(row["same_as"] for row in rows)}
        return about | {name: sum(row[name] for row in rows) for name in ("score", "max_score")}


def nothing_judged(grading, why=None):
    """Return a report for when the checker itself is stopped, or one that says `why` nothing was judged."""
    status, message = ("failed", "not judged: the checker was stopped before") if why is None else ("missing", str(why))
    return grading.report([result(name, status, message) for name in grading.names])


def grade(hand_in, grading, *, others=None, on_report=lambda report: None, stop=None):
    """Judge what a student handed in; `on_report` gets a whole report after each task.

    Tasks that the first file lacks, or has only as stubs, are looked for in the later files. `others` are the
    prints of other students, by name. Another thread can set the event `stop` to raise KeyboardInterrupt here.
    """
    rows = {row["task"]: row for row in nothing_judged(grading)["tasks"]}
    files, notes = [], [*hand_in.notes]
    for source in hand_in.sources[: 1 + MORE_FILES]:
        is_first = source is hand_in.source
        tasks = [name for name, row in rows.items() if is_first or (_is_open(row) and source.defines(name))]
        if not tasks:
            continue
        sandbox = Sandbox(source, grading.seconds, {**TASKS, **grading.known}, beside=hand_in.beside, stop=stop)
        prints = fingerprints(hand_in.texts(source))
        for row in check_source(sandbox, tasks, grading.seed, grading.hint, prints=prints, others=others):
            if is_first or not _is_open(row):
                rows[row["task"]] = row
                files.extend({source.name} - {*files})
                on_report(grading.report(rows.values(), ", ".join(files), notes))
        notes += [f"{'' if is_first else f'{source.name}: '}{each}" for each in passed_over(sandbox.over)]
    return grading.report(rows.values(), ", ".join(files), notes)


def _is_open(row):
    return row["status"] == "missing" or row["message"].startswith("not written yet")


def check_source(sandbox, tasks=None, seed=0, hint=None, *, prints=None, others=None):
    """Judge a student's file, and yield a row per task.

    The `prints` of the file, and those of `others` by name, are used to tell whose code it is; see `copies`.
    """
    known, prints = sandbox.tasks, prints or fingerprints(sandbox.source.text)
    names = [name for name in known if tasks is None or name in tasks]
    looked = sandbox.ask(names[0], [])
    sandbox.over, defined = looked.over, looked.there or {}
    why, named, passed = "; ".join(passed_over(looked.over)), same_as(prints, others), set()
    needs = {need for name in names for need in known[name].needs if defined.get(need)}  # are the parts right?
    for name in [name for name in known if name in needs or name in names]:
        if defined.get(name):
            row = judge(name, sandbox.ask, seed, hint, given=defined, passed=passed, tasks=known)
        elif name in defined:
            row = result(name, "failed", f"{name} is not a function")
        elif sandbox.source.defines(name) and looked.there is None:
            row = result(name, "failed", f"the file did not run to its end: {looked.died}")
        elif sandbox.source.defines(name) and why:
            row = result(name, "failed", why)
        else:
            note = _meant(name, prints.names) or (why and f"; {why}")
            row = result(name, "missing", f"not in the file: {known[name].signature}{note}")
        if row["status"] == "passed":
            passed.add(name)
        if name in names:
            yield row | {"same_as": named.get(name)}


def _meant(name, named):
    for other in [each for each in named if each not in TASKS]:
        if difflib.get_close_matches(other.lower(), TASKS, 1, 0.8) == [name] and other.removeprefix(name) not in LONGER:
            return f"; {other} is there: did you mean {name}?"
    return ""


def check_functions(*, seed=0, hint=None, raises=False, tasks=None, **functions):
    """Check live functions in a notebook: print the report of ``minisink check``, and return whether all pass.

    Parameters
    ----------
    seed : int
        Seed of the cases.
    hint : int, optional
        0 shows only the failing case, 1 asks a question, 2 says where to look, 3 names the wrong turn and its cure.
        If omitted, the case and the wrong turn are shown.
    raises : bool
        If not all pass, raise the report as an AssertionError, as otter-grader needs, and print nothing.
    tasks : str or path, optional
        A file with a teacher's own tasks, as for ``minisink check --tasks``.
    **functions
        By task name: softmax, softmax1, attend, rotate, survivors, positions_of, step, token_nll,
        retrieve. Any other name, or minisink's own code, raises ValueError.

    Examples
    --------
    >>> def survivors(n_slots, n_sinks, window):
    ...     return [s for s in range(n_slots) if s < n_sinks or s >= n_slots - window]
    >>> check_functions(survivors=survivors)
    survivors  passed  156 cases
    1 of 1 tasks pass: 1 of 1 points
    True
    """
    known = TASKS if tasks is None else read_tasks(tasks)
    if not functions:
        raise ValueError(f"no function given; name one or more of {', '.join(known)}, as in softmax=softmax")
    for name, function in functions.items():
        if name not in known:
            raise ValueError(f"{name!r} is not a task; the tasks are {', '.join(known)}")
        if not callable(function):
            raise ValueError(f"{name} is {function!r}; a function is needed")
        if theirs := of_minisink(function, name):
            raise ValueError(f"{name} is minisink's own ({theirs}); give a function that you wrote yourself")

    def ask(name, cases, style="arrays", stand_ins=()):
        found = []
        for case in cases:
            file = getattr(getattr(functions[name], "__code__", None), "co_filename", None)
            found.append(answer(name, functions[name], in_style(known[name], case, style), file))
            if found[-1].get("raised") == "KeyboardInterrupt":
                raise KeyboardInterrupt
        return Answers(found, {}, [], None)

    rows = [judge(name, ask, seed, hint, passed=TASKS, tasks=known) for name in known if name in functions]
    text = as_text(Grading(known=known).report(rows))
    if hint is None and any(row["diagnosis"] for row in rows):
        text += "\n(Hints: hint=1 in this call asks a question, hint=2 says where to look, hint=3 what to do.)"
    if raises and not all_right(rows, True):
        raise AssertionError(text)
    put(text)
    return all_right(rows, True)
