"""Slides hold what lecture and lessons hold, whole, in letters that are read, and need nothing from elsewhere."""

import base64
import doctest
import importlib.util
import json
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisink.system.errors import run_command
from minisink.teaching import figures
from tests.tutorials.test_teacher import NUMBER, commands

pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials,gguf,chat]'")
import nbformat  # noqa: E402

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "tutorials" / "teacher"
spec = importlib.util.spec_from_file_location("slides", TEACHER / "slides.py")
slides = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slides)
deck = slides.deck

LAST_ROW = 0.026  # of a slide's height: the least that is read from there
SIZES = [(1024, 768), (1280, 720), (1920, 1080)]
WRONG = "What others got wrong"
ORDER = ["The question", "Predict", "Run", "Why", "Exercise", WRONG, "Milestone"]
SOLUTION = "return math.pi * r * r"
WRITE = f'def area(r):  # a number -> a number\n    """pi r r, by a loop"""\n    {SOLUTION}'
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def png_of(width, height, more=b"", per_inch=100):
    """What the head of a PNG of so many inches says."""
    size = struct.pack(">II", round(width * per_inch), round(height * per_inch))
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"pHYs" + struct.pack(">I", round(per_inch / 0.0254)) + more


PNG = png_of(9.7, 5.8)
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
    mark = slides.build.SLIDE
    cells = [words(None, f"# {title}\n\n[Open in Colab](https://example.org)")]
    cells += [words("The question", f"## The question\n{mark}\n{text}")]
    cells += [words("Predict", f"## Predict\n1. {text}\n2. And twice?")]
    cells += [words("Run", "## Run\nNow."), code("Run", "draw()", png=png, prints="noise")]
    cells += [words("Why", f"## Why\n{mark}\n**A lead.** {text}\n\nNo lead.")]
    cells += [words("Exercise", "## Exercise\nWrite it."), code("Exercise", WRITE)]
    cells[-1].metadata["tags"] = ["hide-input"]
    cells += [code("Exercise", 'def helper(x):\n    """Count."""')]
    cells += [words(WRONG, f"## {WRONG}\n{mark}\n{text}"), code(WRONG, "tried()", prints=text)]
    cells += [words(WRONG, f"{mark}\nThat was wrong.\n\nA longer story.")]
    cells += [words("Milestone", "## Milestone"), code("Milestone", "assert True", prints=prints)]
    return nbformat.v4.new_notebook(cells=[*cells, words("Read on", "## Read on\n- `minisink/ops.py`")])


def page_of(*books):
    return deck.page("Lessons", [slide for book in books for slide in slides.slides_of(book)])


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


@pytest.mark.slow
@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=30), min_size=1, max_size=4).map(" ".join))
def test_whatever_a_lesson_says_its_slides_ask_nothing_of_anybody(text):
    small = png_of(9.7, 4.6)  # four of them are a title of many lines
    page = page_of(lesson(text=text, prints=text or "x"), lesson(title="6. " + " ".join(text.split()), png=small))
    assert asks_elsewhere(page) == []


def test_the_search_for_addresses_finds_them_and_the_browser_is_told_to_fetch_nothing():
    page = page_of(lesson())
    assert asks_elsewhere(page) == []
    for bad in ('<a href="x">', '<img src="a.png">', "<link rel=x>", '<p onclick="x">', "<script></script>", "ftp://x"):
        assert asks_elsewhere(page.replace("<section", bad + "<section", 1))
    assert asks_elsewhere(page.replace("body {", "body { background: url(x);"))
    (policy,) = [a[2] for a in Page(page).attributes if a[1] == "content" and "-src" in a[2]]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_a_lesson_is_shown_in_order_under_its_headings():
    """Marked paragraphs alone, whole; and of what others got wrong the refutation after what was printed."""
    page = page_of(lesson(title="5. A circle"), lesson(title="6. A square"))
    sections = Page(page).sections
    assert len(sections) == 2 * (1 + len(ORDER)) and f'counter(slide) " / {len(sections)}"' in page
    for n, title in enumerate(("5. A circle", "6. A square")):
        own = sections[n * (1 + len(ORDER)) :][: 1 + len(ORDER)]
        assert own[0].strip() == title
        for heading, slide in zip(ORDER, own[1:], strict=True):
            assert slide.startswith(title + heading)
        assert "How far around is it?" in own[1] and "A lead. How far" in own[4] and "No lead" not in own[4]
        assert re.search("How far.*How far.*That was wrong", own[6], re.DOTALL) and "longer story" not in own[6]
        assert "Around it is 6.28." in own[7] and "noise" not in own[7]


