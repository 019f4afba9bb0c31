"""The house: README's reading table is the shelf, in order; the wings stand around it. Imports point down.

A shelf file imports only from rows above its own. `by_the_book` is imported by nothing. `system` knows nothing of the
lesson and may be used by all; `families`, `hf` and `fast` may use the shelf up to `gpt2`; `evaluation`, `training`
and `experiments` anything below; `commands` everything. The README names the exceptions, above its table. Only
system/device.py names CuPy.
"""

import ast
import re
from pathlib import Path

import pytest

import minisink

PACKAGE = Path(minisink.__file__).parent
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
DESIGN = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
TABLE = README.split("## Read it in this order")[1].split("\n## ")[0]
SHELF = re.findall(r"\]\(minisink/(\w+)\.py\)", TABLE)
WINGS = [
    "system",
    "families",
    "hf",
    "fast",
    "retrieval",
    "evaluation",
    "training",
    "experiments",
    "chat",
    "wrong_turns",
    "teaching",
    "conformance",
    "live",
    "commands",
]  # each may use those before it
CODE = r"`(\w+)`(?:, | and )?"


def exceptions(text):
    """What the sentence above the table allows beside the rows above: {file: wings}.

    >>> exceptions("Exceptions: `a` imports `x`; `b` and `c` import `x` and `y`.") == {
    ...     "a": {"x"}, "b": {"x", "y"}, "c": {"x", "y"}}
    True
    """
    sentence = re.search(r"Exceptions: (.*?)\.\n", text + "\n", re.DOTALL)[1]
    found = {}
    for clause in sentence.split(";"):
        files, wings = re.split(r" imports? ", clause)
        found |= {file: set(re.findall(CODE, wings)) for file in re.findall(CODE, files)}
    return found


EXCEPTIONS = exceptions(TABLE)


def allowed(module):
    """The files of the shelf, and the wings, that a file may import from."""
    place = module.split(".")[0]
    if place in SHELF:
        return set(SHELF[1 : SHELF.index(place)]) | {"system"} | EXCEPTIONS.get(place, set())
    if place == "system":
        return {"system"}
    if place in ("families", "hf", "fast", "retrieval"):
        own = {"fast", "retrieval"} if place == "retrieval" else {place}
        return set(SHELF[1 : SHELF.index("gpt2") + 1]) | {"system", "families"} | own
    return set(SHELF[1:]) | set(WINGS[: WINGS.index(place) + 1]) | {"__init__"}  # the package itself, for its version


def imports(source, module):
    """What `source` imports of minisink, dotted from the package down ("__init__": the package itself), and "cupy".

    Imports inside functions count. `module` is where the source stands, as "llama" or "training.loop".
    """
    found, here = set(), ["minisink", *module.split(".")]
    names = {path.stem for path in PACKAGE.glob("*.py")} | set(WINGS)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {_inside(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            path = here[: len(here) - node.level] if node.level else []
            path += node.module.split(".") if node.module else []
            wanted = {alias.name for alias in node.names} if path == ["minisink"] else {""}
            found |= {_inside([*path, name] if name in names else path) for name in wanted}
        elif "cupy" in (getattr(node, "id", None), getattr(node, "value", None)):  # a name or a text
            found.add("cupy")
    return {name for name in found if name}


def _inside(path):
    if path[0] == "cupy":
        return "cupy"
    return None if path[0] != "minisink" else ".".join(path[1:]) or "__init__"


def complaints(source, module):
    """What is wrong with the imports of one file, a line each."""
    may, found = allowed(module), []
    for name in sorted(imports(source, module)):
        if name == "cupy":
            if module != "system.device":
                found.append(f"{module} names cupy; only system.device may")
        elif name.split(".")[0] not in may:
            found.append(f"{module} imports {name}, which does not stand below it")
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
FILES = [path for path in FILES if "weights" not in path.relative_to(PACKAGE).parts]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_point_down(file):
    """Every file stands on the shelf or in a wing, and imports from what is below it only."""
    module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    assert module.split(".")[0] in [*SHELF, *WINGS], "give the new file a row in README's table, or a wing"
    assert complaints(file.read_text(encoding="utf-8"), module) == []


def test_the_shelf_shows_the_lesson():
    """A flat file is a row of the table, and the table begins where a student does."""
    flat = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert set(SHELF) == flat and len(SHELF) == len(flat) <= 16
    begins = ["by_the_book", "ops", "positions", "cache", "attention", "paths", "sinks", "llama", "gpt2", "model"]
    assert SHELF[:10] == begins
    assert len(re.findall(r"^\| \[`", TABLE, re.MULTILINE)) == 11
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))} - {"weights"}
    assert folders == set(WINGS)
    rows = re.findall(r"^\| \[`\w+/`\]\(\.\./minisink/(\w+)\)", DESIGN, re.MULTILINE)
    assert rows == WINGS


