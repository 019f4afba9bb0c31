"""Slides hold what the lessons hold, need nothing from elsewhere, and give no solution away."""

import base64
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

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("slides", ROOT / "tutorials" / "teacher" / "slides.py")
slides = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slides)

PNG = b"\x89PNG\r\n\x1a\n and more"
WRONG = "What others got wrong"  # told first, then what it prints
ORDER = ["The question", "Predict", "Run", "Why", "Exercise", WRONG, WRONG, "Milestone"]
SOLUTION = "return math.pi * r * r"
WRITE = f'def area(r):  # a number -> a number\n    """pi r r, by a loop"""\n    {SOLUTION}'
HOSTILE = [
    "See [the paper](https://example.org/a.pdf) or <https://example.org>, or https://example.org/b?c=d.",
    "![a figure](http://example.org/a.png)",
    '<script src="//example.org/a.js"></script><img src=x onerror="alert(1)">',
    "<style>@import url(//example.org/a.css)</style>",
    "`<link rel=stylesheet href=https://example.org>` and **<iframe src=//example.org>**",
    "a \" quote' & an &amp; $x_i^{<b>}$ and a \x00 or two \x001\x00",
    "</section></body></html>",
]


def words(text):
    return {"cell_type": "markdown", "source": text}


def code(source, *, png=None, said=None):
    outputs = [{"output_type": "stream", "name": "stdout", "text": said}] if said else []
    if png:
        data = {"image/png": base64.b64encode(png).decode(), "text/plain": "<Figure>"}
        outputs.append({"output_type": "display_data", "data": data})
    return {"cell_type": "code", "source": source, "outputs": outputs}


def lesson(title="5. A circle", text="How far around is it?", png=PNG, said="Around it is 6.28."):
    return {"cells": [
        words(f"# {title}"), words("[Open in Colab](https://example.org)"), words(f"## The question\n{text}"),
        words(f"## Predict\n1. {text}\n2. And twice?"), words("## Run\nNow."), code("draw()", png=png, said="noise"),
        words(f"## Why\n**A lead.** {text}\n\nNo lead."), words("## Exercise\nWrite it."), code(WRITE),
        words(f"## What others got wrong\n{text}"), code("tried()", said=text),
        words("## Milestone"), code("assert True", said=said), words("## Read on\n- `minisink/ops.py`"),
    ]}  # fmt: skip


class Seen(HTMLParser):
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


def asks_elsewhere(page):
    """What of a page would fetch something, or go somewhere."""
    seen = Seen(page)
    found = [a for a in seen.attributes if a[1] in ("href", "action", "srcset", "data", "poster") or a[1][:2] == "on"]
    found += [a for a in seen.attributes if a[1] == "src" and not a[2].startswith("data:image/png;base64,")]
    found += re.findall(r"\w*://", page)
    css = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    found += re.findall(r"url\(|@import", css)
    extra = [tag for tag in seen.tags if tag in ("iframe", "object", "embed", "link", "audio", "video")]
    return found + extra + [tag for tag in ("script", "style", "body") if seen.tags.count(tag) != 1]


@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=30), min_size=1, max_size=4).map(" ".join))
def test_whatever_a_lesson_says_its_slides_ask_nothing_of_anybody(text):
    page = slides.deck([lesson(text=text, said=text or "x"), lesson(title="6. " + " ".join(text.split()))])
    assert asks_elsewhere(page) == []


def test_the_search_for_addresses_finds_them():
    page = slides.deck([lesson()])
    assert asks_elsewhere(page) == []
    for bad in ('<a href="x">', '<img src="a.png">', "<link rel=x>", '<p onclick="x">', "<script></script>", "ftp://x"):
        assert asks_elsewhere(page.replace("<section>", bad + "<section>", 1))
    assert asks_elsewhere(page.replace("body {", "body { background: url(x);"))


