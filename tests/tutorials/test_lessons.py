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

pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials]'")

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("build", ROOT / "tutorials" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

LESSONS = pytest.mark.parametrize("path", build.lessons(), ids=lambda path: path.stem)
SECONDS = 60

# Runs cells as a notebook would, without a kernel and without a network; a line of JSON a cell.
RUNNER = """
import json, socket, sys, time, traceback, types

def refuse(*_, **__):
    raise OSError("the network is off")

socket.socket.connect = socket.getaddrinfo = refuse
try:
    import minisink.teaching
except ModuleNotFoundError:  # the checker is not there: nothing is checked
    sys.modules["minisink.teaching"] = types.SimpleNamespace(check_functions=lambda **functions: None)
cells, alone = json.load(open("cells.json")), "alone" in sys.argv
names = {"__name__": "__main__"}
for i, source in enumerate(cells):
    names, start = {"__name__": "__main__"} if alone else names, time.process_time()
    ended = {"error": None}
    try:
        exec(compile(source, f"cell {i}", "exec"), names)
    except Exception as error:
        inner = traceback.extract_tb(error.__traceback__)[-1]
        about = {"says": str(error), "name": getattr(error, "name", None), "function": inner.name}
        ended = {"error": type(error).__name__, **about}
    print("\\n@", json.dumps({**ended, "seconds": time.process_time() - start}))
"""


def run(book, folder, *how):
    """What became of each code cell."""
    (folder / "cells.json").write_text(json.dumps([cell.source for cell in build.code_cells(book)]), encoding="utf-8")
    quiet = {"MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", RUNNER, *how]
    ended = subprocess.run(command, cwd=folder, env=os.environ | quiet, capture_output=True, text=True, timeout=600)
    found = [json.loads(line[2:]) for line in ended.stdout.splitlines() if line.startswith("@ ")]
    assert len(found) == len(build.code_cells(book)), ended.stderr[-2000:]
    return found


def is_check(cell):
    """A cell that hands a student's functions to the checker, which says in its own words what is missing."""
    return "check_functions" in cell.source


@LESSONS
def test_a_solution_runs_from_top_to_bottom(path, tmp_path):
    book = build.solution(path)
    ended = run(book, tmp_path)
    failed = [(cell.source, end) for cell, end in zip(build.code_cells(book), ended, strict=True) if end["error"]]
    assert failed == []
    assert sum(end["seconds"] for end in ended) < SECONDS


@LESSONS
def test_a_student_s_is_red_at_exactly_the_stubs(path, tmp_path):
    """What fails says whose turn it is; every stub is asked by some cell; and nothing fails before the first."""
    book = build.student(path)
    cells, stubs = build.code_cells(book), set()
    for cell in cells:
        functions = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)]
        stubs |= {f.name for f in functions if build.STUB in ast.get_source_segment(cell.source, f)}
    ended = run(book, tmp_path)
    failed = [end for cell, end in zip(cells, ended, strict=True) if end["error"] and not is_check(cell)]
    assert {(end["error"], end["says"]) for end in failed} == {("NotImplementedError", "your turn")}
    assert {end["function"] for end in failed} == stubs
    first = min(i for i, cell in enumerate(cells) if build.STUB in cell.source)
    assert not any(end["error"] for end in ended[: first + 1])


@LESSONS
def test_a_cell_run_out_of_order_has_said_what_it_needs(path, tmp_path):
    """In its first line, with the section that makes it; one that says nothing needs nothing."""
    book = build.student(path)
    for cell, end in zip(build.code_cells(book), run(book, tmp_path, "alone"), strict=True):
        said = cell.source.splitlines()[0] if cell.source.startswith("# needs ") else ""
        if said and end["error"] == "NameError":
            assert re.search(rf"\b{re.escape(end['name'])}\b", said), (said, end)
        elif not is_check(cell):
            assert end["error"] in (None, "NotImplementedError"), (cell.source, end)


@LESSONS
def test_a_lesson_asks_before_it_answers_and_ends_with_a_number(path):
    """No code where a prediction is made; a milestone is held by an assert."""
    cells = build.code_cells(build.read(path))
    assert not [cell.source for cell in cells if build.section_of(cell) == "Predict"]
    milestone = [cell.source for cell in cells if build.section_of(cell) == "Milestone"]
    assert any(isinstance(node, ast.Assert) for source in milestone for node in ast.walk(ast.parse(source)))
