"""Slides hold what the lessons hold, need nothing from elsewhere, and give no solution away."""

import base64
import doctest
import importlib.util
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisink.system.errors import run_command

pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials,gguf,chat]'")
import nbformat  # noqa: E402

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("slides", ROOT / "tutorials" / "teacher" / "slides.py")
slides = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slides)

PNG = b"\x89PNG\r\n\x1a\n and more"
WRONG = "What others got wrong"  # first in words, then what it prints
ORDER = ["The question", "Predict", "Run", "Why", "Exercise", WRONG, WRONG, "Milestone"]
SOLUTION = "return math.pi * r * r"
WRITE = f'def area(r):  # a number -> a number\n    """pi r r, by a loop"""\n    {SOLUTION}'
HOSTILE = [
    "See [the paper](https://example.org/a.pdf) or <https://example.org>, or https://example.org/b?c=d.",
    "![a figure](http://example.org/a.png)",
    '<script src="//example.org/a.js"></script><img src=x onerror="alert(1)">',
    "<style>@import url(//example.org/a.css)</style>",
    "`<link rel=stylesheet href=https://example.org>` and **<iframe src=//example.org>**",
    "a \" quote' & an &amp; $x_i^{<b>}$ and a \x00 or two",
    "</section></body></html>",
    "**Bold?** Yes.",
]


def words(section, text):
    return nbformat.v4.new_markdown_cell(text, metadata={"minisink": {"section": section}})


def code(section, source, *, png=None, prints=None):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=prints)] if prints else []
    if png:
        data = {"image/png": base64.b64encode(png).decode(), "text/plain": "<Figure>"}
        outputs.append(nbformat.v4.new_output("display_data", data=data))
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata={"minisink": {"section": section}})


def lesson(title="5. A circle", text="How far around is it?", png=PNG, prints="Around it is 6.28."):
    cells = [words(None, f"# {title}\n\n[Open in Colab](https://example.org)")]
    cells += [words("The question", f"## The question\n{text}")]
    cells += [words("Predict", f"## Predict\n1. {text}\n2. And twice?")]
    cells += [words("Run", "## Run\nNow."), code("Run", "draw()", png=png, prints="noise")]
    cells += [words("Why", f"## Why\n**A lead.** {text}\n\nNo lead.")]
    cells += [words("Exercise", "## Exercise\nWrite it."), code("Exercise", WRITE)]
    cells += [words(WRONG, f"## {WRONG}\n{text}"), code(WRONG, "tried()", prints=text)]
    cells += [words("Milestone", "## Milestone"), code("Milestone", "assert True", prints=prints)]
    return nbformat.v4.new_notebook(cells=[*cells, words("Read on", "## Read on\n- `minisink/ops.py`")])


