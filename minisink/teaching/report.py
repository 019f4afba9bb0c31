"""A report in the forms that people, Gradescope and Classroom 50 read."""

import datetime
import os

from ..system.terminal import count, wrap
from .copies import by_place
from .words import one_line

MOST_NOTES = 5


def passed_over(over, most=3):
    """Return one line for each of the first skipped statements, and one that counts the rest."""
    lines = []
    for each in over:
        cell = f"cell {each['cell']}, " if each["cell"] else ""
        why = f"{one_line(each['raised'])}: {one_line(each['error'])}".rstrip(": ")
        lines.append(f"{cell}line {each['line']} was skipped: {why}")
    others = count(len(lines) - most, "other statement")
    return lines[:most] + [f"and {others}"] * (len(lines) > most)


def all_right(rows, asked):
    """Whether all tasks that were asked for pass, by default all in the file; the exit status is then 0."""
    judged = [row for row in rows if asked or row["status"] != "missing"]
    return bool(judged) and all(row["status"] == "passed" for row in judged)


def as_text(report):
    """Return a report for a reader, as wide as the terminal."""
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
    """Say what was skipped, which file was judged, and where named wrong turns are numbered, on one line each."""
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
