"""Slides for a lecture: one HTML file that needs nothing else, made of the lessons themselves.

::

    python tutorials/teacher/slides.py slides.html                  executes all lessons first, some minutes
    python tutorials/teacher/slides.py slides.html 05 06            two of them
    python tutorials/teacher/slides.py slides.html --pages pages/   out of what `build.py docs pages/` has executed

Each lesson gives its question, what to predict, its figures, the sentences that say why, what to write, what others got
wrong, and its milestone with the number that the run printed. Right and left arrow (or space, page up and down) go on
and back, Home and End to the ends; printed, every slide is a page. Figures are in the file, no address of another
machine is, and the file tells the browser to fetch nothing.

(nbconvert's slides stay blank offline even with a reveal.js beside them: require.js, jQuery and MathJax come from
elsewhere; and they are whole notebooks, cut off where 1024 x 768 ends.)
"""

import argparse
import ast
import html
import importlib.util
import re
import sys
import textwrap
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from minisink.system.errors import run_command
from minisink.system.files import atomic_write

try:
    import nbformat
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin
except ImportError as missing:
    sys.exit(f'{missing.name} is missing, which slides need: pip install -e ".[tutorials,gguf,chat]"')

spec = importlib.util.spec_from_file_location("build", Path(__file__).resolve().parents[1] / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention sinks</title>
<style>
html { scroll-snap-type: y mandatory; scrollbar-width: none; }
body { margin: 0; font: clamp(16px, 2.3vw, 44px)/1.4 sans-serif; color: #111; background: #fff; counter-reset: slide; }
section { box-sizing: border-box; height: 100vh; padding: 3vh 6vw 5vh; overflow: auto; position: relative;
          scroll-snap-align: start; page-break-after: always; counter-increment: slide; }
section::after { position: absolute; right: 1.5vw; bottom: 1vh; font-size: 14px; color: #555;
                 content: counter(slide) " / COUNT"; }
h1 { font-size: 2em; margin: 22vh 0 1em; }
h2 { font-size: 1.3em; margin: 0 0 .8em; }
h2 small { display: block; font-size: .6em; font-weight: normal; color: #555; }
li { margin-bottom: .5em; }
img { display: block; width: 100%; height: 68vh; object-fit: contain; }
pre { font-size: .8em; line-height: 1.35; white-space: pre-wrap; background: #f3f3f3; padding: .8em; }
code { font-size: .9em; background: #f3f3f3; }
table { border-collapse: collapse; margin-bottom: .8em; }
td, th { border: 1px solid #999; padding: .2em .8em; text-align: left; height: 1.4em; font-weight: normal; }
@media print { section { height: auto; } }
</style>
</head>
<body>
SLIDES
<script>
const slides = document.querySelectorAll("section");
function fit() {  // a full slide has smaller letters on a small screen
  for (const slide of slides) {
    let size = 104;
    do slide.style.fontSize = (size -= 4) + "%"; while (size > 60 && slide.scrollHeight > slide.clientHeight);
  }
}
addEventListener("keydown", function (event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const at = Math.round(scrollY / innerHeight), last = slides.length - 1;
  const to = { ArrowRight: at + 1, PageDown: at + 1, " ": at + 1, ArrowLeft: at - 1, PageUp: at - 1,
               Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  slides[Math.max(0, Math.min(last, to))].scrollIntoView();
});
addEventListener("resize", fit);
fit();
</script>
</body>
</html>
"""


def formula(tex, options=None):
    r"""Return the little TeX that a slide has as HTML.

    >>> formula(r"w_i = e^{x_i} / \sum_j e^{x_j}")
    '<i>w<sub>i</sub> = e<sup>x<sub>i</sub></sup> / Σ<sub>j</sub> e<sup>x<sub>j</sub></sup></i>'
    """
    text = html.escape(tex.strip()).replace(r"\sum", "Σ")
    for kind, tag in (("_", "sub"), (r"\^", "sup"), ("_", "sub")):  # low ones within high ones first
        text = re.sub(kind + r"(?:\{([^{}]*)\}|(\w))", rf"<{tag}>\1\2</{tag}>", text)
    return f"<i>{text}</i>"


MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").use(dollarmath_plugin, renderer=formula)
for rule in ("link_open", "link_close"):  # a slide sends nobody anywhere
    MARKDOWN.add_render_rule(rule, lambda *_: "")
MARKDOWN.add_render_rule("image", lambda _, tokens, at, *__: html.escape(tokens[at].content))


def paragraphs(text):
    """Return those of a Markdown text, each on one line; an item of a list is one, headings and tables are none."""
    pairs = pairwise(MARKDOWN.parse(text))
    return [" ".join(inline.content.split()) for before, inline in pairs if before.type == "paragraph_open"]


def tables(text):
    """Return the tables of a Markdown text as HTML."""
    return "".join(re.findall(r"<table>.*?</table>", MARKDOWN.render(text), re.DOTALL))


def sentences(paragraph):
    """Cut after a full stop or question mark that a space and no small letter follow, and not within a quotation."""
    found = [""]
    for part in re.split(r"(?<=[.?!])(?<!arXiv\.)\s+(?![a-z])", paragraph):
        if found[-1].count('"') % 2:
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found[1:]


def bullets(items):
    """Return an HTML list, or nothing."""
    made = "".join(f"<li>{MARKDOWN.renderInline(item)}</li>" for item in items)
    return f"<ul>{made}</ul>" if made else ""


def questions(text):
    """Return the last two paragraphs that ask something."""
    asking = [part for part in paragraphs(text) if any(one.rstrip("*").endswith("?") for one in sentences(part))]
    return bullets(asking[-2:])


def reasons(text):
    """Return what paragraphs begin with in bold, and the two sentences that follow."""
    leads = [match.groups() for match in (re.match(r"(\*\*.+?\*\*)(.*)", part) for part in paragraphs(text)) if match]
    return bullets([re.sub(":$", ".", bold + " ".join(sentences(rest)[:2])) for bold, rest in leads])


def mistake(text):
    """Return the first paragraph, a slide's worth of it, but for what leads over to a cell."""
    return bullets([one for one in sentences(" ".join(paragraphs(text)[:1])) if not one.endswith(":")][:4])


def literal(text):
    """Return code and what it printed as HTML."""
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def to_write(code):
    """Return the functions that a student writes: their `def` lines, and what their docstrings ask for."""
    made = ""
    for cell in code:
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.FunctionDef) and (asked := ast.get_docstring(node)):
                head = cell.source.splitlines()[node.lineno - 1]
                made += literal(f"{head}\n{textwrap.indent(asked, '    ')}")
    return made


def figures(code):
    """Return the pictures that cells have made, base64, each with what its cell says of it, or None."""
    made = []
    for cell in code:
        says = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        images = [output.get("data", {}).get("image/png") for output in cell.outputs]
        made += [("".join(image.split()), says) for image in images if image]
    return made


def printed(code):
    """Return what cells have printed."""
    return "".join(out.text for cell in code for out in cell.outputs if out.get("name") == "stdout").strip()


def slides_of(book):
    """Return the slides of one lesson, each an HTML section; raise ValueError for what is not one that was executed."""
    words, code = defaultdict(str), defaultdict(list)
    try:
        (title,) = re.findall(r"^# (.+)", book.cells[0].source)
        for cell in book.cells:
            if cell.cell_type == "code":
                code[build.section_of(cell)].append(cell)
            else:
                words[build.section_of(cell)] += f"{cell.source}\n\n"
    except (AttributeError, IndexError, KeyError, ValueError):
        raise ValueError("a notebook without a title or sections is no lesson; take those of build.py docs") from None
    pngs = figures(build.code_cells(book))
    if not pngs:
        raise ValueError(f"lesson {title!r} has no figure; it takes one that was executed: build.py docs")
    guess = re.sub(r"^## .*|\*My prediction:\*", "", words["Predict"], flags=re.MULTILINE)
    wrong = printed(code["What others got wrong"]).splitlines()
    wrong = [*wrong[:9], "..."] if len(wrong) > 10 else wrong
    alt = f"Figure of lesson {title}"
    contents = [
        ("The question", tables(words["The question"]) + questions(words["The question"])),
        ("Predict", MARKDOWN.render(guess) + literal("\n".join(cell.source for cell in code["Predict"]))),
        *(("Run", f'<img alt="{html.escape(says or alt)}" src="data:image/png;base64,{png}">') for png, says in pngs),
        ("Why", reasons(words["Why"])),
        ("Exercise", to_write(code["Exercise"])),
        ("What others got wrong", mistake(words["What others got wrong"])),
        ("What others got wrong", literal("\n".join(wrong))),
        ("Milestone", f"<p>{html.escape(printed(code['Milestone']))}</p>"),
    ]
    title = MARKDOWN.renderInline(title)
    made = [f"<h2><small>{title}</small>{heading}</h2>{content}" for heading, content in contents if content]
    return [f"<section>{slide}</section>" for slide in (f"<h1>{title}</h1>", *made)]


def deck(books):
    """Return the whole file, from executed notebooks."""
    slides = ["<section><h1>Attention sinks</h1><p>Lessons of minisink. Arrow keys go on and back.</p></section>"]
    slides += [slide for book in books for slide in slides_of(book)]
    text = re.sub(r"[\w.+-]*://[^\s<>\"')\]]*", "", "\n".join(slides))  # what stands as an address in words or code
    return PAGE.replace("COUNT", str(len(slides))).replace("SLIDES", text)


def read(path):
    """Return an executed notebook; raise ValueError for a file that is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path}: no notebook: {error}") from None


def run(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make slides of the lessons: one HTML file that needs nothing else.")
    parser.add_argument("file", help="where the slides go")
    parser.add_argument("names", nargs="*", metavar="NN", help="lessons, by the beginning of their names (all)")
    parser.add_argument("--pages", metavar="FOLDER", help="what build.py docs has executed, to save the minutes")
    args = parser.parse_args(argv)
    if args.pages:
        books = [read(path) for path in build.lessons(args.names, Path(args.pages), "ipynb")]
    else:
        books = [build.docs(path) for path in build.lessons(args.names)]
    text = deck(books)
    with atomic_write(args.file) as unfinished:
        Path(unfinished).write_text(text, encoding="utf-8")
    print(f"{args.file}: {text.count('<section>')} slides of {len(books)} lessons, {len(text.encode()):,} bytes")


if __name__ == "__main__":
    sys.exit(run_command(run))