class Page(HTMLParser):
    """Every tag and attribute of a page, and the words of each section."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.sections = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag == "section":
            self.sections.append("")

    def handle_data(self, data):
        if self.sections:
            self.sections[-1] += data


def asks_elsewhere(html):
    """What of a page would fetch something, or go somewhere."""
    page = Page(html)
    found = [a for a in page.attributes if a[1] in ("href", "action", "srcset", "data", "poster") or a[1][:2] == "on"]
    found += [a for a in page.attributes if a[1] == "src" and not a[2].startswith("data:image/png;base64,")]
    found += re.findall(r"\w*://", html)
    found += re.findall(r"url\(|@import", "".join(re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)))
    extra = [tag for tag in page.tags if tag in ("iframe", "object", "embed", "link", "audio", "video")]
    return found + extra + [tag for tag in ("script", "style", "body") if page.tags.count(tag) != 1]


@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=30), min_size=1, max_size=4).map(" ".join))
def test_whatever_a_lesson_says_its_slides_ask_nothing_of_anybody(text):
    page = slides.deck([lesson(text=text, prints=text or "x"), lesson(title="6. " + " ".join(text.split()))])
    assert asks_elsewhere(page) == []


def test_the_search_for_addresses_finds_them_and_the_browser_is_told_to_fetch_nothing():
    page = slides.deck([lesson()])
    assert asks_elsewhere(page) == []
    for bad in ('<a href="x">', '<img src="a.png">', "<link rel=x>", '<p onclick="x">', "<script></script>", "ftp://x"):
        assert asks_elsewhere(page.replace("<section>", bad + "<section>", 1))
    assert asks_elsewhere(page.replace("body {", "body { background: url(x);"))
    (policy,) = [a[2] for a in Page(page).attributes if a[1] == "content" and "-src" in a[2]]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_a_lesson_is_shown_in_order_under_its_headings():
    page = slides.deck([lesson(title="5. A circle"), lesson(title="6. A square")])
    sections = Page(page).sections
    assert len(sections) == 1 + 2 * (1 + len(ORDER))
    assert f'counter(slide) " / {len(sections)}"' in page
    for n, title in enumerate(("5. A circle", "6. A square")):
        own = sections[1 + n * (1 + len(ORDER)) :][: 1 + len(ORDER)]
        assert own[0].strip() == title
        for heading, slide in zip(ORDER, own[1:], strict=True):
            assert slide.startswith(title + heading)
        assert "How far around is it?" in own[1] and "A lead. How far" in own[4] and "No lead" not in own[4]
        assert "Around it is 6.28." in own[8] and "noise" not in own[8]


def test_a_table_is_shown_with_the_question_and_where_guesses_go():
    table = "| | dense | cache |\n|---|---|---|\n| first | 37.86 | `n` |\n| then | | |\n"
    own = slides.slides_of(lesson(text=f"Look:\n\n{table}\nWhy is that?\n\n*My prediction:*"))
    for slide in own[1:3]:
        rows = re.sub(r"\s*\n\s*", "", re.search(r"<tbody>(.*)</tbody>", slide, re.DOTALL)[1])
        assert rows == (
            "<tr><td>first</td><td>37.86</td><td><code>n</code></td></tr><tr><td>then</td><td></td><td></td></tr>"
        )
    assert "Look:" in own[2] and "Look:" not in own[1] and "My prediction" not in own[2]


def test_a_quotation_is_not_cut():
    text = 'First. "My GPT-2 looks. Is it wrong?" People ask. So: no.'
    assert slides.sentences(text) == ["First.", '"My GPT-2 looks. Is it wrong?" People ask.', "So: no."]


@given(st.binary(min_size=1, max_size=200))
def test_figures_are_in_the_file_as_they_were(png):
    made = [a[2] for a in Page(slides.deck([lesson(png=png)])).attributes if a[1] == "src"]
    assert [base64.b64decode(src.split(",")[1]) for src in made] == [png]


def test_a_picture_says_to_a_screen_reader_what_its_cell_says_of_it():
    """Whatever the words, they stay words; a cell that says nothing has the lesson's title."""
    book = lesson()
    says = 'a "ring" <b>of</b> four keys'
    drawing = code("Why", "draw()", png=PNG)
    drawing.metadata["mystnb"] = {"image": {"alt": says}}
    book.cells.append(drawing)
    alts = [a[2] for a in Page(slides.deck([book])).attributes if a[:2] == ("img", "alt")]
    assert alts == ["Figure of lesson 5. A circle", says]


def test_what_is_to_be_written_is_shown_and_the_solution_is_not():
    page = slides.deck([lesson()])
    assert "def area(r):  # a number -&gt; a number" in page and "by a loop" in page
    assert SOLUTION not in page and "math.pi" not in page


