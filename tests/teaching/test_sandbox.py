"""Whatever a student's file does, it gets a clean score, and touches nothing."""

import codecs
import json
import os
import sys
from pathlib import Path

import pytest
import styles

from minisink.teaching import reference, sandbox
from minisink.teaching.grading import check_source
from minisink.teaching.report import all_right
from minisink.teaching.sandbox import Sandbox
from minisink.teaching.source import LARGEST_SOURCE, Source, read
from minisink.teaching.tasks import TASKS, template
from minisink.wrong_turns import LEFT_OVER

OK = """
def survivors(n_slots, n_sinks, window):
    return [s for s in range(n_slots) if s < n_sinks or s >= n_slots - window]
"""
SOFTMAX = """
import numpy as np
def softmax(x):
    w = np.exp(np.asarray(x) - max(x))
    return w / w.sum()
"""


def check(text, *tasks, seconds=20, **options):
    """Rows by task."""
    rows = list(check_source(Sandbox(Source("student.py", text, False), seconds), list(tasks) or None, **options))
    assert [row["task"] for row in rows] == [name for name in TASKS if not tasks or name in tasks]
    assert all(row["score"] == (row["status"] == "passed") and row["max_score"] == 1 for row in rows)
    json.dumps(rows)
    return {row["task"]: row for row in rows}


def survives(text, seconds=20):
    """The row of `survivors`."""
    return check(text, "survivors", seconds=seconds)["survivors"]


# Right, whatever the style --------------------------------------------------------------------------


def test_the_reference_passes_as_a_file():
    text = Path(reference.__file__).read_text(encoding="utf-8").replace("from ..wrong_turns.right import Cache", "")
    letters = styles.TO_THE_LETTER
    rows = check(text + letters[letters.index("def step") : letters.index("def token_nll")])  # its own is not its own
    assert {row["status"] for row in rows.values()} == {"passed"}
    assert not any("in place of yours" in row["message"] for row in rows.values())


@pytest.mark.sampled
@pytest.mark.parametrize("style", styles.STYLES)
def test_other_right_styles_pass(style):
    rows = check(styles.STYLES[style], seed=1)
    assert {name: row["message"] for name, row in rows.items() if row["status"] != "passed"} == {}


# Not there yet --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_template_fails_at_exactly_its_stubs():
    """One written function passes, the others are stubs; its parts are the checker's."""
    rows = check(template() + "\n" + OK.replace("survivors", "other") + "\nsurvivors = other\n")
    assert {name for name, row in rows.items() if row["status"] == "passed"} == {"survivors"}
    assert {row["message"] for row in rows.values() if row["status"] != "passed"} == {
        "not written yet (NotImplementedError)"
    }


def test_each_task_is_scored_alone():
    """A step that calls a wrong rotation and an empty softmax is right itself, and so is one that lacks both."""
    step_alone = styles.LISTS[styles.LISTS.index("def step") : styles.LISTS.index("def token_nll")]
    wrong = template(["softmax"]) + "\ndef rotate(x, positions, theta):\n    return x\n" + step_alone
    rows = check(wrong, "rotate", "step")
    assert (rows["rotate"]["status"], rows["step"]["status"]) == ("failed", "passed")
    assert "the checker's softmax, rotate in place of yours" in rows["step"]["message"]
    assert check(step_alone, "step")["step"]["status"] == "passed"


def test_a_part_of_one_s_own_with_more_arguments_is_taken_as_it_is():
    """An unfinished rotation is the checker's; a softmax that works, axis and all, stays."""
    text = """
import numpy as np
def softmax(x, axis=-1):
    w = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return w / w.sum(axis=axis, keepdims=True)
def attend(q, k, v, visible):
    return softmax(np.where(visible, q @ k.T / q.shape[1] ** 0.5, -np.inf), axis=1) @ v
"""
    assert all(row["status"] == "passed" for row in check(text, "softmax", "attend").values())
    assert check(text.replace("-np.inf", "0"), "attend")["attend"]["diagnosis"].startswith("a masked score is zero")


