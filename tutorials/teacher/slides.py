"""Slides for a lecture: one HTML file that needs nothing else, made of the lessons themselves.

::

    python tutorials/teacher/slides.py slides.html                  executes all lessons first, some minutes
    python tutorials/teacher/slides.py slides.html 05 06            two of them
    python tutorials/teacher/slides.py slides.html --pages pages/   out of what `build.py docs pages/` has executed

Each lesson gives its question, what to predict, its figures, the sentences that say why, what to write, what others got
wrong, and its milestone with the number that the run printed. Right and left arrow (or space, page up and down) go on
and back, Home and End to the ends; printed, every slide is a page. Figures are in the file, no address of another
machine is, and the file tells the browser to fetch nothing.
"""

import argparse
import ast
import html
import importlib.util
import json
import re
import sys
from pathlib import Path

from minisink.system.errors import run_command
from minisink.system.files import atomic_write

TUTORIALS = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("build", TUTORIALS / "build.py")
build = importlib.util.module_from_spec(spec)  # type: ignore
spec.loader.exec_module(build)  # type: ignore

LETTERS = {r"\sum": "Σ", r"\cdot": "·", r"\sqrt": "√", r"\times": "×", r"\le": "≤", r"\ge": "≥", r"\infty": "∞"}
LETTERS |= {r"\theta": "θ", r"\alpha": "α", r"\varepsilon": "ε", r"\epsilon": "ε", r"\exp": "exp", r"\log": "log"}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0; font: clamp(16px, 2.3vw, 44px)/1.4 sans-serif; color: #111; background: #fff; }}
section {{ box-sizing: border-box; min-height: 100vh; padding: 3vh 6vw 5vh; page-break-after: always; overflow: auto; }}
.one section {{ display: none; height: 100vh; }}
.one section.shown {{ display: block; }}
h1 {{ font-size: 2em; margin: 22vh 0 1em; }}
h2 {{ font-size: 1.3em; margin: 0 0 .8em; }}
h2 small {{ display: block; font-size: .6em; font-weight: normal; color: #555; }}
li {{ margin-bottom: .5em; }}
img {{ display: block; width: 100%; height: 68vh; object-fit: contain; }}
pre {{ font-size: .8em; line-height: 1.35; white-space: pre-wrap; background: #f3f3f3; padding: .8em; }}
code {{ font-size: .9em; background: #f3f3f3; }}
pre code {{ background: none; }}
table {{ border-collapse: collapse; margin-bottom: .8em; }}
td {{ border: 1px solid #999; padding: .2em .8em; text-align: left; height: 1.4em; }}
#place {{ position: fixed; right: 1.5vw; bottom: 1vh; font-size: .6em; color: #555; display: none; }}
.one #place {{ display: block; }}
@media (max-width: 700px) {{ h1 {{ margin-top: 10vh; }} img {{ height: auto; }} }}
@media print {{ .one section {{ display: block; height: auto; }} .one #place {{ display: none; }} }}
</style>
</head>
<body>
{slides}
<div id="place" aria-live="polite"></div>
<script>
const slides = document.querySelectorAll("section");
let at = 0;
function fit(slide) {{  // a full slide has smaller letters on a small screen
  for (let size = 100; size >= 60; size -= 4) {{
    slide.style.fontSize = size + "%";
    if (slide.scrollHeight <= slide.clientHeight) return;
  }}
}}
function show(n) {{
  slides[at].classList.remove("shown");
  at = Math.max(0, Math.min(slides.length - 1, n));
  slides[at].classList.add("shown");
  fit(slides[at]);
  document.getElementById("place").textContent = (at + 1) + " / " + slides.length;
  history.replaceState(null, "", "#" + (at + 1));
}}
document.addEventListener("keydown", function (event) {{
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const to = {{ ArrowRight: at + 1, PageDown: at + 1, " ": at + 1, ArrowLeft: at - 1, PageUp: at - 1,
               Home: 0, End: slides.length - 1 }}[event.key];
  if (to !== undefined) {{ event.preventDefault(); show(to); }}
}});
window.addEventListener("hashchange", function () {{ show((parseInt(location.hash.slice(1)) || 1) - 1); }});
window.addEventListener("resize", function () {{ fit(slides[at]); }});
document.body.classList.add("one");
show((parseInt(location.hash.slice(1)) || 1) - 1);
</script>
</body>
</html>
"""


def bare(text):
    """Without addresses: of a link its words are left, and of an address that stands by itself nothing."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"<?[A-Za-z0-9+.-]*://[^\s<>)\]]*>?", "", text)


def literal(text):
    """Code and what it printed, as HTML."""
    return html.escape(re.sub(r"[A-Za-z0-9+.-]*://[^\s\"'<>)\]]*", "", text))


def inline(text):
    """A line of Markdown as HTML. Of a link only its words are left: a slide sends nobody anywhere.

    >>> inline("**Two** keys, `k < 2`, and $w_i = e^{x_i}$; see [the paper](https://arxiv.org)")
    '<b>Two</b> keys, <code>k &lt; 2</code>, and <i>w<sub>i</sub> = e<sup>x<sub>i</sub></sup></i>; see the paper'
    """
    text, kept = bare(text).replace("\0", ""), []

    def keep(made):
        kept.append(made)
        return f"\0{len(kept) - 1}\0"

    text = re.sub(r"(`+)(.+?)\1", lambda found: keep(f"<code>{html.escape(found[2])}</code>"), text)
    text = re.sub(r"\$\$?([^$]+)\$\$?", lambda found: keep(f"<i>{formula(found[1])}</i>"), text)
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"<i>\1</i>", text)
    return re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], text)


def formula(text):
    """The little TeX that a lesson has: fractions, letters, what stands high and low."""
    text = html.escape(text.strip(), quote=False)
    text = re.sub(r"\\[a-z]+", lambda found: LETTERS.get(found[0], found[0]), text)
    for kind, tag in (("_", "sub"), ("^", "sup"), ("_", "sub")):  # low ones within high ones first
        text = re.sub(re.escape(kind) + r"(?:\{([^{}]*)\}|(\w))", rf"<{tag}>\1\2</{tag}>", text)
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1) / (\2)", text)
    return text.replace("{", "").replace("}", "").replace("\\", "")


def paragraphs(text):
    """Those of a Markdown text, each on one line, without headings, tables, fences and quotation marks."""
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(#+ .*|\|.*|    .*|\+\+\+)$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(\s*([-*]|\d+\.) )", r"\n\1", text, flags=re.MULTILINE)  # an item is one
    found = [" ".join(line.strip(" >") for line in part.splitlines()) for part in re.split(r"\n\s*\n", text)]
    return [part for part in map(str.strip, found) if part]


def is_item(paragraph):
    """Whether it belongs to a list."""
    return re.match(r"([-*]|\d+\.) ", paragraph) is not None


def sentences(paragraph):
    """Cut after a full stop or question mark that a space and no small letter follow, and not within a quotation."""
    found = [""]
    for part in re.split(r"(?<=[.?!])(?<!arXiv\.)\s+(?![a-z])", paragraph):
        if found[-1].count('"') % 2:
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found[1:]


def listed(items):
    """An HTML list, or nothing."""
    made = [inline(re.sub(r"^([-*]|\d+\.) ", "", item)) for item in items]
    return "<ul>" + "".join(f"<li>{item}</li>" for item in made) + "</ul>" if made else ""


def questions(text):
    """The paragraphs of a section that ask something; of a section without any, its last one."""
    parts = paragraphs(text)
    asking = [part for part in parts if any(one.rstrip("*").endswith("?") for one in sentences(part))]
    return listed(asking[-2:] or parts[-1:])


def leads(text):
    """What paragraphs are about: their bold beginning and two sentences or three; without bold, their first ones."""
    parts = paragraphs(text)
    found = []
    for part in parts:
        bold = re.match(r"(?:(?:[-*]|\d+\.) )?(\*\*.+?\*\*)", part)
        if bold:
            rest = sentences(part[bold.end() :].strip())
            whole = bold[1].rstrip("*").endswith((".", "?", "!"))  # a sentence of its own
            lead = " ".join([bold[1], *rest[: 2 if whole or len(rest[0]) > 60 else 3]])
            found.append(re.sub(r"\s+(?=[,;:.])", "", lead))
    found = found or [sentences(part)[0] for part in parts if not is_item(part)]
    return listed([re.sub(":$", ".", lead) for lead in found])


def first_of(text):
    """The first paragraph, a slide's worth of it, but for what leads over to a cell."""
    return listed([one for one in sentences(" ".join(paragraphs(text)[:1])) if not one.endswith(":")][:4])


def to_predict(cells, text):
    """What is to be predicted: all that is said, and the cell that takes the guess."""
    parts = [part for part in paragraphs(text) if part != "*My prediction:*"]
    said = "".join(listed([part]) if is_item(part) else f"<p>{inline(part)}</p>" for part in parts)
    code = "\n".join(text_of(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return said.replace("</ul><ul>", "") + tables(text) + (f"<pre><code>{literal(code)}</code></pre>" if code else "")


def tables(text):
    """The tables of a Markdown text; a cell without words leaves room to write."""
    made = []
    for table in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        rows = [row.strip().strip("|").split("|") for row in table.splitlines()]
        rows = [row for row in rows if set("".join(row)) - set(" -:")]
        made.append("".join(f"<tr>{''.join(f'<td>{inline(cell.strip())}</td>' for cell in row)}</tr>" for row in rows))
    return "".join(f"<table>{rows}</table>" for rows in made)


def to_write(cells):
    """The functions that a student writes: what they are called, and what their docstrings ask for."""
    made = []
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        for node in ast.parse(text_of(cell["source"])).body:
            asked = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if asked:
                line = text_of(cell["source"]).splitlines()[node.lineno - 1]
                made.append(f"<pre><code>{literal(line)}\n{literal(indented(asked))}</code></pre>")
    return "".join(made)


def indented(text):
    """Four spaces before each line that has something."""
    return re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE)


def text_of(source):
    """A notebook file may hold a text as the list of its lines."""
    return source if isinstance(source, str) else "".join(source)


def figures(cells):
    """The pictures that cells have made, as HTML; each says in words that it is one of this lesson's."""
    found = []
    for cell in cells:
        for output in cell.get("outputs", []):
            png = output.get("data", {}).get("image/png")
            if png:
                found.append("".join(text_of(png).split()))
    return found


def printed(cells):
    """What cells have printed."""
    outputs = [output for cell in cells for output in cell.get("outputs", []) if output.get("name") == "stdout"]
    return "".join(text_of(output["text"]) for output in outputs).strip()


def shown(text, most=10):
    """The first lines of what was printed."""
    lines = text.splitlines()
    lines = [*lines[: most - 1], "..."] if len(lines) > most else lines
    return f"<pre>{literal(chr(10).join(lines))}</pre>" if lines else ""


def sections(book):
    """(the title, a dict of section to its cells) of a notebook."""
    title, section, found = None, None, {}
    for cell in book["cells"]:
        text = text_of(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = re.match(r"(#{1,2}) (.+)", text)
            if heading and heading[1] == "#":
                title = heading[2].strip()
            elif heading:
                section = heading[2].strip()
        found.setdefault(section, []).append(cell)
    return title, found


def slides_of(book):
    """The slides of one lesson, each an HTML section.

    Raises
    ------
    ValueError
        For a notebook that is no lesson, and for one without a figure: it has not been executed.
    """
    title, cells = sections(book)
    if title is None or "Milestone" not in cells:
        raise ValueError("a notebook without a title or a milestone is no lesson; take those of build.py docs")
    words = {name: "\n\n".join(text_of(c["source"]) for c in own if c["cell_type"] == "markdown")
             for name, own in cells.items()}  # fmt: skip
    found = figures(book["cells"])
    if not found:
        raise ValueError(f"lesson {title!r} has no figure; it takes one that was executed: build.py docs")
    name = html.escape(bare(title))
    made = [f"<section><h1>{inline(title)}</h1></section>"]

    def add(heading, content):
        if content:
            made.append(f"<section><h2><small>{inline(title)}</small>{heading}</h2>{content}</section>")

    question = words.get("The question", "")
    add("The question", tables(question) + questions(question))
    add("Predict", to_predict(cells.get("Predict", []), words.get("Predict", "")))
    for n, png in enumerate(found, 1):
        add("Run", f'<img alt="Figure {n} of lesson {name}" src="data:image/png;base64,{png}">')
    add("Why", leads(words.get("Why", "")))
    add("Exercise", to_write(cells.get("Exercise", [])))
    wrong = "What others got wrong"
    add(wrong, first_of(words.get(wrong, "")))
    add(wrong, shown(printed(cells.get(wrong, []))))
    add("Milestone", f"<p>{literal(said)}</p>" if (said := printed(cells["Milestone"])) else "")
    return made


def deck(books, title="Attention sinks"):
    """The whole file, from executed notebooks."""
    slides = [f"<section><h1>{html.escape(title)}</h1><p>minisink, {len(books)} lesson{'s' * (len(books) != 1)}. "
              "Arrow keys go on and back.</p></section>"]  # fmt: skip
    for book in books:
        slides += slides_of(book)
    return PAGE.format(title=html.escape(title), slides="\n".join(slides))


def executed(folder, names):
    """The notebooks of a folder, in order: all, or those whose names begin with one of `names`."""
    found = sorted(Path(folder).glob("[0-9][0-9]-*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            raise ValueError(f"{folder}: no notebook begins with {name!r}; it has {len(found)}")
    chosen = [path for path in found if not names or path.name.startswith(tuple(names))]
    if not chosen:
        raise ValueError(f"{folder}: no notebooks; python tutorials/build.py docs {folder} makes them")
    books = []
    for path in chosen:
        try:
            books.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: no notebook: {error}") from None
    return books


def run(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Make slides of the lessons: one HTML file that needs nothing else.")
    parser.add_argument("file", help="where the slides go")
    parser.add_argument("names", nargs="*", metavar="NN", help="lessons, by the beginning of their names (all)")
    parser.add_argument("--pages", metavar="FOLDER", help="what build.py docs has executed, instead of executing anew")
    args = parser.parse_args(argv)
    if args.pages:
        books = executed(args.pages, args.names)
    else:
        books = [build.docs(path) for path in build.lessons(args.names)]
    text = deck(books)
    with atomic_write(args.file) as unfinished:
        Path(unfinished).write_text(text, encoding="utf-8")
    print(f"{args.file}: {text.count('<section>')} slides of {len(books)} lessons, {len(text.encode()):,} bytes")


if __name__ == "__main__":
    sys.exit(run_command(run))
