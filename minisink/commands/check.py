"""``minisink check``: a student's own functions, held against the reference."""

import os
import sys
import time
from pathlib import Path

from ..system.files import atomic_write
from ..teaching import formats
from ..teaching.report import all_right, as_text, check_source, totals, waiting
from ..teaching.sandbox import SECONDS, Sandbox
from ..teaching.source import read
from ..teaching.tasks import TASKS
from ..teaching.template import template
from .common import check_folder, dump

PURPOSE = "hold functions that a student wrote against the reference, and name the wrong turn"
HINTS = "0 the failing case, 1 a question, 2 the place, 3 the wrong turn and the cure (the case and the wrong turn)"
EXAMPLE = "minisink check student.py --task survivors step --hint 1"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add("file", nargs="?", help="a .py file or a notebook that defines any of the tasks")
    add("--task", nargs="+", action="extend", metavar="TASK", help=f"only these: {', '.join(TASKS)} (all in the file)")
    add("--template", action="store_true", help="write the stubs to FILE, which must not be there yet; or print them")
    out = parser.add_mutually_exclusive_group()
    out.add_argument("--json", action="store_true", help="print JSON instead of a report")
    out.add_argument("--gradescope", metavar="FILE", help="write Gradescope's results.json too")
    out.add_argument("--classroom50", metavar="FILE", help="write Classroom 50's result.json too")
    add("--seed", type=int, default=0, metavar="N", help="of the cases (%(default)s)")
    add("--hint", type=int, choices=(0, 1, 2, 3), help=HINTS)
    add("--seconds", type=float, default=SECONDS, metavar="X", help="for the cases of a task (%(default)s)")


def run(args):
    """Check a file, or write the template; 0 if all tasks pass that were asked for, or all that are there.

    Raises
    ------
    ValueError
        For a file that cannot be read or written, and impossible options.
    """
    tasks = _tasks(args)
    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}; it must be 0 or more")
    if not 0 < args.seconds <= 3600:
        raise ValueError(f"--seconds is {args.seconds}; it must be more than 0, and 3600 at most")
    if args.template:
        return _write_template(args.file, tasks)
    if args.file is None:
        raise ValueError("no file given; minisink check student.py, or minisink check student.py --template to begin")
    results = _ResultsFile(args)
    results(waiting(tasks))  # so that a file is there whatever happens to us
    try:
        sandbox = Sandbox(read(args.file), args.seconds)
    except ValueError as error:
        rows = [row | {"message": str(error), "status": "missing"} for row in waiting(tasks)]
        results(rows)
        if args.json:
            dump(totals(rows))
        raise
    rows = check_source(
        sandbox, tasks, args.seed, args.hint, on_row=lambda rows: results(rows + waiting(tasks)[len(rows) :])
    )
    if args.json:
        dump(totals(rows))
    else:
        print(as_text(rows, over=sandbox.over))
    return 0 if all_right(rows, tasks is not None) else 1


def _tasks(args):
    """Return the tasks that were asked for, or None; a file behind --task is the file to check."""
    tasks = list(args.task) if args.task else None
    if tasks and args.file is None and tasks[-1] not in TASKS:
        args.file = tasks.pop()
        if not tasks:
            raise ValueError(f"--task {args.file}: name a task, one or more of {', '.join(TASKS)}")
    for name in tasks or ():
        if name not in TASKS:
            raise ValueError(f"--task {name}: no such task; there are {', '.join(TASKS)}")
    return tasks


def _write_template(file, tasks):
    """To a new file, or to standard output."""
    if file is None or file == "-":
        sys.stdout.write(template(tasks))
        return
    path = Path(file)
    if path.suffix == ".ipynb":
        raise ValueError(f"{path}: the template is a Python file; give a name that ends in .py")
    if os.path.lexists(path):
        raise ValueError(f"{path}: is there already, and is not overwritten; give another name")
    check_folder(path)
    with atomic_write(path) as unfinished:
        unfinished.write_text(template(tasks, path.name), encoding="utf-8")
    print(f"{path}: write what is missing, then run minisink check {path}")


class _ResultsFile:
    """Writes the file that was asked for, again and again as tasks are judged."""

    def __init__(self, args):
        self.path, self.started = args.gradescope or args.classroom50, time.monotonic()
        self.form = formats.gradescope if args.gradescope else formats.classroom50
        check_folder(self.path)
        if self.path and args.file and Path(self.path).resolve() == Path(args.file).resolve():
            raise ValueError(f"{self.path}: that is the student's file; results need a name of their own")

    def __call__(self, rows):
        """Write."""
        if self.path:
            formats.write(self.path, self.form(rows, time.monotonic() - self.started))
