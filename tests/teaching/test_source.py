"""A file and a notebook are read alike: magics are put into Python, and what fails is passed over."""

import builtins
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import styles

from minisink.teaching import loading, source
from minisink.teaching.grading import check_source
from minisink.teaching.report import passed_over
from minisink.teaching.sandbox import Sandbox
from minisink.teaching.source import Source, as_python, as_python_file, read, read_magics
from minisink.teaching.tasks import TASKS

ROOT = Path(__file__).parents[2]
KEPT = "cache = [cache[i] for i in Streaming(n_sinks, window).survivors(np.arange(len(cache)))]"
KEEP = """
def survivors(n_slots, n_sinks, window):
    keep = []
    for i in range(n_slots):
        slot = (
            i
            % (n_slots + 1)
        )
        if slot < n_sinks or slot >= n_slots - window:
            keep.append(slot)
    return keep
"""


@pytest.fixture
def student(monkeypatch):
    """Run texts as the child does, here; returns what they made."""

    def run(*texts, tasks=("survivors",)):
        found = loading.Student("work", list(tasks))
        found.load(texts[0] if len(texts) == 1 else list(texts))
        return found

    for name in ("get_ipython", "display"):
        monkeypatch.setattr(builtins, name, None, raising=False)
    monkeypatch.setitem(sys.modules, "student", None)
    return run


CELLS = {  # each with what it makes
    "%matplotlib inline\nx = 1": {"x": 1},
    "x = (5\n% 3)\n%cd ..": {"x": 2},
    "x = 7 \\\n  % 4\n!ls": {"x": 3},
    "x = '''\n%time\n! no\n'''\n!ls": {"x": "\n%time\n! no\n"},
    "x = '%d'\n# 100 %\n%precision 3": {"x": "%d"},
    "%time x = 2": {"x": 2},
    "x = %timeit -o 1 + 1": {"x": None},
    "x = !ls": {"x": []},
    "x = !ls \\\n  -l\ny = 1": {"x": [], "y": 1},
    "!pip install \\\n   numpy\nx = 1": {"x": 1},
    "!!ls\nx = 1": {"x": 1},
    "!echo it's (\nx = 1": {"x": 1},
    "x?\ny = 1": {"y": 1},
    "?x\ny = 1": {"y": 1},
    "str.join??\ny = 1": {"y": 1},
    "*int*?\ny = 1": {"y": 1},
    "for i in [1]:\n    !ls {i}\n    x = i": {"x": 1, "i": 1},
    "def f():\n    %time pass\n    return 3\nx = f()": {"x": 3},
    "  x = 1\n  y = 2\n": {"x": 1, "y": 2},
    ">>> x = 1\n>>> y = 2\n": {"x": 1, "y": 2},
    "%%time\nx = 1": {"x": 1},
    "\n# timed\n%%timeit -n1 -r1\n%matplotlib inline\nx = 1": {"x": 1},
    "%%capture\nx = 1": {"x": 1},
    "%%capture out\nx = 1\nout.show()": {"x": 1},
    "%%my_own_magic\nx = 1": {"x": 1},
    "%%my_own_magic\nno Python at all": {},
    "%%bash\nx=1\nls": {},
    "%%writefile x.py\nx = 1": {},
    "%run x.py\ny = x": {"x": 1, "y": 1},
    "%%html\n<b>": {},
    "get_ipython().run_line_magic('time', 'x = 1')": {"x": 1},
    "get_ipython().run_cell_magic('time', '', 'x = 1\\n')": {"x": 1},
    "get_ipython().run_cell_magic('bash', '', 'x = 1\\n')\nget_ipython().system('ls')": {},
    "x = get_ipython().getoutput('ls')": {"x": []},
    "from IPython.display import display, HTML\nx = 1\ndisplay(HTML('<b>'))": {"x": 1},
    "K = 1\nK += 1": {"K": 2},
    "try:\n    import no_such\nexcept ImportError:\n    x = 1": {"x": 1},
    "import math, no_such\nx = math.floor(1.5)": {"x": 1},
}


