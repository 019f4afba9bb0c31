"""Three builds from one source: no solution reaches a student, and no work of a student is lost."""

import configparser
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials,gguf,chat]'")

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("build", ROOT / "tutorials" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

LESSON = '''---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# 3. A lesson

[How to run it](../docs/lessons.md). It takes a minute.

## The question
How far?

```{code-cell} ipython3
import math

radius = 2.0
```

## Predict
Write it down.

## Run

```{code-cell} ipython3
around = 2 * math.pi * radius
```

## Why
Because.

## Exercise

### A circle
*5 minutes, easy.*

```{code-cell} ipython3
def area(r):
    """``pi r^2``"""
    ### BEGIN SOLUTION
    squared = r * r
    return math.pi * squared
    ### END SOLUTION
```

```{code-cell} ipython3
assert area(radius) == around
```

## Check

## What others got wrong

## Milestone

## Read on
`minisink/ops.py:softmax`, and `minisink/cache.py:LayerCache.append`; `docs/words.md`.
'''


@pytest.fixture
def source(tmp_path):
    """A folder with a lesson, 03-circle."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "03-circle.md").write_text(LESSON, encoding="utf-8")
    return folder


def rewritten(source, *changes):
    text = LESSON
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (source / "03-circle.md").write_text(text, encoding="utf-8")
    return source / "03-circle.md"


def code(book):
    return [cell["source"] for cell in book["cells"] if cell["cell_type"] == "code"]


def test_a_student_gets_a_stub_where_the_solution_stands(source):
    path = source / "03-circle.md"
    given, solved = code(build.student(path)), code(build.solution(path))
    assert [a == b for a, b in zip(given, solved, strict=True)] == [True, True, False, True]
    assert given[2] == (
        'math  # run first: The question\ndef area(r):\n    """``pi r^2``"""\n'
        '    raise NotImplementedError("your turn")'
    )
    assert solved[2].endswith("    squared = r * r\n    return math.pi * squared")


def test_every_cell_says_what_it_needs_and_from_where(source):
    given = code(build.student(source / "03-circle.md"))
    assert given[0] == "import math\n\nradius = 2.0"
    assert given[1].startswith("math, radius  # run first: The question\n")
    assert given[3].startswith("radius, around, area  # run first: The question, Run, Exercise\n")


def test_what_such_a_line_is_for_is_said_where_there_are_any(source):
    assert "# run first: " in build.student(source / "03-circle.md").cells[0]["source"]
    assert "# run first: " not in build.solution(source / "03-circle.md", guarded=False).cells[0]["source"]


@pytest.mark.parametrize(
    ("cell", "needed"),
    [
        ("around = 2 * math.pi * radius", "math, radius"),
        ("radius = 3.0\naround = 2 * math.pi * radius", "math"),  # made here
        ("def f(radius):\n    return radius\n\n\naround = 12.0 + math.pi", "math"),  # an argument is the function's own
        ("def f():\n    return radius\n\n\naround = 12.0 + math.pi", "math, radius"),
        ("around = sum(radius * math.pi for radius in range(2))", "math"),
        ("around = max(4.0, 3.0) + math.pi", "math"),  # Python's own
    ],
)
def test_what_a_cell_needs_is_what_python_would_look_up(source, cell, needed):
    given = code(build.student(rewritten(source, ("around = 2 * math.pi * radius", cell))))
    assert given[1] == f"{needed}  # run first: The question\n{cell}"


def test_names_inside_a_function_are_made_nowhere_else(source):
    """`area` of a function in "Run" is not the one that "Exercise" makes."""
    changed = ("around = 2 *", "def f(area):\n    radius = area\n    return radius\n\n\naround = 2 *")
    given = code(build.student(rewritten(source, changed)))
    assert given[3].startswith("radius, around, area  # run first: The question, Run, Exercise\n")


def test_a_line_of_the_solution_elsewhere_is_refused(source):
    path = rewritten(source, ("Because.", "Because `return math.pi * squared`."))
    with pytest.raises(ValueError, match=r"03-circle: .*'return math.pi \* squared', a line of the solution"):
        build.student(path)
    build.solution(path)


def test_line_numbers_are_those_of_the_files(source):
    last = build.student(source / "03-circle.md").cells[-1]["source"]
    for file, name in (("ops", "softmax"), ("cache", "append")):
        number = int(last.split(f"`minisink/{file}.py` line ")[1].split()[0])
        line = (ROOT / "minisink" / f"{file}.py").read_text(encoding="utf-8").splitlines()[number - 1]
        assert line.strip().startswith(f"def {name}(")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("## Predict\n", "## Guess\n", "its sections are"),
        ("## Check\n\n", "", "its sections are"),
        ("## Milestone\n\n## Read on", "## Read on\n\n## Milestone", "its sections are"),
        ("# 3. A lesson", "# A lesson", "begin with a title, '# 3. ...'"),
        ("](../docs/lessons.md)", "](elsewhere)", "How to run it"),
        ("    ### END SOLUTION\n", "", "needs one ### BEGIN SOLUTION"),
        ("*5 minutes, easy.*\n", "", "'### A circle' needs its minutes and level"),
        ("*5 minutes, easy.*", "5 minutes, easy.", "such as *10 minutes, easy.*"),
        ("*5 minutes, easy.*", "*5 minutes, simple.*", "(or medium, or hard) below it, not '*5 minutes, simple.*'"),
        ("ops.py:softmax", "ops.py:hardmax", "minisink/ops.py, hardmax, which does not exist"),
        ("docs/words.md", "docs/wards.md", "docs/wards.md, which does not exist"),
        ("LayerCache.append", "LayerCache.prepend", "minisink/cache.py, LayerCache.prepend, which does not exist"),
    ],
)
def test_a_lesson_off_the_skeleton_is_refused_by_name(source, old, new, complaint):
    path = rewritten(source, (old, new))
    with pytest.raises(ValueError, match="^03-circle: ") as caught:
        build.student(path)
    assert complaint in str(caught.value)


def test_a_lesson_without_an_exercise_is_refused(source):
    path = rewritten(source, ("    ### BEGIN SOLUTION\n", ""), ("    ### END SOLUTION\n", ""))
    with pytest.raises(ValueError, match="03-circle: nothing to write"):
        build.student(path)


BONUS = """
### Bonus: a ball
*15 minutes, hard.*

```{code-cell} ipython3
def volume(r):
    ### BEGIN SOLUTION
    return 4 / 3 * area(r) * r
    ### END SOLUTION
```

```{code-cell} ipython3
print(volume(radius))
```
"""


def test_a_student_may_leave_a_bonus_out_and_run_the_rest_as_a_whole(source):
    """Jupyter goes on behind a cell with this tag; behind a stub of an exercise it does not."""
    path = rewritten(source, ("\n## Check\n", f"{BONUS}\n## Check\n\n```{{code-cell}} ipython3\nradius\n```\n"))
    given, solved = (
        [cell.metadata.get("tags") for cell in build.code_cells(make(path))] for make in (build.student, build.solution)
    )
    assert given == [None] * 4 + [["raises-exception"]] * 2 + [None]
    assert solved == [None, None, ["hide-input"], None, ["hide-input"], None, None]


def test_a_notebook_leads_to_no_file_that_is_not_beside_it(source):
    """Whoever has it open knows how to run it; and an address of another machine is a paper's."""
    assert (
        build.student(source / "03-circle.md")
        .cells[0]["source"]
        .startswith("# 3. A lesson\n\nIt takes a minute.\n\nMany cells")
    )
    for path in build.lessons():
        links = re.findall(r"\]\(([^)\s]*)\)", path.read_text(encoding="utf-8").replace(build.HOW, ""))
        assert [link for link in links if not link.startswith("https://arxiv.org/")] == [], path.name


def test_every_page_of_a_class_installs_the_same_and_what_it_names_is_there():
    """README, lessons, commands, syllabus and the errors; what is brought is a notebook program, too."""
    pages = [ROOT / name for name in ("README.md", "docs/lessons.md", "docs/commands.md")]
    pages += [*sorted((ROOT / "tutorials" / "teacher").glob("*.md")), *(ROOT / "tutorials").rglob("*.py")]
    found = {path.name: set(re.findall(r"\[[a-z,]*tutorials[a-z,]*\]", path.read_text("utf-8"))) for path in pages}
    (extras,) = set().union(*found.values())
    assert f'".{extras}"' in build.INSTALL
    named = {name for name, there in found.items() if there}
    assert named >= {"README.md", "lessons.md", "commands.md", "syllabus.md", "build.py", "slides.py"}
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert set(extras[1:-1].split(",")) <= set(setup["options.extras_require"])
    assert "\njupyterlab>=" in setup["options.extras_require"]["tutorials"]
    for page in ("README.md", "docs/lessons.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert build.INSTALL in text and "jupyter lab class" in text and "build.py student class" in text


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_no_page_links_a_source_with_solutions_in_it(page):
    links = re.findall(r"\]\(([^)]*tutorials[^)]*)\)", (ROOT / page).read_text(encoding="utf-8"))
    wrong = [
        link
        for link in links
        if (path := (ROOT / page).parent / link).is_dir() or build.BEGIN in path.read_text("utf-8")
    ]
    assert [link for link in wrong if "autograder" not in link] == []


# Files ----------------------------------------------------------------------------------------------


def made(source, folder, kind="student"):
    (target,) = build.build(kind, folder, source=source)
    return target


def test_what_is_built_is_a_notebook_without_outputs_and_the_same_each_time(source, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    first, again = made(source, tmp_path / "a"), made(source, tmp_path / "b")
    assert first.read_bytes() == again.read_bytes()
    nbformat.validate(nbformat.read(first, as_version=4))
    assert all(not cell.get("outputs") for cell in json.loads(first.read_text(encoding="utf-8"))["cells"])


def test_a_new_version_replaces_what_nobody_changed(source, tmp_path):
    target = made(source, tmp_path)
    rewritten(source, ("Because.", "Because it is so."))
    made(source, tmp_path)
    assert "Because it is so." in target.read_text(encoding="utf-8")


CHANGES = [
    lambda book: book["cells"][-1].update(source="my answer"),
    lambda book: book["cells"][1].update(execution_count=1),
    lambda book: book["metadata"]["kernelspec"].update(name="mine"),
    lambda book: book["metadata"].pop("minisink"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_student_changed_is_never_overwritten(source, tmp_path, change):
    """Refused by name, and before any other lesson is written."""
    shutil.copy(source / "03-circle.md", source / "02-before.md")
    text = (source / "02-before.md").read_text(encoding="utf-8").replace("# 3.", "# 2.")
    (source / "02-before.md").write_text(text, encoding="utf-8")
    before, target = build.build("student", tmp_path, source=source)
    book = json.loads(target.read_text(encoding="utf-8"))
    change(book)
    target.write_text(json.dumps(book), encoding="utf-8")
    (source / "02-before.md").write_text(text.replace("Because.", "Because it is so."), encoding="utf-8")
    kept = target.read_bytes(), before.read_bytes()
    with pytest.raises(ValueError, match=r"left alone: 03-circle\.ipynb;"):
        build.build("student", tmp_path, source=source)
    assert (target.read_bytes(), before.read_bytes()) == kept
    build.build("student", tmp_path, ["02"], source=source)  # the others by name
    assert (target.read_bytes(), before.read_bytes() == kept[1]) == (kept[0], False)


@pytest.mark.parametrize("content", [b"", b"no notebook", b"[1]", b"\xff\xfe", None])
def test_what_is_no_notebook_of_ours_is_left_alone(source, tmp_path, content):
    target = tmp_path / "03-circle.ipynb"
    target.mkdir() if content is None else target.write_bytes(content)
    with pytest.raises(ValueError, match=r"left alone: 03-circle\.ipynb"):
        made(source, tmp_path)
    assert target.is_dir() if content is None else target.read_bytes() == content


@pytest.mark.parametrize("inside", ["", "class"])
def test_a_file_where_the_folder_would_be_is_named_before_anything_is_executed(source, tmp_path, monkeypatch, inside):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    monkeypatch.setitem(build.BUILDS, "docs", lambda *_, **__: pytest.fail("it was executed"))
    with pytest.raises(ValueError, match=r"notes\.txt is a file; name another folder"):
        made(source, tmp_path / "notes.txt" / inside, "docs")
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_changed_file_is_found_before_any_lesson_is_executed(source, tmp_path, monkeypatch):
    (tmp_path / "03-circle.ipynb").write_text("mine", encoding="utf-8")
    monkeypatch.setitem(build.BUILDS, "docs", lambda *_, **__: pytest.fail("it was executed"))
    with pytest.raises(ValueError, match="left alone"):
        made(source, tmp_path, "docs")


def test_a_file_that_changes_while_lessons_are_executed_is_left_alone(source, tmp_path, monkeypatch):
    target = tmp_path / "03-circle.ipynb"

    def meanwhile(path, seconds):
        target.write_text("mine", encoding="utf-8")
        return build.solution(path)

    monkeypatch.setitem(build.BUILDS, "docs", meanwhile)
    with pytest.raises(ValueError, match="left alone"):
        made(source, tmp_path, "docs")
    assert target.read_text(encoding="utf-8") == "mine"


def test_one_kind_does_not_overwrite_a_student_s_work_of_another(source, tmp_path):
    """Untouched stubs may become solutions; that is nobody's work."""
    made(source, tmp_path)
    assert "squared" in made(source, tmp_path, "solution").read_text(encoding="utf-8")


def test_one_lesson_that_is_wrong_stops_all(source, tmp_path):
    (source / "04-wrong.md").write_text(LESSON, encoding="utf-8")  # its title says 3
    with pytest.raises(ValueError, match="04-wrong"):
        build.build("student", tmp_path / "out", source=source)
    assert not (tmp_path / "out").exists()


def program(*argv, **options):
    command = [sys.executable, str(ROOT / "tutorials" / "build.py"), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_the_program_says_what_is_wrong_in_one_line_and_ends_with_2(tmp_path):
    (tmp_path / "01-softmax-must-spend.ipynb").write_text("mine", encoding="utf-8")
    for argv, complaint in [
        (["student", tmp_path], "01-softmax-must-spend.ipynb"),
        (["docs", tmp_path, "99"], "'99'"),
        (["docs", tmp_path, "--seconds", "0"], "--seconds is 0"),
    ]:
        ended = program(*argv)
        assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
        assert complaint in ended.stderr


@pytest.mark.parametrize("missing", ["jupytext", "nbformat", "nbclient"])
def test_a_missing_package_is_named_with_what_installs_it(source, tmp_path, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=rf"{missing}, which is missing.*{re.escape(build.INSTALL)}"):
        made(source, tmp_path, "docs" if missing == "nbclient" else "student")


@pytest.mark.slow
def test_a_page_has_outputs_and_a_cell_that_fails_stops_it(source, tmp_path):
    pytest.importorskip("nbclient", reason="needs nbclient: pip install -e '.[tutorials,gguf,chat]'")
    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install -e '.[tutorials,gguf,chat]'")
    book = json.loads(made(source, tmp_path / "pages", "docs").read_text(encoding="utf-8"))
    assert [cell["execution_count"] for cell in book["cells"] if cell["cell_type"] == "code"] == [1, 2, 3, 4]
    assert code(book)[1] == "around = 2 * math.pi * radius"
    rewritten(source, ("== around", "== 0"))
    with pytest.raises(ValueError, match='03-circle: a cell under "Exercise" fails: AssertionError'):
        made(source, tmp_path / "others", "docs")
    assert not (tmp_path / "others").exists()
    rewritten(source, ("Because.\n", "Because.\n\n```{code-cell} ipython3\nimport time\n\ntime.sleep(30)\n```\n"))
    with pytest.raises(ValueError, match="03-circle: a cell takes longer than 1 s; --seconds N gives it more"):
        build.build("docs", tmp_path / "others", seconds=1, source=source)


def test_a_cell_may_take_ten_minutes_if_nothing_is_said(source, tmp_path, monkeypatch):
    given = []
    monkeypatch.setitem(build.BUILDS, "docs", lambda path, seconds: given.append(seconds) or build.solution(path))
    made(source, tmp_path, "docs")
    build.build("docs", tmp_path, seconds=3600, source=source)
    assert given == [600, 3600]


def test_every_lesson_says_that_there_are_hints():
    """Those that ask the checker; what is written in words has points to give oneself."""
    for path in build.lessons():
        check = path.read_text(encoding="utf-8").partition("\n## Check\n")[2].partition("\n## ")[0]
        assert ("has hints. With `hint=1` in the call" in check) == ("check_functions" in check), path.name


@pytest.mark.parametrize("path", build.lessons(), ids=lambda path: path.stem)
def test_a_lesson_has_a_bonus_and_minutes_for_its_exercises(path):
    """Something to write under each heading; the bonus comes last, and is not among the lesson's minutes."""
    book = build.read(path)
    (minutes,) = re.findall(r"It takes about (\d+) minutes without the bonus", path.read_text(encoding="utf-8"))
    found = build.exercises(book)
    bonus = [title for title in found if title.startswith(build.BONUS)]
    assert bonus and [*found][-len(bonus) :] == bonus and all(found[title][1] != "easy" for title in bonus)
    assert 0 < sum(n for title, (n, _) in found.items() if title not in bonus) < int(minutes)
    written = [cell for cell in book.cells if "### BEGIN SOLUTION" in cell.source or cell.source.startswith("*My ")]
    assert {cell.metadata.minisink.get("exercise") for cell in written if build.section_of(cell) == "Exercise"} == {
        *found
    }


def test_every_lesson_has_a_cell_to_write_the_prediction_in():
    """A cell of its own, the last before anything is run: words, or code that the lesson compares with."""
    for path in build.lessons():
        (*_, last) = [cell for cell in build.read(path).cells if build.section_of(cell) == "Predict"]
        assert last.source == "*My prediction:*" or last.source.startswith("my_guess = {"), path.name


def test_times_add_up_to_what_the_pages_say():
    """Hours on the site's first page, to half an hour, and the longest in the syllabus."""
    minutes = [int(re.search(r"It takes about (\d+) minutes", path.read_text("utf-8"))[1]) for path in build.lessons()]
    (hours,) = re.findall(
        r"the lessons\]\(lessons\.md\), about ([\d.]+) hours", (ROOT / "docs/index.md").read_text("utf-8")
    )
    (most,) = re.findall(
        r"takes a student (\d+) minutes at most", (build.HERE / "teacher/syllabus.md").read_text("utf-8")
    )
    assert abs(60 * float(hours) - sum(minutes)) <= 15 and int(most) == max(minutes)