def test_a_marked_list_is_shown_with_what_belongs_to_it_and_what_led_to_a_cell_ends():
    table = "- one:\n\n  | a | b |\n  |---|---|\n  | 1 | 2 |\n\n  Whole.\n\nAfter it."
    own = Page(page_of(lesson(text=table))).sections
    assert "one:" in own[1] and "Whole." in own[1] and "After it" not in own[1]
    own = Page(page_of(lesson(text="It is as large:"))).sections
    assert "It is as large." in own[1] and "It is as large:" in own[6]


def test_code_is_broken_between_words_and_keeps_its_indent():
    long = "    " + "word " * 30
    made = "".join(block.html for block in deck.literal(f"def f(x):\n{long}\n\n{long}"))
    assert all(line.startswith("    ") and line.endswith("word") for line in made[5:-6].splitlines()[1:] if line)
    assert made.count("word") == 60 and max(map(len, made.splitlines())) < 90


def test_what_does_not_fit_goes_on_and_a_slide_of_the_lecture_is_refused():
    """In the same order, nothing lost; letters are as large as they were."""
    long = "\n\n".join(f"Paragraph {n}. " + "word " * 60 for n in range(9))
    parts = deck.going_on(deck.Slide("Why", deck.blocks(long)))
    assert 1 < len(parts) < 9 and [block for part in parts for block in part.blocks] == deck.blocks(long)
    deck.page("x", parts)
    with pytest.raises(ValueError, match=r'"Why": \d+ lines too many for a slide'):
        deck.page("x", [deck.Slide("Why", deck.blocks(long))])
    with pytest.raises(ValueError, match="a table is too wide"):
        deck.blocks("| " + " | ".join(["a long heading"] * 20) + " |\n" + "|---" * 20 + "|")


@pytest.mark.parametrize(("size", "fits"), [((9.7, 5.8), True), ((11, 6.2), True), ((13, 5.8), False), ((9, 8), False)])
def test_letters_of_a_picture_are_read_from_the_last_row_or_it_is_refused(size, fits):
    """16 points as they appear, the picture being as wide and as high as its style and the style sheet say."""
    slide = deck.Slide("A title", picture=(png_of(*size), "alt"))
    width = float(re.search(r"img \{[^}]*width: ([\d.]+)rem", deck.PAGE)[1])
    height = deck.ROOM - deck.head(slide)
    letter = 16 / 72 * min(width / size[0], height / size[1]) / deck.ROWS
    assert (letter >= LAST_ROW) == fits
    if fits:
        assert f'style="height:{height:.2f}rem"' in deck.page("x", [slide])
    else:
        with pytest.raises(ValueError, match="letters of its picture"):
            deck.page("x", [slide])


def test_figures_of_lessons_are_of_a_size_that_a_slide_can_show():
    sizes = [(11, 5), figures.SIZE]  # of `for_a_lesson`, and of its drawings
    for path in slides.build.lessons():
        text = path.read_text(encoding="utf-8")
        sizes += [tuple(map(float, size)) for size in re.findall(r"figsize=\(([\d.]+), ([\d.]+)\)", text)]
        assert all(float(points) >= deck.POINTS for points in re.findall(r"fontsize=([\d.]+)", text)), path.name
    assert len(sizes) > 6
    for size in set(sizes):
        deck.page("x", [deck.Slide("Run", above="5. A title", picture=(png_of(*size), f"{size}"))])


def test_no_letter_of_the_style_is_smaller_than_what_is_read():
    style = re.search("<style>(.*)@media print", deck.PAGE, re.DOTALL)[1]
    assert re.search(r"html \{ font: min\(3\.2vh, 2\.4vw\)", style) and pytest.approx(0.032 * deck.ROWS) == 1
    sizes = [float(x) for x in re.findall(r"font-size: ([\d.]+)rem", style)]
    assert len(sizes) >= 5 and min(sizes) * 0.032 >= LAST_ROW
    assert [float(x) * 0.032 >= LAST_ROW for x in re.findall(r"font-size: ([\d.]+)em", style)] == [True]


