"""What the README shows is what happens, and it is short."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minisink.commands.parser import make_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d+\.\d+")


def test_it_is_two_screens_and_the_lesson_is_on_the_first():
    """At most 120 lines of at most 120 letters; the seven tokens and their six lines of code within the first 45."""
    lines = README.splitlines()
    assert len(lines) <= 120 and [line for line in lines if len(line) > 120] == []
    assert any("after token 6" in line for line in lines[:45])
    code, printed = re.search(r"```python\n(.*?)```\n```\n(.*?)```", README, re.DOTALL).groups()
    assert len([line for line in code.splitlines() if line]) == 6 and len(printed.splitlines()) == 7


def test_the_examples_print_what_stands_below_them(capsys):
    """One after the other, as a reader would type them."""
    examples, names = re.findall(r"```python\n(.*?)```\n```\n(.*?)```", README, re.DOTALL), {}
    assert len(examples) == 2
    for code, printed in examples:
        exec(compile(code, "README.md", "exec"), names)
        shown, now = printed.rstrip(), capsys.readouterr().out.rstrip()
        assert NUMBER.sub("#", shown) == NUMBER.sub("#", now)
        wanted = [float(x) for x in NUMBER.findall(shown)]
        assert [float(x) for x in NUMBER.findall(now)] == pytest.approx(wanted, rel=1e-3)


@pytest.mark.slow
def test_the_demo_ends_with_the_three_columns(run):
    """To the letter."""
    columns = re.search(r'^After "It was.*?^\(ppl .*?\n', README, re.DOTALL | re.MULTILINE)[0]
    status, out, _ = run("demo")
    assert status == 0 and columns in re.sub(r" +$", "", out, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))), reason="needs pip install 'minisink[parity]'"
)
def test_three_programs_give_one_loss():
    """The README's numbers are what benchmarks/parity.py prints, and all three are one."""
    shown = re.search(r"\$ python benchmarks/parity\.py.*?```", README, re.DOTALL)[0]
    command = [sys.executable, "-W", "ignore", "benchmarks/parity.py"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    wanted, now = ([float(x) for x in re.findall(r"\d\.\d{6}", text)] for text in (shown, ended.stdout))
    assert len(wanted) == 3 and len({*wanted}) == 1
    assert now == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_every_command_it_shows_is_one(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(r"^(?:.*\.venv/bin/)?minisink ([a-z][^`\n]*)$", text, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        make_parser().parse_args(shlex.split(command, comments=True))


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_link_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    for link in links:
        assert ((ROOT / page).parent / link.split("#")[0]).exists(), link