@pytest.mark.parametrize("with_ipython", [True, False], ids=["by IPython", "here"])
def test_magics_of_every_form(student, monkeypatch, tmp_path, with_ipython):
    """The same is made as where IPython itself reads them."""
    monkeypatch.chdir(tmp_path)
    if with_ipython:
        transformer = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()
        monkeypatch.setattr(source, "read_magics", transformer.transform_cell)
    for cell, made in CELLS.items():
        found = student(as_python(cell))
        assert {name: found.names.get(name) for name in made} == made, cell
        assert [each["raised"] for each in found.over] in ([], ["ModuleNotFoundError"]), (cell, found.over)
        assert "x" in made or "x" not in found.names, cell


def test_python_is_left_as_it_is():
    text = "x = (1\n% 2)\ny = '''\n%time\n'''\n"
    assert as_python(text) == as_python_file(text) == read_magics(text) == text


EXPORTED = (
    "# coding: utf-8\n# In[1]:\n\n%%time\nx = 1\n\n# In[2]:\n%%bash\nrm y\n# In[3]:\n!ls\ny = 2\n",
    "# %%\n%matplotlib inline\nx = 1\n# %% a plot\n%%capture\ny = 2\n",
    "x = 1\n# Commented out IPython magic to ensure Python compatibility.\n# %%time\n# y = 2 \n# # why?\n\nz = 3\n",
)


@pytest.mark.parametrize("text", EXPORTED, ids=["nbconvert", "an editor", "Colab"])
def test_a_file_that_was_a_notebook(student, text):
    found = student(as_python_file(text))
    assert (found.names["x"], found.names["y"], found.over) == (1, 2, [])


TOP = """from __future__ import annotations
import no_such_package, math
name = input("Your name? ")
print(name.upper())
K = 0
K += 1
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([1, 2]); plt.show()
import urllib.request
urllib.request.urlopen("http://127.0.0.1:9/")
@no_such_package.jit
def helper(x: no_such_package.Tensor) -> no_such_package.Tensor:
    return x
if K:
    J = K
for i in range(2): J += i
x = = 1
assert K == 7, "K is one"
raise SystemExit(0)
"""
USES = "def survivors(n_slots: Later, *sizes):\n    return helper(keep(n_slots, *sizes))[: 1000 * K * J]\n"


def test_what_fails_at_the_top_costs_nothing_that_does_not_need_it():
    """In a file, a line for each that fails by itself, and none for what fails after it; the same of a notebook."""
    text = TOP + KEEP.replace("survivors", "keep") + USES
    said = {}
    for kind, texts in {"a file": text, "a notebook": [TOP, KEEP.replace("survivors", "keep"), USES]}.items():
        sandbox = Sandbox(Source("work", texts, kind == "a notebook"), 20)
        assert next(check_source(sandbox, ["survivors"]))["status"] == "passed"
        said[kind] = [line.removeprefix("cell 1, ") for line in passed_over(sandbox.over, 99)]
    assert said["a file"] == said["a notebook"]
    lines = [line.partition(" was skipped: ") for line in said["a file"]]
    assert [line for line, _, _ in lines] == ["line 2", "line 3", "line 11", "line 18", "line 19", "line 20"]
    errors = [why.partition(":")[0] for _, _, why in lines]
    assert errors[:2] + errors[3:] == [
        *("ModuleNotFoundError", "EOFError", "SyntaxError"),
        *("AssertionError", "SystemExit"),
    ]


def test_a_name_of_a_failed_import_fails_where_it_is_used():
    text = "import no_such\ndef survivors(n, *sizes):\n    return no_such.keep(n)\n"
    sandbox = Sandbox(Source("work", text, False), 20)
    row = list(check_source(sandbox, ["survivors", "softmax"]))
    assert [each["status"] for each in row] == ["missing", "failed"]
    assert row[1]["message"].startswith("NameError: name 'no_such' is not defined (line 3)")
    assert "line 1 was skipped: ModuleNotFoundError: No module named 'no_such'" in row[0]["message"]


