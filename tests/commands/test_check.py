"""`minisink check`: what it prints and writes, and its exit status."""

import inspect
import json
import os
import re
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
from minisink.commands.check import EXAMPLE
from minisink.commands.parser import make_parser
from minisink.teaching import reference
from minisink.teaching.tasks import TASKS
from minisink.wrong_turns import TURNS

ROOT = Path(__file__).resolve().parents[2]
RIGHT = """
def survivors(n_slots, n_sinks, window):
    return [s for s in range(n_slots) if s < n_sinks or s >= n_slots - window]
"""
WRONG = RIGHT.replace("- window", "- window - 1")
ROW = {"task", "status", "score", "max_score", "message", "case", "diagnosis", "same_as"}
REPORT = {"tasks", "score", "max_score", "file", "seed", "version", "same_as", "notes"}


@pytest.fixture
def run(run):
    """Run ``minisink check`` in an empty folder; returns (exit status, stdout, stderr)."""
    return partial(run, "check")


@pytest.fixture
def student(tmp_path):
    """A student's file in that folder."""

    def write(text, name="student.py"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write


def test_status_0_if_all_that_are_there_pass(run, student):
    status, out, err = run(student(RIGHT), "--task", "survivors")
    assert (status, err) == (0, "") and out.splitlines()[0] == "survivors  passed  156 cases"
    assert run(student(RIGHT))[0] == 0  # the other tasks are not given
    status, out, _ = run(student(RIGHT), "--task", "survivors", "softmax")
    assert status == 1 and "not in the file: softmax" in out  # but here it was asked for


def test_status_1_and_a_sentence_a_turn_and_hints(run, student):
    status, out, err = run(student(WRONG), "--task", "survivors", "--hint", 2)
    said, turn = " ".join(out.split()), TURNS["survivors"][0]
    assert (status, err) == (1, "")
    assert "after 2 tokens with 0 sinks and a window of 1 your cache kept [0, 1]; expected [1]" in said
    assert turn.hints[0] in said and turn.hints[1] in said and turn.hints[2] not in said and turn.title not in said
    said = " ".join(run(student(WRONG), "--task", "survivors", "--hint", 3)[1].split())
    assert turn.title in said and turn.hints[2] in said and said.count("looks like") == 1
    assert "looks like" not in run(student(WRONG), "--task", "survivors", "--hint", 0)[1]
    assert max(map(len, out.splitlines())) <= 80
    assert run(student(""))[0] == 1


def test_where_the_numbers_are_explained_is_said_once_if_there_are_any(run, student):
    """In the report and on Gradescope; not for a turn without a number, nor where all is right."""
    pointer = "docs/check.md"
    twice = WRONG + "\ndef positions_of(token_index, n_sinks, window):\n    return list(token_index)\n"
    out = run(student(twice), "--gradescope", "results.json")[1]
    assert (
        " ".join(out.split()).count("(wrong turn ") == 2 and out.count(pointer) == 1 and pointer in out.splitlines()[-1]
    )
    assert pointer in json.loads(Path("results.json").read_text())["output"]
    for text in (RIGHT, RIGHT.replace("[s for", "[s + 1 for")):
        out = run(student(text), "--gradescope", "results.json")[1]
        assert pointer not in out and pointer not in Path("results.json").read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no file given"),
        (["no.py"], "no.py: no such file"),
        (["no"], "no: no such file"),
        ([""], "a file's name is empty"),
        (["student.py", "no.py"], "no.py: no such file"),
        (["student.py", "--points", "stp=4"], "--points stp=4: not one of the tasks; there are softmax,"),
        (["student.py", "--points", "step=-1"], "must be step=N, N an integer from 0 to 1000"),
        (["student.py", "--points", "step=1.5"], "must be step=N"),
        (["student.py", "--points", "step=1001"], "must be step=N"),
        (["student.py", "--points", "step=\u00b2"], "must be step=N"),
        (["student.py", "--points", "step"], "--points step: must be step=N"),
        (["student.py", "--task", "softmax", "--points", "step=4"], "not one of the tasks; there are softmax"),
        (["student.py", "--resume"], "--resume goes with --csv FILE"),
        (["student.py", "--jobs", "2"], "--jobs goes with --csv FILE"),
        (["student.py", "b.py", "--template"], "--template writes one file"),
        (["student.py", "--task", "softmx"], "softmx: no such task; there are softmax,"),
        (["--task", "student.py"], "--task student.py: no such task"),
        (["student.py", "--seed", "-1"], "--seed is -1"),
        (["student.py", "--seconds", "0"], "--seconds is 0"),
        (["student.py", "--seconds", "nan"], "--seconds is nan"),
        (["student.py", "--hint", "4"], "invalid choice"),
        (["student.py", "--gradescope", "no/results.json"], "no/results.json: cannot be written"),
        (["student.py", "--classroom50", "."], "a folder; a file is needed"),
        (["student.py", "--gradescope", "student.py"], "this is the student's file"),
        (["student.py", "--template"], "already exists and will not be overwritten"),
        (["no/student.py", "--template"], "cannot be written"),
        (["mine.ipynb", "--template"], "mine.ipynb: the template is a Python file; give a name that ends in .py"),
    ],
)
def test_status_2_and_a_line_for_what_cannot_be(run, student, argv, said):
    student(RIGHT)
    status, out, err = run(*argv)
    assert status == 2 and said in err and err.startswith("minisink: error: ") and err.count("\n") == 1 and out == ""
    assert Path("student.py").read_text() == RIGHT


