"""How a hand-in is graded: the options, the report, and the files that are judged, the main one first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from .. import __version__
from .copies import fingerprints
from .handin import readable
from .judge import result
from .report import check_source, passed_over, totals
from .sandbox import SECONDS, Sandbox
from .tasks import TASKS, Task

MORE_FILES = 8  # of a hand-in in which tasks are looked for that the first lacks


@dataclass(frozen=True)
class Grading:
    """The tasks asked for, and their points."""

    tasks: tuple[str, ...] | None = None  # all that the file has
    seed: int = 0
    hint: int = 0
    seconds: float = SECONDS
    points: Mapping[str, int] = field(default_factory=dict)  # of a task, where not its own
    known: Mapping[str, Task] = field(default_factory=lambda: TASKS)

    @property
    def names(self):
        """The tasks that have a row."""
        return [name for name in self.known if self.tasks is None or name in self.tasks]

    def report(self, rows, file=None, notes=()):
        """Return everything that ``--json`` prints: rows with their points, the file, the seed."""
        about = {"version": __version__, "seed": self.seed, "file": file and readable(file)}
        points = {name: task.points for name, task in self.known.items()} | {**self.points}
        return about | {"notes": list(map(readable, notes))} | totals(rows, points)


def nothing_judged(grading, why=None):
    """Return a report in case the checker itself is stopped, or one that says `why` nothing was judged."""
    status, message = ("failed", "not judged: the checker was stopped before") if why is None else ("missing", str(why))
    return grading.report([result(name, status, message) for name in grading.names])


def grade(hand_in, grading, *, others=None, on_report=lambda report: None, stop=None):
    """Judge what a student handed in; `on_report` gets a whole report after each task.

    Tasks that the first file lacks, or has only as stubs, are looked for in the later files. `others` are prints of
    other students by name. Another thread can end it with the event `stop`: KeyboardInterrupt.
    """
    rows: dict[str, dict] = {}
    files: list[str] = []
    notes = [*hand_in.notes]

    def report():
        whole = [rows.get(row["task"], row) for row in nothing_judged(grading)["tasks"]]
        return grading.report(whole, ", ".join(files), notes)

    def take(source, row):
        if row["task"] not in rows or not _is_open(row):
            rows[row["task"]] = row
            files.extend({source.name} - {*files})
            on_report(report())

    for source in hand_in.sources[: 1 + MORE_FILES]:
        open_tasks = [name for name, row in rows.items() if _is_open(row) and source.defines(name)]
        if tasks := open_tasks if files else grading.names:
            known = {**TASKS, **grading.known}
            sandbox = Sandbox(source, grading.seconds, known, beside=hand_in.beside, stop=stop)
            prints = fingerprints(hand_in.texts(source))
            check_source(sandbox, tasks, grading.seed, grading.hint, partial(take, source), prints, others)
            of = "" if source.name == files[0] else f"{source.name}: "
            notes += [of + each for each in passed_over(sandbox.over)]
    return report()


def _is_open(row):
    """Whether the task may be in another file."""
    return row["status"] == "missing" or row["message"].startswith("not written yet")
