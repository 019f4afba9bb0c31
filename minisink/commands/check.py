"""``minisink check``: compare a student's functions, or a whole class's, with the reference."""

import json
import os
import re
import sys
import time
from pathlib import Path

from ..system.files import atomic_write, check_folder
from ..system.terminal import put
from ..teaching.grading import Grading, grade, nothing_judged
from ..teaching.handin import hand_in
from ..teaching.own_tasks import read_tasks
from ..teaching.report import all_right, as_text, classroom50, gradescope
from ..teaching.sandbox import SECONDS
from ..teaching.tasks import MOST_POINTS, TASKS, template
from . import check_class
from .common import as_json, at_least, dump

PURPOSE = "compare a student's functions with the reference, and name the wrong turn"
HINTS = "0: the failing case, 1: a question, 2: the place, 3: the wrong turn and its fix (case and wrong turn)"
EXAMPLE = "minisink check student.py --task survivors step --hint 1"


def add_options(parser):
    add = parser.add_argument
    what = "what one student handed in: .py files, notebooks, a zip or a folder; with --csv, the folder of a class"
    add("file", nargs="*", help=what)
    add("--task", nargs="+", action="extend", metavar="TASK", help=f"only these: {', '.join(TASKS)} (all in the file)")
    add("--points", nargs="+", action="extend", metavar="TASK=N", help="points for a task, as in step=4 (1 each)")
    add("--tasks", metavar="FILE", help="your own tasks: functions, cases and POINTS (docs/check.md)")
    add("--template", action="store_true", help="write the stubs to FILE, which must not exist yet; or print them")
    add("--json", action="store_true", help="print JSON instead of a report")
    out = parser.add_mutually_exclusive_group()
    out.add_argument("--gradescope", metavar="FILE", help="also write Gradescope's results.json")
    out.add_argument("--classroom50", metavar="FILE", help="also write Classroom 50's result.json")
    out.add_argument("--csv", metavar="FILE", help="grade a class: one folder entry, and one row in FILE, per student")
    add("--jobs", type=int, metavar="N", help="students to grade at a time (one per core)")
    add("--resume", action="store_true", help="continue --csv FILE without regrading unchanged hand-ins")
    add("--seed", type=int, default=0, metavar="N", help="seed of the cases (%(default)s)")
    add("--hint", type=int, choices=(0, 1, 2, 3), help=HINTS)
    add("--seconds", type=float, default=SECONDS, metavar="X", help="time limit for all cases of a task (%(default)s)")


def run(args):
    """Check a hand-in or a class, or write the template; return 0 if all tasks pass or the whole class was graded."""
    known = TASKS if args.tasks is None else read_tasks(args.tasks)
    for name in args.task or ():
        if name not in known:
            raise ValueError(f"--task {name}: no such task; there are {', '.join(known)}")
    points = _points(args.points or (), args.task or known)
    at_least(args, seed=0)
    if not 0 < args.seconds <= 3600:
        raise ValueError(f"--seconds is {args.seconds}; it must be more than 0 and at most 3600")
    if args.template:
        return _write_template(args.file, args.task)
    if not args.file:
        raise ValueError("no file given; try minisink check student.py, with --template for a file to start from")
    grading = Grading(args.task and tuple(args.task), args.seed, args.hint, args.seconds, points, known)
    if args.csv is not None:
        return check_class.run(args, grading)
    for option in ("jobs", "resume"):
        if getattr(args, option):
            raise ValueError(f"--{option} goes with --csv FILE, which grades a class")
    results = _results_file(args)
    results(nothing_judged(grading))  # so that the file exists even if we crash
    try:
        work = hand_in(*args.file, tasks=grading.known)
    except ValueError as error:
        report = nothing_judged(grading, error)
        results(report)
        if args.json:
            dump(report)
        raise
    report = grade(work, grading, on_report=results)
    put(as_json(report) if args.json else as_text(report))
    return 0 if all_right(report["tasks"], grading.tasks is not None) else 1


def _points(words, tasks):
    points = {}
    for word in words:
        name, _, number = word.partition("=")
        if name not in tasks:
            raise ValueError(f"--points {word}: not one of the tasks; there are {', '.join(tasks)}")
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) > MOST_POINTS:
            raise ValueError(f"--points {word}: must be {name}=N, N an integer from 0 to {MOST_POINTS}")
        points[name] = int(number)
    return points


def _write_template(files, tasks):
    if len(files) > 1:
        raise ValueError(f"--template writes one file; {len(files)} names were given")
    if files in ([], ["-"]):
        sys.stdout.write(template(tasks))
        return
    path = Path(files[0])
    if path.suffix == ".ipynb":
        raise ValueError(f"{path}: the template is a Python file; give a name that ends in .py")
    if os.path.lexists(path):
        raise ValueError(f"{path}: already exists and will not be overwritten; give another name")
    check_folder(path)
    with atomic_write(path) as unfinished:
        unfinished.write_text(template(tasks, path.name), encoding="utf-8")
    print(f"{path}: write what is missing, then run minisink check {path}")


def _results_file(args):
    """Return a function that writes a report to the requested file."""
    path, started = args.gradescope or args.classroom50, time.monotonic()
    form = gradescope if args.gradescope else classroom50
    check_folder(path)
    if path and Path(path).resolve() in [Path(file).resolve() for file in args.file]:
        raise ValueError(f"{path}: this is the student's file; results need another name")

    def write(report):
        if path:
            text = json.dumps(form(report, time.monotonic() - started), indent=1)
            with atomic_write(path) as unfinished:
                unfinished.write_text(f"{text}\n", encoding="utf-8")

    return write
