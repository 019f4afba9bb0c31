"""No lesson asserts by a bare < or > that a loss is better: `paired` has the difference, and asks for three errors.

And no page shows two losses without the error of their difference, printed by a snippet or in a table.
"""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials,gguf,chat]'")

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("build", ROOT / "tutorials" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "weights").rglob("*.md"))]
PAGES += sorted((ROOT / "tutorials" / "teacher").glob("*.md"))
ALONE = {  # sections with numbers beside the word loss that do not set one loss of a text beside another
    ("docs/benchmarks.md", "Goals we set"): "speeds",
    ("docs/benchmarks.md", "One text on two processes"): "speeds, and the same losses",
    ("docs/training.md", "Speed"): "speeds",
    ("docs/training.md", "What moves a sink"): "a log keeps means, and the page says so",
    ("docs/retrieval.md", "What it costs"): "times",
    ("docs/retrieval.md", "What it does not do"): "a gain per model",
    ("docs/paper.md", "The paper, section by section"): "sections",
    ("docs/index.md", "minisink"): "hours",
    (
        "docs/check-your-cache.md",
        "A cache in PyTorch, and the authors' two numbers",
    ): "two programs, equal to the last digit",
    ("docs/clinic.md", "What is measured, and how"): "thresholds",
    ("docs/check-your-engine.md", "transformers"): "the largest difference of a token, not a mean",
    ("docs/check-your-engine.md", "llama.cpp"): "likewise",
    ("docs/check-your-engine.md", "An engine behind HTTP"): "likewise",
    ("tutorials/teacher/exam.md", "Exam: fifteen questions"): "the question is what is missing",
    ("docs/chat.md", "All day"): "each row has words of its own",
    ("docs/chat.md", "What changes after a hundred turns"): "each row has words of its own",
    ("tutorials/teacher/lecture.md", "Which row do you believe?"): "the question is what is missing",
    ("weights/README.md", "How strong their sinks are"): "a row per model",
    ("README.md", "minisink"): "three programs, equal to the last digit",
}
LOSSES = "perplexity token_nll nll_of nll_blocks gaps.run sink_parts.run streameval.run chain.stream".split()
COMPARED = {"paired", "allclose"}  # whatever makes something else of two losses
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
            if called(node) & {*COMPARED, *LOSSES}:
                return not called(node) & COMPARED
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


def page_id(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_a_page_compares_losses_with_their_error(path):
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert bare(blocks, asserts=False) == []
    assert alone(blocks) == []


def alone(blocks):
    """The blocks that print two losses or more, and no difference of them with its error."""
    losses, found = Losses(), []
    for block in blocks:
        tree = ast.parse(block)
        losses.read(tree.body, asserts=False)
        prints = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and "print" in called(node)]
        calls = [called(node) for each in prints for node in ast.walk(each) if isinstance(node, ast.Call)]
        if sum(n_losses(losses, tree, each) for each in prints) > 1 and not any("paired" in name for name in calls):
            found.append(block)
    return found


def n_losses(losses, tree, call):
    """How many losses a call prints; in a loop, more than one."""
    values = [part for arg in call.args for part in (arg.values if isinstance(arg, ast.JoinedStr) else [arg])]
    own = [value for value in values if losses.has(value)]
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and call in ast.walk(node)]
    loops += [node for value in own for node in ast.walk(value) if isinstance(node, ast.comprehension)]
    return len(own) * (2 if loops else 1)


def sections(text):
    """The title of each section and what stands below it, without the code; what code prints stays."""
    title, body, code = "", [], False
    for line in text.splitlines():
        if line.startswith("```"):
            code = not code and line == "```python"
        elif line.startswith("#") and not code:
            yield title, "\n".join(body)
            title, body = line.lstrip("# "), []
        elif not code:
            body.append(line)
    yield title, "\n".join(body)


def without_error(body):
    """Whether two numbers or more stand beside the word loss, and none of them has an error or an interval."""
    body = re.sub(r"\d{4}\.\d{5}", "", body)  # a number of arXiv
    speaks = re.search(r"perplexit|nats|\bloss\b", body)
    return bool(speaks) and len(re.findall(r"\d\.\d", body)) > 1 and not re.search(r"±|\[-?\d\S*, -?\d|interval", body)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_a_section_that_compares_losses_has_their_error(path):
    found = [title for title, body in sections(path.read_text(encoding="utf-8")) if without_error(body)]
    assert [title for title in found if title != "Recipe" and (page_id(path), title) not in ALONE] == []


@pytest.mark.parametrize(
    ("block", "n"),
    [
        ("for m in ms:\n    print(f'{m}: {perplexity(token_nll(model, ids, m)):.2f}')", 1),  # the README, once
        ("a = token_nll(model, ids)\nprint(perplexity(a), perplexity(a[5:]))", 1),
        ("print(*(perplexity(x) for x in both))", 1),
        ("a, b = (token_nll(model, ids, m) for m in ms)\nprint(perplexity(a), perplexity(b), paired(a, b))", 0),
        ("print(perplexity(token_nll(model, ids)))", 0),
        ("for m in ms:\n    print(m)", 0),
    ],
)  # fmt: skip
def test_losses_that_are_printed_alone_are_found(block, n):
    assert len(alone([block])) == n


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("perplexity 24.69 without and 18.86 with it", True),
        ("perplexity 24.69 without and 18.86 with it: +0.2693 ± 0.0091", False),
        ("nats 1.23 [0.98, 1.54] above 0.05", False),
        ("arXiv:2410.10781 and arXiv:2402.17762 on the loss", False),
        ("3.14 and 2.72 of something else", False),
    ],
)  # fmt: skip
def test_a_comparison_in_words_without_an_error_is_found(body, found):
    assert without_error(body) == found


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