def test_the_browser_is_told_to_fetch_nothing():
    (policy,) = [a[2] for a in Seen(slides.deck([lesson()])).attributes if a[1] == "content" and "-src" in a[2]]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_a_lesson_is_told_in_order_under_its_headings():
    seen = Seen(slides.deck([lesson(title="5. A circle"), lesson(title="6. A square")]))
    assert len(seen.sections) == 1 + 2 * (1 + len(ORDER))
    for n, title in enumerate(("5. A circle", "6. A square")):
        own = seen.sections[1 + n * (1 + len(ORDER)) :][: 1 + len(ORDER)]
        assert own[0].strip() == title
        for heading, slide in zip(ORDER, own[1:], strict=True):
            assert slide.startswith(title + heading)
        assert "How far around is it?" in own[1] and "A lead. How far" in own[4] and "No lead" not in own[4]
        assert "Around it is 6.28." in own[8] and "noise" not in own[8]


def test_a_table_is_shown_with_the_question_and_where_guesses_go():
    table = "| | dense | cache |\n|---|---|---|\n| first | 37.86 | `n` |\n| then | | |\n"
    book = lesson(text=f"Look:\n\n{table}\nWhy is that?")
    own = slides.slides_of(book)
    row = "<tr><td>first</td><td>37.86</td><td><code>n</code></td></tr><tr><td>then</td><td></td><td></td></tr></table>"
    assert all(row in slide and slide.count("<tr>") == 3 for slide in own[1:3])
    assert "Look:" in own[2] and "Look:" not in own[1]


def test_what_is_to_be_predicted_is_told_whole():
    book = lesson()
    book["cells"][3]["source"] = "## Predict\nTwo rules:\n- one;\n- other.\n\nHow much each?\n\n*My prediction:*"
    slide = slides.slides_of(book)[2]
    assert "<p>Two rules:</p><ul><li>one;</li><li>other.</li></ul><p>How much each?</p></section>" in slide


def test_a_quotation_is_not_cut():
    said = 'First. "My GPT-2 looks. Is it wrong?" People ask. So: no.'
    assert slides.sentences(said) == ["First.", '"My GPT-2 looks. Is it wrong?" People ask.', "So: no."]


def test_a_question_without_a_question_mark_and_a_why_without_bold_have_slides_too():
    book = lesson(text="First this.\n\nLast that.")
    book["cells"] = [cell | {"source": cell["source"].replace("**A lead.** ", "")} for cell in book["cells"]]
    own = Seen(slides.deck([book])).sections
    assert "Last that." in own[2] and "First this." not in own[2]
    assert "First this." in own[5] and "No lead" in own[5]


@given(st.binary(min_size=1, max_size=200))
def test_figures_are_in_the_file_as_they_were(png):
    made = [a[2] for a in Seen(slides.deck([lesson(png=png)])).attributes if a[1] == "src"]
    assert [base64.b64decode(src.split(",")[1]) for src in made] == [png]


def test_what_is_to_be_written_is_shown_and_the_solution_is_not():
    page = slides.deck([lesson()])
    assert "def area(r):  # a number -&gt; a number" in page and "by a loop" in page
    assert SOLUTION not in page and "math.pi" not in page


def test_every_shipped_lesson_has_something_for_every_slide():
    pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials]'")
    for path in slides.build.lessons():
        book = slides.build.solution(path)
        book["cells"].append(code("", png=PNG))
        slides.sections(book)[1]["Milestone"][-1]["outputs"] = code("", said="a number")["outputs"]
        page = "\n".join(slides.slides_of(book))
        missing = [heading for heading in ORDER if f"</small>{heading}</h2>" not in page]
        assert not missing, f"{path.name}: no slide for {missing}"


