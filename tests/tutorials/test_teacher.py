"""The teacher's pages: commands that parse, numbers that are printed, solutions that run, one a question."""

import configparser
import contextlib
import io
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

import minisink
from minisink.commands.parser import main, make_parser

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "tutorials" / "teacher"
PAGES = sorted(TEACHER.glob("*.md"))
NAMES = ["assignment", "exam", "handout", "lecture", "mistakes", "plan", "solutions", "syllabus"]
DECIMAL = re.compile(r"\d+\.\d+")
NUMBER = re.compile(r"\d+\.\d+|\d{2,}")  # a single digit is a layer, or a word


def text_of(name):
    return (TEACHER / f"{name}.md").read_text(encoding="utf-8")


def commands(text):
    """Whatever begins with "minisink ", in a line of a block or between backticks; what follows a # is left out."""
    found = re.findall(r"^(minisink .*)$", text, re.MULTILINE) + re.findall(r"`(minisink [^`\n]+)`", text)
    return [shlex.split(line.partition(" > ")[0], comments=True)[1:] for line in found]


def close_to_one_of(number, printed):
    return any(abs(float(number) - x) <= 0.01 * abs(x) + 0.005 for x in printed)


def test_the_pages_are_there():
    assert set(NAMES) <= {page.stem for page in PAGES}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_parses(name):
    for argv in commands(text_of(name)):
        try:
            make_parser().parse_args(argv)
        except SystemExit as stop:
            assert stop.code == 0 or len(argv) == 1, argv  # `minisink ppl` is the name of a command, not a call


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_sends_to_is_there(name):
    """Files of the package, of the tests and of the documentation, and other pages."""
    text = text_of(name)
    files = re.findall(r"`((?:minisink|docs|tests|tutorials)/[\w./-]+\.\w+)`", text)
    missing = [file for file in files if not (ROOT / file).is_file()]
    missing += [link for link in re.findall(r"\]\((\w+\.md)\)", text) if not (TEACHER / link).is_file()]
    assert missing == []


def minutes():
    """Rows of the lecture: minute of 90, minute of 50 or nothing, what, command, seconds, what is to be seen."""
    (table,) = re.findall(r"^\| of 90 .*?\n\n", text_of("plan"), re.DOTALL | re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def test_the_plan_fits_50_and_90_minutes_with_every_prediction():
    for column, end in ((0, 90), (1, 50)):
        starts = [int(row[column]) for row in minutes() if row[column]]
        assert starts[0] == 0 and starts[-1] == end - 3  # the exit ticket
        assert all(0 < later - sooner <= 10 for sooner, later in pairwise(starts))
    assert all(row[1] for row in minutes() if "rediction" in row[2]) and all(row[0] for row in minutes())
    assert "Exit ticket" in minutes()[-1][2]


def plan_rows():
    """(command, what is to be seen) of the lecture, where a command needs no other package than minisink's own."""
    rows = [(commands(row[3]), row[5]) for row in minutes()]
    return [(argv[0], seen) for argv, seen in rows if argv and NUMBER.search(seen)]


def run(argv, capsys):
    assert main(argv) == 0
    return [float(x) for x in NUMBER.findall(capsys.readouterr().out)]


@pytest.mark.slow
@pytest.mark.parametrize(("argv", "seen"), plan_rows(), ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_a_number_of_the_plan_is_printed_by_its_command(argv, seen, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run(argv, capsys)
    assert [number for number in NUMBER.findall(seen) if not close_to_one_of(number, printed)] == []


def test_the_plan_has_numbers_to_check():
    assert len(plan_rows()) >= 6


def test_the_short_text_of_the_plan_is_warned_about(capsys, tmp_path, monkeypatch):
    """It is made as the page says, and has as many tokens."""
    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r'echo "(.*)" > short.txt', text_of("plan"))
    Path("short.txt").write_text(line + "\n", encoding="utf-8")
    (tokens,) = re.findall(r"Then a text of (\d+) tokens: \| `minisink ppl short.txt`", text_of("plan"))
    assert main(["ppl", "short.txt"]) == 0
    assert f"short.txt has {tokens} tokens, and 256 are kept: nothing was evicted" in capsys.readouterr().err


@pytest.mark.slow
def test_the_handout_shows_what_the_demo_prints(capsys):
    (table,) = re.findall(r"\| on 3,000 tokens.*?\n\n", text_of("handout"), re.DOTALL)
    printed = run(["demo", "--write", "0"], capsys)
    numbers = DECIMAL.findall(table)
    assert len(numbers) == 4 and [number for number in numbers if not close_to_one_of(number, printed)] == []


@pytest.mark.slow
def test_the_solutions_print_what_stands_below_them():
    """From top to bottom, each with the names of those before."""
    blocks = re.findall(r"```python\n(.*?)```(?:\nprints\n```\n(.*?)```)?", text_of("solutions"), re.DOTALL)
    names = {}
    assert len(blocks) >= 7
    for code, expected in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "solutions.md", "exec"), names)
        plain, wanted = (DECIMAL.sub("#", text) for text in (out.getvalue(), expected))
        assert plain == wanted and wanted
        printed, numbers = ([float(x) for x in DECIMAL.findall(text)] for text in (out.getvalue(), expected))
        assert printed == pytest.approx(numbers, rel=0.005, abs=1e-4)


