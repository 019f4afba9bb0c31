"""Copied work is seen through what a copier changes, and right work of one's own is nobody else's."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
import styles

from minisink import by_the_book
from minisink.teaching import copies, reference, tasks
from minisink.teaching.copies import REFERENCE, fingerprints, same_as, whole
from minisink.teaching.loading import made_by
from minisink.teaching.tasks import TASKS
from minisink.wrong_turns import right

ROOT = Path(__file__).resolve().parents[2]
OURS = inspect.getsource(right) + inspect.getsource(reference).replace("from ..wrong_turns.right import Cache\n", "")
BOOK = inspect.getsource(by_the_book)
VECTORS = """
import numpy as np

def softmax(x):
    e = np.exp(x - np.max(x))
    return e / np.sum(e)

def softmax1(x):
    m = max(0.0, np.max(x))
    e = np.exp(x - m)
    return e / (np.exp(-m) + np.sum(e))

def attend(q, k, v, visible):
    scores = q @ k.T / np.sqrt(q.shape[-1])
    scores = np.where(visible, scores, -np.inf)
    return np.stack([softmax(row) for row in scores]) @ v

def rotate(x, positions, theta):
    half = x.shape[1] // 2
    angle = np.asarray(positions)[:, None] * theta ** (-np.arange(half) / half)
    a, b = x[:, :half], x[:, half:]
    return np.hstack([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)])

def survivors(n_slots, n_sinks, window):
    return [i for i in range(n_slots) if i < n_sinks or i >= n_slots - window]

def positions_of(token_index, n_sinks, window):
    return list(range(len(token_index)))

def step(state, q, k, v, n_sinks, window, theta):
    keys, values = state if state is not None else (np.empty((0, len(k))), np.empty((0, len(v))))
    keys, values = np.vstack([keys, k]), np.vstack([values, v])
    keep = survivors(len(keys), n_sinks, window)
    keys, values = keys[keep], values[keep]
    n = len(keys)
    out = attend(rotate(q[None], [n - 1], theta), rotate(keys, range(n), theta), values, np.ones((1, n), bool))
    return out[0], (keys, values)

def token_nll(logits, ids):
    x = logits[:-1]
    m = x.max(axis=1, keepdims=True)
    return (m + np.log(np.exp(x - m).sum(axis=1, keepdims=True)))[:, 0] - x[np.arange(len(x)), ids[1:]]

def retrieve(q, keys, block, k, window, theta):
    scores = keys @ rotate(q[None], [window], theta)[0]
    best = [scores[i:i + block].max() for i in range(0, len(scores), block)]
    return np.argsort(best)[::-1][:k]
"""
LOOPS = """
from math import cos, exp, inf, log, sin, sqrt

def softmax(x):
    largest = max(x)
    powers = [exp(a - largest) for a in x]
    total = sum(powers)
    return [p / total for p in powers]

def attend(q, k, v, visible):
    out = []
    for t in range(len(q)):
        scores = []
        for s in range(len(k)):
            if visible[t][s]:
                scores.append(sum(a * b for a, b in zip(q[t], k[s])) / sqrt(len(q[t])))
            else:
                scores.append(-inf)
        weights = softmax(scores)
        out.append([sum(w * row[d] for w, row in zip(weights, v)) for d in range(len(v[0]))])
    return out