def test_what_is_missing_is_missing():
    rows = check(OK)
    assert {row["status"] for name, row in rows.items() if name != "survivors"} == {"missing"}
    assert all_right(list(rows.values()), False) and not all_right(list(rows.values()), True)
    assert not all_right(list(check("").values()), False)


# Wrong ----------------------------------------------------------------------------------------------

SLOW = ("step", "attend", "retrieve")  # some seconds each
WRONG_IN_A_LINE = [  # the task, what stands there, what a student writes, the title's beginning
    ("softmax", "e / e.sum(-1", "e / e.max(-1", "divided by the largest"),
    (
        "attend",
        "np.where(visible, q @ k.T / np.sqrt(q.shape[1]), -np.inf)",
        "q @ k.T / q.shape[1] ** 0.5",
        "the mask is",
    ),
    ("rotate", "b * np.cos(angle) + a", "b * np.cos(angle) - a", "one of the two signs"),
    ("survivors", "- window}", "- window - 1}", "the query sees one key too many"),
    ("positions_of", "[slot for slot in range(len(token_index))]", "list(token_index)", "original positions"),
    ("step", "[*range(S)]", "[0] * S", "the query is rotated, but the keys are not"),
    ("step", "[q], [S - 1]", "[q], [len(state or [])]", "the query's position is the cache's length"),
    ("step", "(state or []), (k, v)]", "(state or []), (np.float16(k), np.float16(v))]", "the state is kept in half"),
    ("retrieve", "[window]", "[window + 1]", "one place too far"),
]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "right", "wrong", "title"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in SLOW else []) for case in WRONG_IN_A_LINE],
)
def test_a_wrong_turn_is_known_in_a_file_too(name, right, wrong, title):
    """By the child process, as a student would have written it: right but for one line."""
    assert styles.TO_THE_LETTER.count(right) == 1
    row = check(styles.TO_THE_LETTER.replace(right, wrong), name, seed=2)[name]
    assert row["status"] == "failed" and row["diagnosis"].startswith(title)


def test_a_global_that_is_not_emptied_is_named():
    """Right in a process of its own, and in the first text."""
    text = """
HELD = []
def step(state, q, k, v, n_sinks, window, theta):
    HELD.append((k, v))
    while len(HELD) > n_sinks + window:
        del HELD[n_sinks]
    n = len(HELD)
    keys = rotate([k for k, _ in HELD], range(n), theta)
    return attend(rotate([q], [n - 1], theta), keys, [v for _, v in HELD], [[True] * n])[0], None
"""
    assert check(text, "step")["step"]["diagnosis"] == LEFT_OVER.title
    mended = text.replace("    HELD.append", "    if state is None: HELD.clear()\n    HELD.append").replace(
        "None\n", "1\n"
    )
    assert check(mended, "step")["step"]["status"] == "passed"


def test_a_right_function_in_the_wrong_dress_is_reported_where_it_came_farthest():
    """A file for lists whose mistake is small is not blamed for not taking arrays."""
    text = "def positions_of(held, n_sinks, window):\n    return [t + 0 * held.index(held[0]) for t in held]\n"
    row = check(text, "positions_of")["positions_of"]
    assert row["diagnosis"].startswith("original positions") and row["case"]["got"] == [1.0]


# Hostile --------------------------------------------------------------------------------------------

