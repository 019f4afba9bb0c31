"""A module imports only from floors below its own; siblings never import each other; only device.py names CuPy."""

import ast
from pathlib import Path

import pytest

import minisink

PACKAGE = Path(minisink.__file__).parent
FLOORS = {
    "ops": 0,
    "positions": 0,
    "cache": 0,
    "device": 0,
    "fields": 0,
    "resources": 0,
    "attention": 1,
    "snapshot": 1,
    "llama": 2,
    "gpt2": 2,
    "checkpoint": 2,
    "errors": 0,
    "files": 0,
    "interrupts": 0,
    "texts": 0,
    "tape": 0,
    "tally": 0,
    "hub": 2,
    "model": 3,
    "streaming": 4,
    "methods": 4,
    "ring": 4,
    "fused": 4.3,
    "decoder": 4.6,  # the ring, the fused weights, and the blocks of `streaming` for a prompt
    "generate": 5,
    "perplexity": 5,
    "sinks": 5,
    "terminal": 5,
    "evaluation": 5.3,
    "__init__": 5.5,  # the public face of the floors below it
    "training": 5.5,  # beside the house: imported by nothing below floor 6
    "experiments": 6,
    "plots": 6,
    "commands": 6.5,
    "cli": 7,
    "__main__": 8,
    "weights": 8,  # data with an __init__.py, imported by nothing
}
INSIDE = {"training"}  # folders whose files may lean on each other


def imports(source, module):
    """Names of the minisink modules, dotted from the package down, that `source` imports; and "cupy" if it names that.

    Imports inside functions count. `module` is where the source stands: ("llama",) or ("training", "loop").
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {_inside(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = ["minisink", *module][: len(module) + 1 - node.level] if node.level else []
            path = here + (node.module.split(".") if node.module else [])
            names = {alias.name for alias in node.names} if path == ["minisink"] else set()
            found |= {_inside([*path, name] if name in FLOORS else path) for name in names or {""}}
        elif (
            isinstance(node, ast.Name) and node.id == "cupy" or isinstance(node, ast.Constant) and node.value == "cupy"
        ):
            found.add("cupy")
    return {name for name in found if name}


def _inside(path):
    """The dotted name below minisink, "__init__" for the package itself; "cupy"; or None for what is not ours."""
    if path[0] == "cupy":
        return "cupy"
    return None if path[0] != "minisink" else ".".join(path[1:]) or "__init__"


def complaints(source, module):
    """What is wrong with the imports of one file, a line each."""
    own, found = module[0], []
    for name in sorted(imports(source, module)):
        other = name.split(".")[0]
        if name == "cupy":
            if own != "device":
                found.append(f"{'.'.join(module)} names cupy; only device.py may")
        elif other == own and own in INSIDE:
            continue
        elif other not in FLOORS:
            found.append(f"{'.'.join(module)} imports {name}, which stands on no floor")
        elif FLOORS[other] >= FLOORS[own]:
            found.append(f"{'.'.join(module)} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_below(file):
    """Every file stands on a floor, and imports from the floors below it only."""
    module = file.relative_to(PACKAGE).with_suffix("").parts
    assert module[0] in FLOORS, "give the new module a floor"
    assert complaints(file.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops", "from .positions import rotate"),  # a sibling
        ("cache", "from .attention import attend"),  # up
        ("attention", "from . import llama"),
        ("llama", "from minisink.gpt2 import Config"),
        ("llama", "import minisink.model"),
        ("model", "def f():\n    from .generate import generate"),  # hidden in a function
        ("perplexity", "from .generate import generate"),
        ("streaming", "from . import keep_all"),  # a name of the package itself
        ("streaming", "import minisink"),
        ("sinks", "from .training.loop import train"),
        ("training.loop", "from ..cli import main"),
        ("experiments.table", "from .figure import draw"),
        ("experiments.table", "from ..plots import draw"),
        ("ops", "import cupy"),
        ("ops", "from cupy import cuda"),
        ("ops", "import importlib\nimportlib.import_module('cupy')"),
    ],
)
def test_an_offender_is_found(module, source):
    """An import that points up or sideways, however it is written, is complained about once."""
    assert len(complaints(source, tuple(module.split(".")))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("attention", "import numpy as np\nfrom .ops import softmax"),
        ("model", "from . import gpt2, llama\nfrom .cache import KVCache"),
        ("device", "import cupy\ncupy.asarray(1)"),
        ("training.loop", "from .data import batches\nfrom ..ops import softmax"),
        ("experiments.table", "from minisink.perplexity import token_nll"),
        ("cli", "import minisink.generate\nfrom .plots import draw"),
    ],
)
def test_what_stands_on_lower_floors_is_fine(module, source):
    """Imports that point down, and other packages, raise no complaint."""
    assert complaints(source, tuple(module.split("."))) == []