def test_every_question_has_its_solution_and_its_points():
    """Fifteen, sixty points; and the points that a solution gives add up to its own."""
    asked, solved = (re.split(r"^(?=\*\*\d+\.\*\* )", text_of(name), flags=re.M)[1:] for name in ("exam", "solutions"))
    heads = [[re.match(r"\*\*(\d+)\.\*\* \((\d+)", part).groups() for part in page] for page in (asked, solved)]
    assert heads[0] == heads[1] and [int(n) for n, _ in heads[0]] == list(range(1, 16))
    assert sum(int(points) for _, points in heads[0]) == 60
    for (number, points), part in zip(heads[1], solved, strict=True):
        prose = re.sub(r"```.*?```", "", part, flags=re.DOTALL).split(")", 1)[1]
        given = sum(0.5 if x == "½" else float(x) for x in re.findall(r"\((\d|½)(?=[;)])", prose))
        assert given == float(points) or "a point for what it does" in part, (number, given)


def test_the_assignment_adds_up_and_its_commands_ask_for_its_points():
    """The table of points, both commands, and the rubric for predictions."""
    page = text_of("assignment")
    rows = re.findall(r"^\| (?:`(\w+)`)?(.*?) \|.*\| (\**\d+\**) \|$", page, re.MULTILINE)
    points = {name: int(n) for name, _, n in rows if name}
    predictions, total = (int(n.strip("*")) for name, _, n in rows if not name)
    assert sum(points.values()) + predictions == total == 20 and predictions == 4 * 2
    asked = [argv for argv in commands(page) if "--points" in argv]
    assert len(asked) == 2 and "--csv" in asked[1]
    for argv in asked:
        given = make_parser().parse_args(argv)
        assert points == dict.fromkeys(points, 1) | {
            name: int(n) for name, n in (pair.split("=") for pair in given.points)
        }
    assert given.task == list(points)


def test_students_are_told_to_install_neither_exam_nor_solutions():
    """Their wheel has no file of tutorials/, their folder is what the builds write; the name of the wheel is right."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert "tutorials" not in setup["options"]["packages"] + setup["options"]["package_dir"]
    syllabus = text_of("syllabus").partition("## Before the first day")[2]
    assert "Hand out `class`, not the clone" in syllabus and "pip wheel --no-deps --wheel-dir class ." in syllabus
    for page in (syllabus, (ROOT / "docs" / "lessons.md").read_text(encoding="utf-8")):
        assert set(re.findall(r"minisink-([\d.]+)-py3", page)) == {minisink.__version__}