STOPS = {
    "empty": ("", "missing", "not in the file"),
    "syntax": ("def survivors(:\n", "failed", "line 1 was skipped: SyntaxError"),
    "indent": (OK + "\n  x = 1\n", "failed", "IndentationError"),
    "a null byte": ("\0" + OK, "passed", ""),
    "raises at once": ("1 / 0\n" + OK, "passed", ""),
    "raises at its end": (OK + "\n1 / 0\n", "passed", ""),
    "exits at once": ("import sys; sys.exit(0)\n" + OK, "passed", ""),
    "exits at its end": (OK + "\nimport sys; sys.exit(0)\n", "passed", ""),
    "exits at its end, hard": (OK + "\nimport os; os._exit(0)\n", "passed", ""),
    "no function": ("survivors = 3\n", "failed", "is not a function"),
    "a coroutine": ("async " + OK.strip(), "failed", "coroutine"),
    "another signature": ("def survivors(n):\n    return []\n", "failed", "TypeError"),
    "exits in the call": ("import sys\ndef survivors(*a): sys.exit(0)\n", "failed", "SystemExit: 0"),
    "exits in the call, hard": ("import os\ndef survivors(*a): os._exit(0)\n", "failed", "ended the process (status"),
    "kills itself": ("import os\ndef survivors(*a): os.kill(os.getpid(), 9)\n", "failed", "processes"),
    "crashes": (
        "import numpy as np\nfar = np.lib.stride_tricks.as_strided(np.zeros(1), (9,), (1 << 40,))\n"
        "def survivors(*a): far.sum()\n",
        "failed",
        "signal 11",
    ),
    "recursion": ("def survivors(*a): return survivors(*a)\n", "failed", "RecursionError"),
    "asks for input": ("def survivors(*a): return input()\n", "failed", "EOFError"),
    "prints": (OK + "\nprint('{\"value\": 1}' * 1000)\nimport os; os.write(1, b'x' * 100000)\n", "passed", ""),
    "starts a process": ("import os\ndef survivors(*a): return os.system('true')\n", "failed", "processes"),
    "forks": ("import os\ndef survivors(*a): return [os.fork()]\n", "failed", "processes"),
    "the network": ("import socket\ndef survivors(*a): socket.create_connection(('::1', 9))\n", "failed", "network"),
    "leaves a thread": (
        OK + "\nimport threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n",
        "passed",
        "",
    ),
    "says yes": (
        "class Yes:\n    def __eq__(self, other): return True\ndef survivors(*a): return Yes()\n",
        "failed",
        "Yes",
    ),
    "patches": (
        "import numpy as np, json\nnp.array_equal = np.allclose = lambda *a, **k: True\njson.dumps = None\n"
        "def survivors(*a): return [0]\n",
        "failed",
        "expected",
    ),
    "breaks numpy": ("import numpy as np\nnp.asarray = None\ndef survivors(*a): return [0]\n", "failed", ""),
    "imports minisink": ("import minisink\n" + OK, "passed", ""),
    "hands minisink's in": (
        "from minisink.cache import Policy\ndef survivors(n, s, w): return Policy(s, w).survivors(range(n))\n",
        "failed",
        "write it yourself",
    ),
    "its own import": (
        "import sys, __main__\nsys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'Finder']\n"
        f"sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.dirname(sandbox.__file__)))!r})\n"
        "from minisink.teaching.reference import survivors\n",
        "missing",
        "line 4 was skipped",  # its folder is empty, or closed
    ),
    "reads the answers": (
        "import os, __main__\nfolder = os.path.dirname(__main__.__file__)\n"
        "exec(open(os.path.join(folder, 'reference.py')).read())\n",
        "missing",
        "write it yourself",
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("case", STOPS)
def test_a_hostile_file_gets_a_clean_score(case):
    text, status, said = STOPS[case]
    row = survives(text)
    assert (row["status"], said in row["message"]) == (status, True), row["message"]


def test_an_endless_function_ends():
    rows = check(SOFTMAX + "\ndef survivors(*a):\n    while True: pass\n", "softmax", "survivors", seconds=0.5)
    assert (rows["softmax"]["status"], rows["survivors"]["status"]) == ("passed", "failed")
    assert rows["survivors"]["message"].startswith("no answer within 0.5 s")


@pytest.mark.slow
def test_an_endless_file_and_a_sleeping_function_end():
    rows = check("while True: pass\n" + OK, "softmax", "survivors", seconds=1)
    assert (rows["survivors"]["status"], rows["softmax"]["status"]) == ("passed", "missing")
    assert "line 1 was skipped: no answer within 1 s" in rows["softmax"]["message"]
    sleeps = "import time\ndef survivors(*a):\n    while True:\n        time.sleep(99)\n"
    assert survives(sleeps, seconds=1)["status"] == "failed"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep other limits")
def test_memory_has_an_end(monkeypatch):
    monkeypatch.setattr(sandbox, "MEMORY", 600 * 2**20)
    row = survives("def survivors(*a):\n    x = [1]\n    while True: x += x\n")
    assert row["status"] == "failed" and ("MemoryError" in row["message"] or "signal" in row["message"])


@pytest.mark.slow
def test_files_stay_in_the_folder_that_goes_away(tmp_path, monkeypatch):
    """It may write beside itself, up to a size, and that is gone afterwards; and nowhere else."""
    monkeypatch.chdir(tmp_path)
    assert survives("open('note.txt', 'w').write('x')\n" + OK)["status"] == "passed"
    target = tmp_path / "target"
    for line in (f"open({str(target)!r}, 'w')", f"__import__('os').mkdir({str(target)!r})"):
        assert "its own folder only" in survives(f"def survivors(*a):\n    {line}\n")["message"]
    target.write_text("mine")
    assert survives(f"import os\nos.remove({str(target)!r})\n" + OK)["status"] == "passed"
    large = "def survivors(*a):\n    with open('x', 'wb') as f:\n        for _ in range(99): f.write(bytes(10**6))\n"
    assert "OSError" in survives(large)["message"]
    assert target.read_text() == "mine" and os.listdir(tmp_path) == ["target"]


FORGER = """
import os, sys
frame = sys._getframe()
while "nonce" not in frame.f_locals: frame = frame.f_back
nonce, back = frame.f_locals["nonce"], frame.f_locals["back"]
def survivors(*args):
    {lines}
    os._exit(0)
"""


@pytest.mark.sampled
@pytest.mark.parametrize(
    "lines",
    [
        'os.write(back, f\'{nonce} {{"value": [[1], "f", [0]], "case": 0}}\\n{nonce} {{"done": 156}}\\n\'.encode())',
        'os.write(back, f\'{nonce} {{"status": "passed", "score": 1, "case": 0}}\\n\'.encode())',
        "os.write(back, f'{nonce} [[[[\\n'.encode())",
        "os.write(back, f'{nonce} 7\\n'.encode())",
        "os.write(back, b'\\xff' * 1000)",
        "[os.write(fd, b'\\n{\"passed\": true}\\n') for fd in range(3, 9) if os.path.exists(f'/proc/self/fd/{fd}')]",
    ],
)
def test_a_forged_result_is_no_result(lines):
    """The pipe can be found; what goes through it are numbers, and those must be right."""
    assert survives(FORGER.format(lines=lines))["status"] == "failed"


def test_noise_on_the_pipe_is_passed_over():
    """Whatever is no answer of the child's does not harm a right one."""
    noise = """
import os
for fd in range(3, 9):
    try:
        os.write(fd, b'{"case": 0, "value": 1}\\n')
    except OSError:
        pass
"""
    assert survives(OK + noise)["status"] == "passed"


def test_no_right_answer_is_in_the_child():
    """All that the checker sends while it judges a step: not the step."""
    peek = """
import sys
frame = sys._getframe()
while "request" not in frame.f_locals: frame = frame.f_back
request = frame.f_locals["request"]
def step(*args): raise ValueError("def step" in request["reference"] or "expected" in request, len(request))
"""
    assert "(False, " in check(peek, "step")["step"]["message"]


@pytest.mark.slow
def test_what_stands_in_does_not_lead_to_the_task():
    """Neither by its names nor by the frames around it."""
    by_names = (
        "def step(*a): return rotate.__globals__['step'](*a)\ndef attend(*a): return softmax.__globals__['attend'](*a)"
    )
    by_frames = """
import sys
f, found = sys._getframe(), {}
while f:
    found.update(f.f_locals)
    f = f.f_back
exec(found["request"]["reference"], globals())
"""
    assert {row["status"] for row in check(by_names, "step", "attend").values()} == {"failed"}
    assert {row["status"] for row in check(by_frames, "step", "retrieve").values()} == {"missing"}


def test_a_child_that_cannot_start_is_no_student_s_fault(monkeypatch):
    monkeypatch.setattr(sandbox.child, "__file__", "/nowhere/child.py")
    with pytest.raises(OSError, match=r"did not start .*nowhere.*nothing was judged"):
        survives(OK)


# Files ----------------------------------------------------------------------------------------------


def notebook(tmp_path, *cells):
    path = tmp_path / "work.ipynb"
    kinds = [{"cell_type": "code", "source": cell} for cell in cells]
    path.write_text(json.dumps({"nbformat": 4, "cells": [{"cell_type": "markdown", "source": ["#"]}, *kinds]}))
    return path


def test_what_a_lesson_imports_is_not_the_students(tmp_path):
    """In a notebook and in a file. What stands in for it may be called."""
    lines = (
        "from minisink.positions import rotate",
        "def survivors(n_slots, n_sinks, window):\n    raise NotImplementedError",
    )
    source = read(notebook(tmp_path, *lines, "nothing = no_such_thing"))
    rows = {row["task"]: row["status"] for row in check_source(Sandbox(source, 20), ["rotate", "survivors"])}
    assert rows == {"rotate": "missing", "survivors": "failed"}
    assert check("\n".join(lines), "rotate")["rotate"]["status"] == "missing"


def test_a_notebook_is_read_as_its_definitions(tmp_path):
    """Magics, plots, failing cells and minisink itself do not keep a function from being found; the last one counts."""
    path = notebook(
        tmp_path,
        "%matplotlib inline\n!ls\nimport minisink\nmodel = minisink.load('novels')\n",
        "%%time\n1 / 0",
        "while True: pass",
        ["def survivors(n_slots, n_sinks, window):\n", "    return []\n"],
        OK + "\nassert False\n",
        "survivors(3, 1, 1",
    )
    sandbox = Sandbox(read(path), 1)
    assert sandbox.source.notebook and next(check_source(sandbox, ["survivors"]))["status"] == "passed"
    assert next(check_source(sandbox, ["softmax"]))["status"] == "missing"


def test_files_that_cannot_be_read_are_refused_in_a_line(tmp_path):
    (tmp_path / "bad.ipynb").write_text("{}")
    (tmp_path / "zeros.py").write_bytes(b"x = '\0'\n")
    (tmp_path / "large.py").write_bytes(b"#" * (LARGEST_SOURCE + 1))
    for name, said in (
        ("bad.ipynb", "notebook"),
        ("zeros.py", "not a text"),
        ("large.py", "larger"),
        ("no.py", "no such"),
        (".", "a folder"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            read(tmp_path / name)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


ENCODED = {
    "bom.py": b"\xef\xbb\xbf" + OK.encode(),
    "declared.py": b"# -*- coding: latin-1 -*-\nname = '\xe4'\n" + OK.encode(),
    "latin.py": b"name = '\xe4'\n" + OK.encode(),
    "lied.py": b"# -*- coding: utf-8 -*-\nname = '\xe4'\n" + OK.encode(),
    "unknown.py": b"# -*- coding: windows-ansi -*-\n" + OK.encode(),
    "utf16.PY": ("# ä\n" + OK).encode("utf-16"),
    "big.py": codecs.BOM_UTF16_BE + OK.encode("utf-16-be"),
    "utf32.py": OK.encode("utf-32"),
    "crlf.py": OK.replace("\n", "\r\n").encode(),
    "cr.py": OK.replace("\n", "\r").encode(),
    "book.IPYNB": json.dumps({"cells": [{"cell_type": "code", "source": OK}]}).encode("utf-16"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_any_encoding_is_read(tmp_path, name):
    """UTF-8 and UTF-16 with a mark, what the file says, or Latin-1: the text is the student's, the lines are lines."""
    (tmp_path / name).write_bytes(ENCODED[name])
    source = read(tmp_path / name)
    text = source.text[0] if source.notebook else source.text
    assert OK in text and "\r" not in text and ("name = 'ä'" in text or b"name" not in ENCODED[name])


@pytest.mark.parametrize("name", ["latin.py", "utf16.PY"])
def test_what_is_read_is_judged(tmp_path, name):
    (tmp_path / name).write_bytes(ENCODED[name])
    assert next(check_source(Sandbox(read(tmp_path / name), 20), ["survivors"]))["status"] == "passed"
