"""Make slides for the lecture or the lessons: one self-contained HTML file, whose look `deck.py` defines.

::

    python tutorials/teacher/slides.py lecture.html                   the lecture of plan.md, 90 minutes
    python tutorials/teacher/slides.py lecture.html --minutes 50      the same in 50 minutes
    python tutorials/teacher/slides.py lessons.html --lessons         all lessons
    python tutorials/teacher/slides.py lessons.html --lessons 05 06   two of them

The lecture is written in `lecture.md`: a heading is a slide's title, and a quotation below it is the speaker's notes.
The pictures and the output of commands are made when the slides are built. The minute, the command and what to look for
come from `plan.md`. A lesson contributes the paragraphs below a `<!-- slide -->` mark, whole and in order; its
predictions; its figures; its exercise; whatever was printed under "What others got wrong"; and its milestone.

Executing lessons takes minutes. An executed page is kept, either in a folder next to the slides or in the `--pages`
folder (`build.py docs` fills such a folder), and is executed again only when its source or minisink has changed.
"""

import argparse
import ast
import base64
import contextlib
import html
import importlib.util
import io
import re
import shlex
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import minisink
from minisink.commands.parser import main
from minisink.system.errors import run_command
from minisink.system.files import atomic_write
from minisink.teaching import figures

HERE = Path(__file__).resolve().parent
INSTALL = 'pip install -e ".[tutorials,gguf,chat]"'