def test_a_folder_a_zip_and_several_files_are_a_hand_in(run, student):
    """Each is judged by the file that defines the tasks, which every form of the report names."""
    os.mkdir("hw")
    student(
        "from helpers import keep\n"
        + RIGHT.replace("s < n_sinks or s >= n_slots - window", "keep(s, n_slots, n_sinks, window)"),
        "hw/mine.py",
    )
    student(
        "def keep(s, n_slots, n_sinks, window):\n    return s < n_sinks or s >= n_slots - window\n", "hw/helpers.py"
    )
    with zipfile.ZipFile("hw.zip", "w") as archive:
        for name in ("hw/mine.py", "hw/helpers.py"):
            archive.write(name)
    status, out, err = run("hw")
    assert (status, err) == (0, "") and "\nfile judged: mine.py\n" in out
    assert json.loads(run("hw/mine.py", "--json")[1])["file"] == "mine.py"
    assert "\nfile judged: hw/mine.py\n" in run("hw.zip", "--gradescope", "results.json")[1]
    found = json.loads(Path("results.json").read_text())
    assert "file judged: hw/mine.py" in found["output"].splitlines() and found["extra_data"]["file"] == "hw/mine.py"
    assert run("hw/helpers.py", "hw/mine.py", "--classroom50", "results.json")[0] == 0
    assert json.loads(Path("results.json").read_text())["file-judged"] == "mine.py"


def test_nothing_to_judge_is_a_line_that_says_what_was_looked_for(run, student):
    os.mkdir("hw")
    student("x", "hw/essay.pdf")
    for options in ([], ["--json"], ["--gradescope", "results.json"]):
        status, out, err = run("hw", *options)
        assert status == 2 and err.count("\n") == 1
        assert "no .py file or notebook in it, not even in a zip (it holds essay.pdf)" in err
    assert "essay.pdf" in json.loads(Path("results.json").read_text())["tests"][0]["output"]


def test_points_count_in_every_form(run, student):
    """A task counts what it is given, or one; none that is missing or wrong counts."""
    options = ["--task", "softmax", "survivors", "step", "--points", "survivors=4", "softmax=0", "step=2"]
    student(RIGHT)
    found = json.loads(run("student.py", "--json", *options)[1])
    assert (found["score"], found["max_score"]) == (4, 6)
    assert [(row["score"], row["max_score"]) for row in found["tasks"]] == [(0, 0), (4, 4), (0, 2)]
    status, out, _ = run("student.py", "--gradescope", "results.json", *options)
    assert status == 1 and "1 of 3 tasks pass: 4 of 6 points" in out
    found = json.loads(Path("results.json").read_text())
    assert found["score"] == 4 and [test["max_score"] for test in found["tests"]] == [0, 4, 2]
    run("student.py", "--classroom50", "results.json", *options)
    found = json.loads(Path("results.json").read_text())
    assert (found["score"], found["max-score"]) == (4, 6) and found["tests"][1]["score"] == 4


