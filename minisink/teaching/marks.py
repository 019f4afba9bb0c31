"""A class: every entry of a folder is a student's hand-in, and gets a row in a CSV file as soon as it is judged."""

import csv
import hashlib
import os
import re
import stat
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from ..system.files import atomic_write, blame
from ..system.interrupts import defer_interrupts
from .copies import Prints, by_place, fingerprints
from .gather import KINDS, ZIP, is_source
from .grading import Grading, grade, nothing_judged
from .handin import hand_in, readable
from .tasks import TASKS
from .words import one_line

BEFORE, BEHIND = ("student", "file"), ("score", "max_score", "wrong_turns", "seconds", "same_as", "note", "digest")
FORMULA = tuple("=+-@\t\r'")  # a cell must not begin with these, or a spreadsheet would compute it
WAITING = 0.2  # seconds between checks for Ctrl-C


class Student(NamedTuple):
    """A student in the class, with what is known about the hand-in before it is judged, or why it cannot be."""

    name: str
    path: Path
    prints: Prints | None = None
    digest: str = ""
    error: str = ""


def students_of(folder, tasks=TASKS):
    """Return the students in a class, and the names of other entries; ValueError if there is no hand-in."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder; --csv grades a folder in which every entry is a student's hand-in")
    with blame(folder, "cannot be read"):
        names = sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))
    entries = [folder / name for name in names if _is_hand_in(folder / name)]
    others = [name for name in names if folder / name not in entries]
    stems = [path.name if path.is_dir() else re.sub(rf"{KINDS}|\{ZIP}$", "", path.name, flags=re.I) for path in entries]
    if len({*stems}) < len(stems):
        stems = [path.name for path in entries]
    students = [_student(readable(name), path, tasks) for name, path in zip(stems, entries, strict=True)]
    if all(student.error for student in students):
        first = students[0].error if students else f"there is {', '.join(others[:3]) or 'nothing'}"
        what = "every .py file, notebook, zip or folder in it counts as one student's"
        raise ValueError(f"{folder}: holds no hand-in; {what} ({first})")
    return students, others


def _is_hand_in(path):
    mode = path.lstat().st_mode
    return stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and (path.suffix.lower() == ZIP or is_source(path.name)))


def _student(name, path, tasks):
    try:
        work = hand_in(path, with_imports=False, tasks=tasks)
    except ValueError as error:
        return Student(name, path, error=readable(str(error).removeprefix(f"{path}: ")))
    return Student(name, path, fingerprints(work.texts(work.source)), work.digest)


class MarksFile:
    """The CSV file of a class, rewritten for each new row."""

    def __init__(self, path, grading: Grading, *, resume=False, tasks_text=""):
        self.path, self.grading, self.tasks_text = Path(path), grading, tasks_text
        self.header = [*BEFORE, *grading.names, *BEHIND]
        for name in grading.names:
            if self.header.count(name) > 1:
                raise ValueError(f"a task is called {name}, which is also a column of marks; rename it")
        self.rows: dict[str, dict] = {}  # by student
        if os.path.lexists(path):
            if not resume:
                raise ValueError(f"{path}: already exists; --resume continues it, or give another name")
            self._read()

    def _read(self):
        """Keep the rows of an earlier run, except a last line that was cut off."""
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                header, *rows = csv.reader(file)
        except (OSError, ValueError, csv.Error) as error:
            raise ValueError(f"{self.path}: cannot be read as marks of an earlier run ({error})") from None
        if header != self.header:
            columns = ", ".join(self.header)
            raise ValueError(f"{self.path}: its columns do not match this run's ({columns}); give another name")
        for row in rows:
            if len(row) == len(header):
                self.rows[from_cell(row[0])] = dict(zip(header, map(from_cell, row), strict=True))

    def is_done(self, student):
        """Whether there is a row for the same hand-in, judged with the same options."""
        row = self.rows.get(student.name)
        return row is not None and row["digest"] == self.digest(student) != ""

    def digest(self, student):
        """Hash the hand-in, the options and the version; "" if nothing was handed in."""
        grading = self.grading
        asked = [student.digest, grading.names, sorted(grading.points.items())]
        asked += [grading.seed, grading.hint, self.tasks_text]
        digest = hashlib.sha256(f"{asked} {grading.seconds} {__version__}".encode())
        return digest.hexdigest()[:16] if student.digest else ""

    def write(self, students):
        """Write the rows of these students in order, all or none."""
        self.rows = {student.name: self.rows[student.name] for student in students if student.name in self.rows}
        with atomic_write(self.path) as unfinished:
            with open(unfinished, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
                writer = csv.writer(file)
                writer.writerow(self.header)
                writer.writerows([as_cell(row[name]) for name in self.header] for row in self.rows.values())

    def row_of(self, student, report, seconds):
        """Return the row for a report."""
        turns = [f"{row['task']}: {row['diagnosis']}" for row in report["tasks"] if row["diagnosis"]]
        values = {"student": student.name, "file": report["file"] or ""}
        values |= {row["task"]: row["status"] for row in report["tasks"]}
        values |= {"score": report["score"], "max_score": report["max_score"], "wrong_turns": " | ".join(turns)}
        values |= {"seconds": f"{seconds:.1f}", "same_as": " | ".join(by_place(report["tasks"]))}
        values |= {"note": "; ".join(map(one_line, report["notes"])) or student.error}
        return {name: str(value) for name, value in values.items()} | {"digest": self.digest(student)}


def as_cell(text):
    """Return text that a spreadsheet shows but does not compute.

    >>> as_cell("=1+1"), as_cell("Ada")
    ("'=1+1", 'Ada')
    """
    return "'" + text if text.startswith(FORMULA) else text


def from_cell(cell):
    """Undo `as_cell`.

    >>> from_cell("'=1+1"), from_cell("Ada"), from_cell("")
    ('=1+1', 'Ada', '')
    """
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell


def grade_class(students, marks, *, jobs=1, on_row=lambda row: None):
    """Judge every student who has no row yet, `jobs` at a time; return the reports of this run by student.

    Ctrl-C raises KeyboardInterrupt: students judged so far have rows, and no process is left behind.
    """
    todo = [student for student in students if not marks.is_done(student)]
    marks.write([student for student in students if student not in todo])
    stop, reports = threading.Event(), {}

    def work(student):
        started = time.monotonic()
        others = {each.name: each.prints for each in students if each.prints and each is not student}
        try:
            if student.error:
                report = nothing_judged(marks.grading, student.error)
            else:
                files = hand_in(student.path, with_imports=False, tasks=marks.grading.known)
                report = grade(files, marks.grading, others=others, stop=stop)
        except Exception as error:  # whatever went wrong concerns one student; the others are still judged
            why = f"not judged: {type(error).__name__}: {one_line(error)}; --resume tries again"
            report = nothing_judged(marks.grading, why) | {"notes": [why]}
            student = student._replace(digest="")
        return student, report, marks.row_of(student, report, time.monotonic() - started)

    with defer_interrupts() as noted, ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(work, student) for student in todo}
        try:
            while pending:
                done, pending = wait(pending, WAITING, FIRST_COMPLETED)
                if noted:
                    raise KeyboardInterrupt
                for student, report, row in [future.result() for future in done]:
                    marks.rows[student.name] = row
                    marks.write(students)
                    reports[student.name] = report
                    on_row(row)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return reports


def wrong_turns(rows):
    """Count the wrong turns in a class: (students, task, wrong turn) each, the most frequent first."""
    found = Counter(turn for row in rows for turn in row["wrong_turns"].split(" | ") if turn)
    pairs = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(n, *turn.split(": ", 1)) for turn, n in pairs]
