"""A whole report: which tasks are judged, in which order, and how people, Gradescope and Classroom 50 read it."""

import datetime
import difflib
import os

from ..system.terminal import count, put, wrap
from .child import answer
from .copies import by_place, fingerprints, same_as, whole
from .judge import judge, result
from .own_tasks import read_tasks
from .sandbox import Answers
from .shelf import of_minisink
from .tasks import TASKS, in_style
from .words import one_line

LONGER = ("d", "ed", "s")  # `rotated` is not a misspelt `rotate`
MOST_NOTES = 5


def check_source(sandbox, tasks=None, seed=0, hint=None, on_row=lambda row: None, prints=None, others=None):
    """Judge a student's file; return a row per task, and call `on_row` with each.

    The `prints` of the file, and of the files of `others` by name, say whose code it is; see `copies`.
    """
    known = sandbox.tasks
    names = [name for name in known if tasks is None or name in tasks]
    looked = sandbox.ask(names[0], [])
    sandbox.over = looked.over
    why = "; ".join(passed_over(looked.over))
    defined = looked.there or {}
    rows, passed, prints = [], set(), prints or fingerprints(sandbox.source.text)
    named = same_as(prints, others)
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
        row["same_as"] = named.get(name)
        if name in names:
            rows.append(row)
            on_row(row)
    return rows


def passed_over(over, most=3):
    """Return a line for each of the first skipped statements, and one that counts the others."""
    lines = []
    for each in over:
        cell = f"cell {each['cell']}, " if each["cell"] else ""
        why = f"{one_line(each['raised'])}: {one_line(each['error'])}".rstrip(": ")
        lines.append(f"{cell}line {each['line']} was skipped: {why}")
    others = count(len(lines) - most, "other statement")
    return lines[:most] + [f"and {others}"] * (len(lines) > most)


def _meant(name, named):
    """Ask whether a function of nearly that name is this task."""
    for other in [each for each in named if each not in TASKS]:
        if difflib.get_close_matches(other.lower(), TASKS, 1, 0.8) == [name] and other.removeprefix(name) not in LONGER:
            return f"; {other} is there: did you mean {name}?"
    return ""


def totals(rows, points):
    """Return rows with their tasks' points, and the sums."""
    rows = [row | {"score": row["score"] * points[row["task"]], "max_score": points[row["task"]]} for row in rows]
    sums = {name: sum(row[name] for row in rows) for name in ("score", "max_score")}
    return {"tasks": rows, "same_as": whole(row["same_as"] for row in rows)} | sums


def all_right(rows, asked):
    """Whether all tasks that were asked for pass, or else all in the file: then the exit status is 0."""
    judged = [row for row in rows if asked or row["status"] != "missing"]
    return bool(judged) and all(row["status"] == "passed" for row in judged)


def as_text(report):
    """Return a report to read, as wide as the terminal."""
    rows, lines = report["tasks"], []
    missing = [row for row in rows if row["status"] == "missing"]
    column = max(len(row["task"]) for row in rows) + 2
    for row in [row for row in rows if row["status"] != "missing"]:
        head = f"{row['task'].ljust(column)}{row['status']}  "
        for i, text in enumerate(row["message"].split("\n")):
            first = head if i == 0 else " " * len(head)
            lines.append(wrap(text, initial_indent=first, subsequent_indent=" " * len(head)) or first)
    if missing:
        lines.append(wrap(f"not in the file: {', '.join(row['task'] for row in missing)}"))
        lines += [wrap(row["message"].rpartition("; ")[2]) for row in missing if row["message"].endswith("?")]
    lines += [wrap(f"same as: {text}", subsequent_indent="  ", break_on_hyphens=False) for text in by_place(rows)]
    n_passed = sum(row["status"] == "passed" for row in rows)
    lines.append(f"{n_passed} of {len(rows)} tasks pass: {report['score']} of {report['max_score']} points")
    lines += [wrap(line, subsequent_indent="  ") for line in footnotes(report)]
    return "\n".join(lines)


