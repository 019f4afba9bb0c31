"""A deck of slides: one self-contained HTML file, in letters that can be read from the last row.

A slide is 4:3, and every length on it is a fraction of its height, so anything that fits once fits in any window and on
any paper. Lengths are in rem; a slide is `ROWS` rem high. No letter is smaller than `LEAST`, not even in a figure, and
nothing is shrunk to fit: content that is too long either raises an error or continues on a second slide.

The right and left arrow keys (or space, page up and page down) go forward and back, Home and End go to the first and
last slide, and `n` shows or hides the speaker's notes. When printed, every slide is a landscape page, followed by its
notes if they were shown. Figures are embedded, the file contains no address of another machine, and it tells the
browser to fetch nothing.
"""

import base64
import html
import re
import struct
import textwrap
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from math import ceil

from markdown_it import MarkdownIt
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from mdit_py_plugins.dollarmath import dollarmath_plugin

ROWS, COLUMNS = 31.25, 39.0  # rem: the height of a slide, and the width of its text
LEAST = 0.026 * ROWS  # rem: the smallest that can be read from the last row
POINTS = 16  # size of the smallest letters in a figure
ROOM = ROWS - 2.75  # between the top edge and the slide number
CODE, TITLE, LINE, GAP = 0.82, 1.5, 1.4, 0.6  # rem: code, title; line height; space below a block

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>NAME</title>
<style>
@page { size: landscape; margin: 0; }
html { font: min(3.2vh, 2.4vw)/1.4 sans-serif; scroll-snap-type: y mandatory; scrollbar-width: none; }
html.notes { font-size: min(1.92vh, 1.44vw); }
body { margin: 0; color: #111; background: #fff; counter-reset: slide; }
section { height: 100vh; overflow: hidden; scroll-snap-align: start; counter-increment: slide;
          display: flex; flex-direction: column; }
article { box-sizing: border-box; width: 41.6rem; height: 31.25rem; padding: 1rem 1.3rem 0; margin: 0 auto;
          flex: none; overflow: hidden; position: relative; }
article::after { position: absolute; right: .8rem; bottom: .2rem; font-size: .82rem; color: #555;
                 content: counter(slide) " / COUNT"; }
aside { display: none; flex: 1; overflow: auto; padding: .4rem 1.3rem; font-size: 1.15rem; background: #eee; }
.notes aside { display: block; }
h1 { font-size: 2.4rem; line-height: 1.2; margin: 8rem 0 1.5rem; }
h2 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .6rem; }
small { display: block; font-size: .82rem; line-height: 1.2; color: #555; }
p, ul, ol, pre, table { margin: 0 0 .6rem; }
ul, ol { padding-left: 1.5rem; }
img { display: block; width: 41rem; margin: 0 -1rem; object-fit: contain; }
pre { font-size: .82rem; line-height: 1.35; white-space: pre; background: #f3f3f3;
      margin: 0 -.6rem .6rem; padding: .4rem .6rem; }
code, pre { font-family: monospace, monospace; background: #f3f3f3; }
p code, li code, td code, h2 code { font-size: .9em; }
sub, sup { font-size: .82rem; line-height: 0; }
table { border-collapse: collapse; }
td, th { border: 1px solid #999; padding: .2rem .6rem; text-align: left; height: 1.4em; font-weight: normal; }
@media print {
  html, html.notes { font-size: 6.6mm; scroll-snap-type: none; }
  section { display: block; height: auto; overflow: visible; }
  article { break-inside: avoid; }
  section + section article, .notes aside { break-before: page; }
  aside { background: none; font-size: 5mm; }
}
</style>
</head>
<body>
SLIDES
<script>
const slides = document.querySelectorAll("section");
addEventListener("keydown", function (event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const at = Math.round(scrollY / innerHeight), last = slides.length - 1;
  if (event.key === "n") document.documentElement.classList.toggle("notes");
  const to = { ArrowRight: at + 1, PageDown: at + 1, " ": at + 1, ArrowLeft: at - 1, PageUp: at - 1,
               Home: 0, End: last, n: at }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  slides[Math.max(0, Math.min(last, to))].scrollIntoView();
});
</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Block:
    """A paragraph, list, table or piece of code on a slide, with its height in rem, overestimated if anything."""

    html: str
    height: float


@dataclass(frozen=True)
class Slide:
    """A title in Markdown, a small line above it, blocks, a picture (PNG and alt text) and speaker's notes."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    above: str = ""
    picture: tuple[bytes, str] | None = None
    notes: str = ""
    first: bool = False


def formula(tex, options=None):
    r"""Convert a slide's simple TeX to HTML.

    >>> formula(r"w_i = e^{x_i} / \sum_j e^{x_j}")
    '<i>w<sub>i</sub> = e<sup>x<sub>i</sub></sup> / Σ<sub>j</sub> e<sup>x<sub>j</sub></sup></i>'
    """
    text = html.escape(tex.strip()).replace(r"\sum", "Σ").replace(r"\cdot", "·")
    for kind, tag in (("_", "sub"), (r"\^", "sup"), ("_", "sub")):  # subscripts within superscripts first
        text = re.sub(kind + r"(?:\{([^{}]*)\}|(\w))", rf"<{tag}>\1\2</{tag}>", text)
    return f"<i>{text}</i>"


MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").use(dollarmath_plugin, renderer=formula)
for rule in ("link_open", "link_close"):  # slides have no links
    MARKDOWN.add_render_rule(rule, lambda *_: "")
MARKDOWN.add_render_rule("image", lambda _, tokens, at, *__: html.escape(tokens[at].content))


@cache
def advance(letter, bold):
    """Return the width of a letter at size 1 in DejaVu Sans; a browser's own sans-serif is no wider."""
    font = FT2Font(findfont("DejaVu Sans:bold" if bold else "DejaVu Sans"))
    font.set_size(64, 72)
    if not font.get_char_index(ord(letter)):
        return 1.0
    return font.load_char(ord(letter)).linearHoriAdvance / 65536 / 64


def wide(text, size, bold=False):
    """Return the width of a text in rem, not counting its Markdown."""
    return size * sum(advance(letter, bold) for letter in re.sub(r"[*`$]", "", text))


def lines(text, width, size, bold=False):
    """Return how many lines of this width a text takes when broken between words."""
    count, used = 1, 0.0
    for word in text.split():
        long = wide(f"{word} ", size, bold)
        if used and used + long > width:
            count, used = count + 1, 0.0
        used += long
        count, used = count + int(used // width), used % width  # a word longer than a line
    return count


def blocks(markdown, size=1.0):
    """Split a Markdown text into blocks (paragraphs, lists, tables, code), with letters `size` rem high."""
    made = []
    for group in groups(MARKDOWN.parse(markdown)):
        if group[0].type in ("fence", "code_block"):
            made += literal(group[0].content)
        else:
            text = MARKDOWN.renderer.render(group, MARKDOWN.options, {})
            made.append(Block(f'<div style="font-size:{size}rem">{text}</div>', tall(group, size)))
    return made


def groups(tokens):
    """Yield the tokens of each block in turn; each item of a list is its own block, a list of one item."""
    group, depth = [], 0
    for token in tokens:
        group.append(token)
        depth += token.nesting
        if depth == 0 and group[0].type.endswith("list_open"):
            *items, closing = group[1:]
            for n, item in enumerate(groups(items)):
                first = replace(group[0], attrs={"start": int(group[0].attrs.get("start", 1)) + n})
                yield [first, *item, closing]
        elif depth == 0:
            yield group
        group = [] if depth == 0 else group


def tall(tokens, size):
    """Return the height of one block's tokens in rem."""
    kinds = [token.type for token in tokens]
    if "table_open" in kinds:  # on its own or in a list
        start, end = kinds.index("table_open"), kinds.index("table_close") + 1
        around = tall(tokens[:start] + tokens[end:], size) if kinds[0] != "table_open" else 0.0
        return table(tokens[start:end], size) + GAP + around
    width = COLUMNS - (1.5 if "list" in kinds[0] else 0)
    words = [token.content for token in tokens if token.type == "inline"]
    gaps = sum(not token.hidden for token in tokens if token.type == "paragraph_open")
    return sum(lines(text, width, size) * size * LINE for text in words) + GAP * (gaps + ("list" in kinds[0]))


def table(tokens, size):
    """Return the height of a table in rem; if the table is too wide, its widest columns are narrowed."""
    by_row = groupby((token for token in tokens if token.type in ("tr_open", "inline")), lambda x: x.type == "inline")
    rows = [[token.content for token in cells] for is_row, cells in by_row if is_row]
    columns = [max(wide(f"{cell} ", size) for cell in column) for column in zip(*rows, strict=True)]
    most, border = max(columns), 1.3
    while sum(min(column, most) + border for column in columns) > COLUMNS:
        most -= 0.25
    if most < min(3 * size, max(columns)):
        raise ValueError(f"a table is too wide for a slide: {' | '.join(rows[0])}")
    high = [max(lines(cell, min(w, most), size) for cell, w in zip(row, columns, strict=True)) for row in rows]
    return sum(n * size * LINE + 0.5 for n in high)


def literal(text, most=20):
    """Return code, or its output, in blocks of at most `most` lines."""
    width, rows = int(COLUMNS / (0.602 * CODE)), []
    for line in text.rstrip().splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        rows += textwrap.wrap(line, width, subsequent_indent=indent) or [""]
    parts = ["\n".join(rows[start : start + most]) for start in range(0, len(rows), most)]
    return [Block(f"<pre>{html.escape(part)}</pre>", lines_of_code(part) + GAP) for part in parts]


def lines_of_code(text):
    """Return the height of code in rem."""
    return (text.count("\n") + 1) * CODE * 1.35 + 0.8


def inches(png):
    """Return the width and height of a PNG in inches, read from the file itself."""
    at = png.find(b"pHYs", 0, 400)
    if png[:8] != b"\x89PNG\r\n\x1a\n" or at < 0:
        raise ValueError("a picture must be a PNG that records its number of pixels per inch")
    width, height = struct.unpack(">II", png[16:24])
    per_inch = struct.unpack(">I", png[at + 4 : at + 8])[0] * 0.0254
    return width / per_inch, height / per_inch


def image(slide, room):
    """Return a slide's picture, fitted to the room left; raise ValueError if its letters would be too small."""
    png, says = slide.picture
    width, height = inches(png)
    scale = min(41 / width, room / height)  # rem per inch
    letter = POINTS / 72 * scale
    if letter < LEAST:
        raise ValueError(
            f'"{slide.title}": letters of its picture, {width:.1f} x {height:.1f} inches, would be {letter / ROWS:.1%} '
            f"of the slide's height, but the minimum is {LEAST / ROWS:.1%}; say less, or draw the picture smaller"
        )
    code = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(says)}" style="height:{room:.2f}rem" src="data:image/png;base64,{code}">'


def head(slide):
    """Return the height of a slide's title, including the line above it."""
    above = lines(slide.above, COLUMNS, CODE) * CODE * 1.2 if slide.above else 0.0
    return above + lines(slide.title, COLUMNS, TITLE, bold=True) * TITLE * 1.2 + GAP


def section(slide, number):
    """Return a slide as HTML, to be opened as FILE#number; raise ValueError if its content does not fit."""
    room = ROOM - head(slide) - sum(block.height for block in slide.blocks)
    if room < 0:
        raise ValueError(f'"{slide.title}": {ceil(-room / LINE)} lines too many for a slide; nothing is made smaller')
    title = MARKDOWN.renderInline(slide.title)
    above = f"<small>{MARKDOWN.renderInline(slide.above)}</small>" if slide.above else ""
    title = f"<h1>{title}</h1>" if slide.first else f"<h2>{above}{title}</h2>"
    body = "".join(block.html for block in slide.blocks) + (image(slide, room) if slide.picture else "")
    return f'<section id="{number}"><article>{title}{body}</article><aside>{slide.notes}</aside></section>'


def going_on(slide):
    """Split a slide into as many slides with the same title as its blocks need."""
    made, room = [[]], ROOM - head(slide)
    for block in slide.blocks:
        if made[-1] and sum(one.height for one in made[-1]) + block.height > room:
            made.append([])
        made[-1].append(block)
    return [Slide(slide.title, part, slide.above) for part in made]


def page(name, slides):
    """Return the whole file."""
    text = "\n".join(section(slide, number) for number, slide in enumerate(slides, 1))
    text = re.sub(r"[\w.+-]*://[^\s<>\"')\]]*", "", text)  # addresses in text or code
    return PAGE.replace("NAME", name).replace("COUNT", str(len(slides))).replace("SLIDES", text)