@given(st.binary(max_size=200))
def test_figures_are_in_the_file_as_they_were(more):
    png = png_of(9.7, 5.8, more)
    made = [a[2] for a in Page(page_of(lesson(png=png))).attributes if a[1] == "src"]
    assert [base64.b64decode(src.split(",")[1]) for src in made] == [png]


def test_a_picture_says_to_a_screen_reader_what_its_cell_says_of_it():
    """Whatever the words, they stay words; a cell that says nothing has the lesson's title."""
    book = lesson()
    says = 'a "ring" <b>of</b> four keys'
    drawing = code("Why", "draw()", png=PNG)
    drawing.metadata["mystnb"] = {"image": {"alt": says}}
    book.cells.append(drawing)
    alts = [a[2] for a in Page(page_of(book)).attributes if a[:2] == ("img", "alt")]
    assert alts == ["Figure of lesson 5. A circle", says]


def test_what_is_to_be_written_is_shown_and_the_solution_is_not():
    page = page_of(lesson())
    assert "def area(r):  # a number -&gt; a number" in page and "by a loop" in page
    assert SOLUTION not in page and "math.pi" not in page and "helper" not in page


def test_every_shipped_lesson_has_something_for_every_slide():
    """And no TeX is left that is not shown as letters."""
    for path in slides.build.lessons():
        book = slides.build.solution(path, guarded=False)
        book.cells += [code("Run", "", png=PNG), code("Milestone", "", prints="a number")]
        page = page_of(book)
        assert [heading for heading in ORDER if f"</small>{heading}</h2>" not in page] == [], path.name
        assert "\\" not in "".join(re.findall(r"<i>.*?</i>", page)) and "!-- slide" not in page
        marked = sum(cell.source.count(slides.build.SLIDE) for cell in book.cells)
        assert marked == sum(len(slides.MARKED.findall(cell.source)) for cell in book.cells) >= 5


def test_a_mark_is_in_no_notebook_of_a_student():
    path = slides.build.lessons()[0]
    assert slides.build.SLIDE in path.read_text(encoding="utf-8")
    assert slides.build.SLIDE not in str(slides.build.student(path)) + str(slides.build.solution(path))


def test_a_formula_is_shown_as_letters():
    assert doctest.testmod(deck) == (0, 1)


# the lecture


@pytest.fixture(name="parts")
def _parts():
    return slides.parts((TEACHER / "lecture.md").read_text(encoding="utf-8"))


def test_every_row_of_the_plan_has_slides_in_its_order(parts, monkeypatch):
    """Without those that 50 minutes leave out; each with its minute and what is to be seen, in the notes."""
    monkeypatch.setattr(slides, "draw", lambda how: PNG)
    monkeypatch.setattr(slides, "printed", lambda argv: "printed")
    rows = slides.plan()
    minutes = [minute for _, minute, *_ in parts]
    assert minutes[0] is None and list(dict.fromkeys(minutes[1:])) == list(rows)
    assert all(notes.strip() for *_, notes in parts)
    for of in (90, 50):
        made = slides.lecture(of)
        deck.page("x", made)
        kept = [row for row in rows.values() if of == 90 or row[1]]
        at = [int(n) for slide in made for n in re.findall(r"Minute (\d+) of", slide.notes)]
        assert list(dict.fromkeys(at)) == [int(row[0 if of == 90 else 1]) for row in kept]
        assert len(made) == sum(minute is None or rows[minute] in kept for minute in minutes)
        for row in kept:
            own = [slide.notes for slide in made if f"Minute {row[0 if of == 90 else 1]} of {of}" in slide.notes]
            assert all(deck.MARKDOWN.renderInline(row[5]) in notes for notes in own) and own
    assert "Exit ticket" in parts[-1][0]


