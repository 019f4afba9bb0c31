"""``minisink check FOLDER --csv marks.csv``: grade a class, and count its wrong turns."""

from contextlib import closing
from pathlib import Path

from .. import __version__
from ..evaluation.jobs import cores
from ..system.files import check_folder, lock_files
from ..system.terminal import columns, count, cut, put, table, width_of, wrap
from ..teaching.marks import MarksFile, grade_class, students_of, wrong_turns
from ..teaching.words import one_line
from .common import as_json, progress

MOST_JOBS = 64
NUMBERS = 20  # characters for score, seconds and gaps; names share the rest


def run(args, grading):
    """Grade a class; return 0 if every student was graded."""
    jobs = min(cores(), MOST_JOBS) if args.jobs is None else args.jobs
    if not 1 <= jobs <= MOST_JOBS:
        raise ValueError(f"--jobs is {jobs}; it must be from 1 to {MOST_JOBS}")
    if len(args.file) > 1:
        raise ValueError(f"--csv grades one folder, with one entry per student; {len(args.file)} were given")
    check_folder(args.csv)
    tasks_text = Path(args.tasks).read_text(encoding="utf-8", errors="replace") if args.tasks else ""
    with lock_files(args.csv):
        marks = MarksFile(args.csv, grading, resume=args.resume, tasks_text=tasks_text)
        students, others = students_of(args.file[0], grading.known)
        others = [name for name in others if Path(args.file[0], name).resolve() != Path(args.csv).resolve()]
        n_kept = sum(map(marks.is_done, students))
        with closing(progress("students", total=len(students), unit="student", initial=n_kept)) as bar:
            try:
                reports = grade_class(students, marks, jobs=jobs, on_row=lambda row: bar.update())
            except KeyboardInterrupt:
                done = f"{len(marks.rows)} of {count(len(students), 'student')} in {args.csv}"
                raise KeyboardInterrupt(f"with {done}; the same command with --resume continues") from None
    failed = [student for student in students if not marks.is_done(student) and not student.error]
    shown = as_text(list(marks.rows.values()), marks.path, others, n_kept)
    put(as_json(_class_as_data(students, marks, reports, others)) if args.json else shown)
    return 1 if failed else 0


def _class_as_data(students, marks, reports, others):
    """Return the class as JSON-able data; students graded by an earlier run have no task rows."""
    graded = []
    for student in students:
        row, report = marks.rows[student.name], reports.get(student.name, {"tasks": None})
        about = {"student": student.name, "file": row["file"] or None}
        about |= {"status": {name: row[name] for name in marks.grading.names}}
        about |= {"score": int(row["score"]), "max_score": int(row["max_score"]), "seconds": float(row["seconds"])}
        about |= {"same_as": row["same_as"] or None, "note": row["note"] or None, "tasks": report["tasks"]}
        graded.append(about)
    found = [{"students": n, "task": task, "wrong_turn": turn} for n, task, turn in wrong_turns(marks.rows.values())]
    about = {"version": __version__, "seed": marks.grading.seed, "csv": str(marks.path)}
    return about | {"students": graded, "wrong_turns": found, "passed_over": others}


def as_text(rows, path, others=(), n_kept=0):
    """Return the report of a class."""
    cells = []
    for row in rows:
        name, file, same_as = (_short(row[column]) for column in ("student", "file", "same_as"))
        cells.append([name, file or "-", f"{row['score']}/{row['max_score']}", row["seconds"], same_as])
    lines = [table(["student", "file judged", "score", "seconds", "same as"], cells), ""]
    if turns := wrong_turns(rows):
        lines.append("students who took a wrong turn:")
        column = max(len(task) for _, task, _ in turns) + 2
        for n, task, turn in turns:
            head = f"{n:>4}  {task.ljust(column)}"
            lines.append(wrap(turn, initial_indent=head, subsequent_indent=" " * len(head)))
        lines.append("")
    noted = [f"{_short(row['student'])}: {row['note']}" for row in rows if row["note"]]
    noted += [f"skipped: {', '.join(map(one_line, others))}"] if others else []
    lines += [wrap(note, subsequent_indent="  ") for note in noted]
    mean = sum(int(row["score"]) for row in rows) / len(rows)
    kept = f", {n_kept} of them by an earlier run" if n_kept else ""
    lines.append(f"{count(len(rows), 'student')}{kept}; {mean:.1f} of {rows[0]['max_score']} points on average: {path}")
    return "\n".join(lines)


def _short(text):
    text, most = one_line(text), max(8, (columns() - NUMBERS) // 3)
    return text if width_of(text) <= most else cut(text, most - 3) + "..."