def beside(path):
    """Import and return a module of the tutorials, which are not a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


try:
    import nbformat

    deck, build = beside(HERE / "deck.py"), beside(HERE.parent / "build.py")
except ImportError as missing:
    sys.exit(f"slides need {missing.name}, which is missing: {INSTALL}")

MARKED = re.compile(rf"^{build.SLIDE}\n(.+?)(?=\n\s*\n(?! )|\Z)", re.MULTILINE | re.DOTALL)
WRONG = "What others got wrong"
LETTERS = 1.5  # rem: size of the lecture's text


# the lecture


def plan():
    """Return plan.md's rows by minute: minute of 90, of 50 or nothing, what, command, seconds, what to look for."""
    text = (HERE / "plan.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| of 90 .*?\n\n", text, re.DOTALL | re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    return {int(row[0]): row for row in rows}


def parts(text):
    """Return the slides of lecture.md: title, minute, picture (alt text, how it is made), words and notes."""
    found = []
    for part in re.split(r"^#{1,2} ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        minute = re.search(r"^<!-- minute (\d+) -->\n", body, re.MULTILINE)
        picture = re.search(r"^!\[([^]]*)\]\(<(.+)>\)\n", body, re.MULTILINE)
        notes = re.findall(r"^> ?(.*\n)", body, re.MULTILINE)
        for match in (minute, picture):
            body = body.replace(match[0], "") if match else body
        words = re.sub(r"^>.*\n", "", body, flags=re.MULTILINE)
        found.append((title, int(minute[1]) if minute else None, picture, words, "".join(notes)))
    return found


def draw(how):
    """Return the PNG drawn by a minisink command or by a call to one of its figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        if how.startswith("minisink "):
            printed([*shlex.split(how)[1:], "--plot", str(path)])
        else:
            eval(how, {"figures": figures, "minisink": minisink})
            figures.for_a_lesson().savefig(path, dpi=150)
            figures.for_a_lesson().close()
        return path.read_bytes()


def printed(argv):
    """Run a minisink command and return what it prints; raise ValueError if it fails."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        failed = main(argv)
    if failed:
        raise ValueError(f"minisink {shlex.join(argv)} fails: {err.getvalue()}")
    return out.getvalue()


def ran(words):
    """Return a slide's words with each ``$ minisink ... | head -16`` in a block of code replaced by its output."""

    def output(match):
        text = printed(shlex.split(match[1])).splitlines()[: int(match[2])]
        return "\n".join(text) + "\n"

    return re.sub(r"^\$ minisink (.*) \| head -(\d+)\n", output, words, flags=re.MULTILINE)


def lecture(minutes):
    """Return the slides of the 90-minute or the 50-minute lecture."""
    rows, made = plan(), []
    for title, minute, picture, words, notes in parts((HERE / "lecture.md").read_text(encoding="utf-8")):
        row = rows[minute] if minute is not None else None
        if row and minutes == 50 and not row[1]:
            continue
        if picture:
            print(f"drawn: {picture[2]}")
            picture = draw(picture[2]), picture[1]
        words = deck.blocks(ran(words), LETTERS)
        made.append(deck.Slide(title, words, "", picture, said(row, notes, minutes), first=not made))
    return made


def said(row, notes, minutes):
    """Return the speaker's notes, as HTML."""
    text = notes
    if row:
        _, _, _, command, seconds, seen = row
        at = f"**Minute {row[0 if minutes == 90 else 1]} of {minutes}.**"
        text = f"{at} {f'{command}, {seconds} s' if command else ''}\n\n{notes}\n\n*What to look for:* {seen}"
    return deck.MARKDOWN.render(text)


# lessons


def to_write(cell):
    """Return the `def` lines and docstrings of the functions that a student writes."""
    made = []
    for node in ast.parse(cell.source).body:
        if isinstance(node, ast.FunctionDef) and (asked := ast.get_docstring(node)):
            head = cell.source.splitlines()[node.lineno - 1]
            made += deck.literal(f"{head}\n{textwrap.indent(asked, '    ')}")
    return made


def figures_of(code):
    """Return the pictures that cells have made, each with its alt text or None."""
    made = []
    for cell in code:
        says = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        images = [output.get("data", {}).get("image/png") for output in cell.outputs]
        made += [(base64.b64decode(image), says) for image in images if image]
    return made


def output_of(cell):
    """Return what a cell has printed."""
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout").strip()


def blocks_of(section, cells):
    """Return the blocks that a section's cells give a slide, in order."""
    made = []
    for cell in cells:
        if cell.cell_type == "markdown" and section == "Predict":
            made += deck.blocks(re.sub(r"^## .*|\*My prediction:\*|^\+\+\+", "", cell.source, flags=re.MULTILINE))
        elif cell.cell_type == "markdown":
            text = "\n\n".join(MARKED.findall(cell.source.rstrip()))
            made += deck.blocks(text if section == WRONG else re.sub(r":\Z", ".", text))  # a cell followed here
        elif section == "Predict":
            made += deck.literal(cell.source)
        elif section == WRONG and output_of(cell):
            made += deck.literal(output_of(cell))
        elif section == "Milestone":
            made += deck.blocks(html.escape(output_of(cell)))
        elif section == "Exercise" and "hide-input" in cell.metadata.get("tags", []):
            made += to_write(cell)
    return made


def slides_of(book):
    """Return the slides of one executed lesson; raise ValueError if it has no figure."""
    (title,) = re.findall(r"^# (.+)", book.cells[0].source)
    pictures = figures_of(build.code_cells(book))
    if not pictures:
        raise ValueError(f"lesson {title!r} has no figure; execute it first: build.py docs")
    made = [deck.Slide(title, first=True)]
    for section in build.SECTIONS:
        cells = [cell for cell in book.cells if build.section_of(cell) == section]
        if section == "Run":
            for png, says in pictures:
                made.append(deck.Slide("Run", above=title, picture=(png, says or f"Figure of lesson {title}")))
        elif content := blocks_of(section, cells):
            made += deck.going_on(deck.Slide(section, content, above=title))
    return made


def lessons(names, pages, seconds):
    """Return the slides of some lessons, executing each one unless its page was kept."""
    made = [deck.Slide("Attention sinks", deck.blocks("The minisink lessons. Arrow keys turn pages."), first=True)]
    for path in build.lessons(names):
        begun, page = time.monotonic(), pages / f"{path.stem}.ipynb"
        what = "kept"
        if not is_kept(page, path):
            build.build("docs", pages, [path.stem], seconds)
            what = f"executed in {time.monotonic() - begun:.0f} s"
        made += slides_of(nbformat.read(page, as_version=4))
        print(f"{path.stem}: {what}", flush=True)
    return made


def is_kept(page, source):
    """Return whether a page was executed from the current version of the lesson."""
    try:
        return nbformat.read(page, as_version=4).metadata["minisink"]["source"] == build.state(source)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return False


# both


def run(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make slides: one self-contained HTML file.")
    add = parser.add_argument
    add("file", help="the HTML file to write")
    add("--minutes", type=int, choices=(50, 90), default=90, help="length of the lecture (%(default)s)")
    add("--lessons", nargs="*", metavar="NN", help="these lessons instead, by the start of their names (all)")
    add("--pages", metavar="FOLDER", help="where to keep executed lessons (FILE.pages)")
    add("--seconds", type=int, default=build.SECONDS, metavar="N", help="time limit for a lesson's cell (%(default)s)")
    args = parser.parse_args(argv)
    if args.lessons is None:
        slides = lecture(args.minutes)
    else:
        slides = lessons(args.lessons, Path(args.pages or f"{args.file}.pages"), args.seconds)
    text = deck.page("Attention sinks", slides)
    with atomic_write(args.file) as unfinished:
        Path(unfinished).write_text(text, encoding="utf-8")
    print(f"{args.file}: {len(slides)} slides, {len(text.encode()):,} bytes")


if __name__ == "__main__":
    sys.exit(run_command(run))
