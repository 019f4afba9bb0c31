"""The pages name functions that are there, tests that exist and commands that parse."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from minisink.commands.parser import make_parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "weights").rglob("*.md"))
CODE = re.compile(r"`([^`\n]+)`")


def named(dotted):
    """Whether minisink has something of that name, a test file or not."""
    *path, last = dotted.split(".")
    for n in range(len(path), 0, -1):
        try:
            found = import_module(".".join(["minisink", *path[:n]]))
        except ModuleNotFoundError:
            continue
        for name in [*path[n:], last]:
            found = getattr(found, name, None) or getattr(found, "__dataclass_fields__", {}).get(name)
        return found is not None
    return False


def test_the_paper_page_names_what_is_there():
    """Every function and every test of the table."""
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    tests = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    functions = [name for row in rows for name in CODE.findall(row[3]) if "." in name]
    assert len(functions) > 12 and [name for name in functions if not named(name)] == []
    wanted = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", page)
    assert len(wanted) > 12
    assert [name for file, name in wanted if file not in tests or f"def {name}" not in tests[file]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_parses(page):
    """Whatever begins with "minisink " in code is a command, its options and all; a letter stands for a number."""
    for line in CODE.findall(page.read_text(encoding="utf-8")):
        if line.startswith("minisink ") and not line.startswith("minisink train lm") and "…" not in line:
            argv = shlex.split(re.sub(r"(?<= )[A-Z]\b(?! )|(?<= )[A-Z](?= )", "1", line.split(" > ")[0]))[1:]
            try:
                make_parser().parse_args(argv)
            except SystemExit as stop:
                complete = stop.code == 0 or len(argv) < 3  # `minisink ppl` is the name of a command, not a call
                assert complete, line
