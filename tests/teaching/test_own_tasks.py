"""A teacher's own tasks are judged as minisink's are; a file that says too little is refused in a line."""

import json
import re
from pathlib import Path

import pytest

from minisink.commands.parser import main
from minisink.teaching import check_functions
from minisink.teaching.own_tasks import read_tasks

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
FILE = re.search(r"### Tasks of your own.*?```python\n(.*?)```", PAGE, re.S)[1]
RIGHT = "def relu(x):\n    return [max(0.0, float(a)) for a in x]\n"


@pytest.fixture
def mine(tmp_path):
    """The file that the page shows."""
    (tmp_path / "mine.py").write_text(FILE, encoding="utf-8")
    return tmp_path / "mine.py"


def test_the_page_s_tasks_are_judged(mine, capsys):
    """By the command, with points, a wrong turn by its name, and one of minisink's own tasks among them."""
    student = mine.with_name("student.py")
    student.write_text("def relu(x):\n    return x\ndef softmax(x):\n    return [1 / len(x) for _ in x]\n")
    assert main(["check", str(student), "--tasks", str(mine), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    row, other = report["tasks"]
    assert [row["task"], row["max_score"], other["task"], other["max_score"]] == ["relu", 2, "softmax", 1]
    assert (
        {row["status"], other["status"]} == {"failed"}
        and row["diagnosis"] == "negative numbers are kept"
        and row["case"]["arguments"]["x"] == [-1.0, 0.0]
    )
    assert row["message"].startswith("for x = [-1, 0] you gave [-1, 0]; expected [0, 0]")
    student.write_text(RIGHT)
    assert main(["check", str(student), "--tasks", str(mine)]) == 0
    assert "1 of 2 tasks pass: 2 of 3 points" in capsys.readouterr().out
    assert main(["check", str(student), "--tasks", str(mine), "--points", "relu=5", "--task", "relu"]) == 0
    assert "5 of 5 points" in capsys.readouterr().out


def test_live_functions_too(mine, capsys):
    names: dict = {}
    exec(RIGHT, names)
    assert check_functions(relu=names["relu"], tasks=mine)
    assert "1 of 1 tasks pass: 2 of 2 points" in capsys.readouterr().out
    with pytest.raises(ValueError, match="'attend' is not a task; the tasks are relu, softmax"):
        check_functions(attend=abs, tasks=mine)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("POINTS = ", "OTHER = ", "POINTS is None"),
        ('"relu": 2', '"relu": "2"', "POINTS gives relu '2'"),
        ('"relu": 2', '"rel u": 2', "'rel u' is not the name"),
        ("def relu(", "def rule(", "relu is missing"),
        ("def relu_cases(", "def cases(", "relu_cases is missing"),
        ('{"x": rng', '{"y": rng', "a case has the arguments y; the function has x"),
        ("np.maximum(x, 0.0)", "1 / 0", "the right function fails on .* ZeroDivisionError"),
        ("np.maximum(x, 0.0)", "np.log(0 * x)", "the right function returns"),
        ("np.maximum(x, 0.0)", "None", "the right function fails on|returns"),
        ("range(1, 6)", "range(0)", "no cases"),
        ("def relu(", "def softmax(x): pass\ndef relu(", "softmax is a task of minisink's own"),
        ("import numpy", "import nonumpy", "cannot be run .ModuleNotFoundError"),
    ],
)
def test_a_file_that_says_too_little_is_refused(mine, was, now, said):
    assert was in FILE
    mine.write_text(FILE.replace(was, now))
    with pytest.raises(ValueError, match=said) as caught:
        read_tasks(mine)
    assert str(caught.value).startswith(str(mine)) and "\n" not in str(caught.value)