def test_the_report_is_as_wide_as_the_terminal_and_of_letters_that_there_are(student, tmp_path):
    """A name of 60 letters that ASCII does not have, in 40 columns: every line fits, and says what can be said."""
    name = student(WRONG, "ä" * 60 + ".py")
    environment = os.environ | {"COLUMNS": "40", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    argv = [sys.executable, "-m", "minisink", "check", name, "--task", "survivors"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "" and "\\xe4" in done.stdout
    assert max(len(line.replace("\\xe4", "x")) for line in done.stdout.splitlines()) <= 40


def test_the_example_parses():
    make_parser().parse_args(EXAMPLE.split()[1:])


def test_the_page_shows_what_is_printed(run, student):
    """docs/check.md: the report of a cache that keeps one too few, the tasks, and the numbers of the wrong turns."""
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    text = """
def survivors(n_slots, n_sinks, window):
    slots = list(range(n_slots))
    if n_slots <= n_sinks + window:
        return slots
    return slots[:n_sinks] + slots[n_slots - (window - 1):]
"""
    out = run(student(text), "--task", "survivors")[1]
    assert out.partition("0 of 1")[0] in page
    for signature in [task.signature for task in TASKS.values()]:
        assert f"`{signature}`" in page
    rows = dict(re.findall(r"^\| (\d+) \| .* \| (.*) \|$", page, re.M))
    pairs = [(task, turn.title) for task, turns in TURNS.items() for turn in turns]
    named = {(number, task) for task, title in pairs for number in re.findall(r"\(wrong turn (\d+)\)$", title)}
    assert {(number, task) for number, tasks in rows.items() for task in re.findall(r"`(\w+)`", tasks)} == named


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "task"),
    [("Attend", "attend"), ("soft_max", "softmax"), ("softmax_1", "softmax1"), ("retreive", "retrieve")],
)
def test_a_slip_in_a_name_is_asked_about(run, student, name, task):
    """Of the task that is nearest, and of no helper's name."""
    text = RIGHT + f"\ndef {name}(x):\n    return x\n\ndef rotated(x):\n    return x\n\ndef scores(x):\n    return x\n"
    said = " ".join(run(student(text))[1].split())
    assert said.count("did you mean") == 1 and f"{name} is there: did you mean {task}?" in said
    found = json.loads(run(student(text), "--json", "--task", task)[1])["tasks"][0]
    assert found["message"].endswith(f"; {name} is there: did you mean {task}?")
    assert "did you mean" not in run(student(RIGHT))[1]


# JSON -----------------------------------------------------------------------------------------------


def test_json_has_its_schema(run, student):
    status, out, err = run(student(WRONG), "--json", "--seed", "4")
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (status, err) == (1, "") and set(found) == REPORT
    assert (found["file"], found["seed"], found["version"]) == ("student.py", 4, __version__)
    assert [row["task"] for row in found["tasks"]] == list(TASKS) and all(set(row) == ROW for row in found["tasks"])
    assert (found["score"], found["max_score"]) == (0, 9)
    rows = {row["task"]: row for row in found["tasks"]}
    assert rows["survivors"]["diagnosis"] == TURNS["survivors"][0].title and rows["survivors"]["status"] == "failed"
    assert rows["survivors"]["case"]["arguments"]["window"] == 1 and rows["survivors"]["case"]["expected"] == [1.0]
    assert rows["softmax"]["status"] == "missing" and rows["softmax"]["case"] is None


def test_copied_work_is_told_and_not_punished(run, student):
    """In the report, in JSON and on Gradescope; of a function that is one's own, nothing."""
    text = "import numpy as np\n" + inspect.getsource(reference.rotate).replace("angles", "turns") + RIGHT
    status, out, _ = run(student(text), "--gradescope", "results.json")
    assert status == 0 and "same as: minisink's own reference (rotate)" in out.splitlines()
    tests = {test["name"]: test for test in json.loads(Path("results.json").read_text())["tests"]}
    assert tests["rotate"]["extra_data"]["same_as"] == "minisink's own reference" and tests["rotate"]["score"] == 1
    assert "minisink" not in tests["rotate"]["output"]
    found = json.loads(run(student(text), "--json")[1])
    assert found["same_as"] == "minisink's own reference" and found["score"] == 2
    assert [row["task"] for row in found["tasks"] if row["same_as"]] == ["rotate"]
    out = run(student(RIGHT), "--json")[1]
    assert json.loads(out)["same_as"] is None


