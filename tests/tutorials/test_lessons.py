"""Every lesson runs from top to bottom in a fresh process, and a student's is red at exactly the stubs."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials,gguf,chat]'")

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("build", ROOT / "tutorials" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

pytestmark = pytest.mark.lessons
LESSONS = pytest.mark.parametrize("path", build.lessons(), ids=lambda path: path.stem)

# Runs cells as a notebook would, without a kernel and without a network; a line of JSON a cell.
RUNNER = """
import json, socket, sys, traceback, types

def refuse(*_, **__):
    raise OSError("the network is off")

socket.socket.connect = socket.getaddrinfo = refuse
try:
    import minisink.teaching
except ModuleNotFoundError:  # the checker is not there: nothing is checked
    sys.modules["minisink.teaching"] = types.SimpleNamespace(check_functions=lambda **functions: True)
checker, check = sys.modules["minisink.teaching"], sys.modules["minisink.teaching"].check_functions

def check_functions(**functions):
    if not check(**functions):  # it has said why
        raise AssertionError("the checker is not content")
    return True

checker.check_functions = check_functions
cells, alone = json.load(open("cells.json")), "alone" in sys.argv
names = {"__name__": "__main__"}
for i, source in enumerate(cells):
    names = {"__name__": "__main__"} if alone else names
    ended = {"error": None}
    try:
        exec(compile(source, f"cell {i}", "exec"), names)
    except Exception as error:
        inner = traceback.extract_tb(error.__traceback__)[-1]
        about = {"says": str(error), "name": getattr(error, "name", None), "function": inner.name, "line": inner.lineno}
        ended = {"error": type(error).__name__, **about}
    print("\\n@", json.dumps(ended))
"""


def run(cells, folder, *how):
    """What became of each code cell."""
    (folder / "cells.json").write_text(json.dumps([cell.source for cell in cells]), encoding="utf-8")
    quiet = {"MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", RUNNER, *how]
    ended = subprocess.run(command, cwd=folder, env=os.environ | quiet, capture_output=True, text=True, timeout=600)
    found = [json.loads(line[2:]) for line in ended.stdout.splitlines() if line.startswith("@ ")]
    assert len(found) == len(cells), ended.stderr[-2000:]
    return found


def is_check(cell):
    """A cell that hands a student's functions to the checker, which says in its own words what is missing."""
    return "check_functions" in cell.source


def around_stubs(cells):
    """Those that use what a stub makes, directly or not, and those that they need; the rest is as in the solution."""
    makes, uses = zip(*(build.names_in(cell.source) for cell in cells), strict=True)
    stubbed, kept = [build.STUB in cell.source for cell in cells], set()
    after = set()  # names that come of stubs
    for i in range(len(cells)):
        if stubbed[i] or uses[i] & after:
            after |= makes[i]
            kept.add(i)
    before = set()  # names that those need
    for i in reversed(range(len(cells))):
        if i in kept or makes[i] & before:
            before |= uses[i]
            kept.add(i)
    return [cell for i, cell in enumerate(cells) if i in kept]


@LESSONS
def test_a_solution_runs_from_top_to_bottom(path, tmp_path):
    cells = build.code_cells(build.solution(path))
    ended = run(cells, tmp_path)
    failed = [(cell.source, end) for cell, end in zip(cells, ended, strict=True) if end["error"]]
    assert failed == []


def stubs_of(cell):
    """The functions of a cell that are somebody's turn."""
    functions = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if build.STUB in ast.get_source_segment(cell.source, f)}


@LESSONS
def test_a_student_s_is_red_at_exactly_the_stubs(path, tmp_path):
    """What fails says whose turn it is, and nothing fails before the first; solve what was red, and the next is."""
    given, solved = build.code_cells(build.student(path)), build.code_cells(build.solution(path))
    while turns := set().union(*map(stubs_of, given)):
        cells = around_stubs(given)
        ended = run(cells, tmp_path)
        failed = [end for cell, end in zip(cells, ended, strict=True) if end["error"] and not is_check(cell)]
        assert {(end["error"], end["says"]) for end in failed} == {("NotImplementedError", "your turn")}, turns
        first = min(i for i, cell in enumerate(cells) if stubs_of(cell))
        assert not any(end["error"] for end in ended[: first + 1])
        red = {end["function"] for end in failed}
        assert red <= turns
        given = [s if stubs_of(g) & red else g for g, s in zip(given, solved, strict=True)]


@LESSONS
def test_a_cell_run_out_of_order_says_what_it_needs(path, tmp_path):
    """Before anything else in it has run, with the sections that make it; a cell that says nothing needs nothing."""
    cells = build.code_cells(build.student(path))
    for cell, end in zip(cells, run(cells, tmp_path, "alone"), strict=True):
        first = cell.source.splitlines()[0]
        if "  # run first: " in first:
            assert (end["error"], end["line"]) == ("NameError", 1), (first, end)
            assert end["name"] in first.split("  #")[0]
        elif not is_check(cell):
            assert end["error"] is None, (cell.source, end)


@LESSONS
def test_a_milestone_is_held_by_an_assert(path):
    milestone = [cell.source for cell in build.code_cells(build.read(path)) if build.section_of(cell) == "Milestone"]
    assert any(isinstance(node, ast.Assert) for source in milestone for node in ast.walk(ast.parse(source)))


@LESSONS
def test_code_fits_a_page(path):
    """The site, and a projector, show 120 letters."""
    long = [line for cell in build.code_cells(build.read(path)) for line in cell.source.splitlines() if len(line) > 120]
    assert long == []


def up_to(cells, words):
    """The cell with `words` in it, and before it those alone that make what it needs, directly or not."""
    needed, kept = {words.split()[-1]}, []
    (last,) = [i for i, cell in enumerate(cells) if f"{words}:" in cell.source]
    for cell in reversed(cells[: last + 1]):
        makes, uses = build.names_in(cell.source)
        if makes & needed:
            needed |= uses - makes
            kept.append(cell)
    return kept[::-1]


@pytest.mark.parametrize(("lesson", "tokens"), [("04", 256), ("05", 1000)])
def test_a_small_size_is_half_the_text_and_its_milestone_holds(lesson, tokens, tmp_path):
    """One constant, in the first line that runs, for a slow machine."""
    (path,) = build.lessons([lesson])
    cells = build.code_cells(build.solution(path))
    assert re.match("SMALL = False  # .*True reads half ", cells[0].source)
    cells[0].source = cells[0].source.replace("False", "True", 1)
    cells[-1].source += f"\nassert 2 * len(ids) == {tokens}"
    assert [end["error"] for end in run(cells, tmp_path)] == [None] * len(cells)


WRONG = [
    ("04", "rotate(keys, slots, rates)", "rotate(keys, 0 * slots, rates)"),
    ("07", "del keys[n_sinks], values[n_sinks]", "del keys[0], values[0]"),
]


@pytest.mark.parametrize(("lesson", "right", "wrong"), WRONG)
def test_a_student_s_cache_runs_in_the_model_and_a_wrong_one_is_not_minisink_s(lesson, right, wrong, tmp_path):
    """The cell alone sees the difference, in the real model, whether the test of `step` before it was run or not."""
    (path,) = build.lessons([lesson])
    cells = up_to(build.code_cells(build.solution(path, guarded=False)), "class MyCache")
    assert [end["error"] for end in run(cells, tmp_path)] == [None] * len(cells)
    (function,) = [cell for cell in cells if right in cell.source]
    function.source = function.source.replace(right, wrong)
    assert [end["error"] for end in run(cells, tmp_path)] == [None] * (len(cells) - 1) + ["AssertionError"]
