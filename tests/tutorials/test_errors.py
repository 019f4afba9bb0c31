"""No lesson asserts by a bare < or > that a loss is better: `paired` has the difference, and asks for three errors."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials]'")

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("build", ROOT / "tutorials" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

LOSSES = "perplexity token_nll nll_of nll_blocks gaps.run sink_parts.run streameval.run chain.stream".split()
ORDER = ast.Lt | ast.LtE | ast.Gt | ast.GtE


def called(node):
    """The name of a call, with the one before its last dot and without."""
    name = ast.unparse(node.func).split(".")
    return {name[-1], ".".join(name[-2:])}


class Losses:
    """The names that hold losses, statement by statement, and the comparisons of them."""

    def __init__(self):
        self.names, self.compared = set(), []

    def has(self, node):
        """Whether a loss is in an expression; `paired` makes something else of it, whose bare mean is one again."""
        if isinstance(node, ast.Call):
            if called(node) & {"paired", *LOSSES}:
                return "paired" not in called(node)
            if isinstance(node.func, ast.Attribute):
                return any(map(self.has, (node.func.value, *node.args, *node.keywords)))
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.Attribute) and node.attr == "mean":
            return True
        return any(self.has(child) for child in ast.iter_child_nodes(node))

    def assign(self, target, value):
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        values = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(parts) else [value] * len(parts)
        for part, own in zip(parts, values, strict=True):
            if isinstance(part, ast.Tuple):
                self.assign(part, own)
                continue
            whole = part
            while isinstance(whole, ast.Subscript | ast.Attribute | ast.Starred):
                whole = whole.value
            if self.has(own):
                self.names.add(whole.id)
            elif whole is part:
                self.names.discard(whole.id)

    def read(self, statements, *, asserts=True):
        """Go through statements; compare where they assert, or anywhere."""
        for node in statements:
            for inner in [node] if isinstance(node, ast.Assert) or not asserts else []:
                self.compare(inner)
            if isinstance(node, ast.FunctionDef):
                names = set(self.names)
                self.read(node.body, asserts=asserts)
                makes = any(self.has(x) for x in ast.walk(node) if isinstance(x, ast.Return))
                self.names = names | {node.name} if makes else names
                continue
            if isinstance(node, ast.For):
                self.assign(node.target, node.iter)
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self.assign(target, node.value)
            if isinstance(node, ast.AugAssign) and self.has(node.value):
                self.assign(node.target, node.value)
            for block in ("body", "orelse", "finalbody"):
                self.read(getattr(node, block, []), asserts=asserts)
            for handler in getattr(node, "handlers", []):
                self.read(handler.body, asserts=asserts)

    def compare(self, node):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Compare):
                sides = [inner.left, *inner.comparators]
                for a, sign, b in zip(sides, inner.ops, sides[1:], strict=False):
                    if isinstance(sign, ORDER) and (self.has(a) or self.has(b)):
                        self.compared.append(ast.unparse(inner))


def bare(sources, **how):
    """The comparisons of losses in some cells."""
    losses = Losses()
    for source in sources:
        losses.read(ast.parse(source).body, **how)
    return losses.compared


@pytest.mark.parametrize("path", build.lessons(), ids=lambda path: path.stem)
def test_a_lesson_compares_losses_with_their_error(path):
    assert bare(cell.source for cell in build.code_cells(build.read(path))) == []


def test_the_solutions_compare_losses_with_their_error():
    page = (ROOT / "tutorials" / "teacher" / "solutions.md").read_text(encoding="utf-8")
    assert bare(re.findall(r"```python\n(.*?)```", page, re.DOTALL), asserts=False) == []


@pytest.mark.parametrize(
    ("cell", "n"),
    [
        ("late, right = (perplexity(x) for x in both)\nassert differ > 1 and late < right", 1),  # lesson 4, once
        ("s = {}\ns[name] = perplexity(x)\nassert s['one too many'] < s['right']", 1),  # lesson 8, once
        ("a = minisink.perplexity(x)\nassert a < 3", 1),
        ("a = {}\nfor m in ms:\n    a[m] = 1, perplexity(x)\nassert a[1][1] > a[2][1]", 1),
        ("def f(x):\n    y = token_nll(model, x)\n    return y.mean()\na, b = map(f, texts)\nassert 0 < a - b < 1", 2),
        ("nll = token_nll(model, ids)\ngap = paired(nll, nll[::-1])\nassert gap.above(0)", 0),
        ("assert paired(a, b).mean > 0", 1),
        ("assert a.mean() > 0", 0),
        ("nll = token_nll(model, ids)\nnll = 3\nassert nll > 2", 0),
        ("a, b = perplexity(x), 3\nassert b > 2", 0),
        ("try:\n    a = load()\nexcept ValueError:\n    a = perplexity(x)\nassert abs(a / 3) < 1", 1),
    ],
)  # fmt: skip
def test_a_comparison_of_losses_is_found(cell, n):
    assert len(bare([cell])) == n