def test_json_of_infinite_arguments_is_json(run, student):
    text = (
        "def softmax(x):\n    import numpy as np\n    w = np.exp(np.array(x) - np.nanmax(x))\n    return w * np.inf\n"
    )
    status, out, _ = run(student(text), "--json", "--task", "softmax")
    json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert status == 1


def test_a_missing_file_is_no_success_in_any_format(run):
    status, out, err = run("no.py", "--json")
    assert status == 2 and "no such file" in err and json.loads(out)["score"] == 0
    assert {row["status"] for row in json.loads(out)["tasks"]} == {"missing"}
    assert run("no.py", "--gradescope", "results.json")[0] == 2
    tests = json.loads(Path("results.json").read_text())["tests"]
    assert {test["status"] for test in tests} == {"failed"} and all("no such file" in test["output"] for test in tests)
    assert run("no.py", "--classroom50", "result.json")[0] == 2
    assert json.loads(Path("result.json").read_text())["score"] == 0


# Gradescope and Classroom 50 ------------------------------------------------------------------------


def test_gradescope_reads_it(run, student):
    status, out, _ = run(student(RIGHT), "--gradescope", "results.json", "--task", "survivors", "softmax")
    found = json.loads(Path("results.json").read_text())
    assert status == 1 and "survivors" in out
    allowed = {
        "score",
        "tests",
        "execution_time",
        "output",
        "visibility",
        "stdout_visibility",
        "extra_data",
        "leaderboard",
    }
    assert set(found) <= allowed and found["score"] == 1
    by_name = {test["name"]: test for test in found["tests"]}
    assert list(by_name) == ["softmax", "survivors"]
    for name, passed in (("survivors", True), ("softmax", False)):
        test = by_name[name]
        assert (test["score"], test["max_score"], test["status"]) == (int(passed), 1, "passed" if passed else "failed")
        assert test["output_format"] == "text" and test["visibility"] == "visible" and isinstance(test["output"], str)


def test_classroom50_reads_it(run, student, monkeypatch):
    names = {
        "CLASSROOM": "cs",
        "ASSIGNMENT": "sinks",
        "USERNAME": "ada",
        "SUBMISSION_TAG": "submit/1",
        "COMMIT_URL": "c",
        "RELEASE_URL": "r",
    }
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("REVIEW_URL", raising=False)
    assert run(student(RIGHT), "--classroom50", "result.json", "--task", "survivors")[0] == 0
    found = json.loads(Path("result.json").read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop("datetime"))
    assert found == {
        "schema": "classroom50/result/v1",
        "classroom": "cs",
        "assignment": "sinks",
        "owner": "ada",
        "submission": "submit/1",
        "commit": "c",
        "release": "r",
        "review": "c",
        "file-judged": "student.py",
        "score": 1,
        "max-score": 1,
        "tests": [{"test-name": "survivors", "passed": True, "score": 1, "max-score": 1}],
    }


def test_what_the_runner_does_not_say_is_unknown(run, student, monkeypatch):
    for name in ("CLASSROOM", "ASSIGNMENT", "USERNAME", "GITHUB_REPOSITORY_OWNER"):
        monkeypatch.delenv(name, raising=False)
    run(student(RIGHT), "--classroom50", "result.json", "--task", "survivors")
    assert json.loads(Path("result.json").read_text())["owner"] == "unknown"


@pytest.mark.parametrize("kind", ["gradescope", "classroom50"])
@pytest.mark.parametrize(
    "end",
    [
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.CDLL(None).abort()",
        pytest.param("while True: pass", marks=pytest.mark.slow),
    ],
)
def test_a_result_is_written_after_a_kill(run, student, kind, end):
    """The child crashes, is killed, or does not end: what was right before still counts."""
    text = f"{RIGHT}\ndef softmax(x):\n    {end}\n"
    assert run(student(text), "--task", "softmax", "survivors", "--seconds", 2, f"--{kind}", "out.json")[0] == 1
    found = json.loads(Path("out.json").read_text())
    passed = [test["score"] for test in found["tests"]]
    assert passed == [0, 1] and found["score"] == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize(("kind", "judged"), [("gradescope", 1), ("classroom50", 1), ("gradescope", 0)])