@pytest.mark.slow
def test_what_never_ends_at_the_top_costs_its_own_time():
    """Once, in whatever it swallows; and what ends the process."""
    endless = "while True:\n    try:\n        while True: pass\n    except BaseException: pass\n"
    text = f"import os\n{endless}os._exit(0)\n{KEEP}"
    sandbox = Sandbox(Source("work", text, False), 1)
    assert next(check_source(sandbox, ["survivors"]))["status"] == "passed"
    assert passed_over(sandbox.over) == [
        "line 2 was skipped: no answer within 1 s",
        "line 6 was skipped: it ended the process (status 0)",
    ]


@pytest.mark.slow
def test_a_lesson_s_parts_work_where_the_task_is_another():
    """Minisink's softmax in an attention of one's own; and not for the softmax itself."""
    text = """
import numpy as np
from minisink import ops
from minisink.attention import attend as theirs
def attend(q, k, v, visible):
    return ops.softmax(np.where(visible, q @ k.T / np.sqrt(q.shape[1]), -np.inf)) @ v
def softmax(x):
    return ops.softmax(x)
def softmax1(x):
    return theirs(np.array([[[1.0]]]), x[:, None, None], np.eye(len(x))[:, None])[0, 0]
"""
    rows = list(check_source(Sandbox(Source("work", text, False), 20), ["softmax", "attend", "survivors"]))
    assert [row["status"] for row in rows] == ["failed", "passed", "missing"]
    kept = styles.LISTS.replace("cache = cache[:n_sinks] + cache[n_sinks + 1:]", KEPT)
    assert kept != styles.LISTS
    text = "import numpy as np, minisink\nfrom minisink import Streaming\nfrom minisink.methods import Window\n" + kept
    text += "def survivors(n, s, w):\n    return minisink.Streaming(s, w).survivors(np.arange(n))\n"
    rows += list(check_source(Sandbox(Source("work", text, False), 20), ["survivors", "step"]))
    assert [row["status"] for row in rows[3:]] == ["failed", "passed"], rows[3:]
    assert "minisink.Streaming is minisink's own" in rows[3]["message"]
    assert "minisink.ops.softmax is minisink's own; the task is to write it yourself" in rows[0]["message"]


# The lessons ----------------------------------------------------------------------------------------


def lessons():
    """The module that builds them."""
    pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials,gguf,chat]'")
    spec = importlib.util.spec_from_file_location("build", ROOT / "tutorials" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build


@pytest.mark.lessons
@pytest.mark.parametrize("number", range(1, 13))
@pytest.mark.parametrize("ending", [".ipynb", ".py"])
def test_a_solution_passes_its_check_as_a_file(tmp_path, number, ending):
    """The tasks that its last cell hands in pass, and nothing else is said."""
    build = lessons()
    book = build.solution(build.lessons([f"{number:02}"])[0])
    cells = [cell.source for cell in build.code_cells(book)]
    (call,) = re.findall(r"^check_functions\((.*)\)$", "\n".join(cells), re.M) or [""]
    asked = set(re.findall(r"(\w+)=", call)) & set(TASKS)
    if not asked:
        pytest.skip("what this lesson asks for is no task of the checker")
    path = tmp_path / f"work{ending}"
    exported = "# coding: utf-8\n\n" + "\n\n".join(f"# In[{i}]:\n\n\n{cell}" for i, cell in enumerate(cells, 1))
    path.write_text(
        json.dumps(book) if ending == ".ipynb" else f"#!/usr/bin/env python\n# coding: utf-8\n\n{exported}\n"
    )
    sandbox = Sandbox(read(path))
    rows = {row["task"]: row for row in check_source(sandbox)}
    assert asked and {rows[name]["status"] for name in asked} == {"passed"} and passed_over(sandbox.over) == []
