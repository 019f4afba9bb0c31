"""`minisink check FOLDER --csv FILE`: a class, and what can happen to its marks on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
from processes import at_work_in

from minisink import __version__
from minisink.system.files import lock_files
from minisink.system.terminal import width_of
from minisink.teaching import marks
from minisink.teaching.judge import result
from minisink.teaching.tasks import TASKS
from minisink.wrong_turns import TURNS

ROOT = Path(__file__).resolve().parents[2]
RIGHT = """
def survivors(n_slots, n_sinks, window):
    return [s for s in range(n_slots) if s < n_sinks or s >= n_slots - window]
"""
WRONG = RIGHT.replace("- window", "- window - 1")
TURN = TURNS["survivors"][0].title
SLEEP = "\ndef survivors(*args):\n    import time; time.sleep(77)\n"
HEADER = ["student", "file", "survivors", "score", "max_score", "wrong_turns", "seconds", "same_as", "note", "digest"]


@pytest.fixture
def run(run):
    """Run ``minisink check hw --csv marks.csv`` for one task, in an empty folder; (exit status, stdout, stderr)."""
    os.mkdir("hw")
    return partial(run, "check", "hw", "--csv", "marks.csv", "--task", "survivors")


@pytest.fixture
def quick(monkeypatch):
    """Judge nobody: who keeps one too many fails. Returns the names of the files that were looked at."""
    judged = []

    def look(work, grading, **options):
        judged.append(work.source.name)
        row = result("survivors", "failed" if "- window - 1" in work.source.text else "passed", "")
        return grading.report([row], work.source.name, work.notes)

    monkeypatch.setattr(marks, "grade", look)
    return judged


def hand_in(name, text=RIGHT):
    """What one student hands in."""
    path = Path("hw", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def rows(path="marks.csv"):
    """The rows of a CSV file, by student."""
    with open(path, newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_every_entry_is_a_student(run):
    """A file, a folder, a zip, a notebook, and one who handed in an essay; what else lies there is told."""
    hand_in("ada.py")
    hand_in("bob/hw.py", WRONG)
    hand_in("bob/._hw.py", "\0")
    with zipfile.ZipFile("hw/cy.zip", "w") as archive:
        archive.writestr("work/cy.py", WRONG)
    hand_in("dan.IPYNB", json.dumps({"cells": [{"cell_type": "code", "source": RIGHT}]}))
    hand_in("eve/essay.pdf", "x")
    hand_in("fay.py", "from ada import survivors\n")  # no student has another's file beside their own
    hand_in("list.xlsx", "x")
    hand_in(".DS_Store", "x")
    status, out, err = run()
    assert (status, err) == (0, "")
    found = rows()
    assert list(found["ada"]) == HEADER and list(found) == ["ada", "bob", "cy", "dan", "eve", "fay"]
    assert [row["file"] for row in found.values()] == ["ada.py", "hw.py", "work/cy.py", "dan.IPYNB", "", "fay.py"]
    assert [row["survivors"] for row in found.values()] == ["passed", "failed", "failed", "passed", "missing", "failed"]
    assert [row["score"] for row in found.values()] == ["1", "0", "0", "1", "0", "0"]
    assert [row["wrong_turns"] for row in found.values()] == [
        "",
        f"survivors: {TURN}",
        f"survivors: {TURN}",
        "",
        "",
        "",
    ]
    assert found["eve"]["note"].startswith("nothing to check: no .py file or notebook")
    assert f"   2  survivors  {TURN[:30]}" in out
    assert "skipped: list.xlsx" in out and "6 students; 0.3 of 1 points on average: marks.csv" in out
    assert max(map(len, out.splitlines())) <= 79
    table = out[out.index("students who took") :].partition("\n\n")[0]
    assert table in (ROOT / "docs" / "check.md").read_text(encoding="utf-8")


def test_json_names_the_file_the_seed_and_the_version(run):
    hand_in("ada.py", WRONG)
    hand_in("=bob.py")
    status, out, _ = run("--json", "--seed", "3", "--points", "survivors=4")
    found = json.loads(out)
    assert status == 0 and (found["seed"], found["version"], found["csv"]) == (3, __version__, "marks.csv")
    assert found["wrong_turns"] == [{"students": 1, "task": "survivors", "wrong_turn": TURN}]
    bob, ada = found["students"]
    assert (bob["student"], bob["file"], bob["score"], bob["max_score"]) == ("=bob", "=bob.py", 4, 4)
    assert ada["status"] == {"survivors": "failed"} and ada["tasks"][0]["diagnosis"] == TURN
    assert bob["same_as"] is bob["note"] is None
    kept = json.loads(run("--json", "--seed", "3", "--points", "survivors=4", "--resume")[1])
    assert [{**each, "tasks": None} for each in found["students"]] == kept["students"]


def test_resume_judges_who_has_changed_and_no_one_else(run, quick):
    hand_in("ada.py")
    hand_in("bob.py", WRONG)
    hand_in("cy/hw.py")
    hand_in("cy/helpers.py", "x = 1")
    assert run()[0] == 0
    del quick[:]
    before = Path("marks.csv").read_text()
    assert run("--resume")[0] == 0 and quick == [] and Path("marks.csv").read_text() == before
    hand_in("bob.py", RIGHT + "# better\n")
    hand_in("cy/helpers.py", "x = 2")
    status, out, _ = run("--resume")
    assert status == 0 and sorted(quick) == ["bob.py", "hw.py"] and rows()["bob"]["score"] == "1"
    assert "3 students, 1 of them by an earlier run" in out
    Path("hw/ada.py").unlink()
    del quick[:]
    assert run("--resume")[0] == 0 and quick == [] and list(rows()) == ["bob", "cy"]
    assert run("--resume", "--seed", "1")[0] == 0 and sorted(quick) == ["bob.py", "hw.py"]
    assert run("--resume", "--seed", "1", "--points", "survivors=2")[0] == 0 and rows()["bob"]["score"] == "2"


def test_tasks_of_a_teacher_have_a_column_and_are_part_of_what_is_asked(run):
    """Points of that file count, another file of tasks is judged again, and a column's name is no task's."""
    tasks = "POINTS = {{'{0}': 3}}\ndef {0}(x):\n    return x * 2\n"
    tasks += "def {0}_cases(rng):\n    return [{{'x': 1.5}}, {{'x': 2.0}}]\n"
    ask = partial(run.func, *run.args[:-2], "--tasks", "tasks.py")
    Path("tasks.py").write_text(tasks.format("twice"))
    hand_in("ada.py", "def twice(x):\n    return x + x\n")
    assert ask()[0] == 0 and (rows()["ada"]["twice"], rows()["ada"]["score"]) == ("passed", "3")
    Path("tasks.py").write_text(tasks.format("twice").replace("x * 2", "x * 3"))
    assert ask("--resume")[0] == 0 and rows()["ada"]["twice"] == "failed"
    Path("tasks.py").write_text(tasks.format("score"))
    assert "a task is called score, which is also a column of marks" in ask("--resume")[2]


def test_the_marks_may_lie_among_the_hand_ins(run, quick):
    hand_in("ada.py")
    for option in ([], ["--resume"]):
        status, out, _ = run("--csv", "hw/marks.csv", *option)
        assert status == 0 and "skipped" not in out and list(rows("hw/marks.csv")) == ["ada"]


def test_the_order_in_which_it_is_asked_changes_nothing():
    digests = {
        marks.MarksFile("no.csv", marks.Grading(tasks, points=points)).digest(
            marks.Student("ada", Path("ada.py"), digest="1")
        )
        for tasks in (("step", "attend"), ("attend", "step"))
        for points in ({"step": 2, "attend": 3}, {"attend": 3, "step": 2})
    }
    assert len(digests) == 1


def test_a_torn_line_is_none(run, quick):
    """As after a power cut: the line is judged anew, and those before are kept."""
    for name in ("ada", "bob", "cy"):
        hand_in(f"{name}.py", RIGHT + f"# {name}\n")
    run()
    before, raw = rows(), Path("marks.csv").read_bytes()
    for end in (1, 10, 30, len(raw.splitlines()[-1])):
        Path("marks.csv").write_bytes(raw[:-end])
        assert run("--resume")[0] == 0
        after = rows()
        assert list(after) == list(before) and after["ada"] == before["ada"]
        assert [row["digest"] for row in after.values()] == [row["digest"] for row in before.values()]


NAMES = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum(1)", "a,b", 'q"q', "two\nlines", "Zoë Müller", "日本", "'quoted"]


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be given there")
def test_a_spreadsheet_works_nothing_out(run, quick):
    """No cell begins with what begins a formula; a name is still that name, with commas, lines and any letters."""
    for name in NAMES:
        hand_in(f"{name.replace('/', ':')}.py", RIGHT.replace("return", f"'{NAMES.index(name)}'\n    return"))
    assert run()[0] == 0
    cells = [cell for row in rows().values() for cell in row.values()]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert {marks.from_cell(name) for name in rows()} == {name.replace("/", ":") for name in NAMES}
    assert run("--resume")[1].count("of them by an earlier run") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be given there")
@pytest.mark.parametrize("width", [50, 80])
def test_the_table_is_as_wide_as_the_terminal(run, quick, monkeypatch, width):
    """Names of any length and width, of students, files and whose code it is."""
    monkeypatch.setenv("COLUMNS", str(width))
    hand_in("ada " * 12 + "/" + "work " * 9 + ".py", RIGHT + "# one\n")
    hand_in("日本語" * 12 + ".py")
    lines = run()[1].splitlines()
    assert lines[0].split() == ["student", "file", "judged", "score", "seconds", "same", "as"]
    assert max(map(width_of, lines)) < width and sum("..." in line for line in lines) == 2


def test_two_of_a_name_are_told_apart(run, quick):
    hand_in("ada.py")
    hand_in("ada/hw.py", WRONG)
    assert run()[0] == 0
    assert {name: row["score"] for name, row in rows().items()} == {"ada": "0", "ada.py": "1"}


@pytest.mark.slow
def test_one_that_hangs_costs_its_own_time(run):
    hand_in("ada.py", "while True: pass\n" + RIGHT)
    hand_in("bob.py", "def survivors(*args):\n    while True: pass\n")
    hand_in("cy.py")
    assert run("--seconds", "0.5", "--jobs", "3")[0] == 0
    found = rows()
    assert [row["score"] for row in found.values()] == ["1", "0", "1"]  # what hangs at the top is passed over
    assert "line 1 was skipped: no answer within 0.5 s" in found["ada"]["note"]


def test_a_failure_of_ours_costs_one_row(run, monkeypatch, quick):
    """The others are judged, the exit status is 1, and --resume tries again."""
    hand_in("ada.py")
    hand_in("bob.py")
    grade = marks.grade  # as `quick` has it

    def fail(work, *rest, **options):
        if work.source.name == "ada.py":
            raise RecursionError("too deep")
        return grade(work, *rest, **options)

    monkeypatch.setattr(marks, "grade", fail)
    status, out, _ = run()
    assert status == 1 and "ada: not judged: RecursionError: too deep; --resume tries again" in out
    assert [row["score"] for row in rows().values()] == ["0", "1"] and rows()["ada"]["digest"] == ""
    monkeypatch.setattr(marks, "grade", grade)
    assert run("--resume")[0] == 0 and rows()["ada"]["score"] == "1"


BAD = {
    "an empty folder": ([], "hw: holds no hand-in; every .py file, notebook, zip or folder"),
    "folders in folders": (["a/b/c/"], "hw: holds no hand-in"),
    "no code": (["list.xlsx"], "there is list.xlsx"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_without_a_hand_in_is_refused_before_anything_is_written(run, case):
    names, said = BAD[case]
    for name in names:
        Path("hw", name).mkdir(parents=True) if name.endswith("/") else hand_in(name)
    status, out, err = run()
    assert (status, out) == (2, "") and said in err and err.count("\n") == 1 and not os.path.exists("marks.csv")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--jobs", "0"], "--jobs is 0; it must be from 1 to 64"),
        (["--jobs", "-2"], "--jobs is -2"),
        (["--jobs", "65"], "from 1 to 64"),
        (["--csv", "no/marks.csv"], "no/marks.csv: cannot be written"),
        (["--csv", "hw"], "hw: a folder; a file is needed"),
        (["--csv", "hw/ada.py"], "hw/ada.py: already exists"),
        (["--csv", "hw/ada.py", "--resume"], "hw/ada.py: its columns do not match this run's"),
        (["--csv", "other.csv"], "other.csv: already exists; --resume continues it, or give another name"),
        (["--csv", "other.csv", "--resume"], "other.csv: its columns do not match this run's (student, file, surv"),
        (["--csv", "bytes.csv", "--resume"], "bytes.csv: cannot be read as marks of an earlier run"),
        (["--gradescope", "x"], "not allowed with"),
    ],
)
def test_what_cannot_be_is_said_before_anybody_is_judged(run, argv, said, monkeypatch):
    monkeypatch.setattr(marks, "grade", None)
    hand_in("ada.py")
    Path("other.csv").write_text("student,grade\nada,1\n")
    Path("bytes.csv").write_bytes(b"\xff\xfe\xfa")
    status, out, err = run(*argv)
    assert (status, out) == (2, "") and said in err and err.count("\n") == 1 and not os.path.exists("marks.csv")
    assert Path("other.csv").read_text() == "student,grade\nada,1\n" and Path("hw/ada.py").read_text() == RIGHT


def test_a_file_is_no_class(run):
    hand_in("ada.py")
    Path("hw/ada.py").rename("ada.py")
    os.rmdir("hw")
    Path("ada.py").rename("hw")
    assert "--csv grades one folder" in run.func("check", "hw", "hw", "--csv", "marks.csv")[2]
    status, _, err = run()
    assert status == 2 and "hw: not a folder; --csv grades a folder in which every entry is a student's" in err


@pytest.mark.skipif(sys.platform == "win32", reason="other locks")
def test_two_runs_do_not_write_one_file(run):
    hand_in("ada.py")
    with lock_files("marks.csv"):
        status, _, err = run()
    assert status == 2 and "marks.csv: another run is writing it" in err


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
def test_links_and_pipes_are_told_and_left_alone(run, quick):
    hand_in("ada.py")
    os.symlink("ada.py", "hw/bob.py")
    os.symlink(".", "hw/loop")
    os.mkfifo("hw/pipe.py")
    status, out, _ = run()
    assert status == 0 and list(rows()) == ["ada"] and "skipped: bob.py, loop, pipe.py" in out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT of its own")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_what_was_judged_is_kept_whatever_ends_it(run, tmp_path, interrupts_arrive, end):
    """Ctrl-C or worse in the middle: rows are there, nobody is at work, and --resume judges the rest."""
    for name in ("ada", "bob", "cy"):
        hand_in(f"{name}.py", RIGHT + f"# {name}\n")
    hand_in("dan.py", SLEEP)
    argv = [
        sys.executable,
        "-m",
        "minisink",
        "check",
        "hw",
        "--csv",
        "marks.csv",
        "--task",
        "survivors",
        "--seconds",
        "60",
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stop = time.monotonic() + 60
    while time.monotonic() < stop and not (os.path.exists("marks.csv") and len(rows()) == 3 and at_work_in(tmp_path)):
        time.sleep(0.05)
    process.send_signal(end)
    err = process.communicate(timeout=10)[1]
    while at_work_in(tmp_path) and time.monotonic() < stop:
        time.sleep(0.05)
    assert at_work_in(tmp_path) == [] and sorted(rows()) == ["ada", "bob", "cy"]
    if end == signal.SIGINT:
        said = "interrupted with 3 of 4 students in marks.csv; the same command with --resume continues"
        assert process.returncode == 130 and said in " ".join(err.split())
    hand_in("dan.py", RIGHT)
    status, out, _ = run("--resume", "--seconds", "60")
    assert status == 0 and "3 of them by an earlier run" in out and list(rows()) == ["ada", "bob", "cy", "dan"]


def test_all_tasks_have_a_column(tmp_path):
    """Without --task: nine of them, in the order of the page."""
    assert marks.MarksFile(tmp_path / "m.csv", marks.Grading()).header[2:11] == list(TASKS)