def test_the_lecture_repeats_no_number_and_no_command_that_the_plan_has_not(parts):
    """What plan.md says is run by its own tests."""
    text = (TEACHER / "plan.md").read_text(encoding="utf-8")

    def plain(argv):
        return [word for word in argv if word != "--plot" and not word.endswith(".png")]

    planned = list(map(plain, commands(text)))
    rows, drawn = slides.plan(), 0
    for title, minute, picture, words, notes in parts:
        shown = re.sub(r"^\$ .*", "", words, flags=re.MULTILINE)
        numbers = NUMBER.findall(title + shown + notes)
        assert set(numbers) <= set(NUMBER.findall(" ".join(rows.get(minute, "")))), title
        asked = [picture[2]] if picture and not picture[2].startswith("figures.") else []
        asked += re.findall(r"^\$ (minisink .*) \| head", words, re.MULTILINE)
        for (argv,) in map(commands, asked):
            assert plain(argv) in planned, argv
            drawn += 1
    assert drawn >= 6


@pytest.mark.slow
def test_no_letter_in_a_picture_of_the_lecture_is_smaller_than_its_slide_reckons_with(parts, monkeypatch):
    """And every slide is made, with what the commands draw and print."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    small, save = [], Figure.savefig

    def savefig(figure, *args, **options):
        figure.canvas.draw()
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
        small.extend(text.get_text() for text in texts if text.get_fontsize() < deck.POINTS)
        return save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    page = deck.page("x", slides.lecture(90))
    assert small == [] and page.count("<section") == len(parts) and asks_elsewhere(page) == []
    assert "layer.head" in page


# in a browser


def in_chromium(page, tmp_path, *options):
    path = tmp_path / "slides.html"
    path.write_text(page, encoding="utf-8")
    asked = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *options, path.as_uri()]
    return subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout


MEASURE = """
const unit = parseFloat(getComputedStyle(document.documentElement).fontSize);
const bottom = (e) => e.getBoundingClientRect().bottom - e.parentElement.getBoundingClientRect().top;
const found = [...document.querySelectorAll("article")].map((one) => [
  bottom(one.lastElementChild) / unit,
  Math.min(...[...one.querySelectorAll("*")].filter((e) => e.textContent.trim())
    .map((e) => parseFloat(getComputedStyle(e).fontSize))) / innerHeight,
  one.scrollWidth > one.clientWidth + 1,
]);
document.body.innerHTML = JSON.stringify([found, innerHeight]);
</script>"""


def some_slides():
    """Slides of all lessons, for want of figures and outputs with other ones, and the words of the lecture."""
    made = []
    for path in slides.build.lessons():
        book = slides.build.solution(path, guarded=False)
        book.cells += [code("Run", "", png=PNG), code("Milestone", "", prints="a number " * 30)]
        made += slides.slides_of(book)
    for title, _, _, words, _ in slides.parts((TEACHER / "lecture.md").read_text(encoding="utf-8")):
        made.append(deck.Slide(title, deck.blocks(words, slides.LETTERS), notes="<p>notes</p>"))
    return made


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs a browser")
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_in_a_browser_nothing_is_cut_off_or_smaller_than_what_is_read(tmp_path, width, height):
    """A slide is as high as was reckoned, or less."""
    made = some_slides()
    page = deck.page("x", made).replace("</script>", MEASURE)
    shown = in_chromium(page, tmp_path, f"--window-size={width},{height}", "--dump-dom")
    found, inner = json.loads(re.search(r"<body>(.*?)</body>", shown, re.DOTALL)[1])
    assert len(found) == len(made) and inner > 0.8 * height
    for slide, (bottom, letter, wide) in zip(made, found, strict=True):
        reckoned = deck.ROOM if slide.picture else deck.head(slide) + sum(one.height for one in slide.blocks)
        assert slide.first or bottom <= reckoned + 1.05 <= deck.ROWS - 0.7, slide.title
        assert letter >= LAST_ROW and not wide, slide.title


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs a browser")
@pytest.mark.parametrize("notes", [False, True])
def test_a_printed_slide_is_a_page_in_landscape_and_its_notes_another(tmp_path, notes):
    made = some_slides()[-20:]
    page = deck.page("x", made)
    page = page.replace('<html lang="en">', '<html lang="en" class="notes">') if notes else page
    target = tmp_path / "slides.pdf"
    in_chromium(page, tmp_path, f"--print-to-pdf={target}")
    pdf = target.read_bytes()
    boxes = [tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox \[0 0 ([\d.]+ [\d.]+)\]", pdf)]
    assert len(boxes) == len(made) * (1 + notes) and all(width > height for width, height in boxes)


# the command


def test_a_page_is_kept_until_its_source_changes_and_progress_is_told(tmp_path, capsys, monkeypatch):
    """`build.py docs` says of what its page was made."""
    built = []

    def build(kind, folder, names, seconds):
        built.append((kind, *names, seconds))
        book = lesson()
        book.metadata["minisink"] = {"source": slides.build.state(slides.build.lessons(names)[0])}
        folder.mkdir(exist_ok=True)
        (folder / f"{names[0]}.ipynb").write_text(json.dumps(book), encoding="utf-8")

    monkeypatch.setattr(slides.build, "build", build)
    target = tmp_path / "slides.html"
    for seconds in ("7", "8"):
        assert slides.run([str(target), "--lessons", "05", "--seconds", seconds]) is None
    out = capsys.readouterr().out
    assert built == [("docs", "05-the-window-that-breaks", 7)]
    assert "breaks: executed in 0 s" in out and "breaks: kept" in out and "5. A circle" in target.read_text("utf-8")
    monkeypatch.setattr(slides.build, "state", lambda path: "changed")
    slides.run([str(target), "--lessons", "05"])
    assert built[1:] == [("docs", "05-the-window-that-breaks", slides.build.SECONDS)]


def test_what_a_page_was_made_of_is_the_lesson_and_the_package(tmp_path):
    first, second = tmp_path / "a.md", tmp_path / "b.md"
    first.write_text("one", encoding="utf-8")
    second.write_text("one", encoding="utf-8")
    assert slides.build.state(first) == slides.build.state(second)
    second.write_text("two", encoding="utf-8")
    assert slides.build.state(first) != slides.build.state(second)


@pytest.mark.parametrize(
    ("png", "complaint"), [(None, "'5. A circle' has no figure"), (b"GIF", "a picture must be a PNG")]
)
def test_what_has_no_picture_that_can_be_read_is_refused(png, complaint):
    with pytest.raises(ValueError, match=complaint):
        page_of(lesson(png=png))


def test_a_command_that_fails_or_a_lesson_that_is_not_there_is_refused_in_one_line(tmp_path, capsys):
    target = tmp_path / "slides.html"
    with pytest.raises(ValueError, match=r"minisink ppl no-such.txt fails: .*no-such"):
        slides.printed(["ppl", "no-such.txt"])
    assert run_command(slides.run, [str(target), "--lessons", "77"]) == 2
    assert "no lesson begins with '77'" in capsys.readouterr().err and not target.exists()


BROWSER = """
const innerHeight = 1000, events = {}, addEventListener = (name, f) => { events[name] = f; };
let scrollY = 0, notes = 0;
const slides = Array.from({ length: COUNT }, (_, i) => ({ scrollIntoView() { scrollY = i * innerHeight; } }));
const documentElement = { classList: { toggle(name) { if (name === "notes") notes = 1 - notes; } } };
const document = { querySelectorAll: () => slides, documentElement };
(function () { SCRIPT })();
const press = (key, more) => { events.keydown({ key, preventDefault() {}, ...more }); return scrollY / innerHeight; };
const keys = ["ArrowLeft", "ArrowRight", " ", "PageDown", "ArrowLeft", "x", "n", "End", "ArrowRight", "Home"];
const at = keys.map((key) => press(key));
console.log(JSON.stringify([[...at, press("ArrowRight", { ctrlKey: true })], notes, press("n"), notes]));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node, to press keys")
def test_keys_go_from_slide_to_slide_and_n_shows_notes_and_hides_them():
    page = page_of(lesson())
    count, script = page.count("<section"), re.search(r"<script>(.*)</script>", page, flags=re.DOTALL)[1]
    ended = subprocess.run(
        ["node", "-e", BROWSER.replace("COUNT", str(count)).replace("SCRIPT", script)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    last = count - 1
    assert json.loads(ended.stdout) == [[0, 1, 2, 3, 2, 2, 2, last, last, 0, 0], 1, 0, 0]