def footnotes(report):
    """Say what was skipped, which file was judged, and where named wrong turns are numbered: a line each."""
    notes, rows = [one_line(note) for note in report.get("notes", ())], report["tasks"]
    lines = notes[:MOST_NOTES] + [f"and {count(len(notes) - MOST_NOTES, 'other')}"] * (len(notes) > MOST_NOTES)
    if report.get("file"):
        lines.append(f"file judged: {one_line(report['file'])}")
    if any("(wrong turn " in (row["diagnosis"] or "") and row["diagnosis"] in row["message"] for row in rows):
        lines.append("(docs/check.md of minisink lists the wrong turns by number.)")
    return lines


def gradescope(report, seconds=0.0):
    """Return what Gradescope reads from /autograder/results/results.json; only the teacher sees copies."""
    tests = []
    for i, row in enumerate(report["tasks"], 1):
        test = {"name": row["task"], "number": str(i), "score": row["score"], "max_score": row["max_score"]}
        test |= {"status": "passed" if row["status"] == "passed" else "failed", "tags": [row["status"]]}
        test |= {"output": row["message"], "output_format": "text", "visibility": "visible"}
        tests.append(test | {"extra_data": {name: row[name] for name in ("diagnosis", "same_as")}})
    output = "\n".join([f"{report['score']} of {report['max_score']} points", *footnotes(report)])
    extra = {name: report[name] for name in ("file", "same_as", "seed", "version")}
    results = {"score": report["score"], "tests": tests, "execution_time": round(seconds), "output": output}
    return results | {"stdout_visibility": "hidden", "extra_data": extra}


def classroom50(report, seconds=0.0):
    """Return what Classroom 50 reads from result.json; the runner's environment says whose it is."""
    env = os.environ.get
    about = {
        "schema": "classroom50/result/v1",
        "classroom": env("CLASSROOM"),
        "assignment": env("ASSIGNMENT"),
        "owner": env("USERNAME") or env("GITHUB_REPOSITORY_OWNER"),
        "submission": env("SUBMISSION_TAG"),
        "commit": env("COMMIT_URL"),
        "release": env("RELEASE_URL"),
        "review": env("REVIEW_URL") or env("COMMIT_URL"),
        "file-judged": report["file"],
        "datetime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    tests = []
    for row in report["tasks"]:
        test = {"test-name": row["task"], "passed": row["status"] == "passed"}
        tests.append(test | {"score": row["score"], "max-score": row["max_score"]})
    scores = {"score": report["score"], "max-score": report["max_score"], "tests": tests}
    return {name: value or "unknown" for name, value in about.items()} | scores


def check_functions(*, seed=0, hint=None, raises=False, tasks=None, **functions):
    """Check live functions in a notebook: print the report of ``minisink check``, and return whether all pass.

    Parameters
    ----------
    seed : int
        Seed of the cases.
    hint : int, optional
        0 shows the failing case alone, 1 asks a question, 2 names the place to look at, 3 the wrong turn and its cure.
        Without it the case and the wrong turn are shown.
    raises : bool
        If not all pass, raise the report as an AssertionError, as otter-grader needs, and print nothing.
    tasks : str or path, optional
        A file with a teacher's own tasks, as for ``minisink check --tasks``.
    **functions
        By the names of the tasks: softmax, softmax1, attend, rotate, survivors, positions_of, step, token_nll,
        retrieve. ValueError for anything else, or for minisink's own code.

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
            raise ValueError(f"{name!r} is not a task; there are {', '.join(known)}")
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
    text = as_text(totals(rows, {name: task.points for name, task in known.items()}))
    if hint is None and any(row["diagnosis"] for row in rows):
        text += "\n(Hints: hint=1 in this call asks a question, hint=2 says where to look, hint=3 what to do.)"
    if raises and not all_right(rows, True):
        raise AssertionError(text)
    put(text)
    return all_right(rows, True)
