"""A whole report: which tasks are judged, in which order, and how it reads."""

import difflib

from ..system.terminal import count, put, wrap
from .child import answer
from .copies import by_place, fingerprints, same_as, whole
from .judge import judge, result
from .own_tasks import read_tasks
from .sandbox import Answers
from .shelf import of_minisink
from .tasks import TASKS, in_style
from .words import one_line

LONGER = ("d", "ed", "s")  # rotated is no slip of rotate
MOST_NOTES = 5


def check_source(sandbox, tasks=None, seed=0, hint=None, on_row=lambda row: None, prints=None, others=None):
    """Judge a student's file; return a row per task, and call `on_row` with each.

    `prints` of the file, and of those of `others` by name, say whose code it is; see `copies`.
    """
    known = sandbox.tasks
    names = [name for name in known if tasks is None or name in tasks]
    looked = sandbox.ask(names[0], [])
    sandbox.over = looked.over
    why = "".join(f"; {each}" for each in passed_over(looked.over))
    defined = looked.there or {}
    looks_so = {name for name in known if name not in defined and sandbox.source.defines(name)}
    rows, passed, prints = [], set(), prints or fingerprints(sandbox.source.text)
    named = same_as(prints, others)
    needs = {need for name in names for need in known[name].needs if defined.get(need)}  # are the parts right?
    for name in [name for name in known if name in needs or name in names]:
        if looked.there is None and name in looks_so:
            row = result(name, "failed", f"the file did not come to its end: {looked.died}")
        elif name in looks_so and why:
            row = result(name, "failed", why.removeprefix("; "))
        elif name not in defined:
            slip = _meant(name, prints.names)
            row = result(name, "missing", f"not in the file: {known[name].signature}{slip or why}")
        elif not defined[name]:
            row = result(name, "failed", f"{name} is no function")
        else:
            row = judge(name, sandbox.ask, seed, hint, given=defined, passed=passed, tasks=known)
        if row["status"] == "passed":
            passed.add(name)
        row["same_as"] = named.get(name)
        if name in names:
            rows.append(row)
            on_row(row)
    return rows


def passed_over(over, most=3):
    """Return a line for each of the first statements that were passed over, and one for how many others there are."""
    lines = []
    for each in over:
        cell = f"cell {each['cell']}, " if each["cell"] else ""
        why = f"{one_line(each['raised'])}: {one_line(each['error'])}".rstrip(": ")
        lines.append(f"{cell}line {each['line']} was skipped: {why}")
    others = count(len(lines) - most, "other statement")
    return lines[:most] + [f"and {others}"] * (len(lines) > most)


def _meant(name, named):
    """Ask whether a function of nearly that name is this task."""
    tasks = {_plain(task): task for task in TASKS}
    for other in named:
        nearest = difflib.get_close_matches(_plain(other), tasks, 1, 0.85)
        if other not in TASKS and nearest == [_plain(name)] and _plain(other).removeprefix(nearest[0]) not in LONGER:
            return f"; {other} is there: did you mean {name}?"
    return ""


def _plain(name):
    return name.lower().replace("_", "")


def totals(rows, points):
    """Return rows with what each counts, by its task, and their sums."""
    rows = [row | {"max_score": points[row["task"]]} for row in rows]
    rows = [row | {"score": row["max_score"] if row["status"] == "passed" else 0} for row in rows]
    sums = {name: sum(row[name] for row in rows) for name in ("score", "max_score")}
    return {"tasks": rows, "same_as": whole(row["same_as"] for row in rows)} | sums


def all_right(rows, asked):
    """Whether the exit status is 0: every task that was asked for passes, or else every one that the file has."""
    judged = [row for row in rows if asked or row["status"] != "missing"]
    return bool(judged) and all(row["status"] == "passed" for row in judged)


