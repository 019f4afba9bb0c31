"""What the README shows is what happens."""

import re
import shlex
from pathlib import Path

import pytest

from minisink.commands.parser import make_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_examples_print_what_stands_below_them(capsys):
    """One after the other, as a reader would type them."""
    examples, names = re.findall(r"```python\n(.*?)```\nprints\n```\n(.*?)```", README, re.DOTALL), {}
    assert len(examples) == 2
    for code, printed in examples:
        exec(compile(code, "README.md", "exec"), names)
        number = r"\d+\.\d+"
        shown, now = printed.rstrip(), capsys.readouterr().out.rstrip()
        assert re.sub(number, "#", shown) == re.sub(number, "#", now)
        wanted = [float(x) for x in re.findall(number, shown)]
        assert [float(x) for x in re.findall(number, now)] == pytest.approx(wanted, rel=1e-3)


def test_every_command_it_shows_is_one():
    commands = [line for line in README.splitlines() if line.startswith("minisink ")]
    assert len(commands) >= 5
    for line in commands:
        make_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_link_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    for link in links:
        assert ((ROOT / page).parent / link.split("#")[0]).exists(), link