def rotate(x, positions, theta):
    out = [[0.0] * len(row) for row in x]
    for t in range(len(x)):
        D = len(x[t])
        for j in range(D // 2):
            angle = positions[t] * theta ** (-2 * j / D)
            a, b = x[t][j], x[t][j + D // 2]
            out[t][j] = a * cos(angle) - b * sin(angle)
            out[t][j + D // 2] = b * cos(angle) + a * sin(angle)
    return out

def token_nll(logits, ids):
    losses = []
    for t in range(len(ids) - 1):
        m = max(logits[t])
        losses.append(m + log(sum(exp(a - m) for a in logits[t])) - logits[t][ids[t + 1]])
    return losses
"""
OTHERS = {**styles.STYLES, "vectors": VECTORS, "loops": LOOPS}


class Disguised(ast.NodeTransformer):
    """A copy whose names, docstrings, annotations, imports and layout are others."""

    def __init__(self, text):
        tree = ast.parse(text)
        names = made_by(tree) | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        names -= {*TASKS, "self", "name", "np", "math"}
        self.names = {name: f"mine_{i}" for i, name in enumerate(sorted(names))}

    def visit_Name(self, node):
        if node.id == "np":
            node.id = "numpy"
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_arg(self, node):
        node.arg = self.names.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node):
        if ast.get_docstring(node):
            node.body[0] = ast.parse("print('here')").body[0]
        for each in node.args.args:
            each.annotation = ast.Name("object", ast.Load())
        node.name, node.returns = self.names.get(node.name, node.name), ast.Constant("a list")
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node):
        node.name = self.names.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_keyword(self, node):
        node.arg = self.names.get(node.arg, node.arg)
        self.generic_visit(node)
        return node

    def visit_Import(self, node):
        return ast.parse("import numpy").body[0] if node.names[0].name == "numpy" else node


def disguised(text):
    """Return a copy that looks like other code."""
    return ast.unparse(ast.fix_missing_locations(Disguised(text).visit(ast.parse(text))))


@pytest.mark.parametrize("copy", [str, disguised])
def test_a_copy_of_minisink_s_own_is_seen(copy):
    named = same_as(fingerprints(copy(OURS)))
    long = {*TASKS} - {"softmax", "survivors", "positions_of"}
    assert {task for task, where in named.items() if where == REFERENCE} >= long
    assert whole(named.values()) == REFERENCE
    assert whole(same_as(fingerprints(copy(BOOK))).values()) == "minisink by the book"


def test_a_copy_under_another_name_and_in_another_place_is_seen():
    """A function that is only called, one within another, an alias."""
    body = inspect.getsource(reference.rotate).replace("def rotate", "def turned")
    for call in (
        "def rotate(x, at, theta):\n    return turned(x, at, theta)",
        "check_functions(softmax=softmax, rotate=turned)",
        "rotate = turned",
        "rotate = lambda *args: turned(*args)",
    ):
        assert same_as(fingerprints(f"import numpy as N\n{body.replace('np.', 'N.')}\n{call}"))["rotate"] == REFERENCE
    inner = "\n    ".join(body.split("\n"))
    around = f"def make():\n    {inner}\n    return turned\nrotate = make()"
    assert same_as(fingerprints(f"import numpy as np\n{around}"))["rotate"] == REFERENCE


def test_a_copy_that_was_worked_over_is_seen():
    """Lines that change places, lines put in, a line rewritten; half of another's is not a copy."""
    rotate = inspect.getsource(reference.rotate)
    for old, new in (
        (
            "    half = x.shape[-1] // 2\n",
            "    assert x.ndim\n    print(theta)\n    half = x.shape[-1] // 2\n    size = 2 * half\n",
        ),
        ("    if x.ndim > angles.ndim:", "    if angles.ndim < x.ndim:"),
        ("(a * cos - b * sin, b * cos + a * sin)", "(-b * sin + a * cos, a * sin + b * cos)"),
    ):
        assert old in rotate
        assert same_as(fingerprints("import numpy as np\n" + rotate.replace(old, new)))["rotate"] == REFERENCE
    twice = (
        "def rotate(x, positions, theta):\n"
        + "    y = [{0} * theta for {0} in x] + [2 - {1} for {1} in x] * len(x)\n" * 2
    )
    pair = [fingerprints(twice.format(*names).replace("2", n)) for n in "23" for names in ("aa", "ab")]
    assert pair[0] == pair[1] != pair[2] == pair[3]
    lines = disguised("import numpy as np\n" + rotate).split("\n")
    first = next(i for i, line in enumerate(lines) if "// 2" in line)
    lines[first - 1], lines[first] = lines[first], lines[first - 1]
    assert same_as(fingerprints("\n".join(lines)))["rotate"] == REFERENCE
    half = (
        "def rotate(x, positions, theta):\n"
        + "\n".join(rotate.split("\n")[2:5])
        + VECTORS.partition("half = ")[2].partition("\n")[2]
    )
    assert same_as(fingerprints("import numpy as np\n" + half))["rotate"] is None


@pytest.mark.parametrize("name", OTHERS)
def test_right_work_of_one_s_own_is_nobody_else_s(name):
    others = {other: fingerprints(text) for other, text in OTHERS.items() if other != name}
    assert set(same_as(fingerprints(OTHERS[name]), others).values()) == {None}


def test_short_functions_and_the_template_are_nobody_s():
    """Ten times the same softmax, and the stubs."""
    short = VECTORS.partition("def attend")[0]
    assert set(same_as(fingerprints(short), {str(i): fingerprints(short) for i in range(10)}).values()) == {None}
    stubs = fingerprints(tasks.template())
    assert set(same_as(stubs, {"b.py": stubs}).values()) == {None}


def test_students_with_the_same_function_name_each_other():
    """And not each other where both have minisink's."""
    anna, ben = fingerprints(VECTORS), fingerprints(disguised(VECTORS).partition("def survivors")[0])
    named, back = same_as(anna, {"ben.py": ben}), same_as(ben, {"anna.py": anna})
    assert named["rotate"] == "ben.py" and back["rotate"] == "anna.py" and named["step"] is None
    ours = fingerprints(OURS)
    assert whole(same_as(ours, {"b.py": ours}).values()) == REFERENCE


READS = {
    "exec": "import zipfile\nz = zipfile.ZipFile('minisink-1.whl')\nexec(z.read('r.py').decode(), globals())",
    "importlib.import_module": "import importlib\nr = importlib.import_module('minisink.teaching.reference')",
    "__import__": "r = __import__('minisink.wrong_turns.right')",
    "eval": "def softmax(x):\n    return eval(open('a').read())",
}


@pytest.mark.parametrize("what", READS)
def test_what_is_read_at_run_time_is_said(what):
    assert same_as(fingerprints(READS[what]))["softmax"] == f"code read at run time ({what})"


NEEDED = [
    "from minisink import ops\nfrom minisink.teaching import check_functions\nimport minisink.conformance",
    "from minisink.by_the_book import evict\nfrom minisink.teaching.figures import for_a_lesson\n",
    "from minisink.hf.shipped import sample_text\ntext = open('data.txt').read()\nprint('with minisink')\n",
    "get_ipython().system('pip install minisink-1.whl')\nnames = []\nnames.append('minisink')\n",
    "import sys, importlib.util\nsys.path.append('/content/minisink')\nthere = importlib.util.find_spec('minisink')\n",
    "import re\nr = re.compile('a' + 'b')\nimport inspect\nprint(inspect.getsource(print))\n",
    "def softmax(x:\n    return\n",
    "x = " + "(" * 500,
    "-" * 50_000 + "1",
    "pattern = '\\d'\n",
]


@pytest.mark.parametrize("text", NEEDED, ids=lambda text: repr(text[:20]))
def test_what_a_notebook_needs_is_not_called_a_copy(text):
    """A lesson's imports, one's own data, a word about minisink; text that is no Python; and all without a warning."""
    assert set(same_as(fingerprints(text)).values()) == {None}


def test_nested_code_is_read():
    nested = "def softmax(x):\n" + "".join(" " * i + "if x:\n" for i in range(1, 90)) + " " * 95 + "return 1\n"
    assert set(same_as(fingerprints(nested)).values()) == {None}


def test_a_file_with_a_broken_line_and_cells_are_read():
    broken = f"{VECTORS}\nthis is no Python\n"
    assert fingerprints(broken).tasks == fingerprints(VECTORS).tasks
    assert fingerprints(VECTORS.split("\n\n")).tasks == fingerprints(VECTORS).tasks


def of_the_template():
    """The digests of the lines that its loops show."""
    shown = [line.strip() + " pass" * line.endswith(":") for line in "".join(tasks.LOOPS.values()).split("\n")]
    return copies.lines(copies.read(["\n".join(shown)])).keys()


@pytest.mark.slow
def test_the_lessons_solutions_are_known_and_what_lessons_give_is_not(monkeypatch):
    """`lessons.txt` is what tutorials/ and the template give."""
    sys.path.insert(0, str(ROOT / "tutorials"))
    try:
        import build
    finally:
        sys.path.pop(0)
    known = {**copies.KNOWN}
    monkeypatch.setitem(copies.KNOWN, "given", set())
    found = {"given": {*of_the_template()}}
    copies.KNOWN["given"] |= found["given"]
    for path in build.lessons():
        text = path.read_text(encoding="utf-8")
        cells = re.findall(r"^```\{code-cell\}.*?\n(?:---\n.*?^---\n)?(.*?)^```", text, re.M | re.S)
        statements = copies.read(map(build.solved, cells))
        trees = [(cell, node) for cell in cells for node in ast.parse(cell).body if isinstance(node, ast.FunctionDef)]
        asked = {node.name for cell, node in trees if build.BEGIN in ast.get_source_segment(cell, node)}
        for task in re.findall(r"(\w+)=\w+", "".join(re.findall(r"check_functions\((.*?)\)", text))):
            for part in copies.made_of(task, statements):
                lines = copies.lines([part])
                if getattr(part, "name", None) not in asked:
                    found["given"].update(lines)
                elif sum(lines.values()) >= copies.LEAST:
                    found.setdefault(f"the solution of lesson {int(path.name[:2])}", set()).update(lines)
    lines = "\n".join(f"{where}: {' '.join(sorted(digests))}" for where, digests in found.items())
    assert known == found, f"write these lines into lessons.txt:\n{lines}"