def test_a_result_is_there_when_the_checker_itself_is_killed(student, tmp_path, kind, judged):
    """As by an autograder whose time is up: a whole file, with what was judged, and nobody left behind."""
    student(
        RIGHT
        + ("" if judged else "import time; time.sleep(77)\n")
        + "\ndef step(*args):\n    import time; time.sleep(77)\n"
    )
    out = tmp_path / "out.json"
    argv = [
        sys.executable,
        "-m",
        "minisink",
        "check",
        "student.py",
        "--task",
        "survivors",
        "step",
        f"--{kind}",
        str(out),
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    stop = time.monotonic() + 60
    while time.monotonic() < stop:
        if out.exists() and json.loads(out.read_text())["score"] == judged:  # a whole file at any moment
            if at_work_in(tmp_path) or sys.platform != "linux":
                break
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while at_work_in(tmp_path) and time.monotonic() < stop:
        time.sleep(0.05)
    assert at_work_in(tmp_path) == []
    found = json.loads(out.read_text())
    assert [test["score"] for test in found["tests"]] == [judged, 0] and found["score"] == judged
    if kind == "gradescope":
        assert "not judged" in found["tests"][1]["output"]


# Template -------------------------------------------------------------------------------------------


def test_the_template_is_a_file_of_stubs(run):
    status, out, err = run("mine.py", "--template")
    assert (status, err) == (0, "") and "minisink check mine.py" in out
    names: dict = {}
    exec(compile(Path("mine.py").read_text(), "mine.py", "exec"), names)
    for name, task in TASKS.items():
        arguments = (("state",) if name == "step" else ()) + task.params
        assert names[name].__code__.co_varnames == arguments
        assert names[name].__code__.co_varnames == getattr(reference, name).__code__.co_varnames[: len(arguments)]
        assert "for " in names[name].__doc__ or name == "retrieve"
        with pytest.raises(NotImplementedError):
            names[name](*arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_the_template_does_not_replace_a_link(run):
    os.symlink("nowhere.py", "link.py")
    assert run("link.py", "--template")[0] == 2 and os.path.islink("link.py")


def test_the_template_can_be_printed_and_cut(run):
    status, out, _ = run("--template", "--task", "rotate")
    assert status == 0 and re.findall(r"^def (\w+)", out, re.M) == ["rotate"] and os.listdir() == []
    assert max(map(len, out.splitlines())) <= 120


# For the teacher ------------------------------------------------------------------------------------

TEACHER = ROOT / "tutorials" / "teacher"


@pytest.mark.slow
def test_the_autograder_folder_grades(student, tmp_path):
    """Gradescope's own paths under another root; the student's file, whatever its name, and not the teacher's."""
    root = tmp_path / "autograder"
    (root / "submission").mkdir(parents=True)
    (root / "results").mkdir()
    (root / "submission" / "my work.py").write_text(RIGHT)
    environment = os.environ | {"AUTOGRADER": str(root), "TASKS": "survivors softmax", "PYTHON": sys.executable}
    script = TEACHER / "autograder" / "run_autograder"
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((root / "results" / "results.json").read_text())
    assert [(test["name"], test["score"]) for test in found["tests"]] == [("softmax", 0), ("survivors", 1)]
    for path in (root / "submission").iterdir():
        path.unlink()
    (root / "results" / "results.json").unlink()
    subprocess.run(["bash", str(script)], env=environment, capture_output=True, check=True)
    found = json.loads((root / "results" / "results.json").read_text())
    assert found["score"] == 0 and len(found["tests"]) == 2
    closed = (root / "results", root / "submission")  # to the user that a student's code runs as
    assert os.name == "nt" or not any(path.stat().st_mode & 0o077 for path in closed)


def test_the_autograder_scripts_can_be_run():
    for name in ("setup.sh", "run_autograder"):
        path = TEACHER / "autograder" / name
        assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env bash\n")
        subprocess.run(["bash", "-n", str(path)], check=True)