def test_the_exceptions_are_those_that_are_made():
    """README says no more of them than there are, and all of them."""
    made = {}
    for file in SHELF[1:]:
        found = {name.split(".")[0] for name in imports((PACKAGE / f"{file}.py").read_text(encoding="utf-8"), file)}
        made[file] = found & set(WINGS) - {"system"}
    assert {file: wings for file, wings in made.items() if wings} == EXCEPTIONS


def test_the_book_leans_on_nothing():
    """Its loops import math and numpy, so that nothing can be wrong in both."""
    source = (PACKAGE / "by_the_book.py").read_text(encoding="utf-8")
    modules = [node.names[0].name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import)]
    assert (modules, imports(source, "by_the_book")) == (["math", "numpy"], set())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops", "from .positions import rotate"),  # a row below
        ("cache", "from .attention import attend"),
        ("attention", "from . import llama"),
        ("llama", "from minisink.gpt2 import Config"),
        ("llama", "import minisink.model"),
        ("llama", "from .hf.fields import number"),
        ("ops", "from .by_the_book import softmax"),
        ("commands.demo", "from ..by_the_book import softmax"),
        ("model", "def f():\n    from .generation import generate"),  # hidden in a function
        ("model", "from .fast.ring import RingCache"),
        ("fast.blocks", "from ..model import load"),
        ("fast.blocks", "from .. import keep_all"),  # a name of the package itself
        ("hf.folder", "import minisink"),
        ("system.files", "from ..ops import softmax"),
        ("sinks", "from .training.loop import train"),
        ("training.loop", "from ..commands.parser import main"),
        ("evaluation.run", "from ..experiments.speed import floor"),
        ("experiments.table", "from ..commands.common import dump"),
        ("ops", "import cupy"),
        ("ops", "from cupy import cuda"),
        ("ops", "import importlib\nimportlib.import_module('cupy')"),
    ],
)
def test_an_offender_is_found(module, source):
    """An import that points up or sideways, however it is written, is complained about once."""
    assert len(complaints(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("attention", "import numpy as np\nfrom .ops import softmax"),
        ("model", "from . import gpt2, llama\nfrom .cache import KVCache\nfrom .hf import folder"),
        ("loss", "from .fast.blocks import Banded\nfrom .system.device import to_host"),
        ("fast.decoder", "from ..gpt2 import check_learned\nfrom .ring import RingCache"),
        ("system.device", "import cupy\ncupy.asarray(1)"),
        ("training.loop", "from .data import batches\nfrom ..ops import softmax\nfrom ..hf.folder import raw_of"),
        ("experiments.table", "from minisink.loss import token_nll\nfrom ..training.loop import run"),
        ("commands.parser", "from .. import __version__\nimport minisink.generation\nfrom ..system.plots import draw"),
    ],
)
def test_what_stands_below_is_fine(module, source):
    """Imports that point down, and other packages, raise no complaint."""
    assert complaints(source, module) == []
