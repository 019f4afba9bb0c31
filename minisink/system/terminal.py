"""Tables and charts as plain text, readable from the last row of a classroom."""

import math
import re
import shutil
import sys
import textwrap
from itertools import accumulate, zip_longest
from unicodedata import category, east_asian_width

import numpy as np

ZERO_WIDTH = ("Mn", "Me", "Cf")  # categories written over the previous letter, or not at all
DRIVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # not \t, \n
EAST = re.compile("([\u2e80-\U0010ffff])")  # a Chinese, Japanese or Korean letter, or an emoji


def visible(text):
    r"""Escape characters that control a terminal, or change the writing direction.

    >>> print(visible("a\x1b[31mred\u202e"))
    a\x1b[31mred\u202e
    """
    return DRIVING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def in_a_line(text):
    r"""Apply `visible` to a message, and make it one line.

    >>> print(in_a_line("no\nway\x1b"))
    no way\x1b
    """
    return visible(str(text)).replace("\n", " ")


def _shown(text):
    """Return `visible` text for a terminal, or the text itself for a file or pipe."""
    return visible(text) if sys.stdout.isatty() else text


def put(text, end="\n"):
    """Print text that comes from elsewhere, escaped on a terminal."""
    print(_shown(text), end=end, flush=True)


def columns(most=79):
    """Return how many columns a line may take: one fewer than the terminal has, at most `most`."""
    return max(1, min(most, shutil.get_terminal_size().columns - 1))


def width_of(text):
    """Return how many columns a text takes on a terminal: two for a Chinese letter, none for an accent.

    >>> width_of("word"), width_of("日本"), width_of("e\u0301")
    (4, 4, 1)
    """
    return len(text) if text.isascii() else sum(map(_width_of_letter, text))


def _width_of_letter(letter):
    if (category(letter) in ZERO_WIDTH and letter != "\xad") or "\u1160" <= letter <= "\u11ff":  # Hangul vowels
        return 0
    return 2 if east_asian_width(letter) in "WF" else 1


def pad(text, width):
    """Pad a text with spaces to a number of columns."""
    return text + " " * (width - width_of(text))


def cut(text, width):
    """Cut a text to the letters that fit into a number of columns."""
    return text[: sum(end <= width for end in accumulate(map(_width_of_letter, text)))]


class _Word(str):
    def __len__(self):  # in columns, for `textwrap`
        return width_of(str(self))


class _Wrapper(textwrap.TextWrapper):
    """Wrap by width in columns, not by number of letters; a line may end before or after each of `EAST`."""

    def _split(self, text):
        return [_Word(part) for word in super()._split(text) for part in EAST.split(word) if part]


def wrap(text, width=None, **indents):
    r"""Break a paragraph into lines at word ends, in `width` columns, by default `columns()`.

    >>> wrap("one two three", 8)
    'one two\nthree'
    """
    return "\n".join(_Wrapper(width or columns(), **indents).wrap(_shown(text)))


def table(header, rows):
    """Lay out rows of texts under a header.

    >>> print(table(["name", "kg"], [["an apple", "0.25"], ["a pumpkin", "10.5"]]))
    name         kg
    ---------  ----
    an apple   0.25
    a pumpkin  10.5
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    first, *others = [max(map(width_of, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for name, *cells in (header, ["-" * width for width in (first, *others)], *rows):
        right = [" " * (width - width_of(cell)) + cell for cell, width in zip(cells, others, strict=True)]
        lines.append("  ".join([pad(name, first), *right]).rstrip())
    return "\n".join(lines)


def rolling_mean(values, span):
    """Average each value with the ``span - 1`` before it (with fewer at the start), in float64.

    >>> rolling_mean(np.array([2.0, 4.0, 6.0]), 2).tolist()
    [2.0, 3.0, 5.0]
    """
    total = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    stop = np.arange(1, len(total))
    start = np.maximum(stop - span, 0)
    return (total[stop] - total[start]) / (stop - start)


def rolling_span(curves):
    """Choose how many values to average: a 25th of the longest curve, at least 32."""
    return max(32, max(len(curve) for curve in curves.values()) // 25)


def bar(share, width=26):
    """Draw a share from 0 to 1 as a bar, `width` characters long when it is full."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "#" * full + "." * (width - full)


