"""A method is a value: it travels as one argument, and its fields travel with nobody else."""

import ast
import inspect
from pathlib import Path

import pytest

import minisink

PACKAGE = Path(minisink.__file__).parent
OF_METHODS = {"n_sinks", "window", "positions", "n_blocks", "block", "select", "store", "lead"}
FUNCTIONS = [
    (f"{path.relative_to(PACKAGE)}:{node.name}", node)
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
]


def parameters(node):
    """Names that a function takes; those of a class are the fields of a dataclass."""
    if isinstance(node, ast.ClassDef):
        return [x.target.id for x in node.body if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)]
    args = node.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def test_the_fields_of_a_method_travel_together_in_three_places_at_most():
    carry = [name for name, node in FUNCTIONS if len(OF_METHODS & {*parameters(node)}) >= 4]
    assert len(carry) <= 3, carry


def test_no_dict_carries_them_either():
    """No literal with the names of three fields of a method, in braces or as keywords of dict()."""
    carry = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            keys = set()
            if isinstance(node, ast.Dict):  # a dict of texts is one of help texts
                pairs = zip(node.keys, node.values, strict=True)
                keys = {k.value for k, v in pairs if isinstance(k, ast.Constant) and not isinstance(v, ast.Constant)}
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict":
                keys = {keyword.arg for keyword in node.keywords}
            if len(OF_METHODS & keys) >= 3:
                carry.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert carry == []


@pytest.mark.parametrize(("function", "most"), [(minisink.token_nll, 6), (minisink.generate, 12)])
def test_a_call_fits_on_a_screen(function, most):
    assert len(inspect.signature(function).parameters) <= most


def test_no_function_takes_more_than_fourteen():
    many = [
        f"{name}: {len(parameters(node))}"
        for name, node in FUNCTIONS
        if isinstance(node, ast.FunctionDef) and len(parameters(node)) > 14
    ]
    assert many == []


def test_no_body_is_longer_than_a_screen():
    """Forty lines from the first statement on, the docstring not counted."""
    long = []
    for name, node in FUNCTIONS:
        if isinstance(node, ast.FunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            if body and body[-1].end_lineno - body[0].lineno + 1 > 40:
                long.append(name)
    assert long == []