def as_text(report):
    """Return a report to read, as wide as the terminal."""
    rows, lines = report["tasks"], []
    missing = [row for row in rows if row["status"] == "missing"]
    column = max(len(row["task"]) for row in rows) + 2
    for row in rows:
        if row["status"] == "missing":
            continue
        head = f"{row['task'].ljust(column)}{row['status']}  "
        for i, text in enumerate(row["message"].split("\n")):
            first = head if i == 0 else " " * len(head)
            lines.append(wrap(text, initial_indent=first, subsequent_indent=" " * len(head)) or first)
    if missing:
        lines.append(wrap(f"not in the file: {', '.join(row['task'] for row in missing)}"))
        asked = [row["message"].rpartition("; ")[2] for row in missing if row["message"].endswith("?")]
        lines += map(wrap, asked)
    for text in by_place(rows):
        lines.append(wrap(f"same as: {text}", subsequent_indent="  ", break_on_hyphens=False))
    n_passed = sum(row["status"] == "passed" for row in rows)
    lines.append(f"{n_passed} of {len(rows)} tasks pass: {report['score']} of {report['max_score']} points")
    lines += [wrap(line, subsequent_indent="  ") for line in [*about_the_file(report), *numbered(rows)]]
    return "\n".join(lines)


def about_the_file(report):
    """Say what was skipped, and which file was judged: a line each."""
    notes = [one_line(note) for note in report.get("notes", ())]
    others = [f"and {count(len(notes) - MOST_NOTES, 'other')}"] * (len(notes) > MOST_NOTES)
    judged = [f"file judged: {one_line(file)}" for file in [report.get("file")] if file]
    return [*notes[:MOST_NOTES], *others, *judged]


def numbered(rows):
    """Say where the list of the numbered wrong turns is, if one was named: a list of one line, or of none."""
    is_numbered = any("(wrong turn " in (row["diagnosis"] or "") and row["diagnosis"] in row["message"] for row in rows)
    return ["(docs/check.md of minisink lists the wrong turns by number.)"] * is_numbered


def check_functions(*, seed=0, hint=None, raises=False, tasks=None, **functions):
    """Check live functions, in a notebook: print the report of ``minisink check``, and say whether all pass.

    Parameters
    ----------
    seed : int
        Of the cases.
    hint : int, optional
        0 shows the failing case alone, 1 asks a question, 2 names the place to look at, 3 the wrong turn and its cure.
        Without it the case and the wrong turn are shown.
    raises : bool
        Raise the report as an AssertionError, where not all pass, and print nothing: otter-grader shows errors.
    tasks : str or path, optional
        A file with tasks of a teacher's own, as of ``minisink check --tasks``.
    **functions
        By the names of the tasks: softmax, softmax1, attend, rotate, survivors, positions_of, step, token_nll,
        retrieve.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        For no function, a name that is no task, something that cannot be called, or minisink's own code.
    AssertionError
        If a task fails, with ``raises=True``.

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
            raise ValueError(f"{name!r} is no task; there are {', '.join(known)}")
        if not callable(function):
            raise ValueError(f"{name} is {function!r}; a function is needed")
        if theirs := of_minisink(function, name):
            raise ValueError(f"{name} is minisink's own ({theirs}); give a function that you wrote yourself")

    def ask(name, cases, style="arrays", stand_ins=()):
        found = []
        for case in cases:
            code = getattr(functions[name], "__code__", None)
            args = in_style(known[name], case, style)
            found.append(answer(name, functions[name], args, getattr(code, "co_filename", None)))
            if found[-1].get("raised") == "KeyboardInterrupt":
                raise KeyboardInterrupt
        return Answers(found, {}, [], None)

    rows = [judge(name, ask, seed, hint, passed=TASKS, tasks=known) for name in known if name in functions]
    text = as_text(totals(rows, {name: task.points for name, task in known.items()}))
    if hint is None and any(row["diagnosis"] for row in rows):
        text += "\n(Hints: hint=1 in this call asks a question, hint=2 says where to look, hint=3 what to do.)"
    if raises and not all_right(rows, True):
        raise AssertionError(text)
    put(text)
    return all_right(rows, True)