def side_by_side(columns, *, rows=None, feet=(), width=79):
    """Lay out texts side by side, under their headers and above the line `feet`; `columns` maps headers to texts.

    Only the last `rows` lines of each are shown, by default all. Line breaks and unprintable characters become spaces.
    Together they take `width` columns of the terminal; each text has at least one, or two if a letter takes two.

    >>> print(side_by_side({"one": "a b c d", "two": "e f g"}, rows=2, width=9))
    one | two
    ----+----
    a b | e f
    c d | g
    """
    texts = ["".join(c if c.isprintable() else " " for c in text) for text in columns.values()]
    edge = " | " if width - 3 * (len(texts) - 1) >= 2 * len(texts) else "|"
    each = max(1, (width - len(edge) * (len(texts) - 1)) // len(texts), *map(_width_of_letter, "".join(texts)))
    wrapped = [_Wrapper(each).wrap(text) for text in texts]
    rows = max(map(len, wrapped)) if rows is None else rows
    ends = [lines[max(0, len(lines) - rows) :] for lines in wrapped]
    lines = [tuple(columns), *zip_longest(*ends, fillvalue="")]
    lines += [("",) * len(texts)] * (rows + 1 - len(lines)) + ([tuple(feet)] if feet else [])
    shown = [edge.join(pad(cut(cell, each), each) for cell in line).rstrip() for line in lines]
    shown.insert(1, edge.translate({32: "-", 124: "+"}).join("-" * each for _ in texts))
    return "\n".join(shown)


def chart(series, *, mark=None, mark_label="", width=71, height=16, skip=0):
    """Draw curves with letters, in a field of `width` and `height` characters.

    `series` maps names to curves over the same axis, which may end early; each is drawn with its name's first letter,
    or a star where several meet. The first `skip` values do not set the scale, because a mean of few values is erratic;
    values beyond the scale are drawn on its edge. A vertical line, labelled below, marks the index `mark`.

    >>> print(chart({"up": np.arange(9.0), "flat": np.full(9, 2.0)}, width=9, height=5, mark=4, mark_label="half"))
      8.00 +    :  uu
           |    : u
           |   uuu
           |ff*ffffff
      0.00 +uu  :
           +---------
            0       9
                ^ half
    """
    longest = max(len(curve) for curve in series.values())
    scaled = [curve[skip:] if len(curve) > skip else curve for curve in series.values()]
    values = np.concatenate([curve[np.isfinite(curve)] for curve in scaled])
    top, bottom = (float(values.max()), float(values.min())) if len(values) else (0.0, 0.0)
    span = (top - bottom) or 1.0
    field = np.full((height, width), " ")
    marked = mark * width // longest if mark is not None and mark < longest else None
    if marked is not None:
        field[:, marked] = ":"
    for name, curve in series.items():
        for column in range(width):
            start = column * longest // width
            values = curve[start : max(start + 1, (column + 1) * longest // width)]
            if len(values) and np.isfinite(values).all():
                level = round(min(max((float(values.mean()) - bottom) / span, 0.0), 1.0) * (height - 1))
                row = height - 1 - level
                field[row, column] = name[0] if field[row, column] in (" ", ":") else "*"
    labels = [f"{top:6.2f} +", *["       |"] * (height - 2), f"{bottom:6.2f} +"]
    lines = [label + "".join(row) for label, row in zip(labels, field, strict=True)]
    lines += ["       +" + "-" * width, "        0" + str(longest).rjust(width - 1)]
    lines += ["        " + " " * marked + "^ " + mark_label] if marked is not None else []
    return "\n".join(line.rstrip() for line in lines)


def number(x, form=".2f"):
    """Format a number, or a dash for NaN."""
    return "-" if math.isnan(x) else format(x, form)


def in_runs(numbers):
    """Write a list of integers; in a long one, write each run as its two ends.

    >>> print(in_runs([0, 1, 3]), in_runs([*range(4), 62, 64, *range(70, 129)]))
    [0, 1, 3] [0..3, 62, 64, 70..128]
    """
    if len(numbers) <= 8:
        return str(list(numbers))
    runs: list = []
    for number in numbers:
        if runs and isinstance(number, int) and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"[{', '.join(shown)}]"


def count(n, what):
    """Join a number and its noun, in the plural if needed."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def human_bytes(n):
    """Format bytes in the largest unit that leaves a number of at least 1.

    >>> human_bytes(0), human_bytes(131072), human_bytes(5_000_000)
    ('0 B', '128.0 KiB', '4.8 MiB')
    """
    size, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{n} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
