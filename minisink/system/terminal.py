"""Tables and charts as plain text, readable from the last row of a classroom."""

import math
import textwrap

import numpy as np

BAR = 26  # characters of a full bar, with its name and number in a line of 80


def table(header, rows):
    """Lay out rows of texts under a header; the first column to the left, numbers to the right.

    >>> print(table(["name", "kg"], [["an apple", "0.25"], ["a pumpkin", "10.5"]]))
    name         kg
    ---------  ----
    an apple   0.25
    a pumpkin  10.5
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


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
    """Choose over how many values to average: a 25th of the longest curve, and 32 at least."""
    return max(32, max(len(curve) for curve in curves.values()) // 25)


def wrap(text, width=79):
    r"""Break a sentence or paragraph into lines that end at words.

    >>> wrap("one two three", 8)
    'one two\nthree'
    """
    return textwrap.fill(text, width)


def bar(share, width=BAR):
    """Draw a share of 0 to 1 as a bar, of `width` characters when it is full.

    >>> bar(0.5, 8)
    '####....'
    """
    full = round(min(1.0, max(0.0, share)) * width)
    return "#" * full + "." * (width - full)


def side_by_side(columns, *, rows=None, feet=(), width=79):
    """Lay the ends of some texts beside each other, the last `rows` lines of each.

    Parameters
    ----------
    columns : dict of str to str
        Header to text, whose line breaks and unprintable characters become spaces.
    rows : int, optional
        Lines below the header; all of the longest text by default.
    feet : sequence of str
        A line below each column.
    width : int
        Characters of all columns together.

    Examples
    --------
    >>> print(side_by_side({"one": "a b c d", "two": "e f g"}, rows=2, width=9))
    one | two
    ----+----
    a b | e f
    c d | g
    """
    each = (width - 3 * (len(columns) - 1)) // len(columns)
    texts = ["".join(c if c.isprintable() else " " for c in text) for text in columns.values()]
    wrapped = [textwrap.wrap(text, each) for text in texts]
    rows = max(map(len, wrapped)) if rows is None else rows
    wrapped = [lines[len(lines) - min(rows, len(lines)) :] for lines in wrapped]
    wrapped = [[*lines, *[""] * (rows - len(lines))] for lines in wrapped]
    lines = [tuple(columns), *zip(*wrapped, strict=True), *([tuple(feet)] if feet else [])]
    shown = [" | ".join(cell[:each].ljust(each) for cell in line).rstrip() for line in lines]
    shown.insert(1, "-+-".join("-" * each for _ in columns))
    return "\n".join(shown)


def chart(series, *, mark=None, mark_label="", width=71, height=16, skip=0):
    """Draw curves with letters.

    Parameters
    ----------
    series : dict of str to ndarray
        Curves over the same axis, which may stop early; each is drawn with its key's first letter, and with a star
        where several meet. What lies beyond the scale is drawn on its edge.
    mark : int, optional
        Index marked by a vertical line.
    mark_label : str
        What happens there.
    width, height : int
        Of the field, in characters.
    skip : int
        First values that do not set the scale: a mean of few is wild.

    Examples
    --------
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
    field = [[" "] * width for _ in range(height)]
    marked = mark * width // longest if mark is not None and mark < longest else None
    if marked is not None:
        for row in field:
            row[marked] = ":"
    for name, curve in series.items():
        for column in range(width):
            start = column * longest // width
            values = curve[start : max(start + 1, (column + 1) * longest // width)]
            if len(values) and np.isfinite(values).all():
                level = round(min(max((float(values.mean()) - bottom) / span, 0.0), 1.0) * (height - 1))
                row = field[height - 1 - level]
                row[column] = name[0] if row[column] in " :" else "*"
    lines = []
    for i, row in enumerate(field):
        label = f"{top:6.2f} +" if i == 0 else f"{bottom:6.2f} +" if i == height - 1 else "       |"
        lines.append(label + "".join(row))
    lines.append("       +" + "-" * width)
    axis = ["0"] + [" "] * (width - 1)
    axis[width - len(str(longest)) :] = str(longest)
    lines.append("        " + "".join(axis))
    if marked is not None:
        lines.append("        " + " " * marked + "^ " + mark_label)
    return "\n".join(line.rstrip() for line in lines)


def number(x, form=".2f"):
    """Format a number, or a dash for NaN.

    >>> number(1.234), number(float("nan"))
    ('1.23', '-')
    """
    return "-" if math.isnan(x) else format(x, form)


def count(n, what):
    """Join a number and its noun.

    >>> count(1, "apple"), count(3, "apple")
    ('1 apple', '3 apples')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def human_bytes(n):
    """Format bytes in the largest unit that leaves one digit before the point.

    >>> human_bytes(0), human_bytes(131072), human_bytes(5_000_000)
    ('0 B', '128.0 KiB', '4.8 MiB')
    """
    size, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{n} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