def test_every_shipped_lesson_has_something_for_every_slide():
    """And no TeX is left that is not shown as letters."""
    for path in slides.build.lessons():
        book = slides.build.solution(path)
        book.cells += [code("Run", "", png=PNG), code("Milestone", "", prints="a number")]
        made = slides.slides_of(book)
        assert [heading for heading in ORDER if f"</small>{heading}</h2>" not in "".join(made)] == [], path.name
        assert "\\" not in "".join(re.findall(r"<i>.*?</i>", "".join(made)))


def test_a_formula_is_shown_as_letters():
    assert doctest.testmod(slides) == (0, 1)


@pytest.mark.parametrize(
    ("notebook", "names", "complaint"),
    [
        (json.dumps(lesson(png=None)), [], "'5. A circle' has no figure"),
        ("{", [], "05-circle.ipynb: no notebook"),
        ("[1]", [], "05-circle.ipynb: no notebook"),
        ('{"cells": []}', [], "is no lesson"),
        (json.dumps(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 5.")])), [], "is no lesson"),
        (json.dumps(lesson()), ["07"], "no lesson begins with '07'; there are 05-circle"),
        (None, [], "no lessons; python tutorials/build.py docs"),
    ],
)
def test_what_is_no_executed_lesson_is_refused_in_one_line(tmp_path, capsys, notebook, names, complaint):
    if notebook:
        (tmp_path / "05-circle.ipynb").write_text(notebook, encoding="utf-8")
    target = tmp_path / "slides.html"
    assert run_command(slides.run, [str(target), *names, "--pages", str(tmp_path)]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert complaint in err and "Traceback" not in err and not target.exists()


def test_chosen_lessons_of_a_folder(tmp_path, capsys):
    for n in (5, 6):
        (tmp_path / f"0{n}-circle.ipynb").write_text(json.dumps(lesson(title=f"{n}. A circle")), encoding="utf-8")
    target = tmp_path / "slides.html"
    assert run_command(slides.run, [str(target), "06", "--pages", str(tmp_path)]) == 0
    page = target.read_text(encoding="utf-8")
    assert "6. A circle" in page and "5. A circle" not in page
    assert f"{page.count('<section>')} slides of 1 lessons" in capsys.readouterr().out


BROWSER = """
let innerHeight = 1000, scrollY = 0;
const events = {}, addEventListener = (name, f) => { events[name] = f; };
const slides = Array.from({ length: COUNT }, (_, i) => ({
  style: {}, scrollIntoView() { scrollY = i * innerHeight; }, get clientHeight() { return innerHeight; },
  get scrollHeight() { return TALL * parseFloat(this.style.fontSize) / 100; },
}));
const document = { querySelectorAll: () => slides };
(function () { SCRIPT })();
const press = (key, more) => { events.keydown({ key, preventDefault() {}, ...more }); return scrollY / innerHeight; };
const sizes = [slides[2].style.fontSize, (innerHeight = 9000, events.resize(), slides[2].style.fontSize)];
const keys = ["ArrowLeft", "ArrowRight", " ", "PageDown", "ArrowLeft", "x", "End", "ArrowRight", "Home"];
console.log(JSON.stringify([sizes, [...keys.map((key) => press(key)), press("ArrowRight", { ctrlKey: true })]]));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node, to press keys")
@pytest.mark.parametrize(("height", "size"), [(500, 100), (1000, 100), (1250, 80), (9000, 60)])
def test_keys_go_from_slide_to_slide_and_a_full_one_gets_smaller_letters(height, size):
    """Until it fits, and large ones again on a larger screen; letters that nobody reads are no help."""
    page = slides.deck([lesson()])
    count, script = page.count("<section>"), re.search(r"<script>(.*)</script>", page, flags=re.DOTALL)[1]
    source = BROWSER.replace("COUNT", str(count)).replace("TALL", str(height)).replace("SCRIPT", script)
    ended = subprocess.run(["node", "-e", source], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    last = count - 1
    assert json.loads(ended.stdout) == [[f"{size}%", "100%"], [0, 1, 2, 3, 2, 2, last, last, 0, 0]]