def test_a_lesson_that_was_not_executed_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "05-circle.ipynb").write_text(json.dumps(lesson(png=None)), encoding="utf-8")
    target = tmp_path / "slides.html"
    assert run_command(slides.run, [str(target), "--pages", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "5. A circle" in said and "build.py docs" in said and said.count("\n") == 1
    assert not target.exists()


@pytest.mark.parametrize("names, said", [([], "no notebooks"), (["07"], "no notebook begins with '07'")])
def test_a_folder_without_the_lessons_is_named(tmp_path, capsys, names, said):
    assert run_command(slides.run, [str(tmp_path / "a.html"), *names, "--pages", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert said in err and str(tmp_path) in err and err.count("\n") == 1


def test_what_is_no_notebook_is_named(tmp_path, capsys):
    for text, why in (("{", "no notebook"), (json.dumps({"cells": [words("# 5. No end")]}), "no lesson")):
        (tmp_path / "05-circle.ipynb").write_text(text, encoding="utf-8")
        assert run_command(slides.run, [str(tmp_path / "a.html"), "--pages", str(tmp_path)]) == 2
        assert why in capsys.readouterr().err


def test_chosen_lessons_of_a_folder(tmp_path, capsys):
    for n in (5, 6):
        (tmp_path / f"0{n}-a.ipynb").write_text(json.dumps(lesson(title=f"{n}. A circle")), encoding="utf-8")
    target = tmp_path / "slides.html"
    assert run_command(slides.run, [str(target), "06", "--pages", str(tmp_path)]) == 0
    page = target.read_text(encoding="utf-8")
    assert "6. A circle" in page and "5. A circle" not in page
    assert f"{page.count('<section>')} slides of 1 lessons" in capsys.readouterr().out


KEYS = """
const list = () => ({ own: new Set(), add(c) { this.own.add(c); }, remove(c) { this.own.delete(c); } });
const slides = Array.from({ length: COUNT }, () => ({ classList: list(), style: {} }));
const heard = {}, place = {}, location = { hash: "" }, history = { replaceState() {} };
const window = { addEventListener(name, f) { heard[name] = f; } };
const document = {
  querySelectorAll: () => slides, getElementById: () => place, body: { classList: list() },
  addEventListener(name, f) { heard[name] = f; },
};
(function (document, window, location, history) { SCRIPT })(document, window, location, history);
const at = () => slides.map((s, i) => s.classList.own.has("shown") ? i : -1).filter((i) => i >= 0).join();
const places = [at()];
for (const key of ["ArrowLeft", "ArrowRight", " ", "PageDown", "ArrowLeft", "x", "End", "ArrowRight", "Home"]) {
  heard.keydown({ key, preventDefault() {} });
  places.push(at());
}
heard.keydown({ key: "ArrowRight", ctrlKey: true, preventDefault() {} });
places.push(at());
location.hash = "#3";
heard.hashchange();
places.push(at());
console.log(JSON.stringify(places));
"""


def press(page, source):
    """What a script gives that runs with the slides' own in it."""
    count = page.count("<section>")
    script = re.search(r"<script>(.*)</script>", page, flags=re.DOTALL)[1]
    source = source.replace("COUNT", str(count)).replace("SCRIPT", script)
    done = subprocess.run(["node", "-e", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node, to press keys")
@pytest.mark.parametrize(("height", "size"), [(500, 100), (1000, 100), (1250, 80), (9000, 60)])
def test_a_full_slide_gets_smaller_letters_until_it_fits(height, size):
    """And large ones again on a larger screen; letters that nobody reads are no help."""
    tall = f"get scrollHeight() {{ return {height} * parseFloat(this.style.fontSize) / 100; }}"
    source = "let screen = 1000;" + KEYS.replace(
        "style: {}", f"style: {{}}, get clientHeight() {{ return screen; }}, {tall}"
    )
    sizes = (
        "[(heard.hashchange(), slides[2].style.fontSize), (screen = 9000, heard.resize(), slides[2].style.fontSize)]"
    )
    source = source.replace("JSON.stringify(places)", f"JSON.stringify({sizes})")
    assert press(slides.deck([lesson()]), source) == [f"{size}%", "100%"]


@pytest.mark.skipif(not shutil.which("node"), reason="needs node, to press keys")
def test_arrow_keys_show_one_slide_after_the_other():
    page = slides.deck([lesson()])
    last = str(page.count("<section>") - 1)
    assert press(page, KEYS) == ["0", "0", "1", "2", "3", "2", "2", last, last, "0", "0", "2"]
