"""Tables and charts: nothing is lost, and what is drawn stands where it was measured."""

import sys
import textwrap
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisink.system.terminal import (
    bar,
    chart,
    columns,
    human_bytes,
    put,
    rolling_mean,
    side_by_side,
    table,
    visible,
    width_of,
    wrap,
)

cells = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)
numbers = st.lists(st.floats(-50, 50), min_size=1, max_size=40)
MARGIN = 8  # of a chart, left of its field


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=5)))
def test_a_table_keeps_every_cell_in_line(rows):
    """Each line holds its cells in order; columns begin or end at the same place in every line."""
    header, *rows = rows
    lines = table(header, rows).split("\n")
    assert len(lines) == len(rows) + 2
    for line, row in zip([lines[0], *lines[2:]], [header, *rows], strict=True):
        assert line.split() == row
    widths = [max(width_of(row[i]) for row in [header, *rows]) for i in range(len(header))]
    assert lines[1] == "  ".join("-" * width for width in widths)
    ends = np.cumsum([width + 2 for width in widths]) - 2
    for line, row in zip([lines[0], *lines[2:]], [header, *rows], strict=True):
        assert line.startswith(row[0])
        for i, end in enumerate(ends[1:], 1):
            assert width_of(line[: _end(line, row, i)]) == end


def _end(line, row, i):
    """Where cell `i` ends in a line; no cell holds a space."""
    end = 0
    for cell in row[: i + 1]:
        end = line.index(cell, end) + len(cell)
    return end


LETTERS = st.sampled_from("ab-, 日本한語é\u0301\u0308\u200b\u1161あＡ🙂")
words = st.text(LETTERS, max_size=40)


def shown(text):
    """Columns of a text, from the definition: nothing for what is written over a letter, two for a wide one."""
    total = 0
    for letter in text:
        if unicodedata.category(letter) not in ("Mn", "Me", "Cf") and not "\u1160" <= letter <= "\u11ff":
            total += 1 + (unicodedata.east_asian_width(letter) in ("W", "F"))
    return total


@given(words, st.integers(2, 30))
def test_lines_are_as_wide_as_they_may_be(text, width):
    """No line is wider, no letter is lost, and what is ASCII is broken as ever."""
    lines = wrap(text, width).split("\n")
    assert all(shown(line) == width_of(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    ascii_text = text.encode("ascii", "replace").decode()
    assert wrap(ascii_text, width) == textwrap.fill(ascii_text, width)


@given(st.lists(words, min_size=1, max_size=5), st.integers(1, 60))
def test_texts_stand_side_by_side(texts, width):
    """Edges stand below each other whatever the letters; and no line is wider than it may be, if a letter fits."""
    lines = side_by_side({f"{i}": text for i, text in enumerate(texts)}, width=width).split("\n")
    edges = {tuple(shown(line[:i]) for i, c in enumerate(line) if c in "|+") for line in lines}
    longest = max(edges, key=len)
    assert len(longest) == len(texts) - 1 and all(each == longest[: len(each)] for each in edges)
    widest = max([1, *(shown(letter) for text in texts for letter in text)])
    assert max(map(shown, lines)) <= max(width, widest * len(texts) + len(texts) - 1)


@pytest.mark.parametrize(
    ("terminal", "most", "expected"), [(80, 79, 79), (40, 79, 39), (200, 79, 79), (200, 119, 119), (1, 79, 1)]
)
def test_a_line_is_as_wide_as_the_terminal(monkeypatch, terminal, most, expected):
    """But for its last column, where some terminals begin a new line; and sentences are no wider than a page."""
    monkeypatch.setenv("COLUMNS", str(terminal))
    assert columns(most) == expected
    assert max(map(len, wrap("ab " * 99).split("\n"))) <= max(2, columns())


@given(st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "L"]), max_size=20))
def test_what_drives_a_terminal_is_shown(text):
    """Escapes, bells, line breaks of other systems, and what turns the direction of writing."""
    seen = visible(text)
    assert not [c for c in seen if unicodedata.category(c) in ("Cc", "Zl", "Zp") and c not in "\t\n"]
    assert not [
        c
        for c in seen
        if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]
    assert visible("\x1b[31m\x07\x7f\x9b\u202e\u2028 a\tb\n") == "\\x1b[31m\\x07\\x7f\\x9b\\u202e\\u2028 a\tb\n"


def test_a_file_gets_a_text_as_it_is_and_a_terminal_does_not(capsys, monkeypatch):
    """An answer that is piped keeps its bytes."""
    put("a\x1b[31m\x07", end="")
    assert capsys.readouterr().out == "a\x1b[31m\x07"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    put("a\x1b[31m\x07", end="")
    assert capsys.readouterr().out == "a\\x1b[31m\\x07"
    assert wrap("\x1b\u202e \x1b", 10) == "\\x1b\\u202e\n\\x1b"  # as wide as it is shown


def test_a_row_too_short_is_an_error():
    with pytest.raises(ValueError):
        table(["a", "b"], [["1"]])


@given(numbers, st.integers(1, 50))
def test_a_rolling_mean_is_a_mean(values, span):
    """Of the value and the span - 1 before it, or of as many as there are."""
    got = rolling_mean(np.array(values), span)
    expected = [np.mean(values[max(0, i + 1 - span) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_a_rolling_mean_of_nothing_is_nothing():
    assert rolling_mean(np.empty(0, np.float32), 5).shape == (0,)


def field(picture, width, height):
    """The characters of a chart's field, row by row."""
    return [line[MARGIN:].ljust(width) for line in picture.split("\n")[:height]]


@given(numbers, st.integers(2, 30), st.integers(2, 12))
def test_a_curve_stands_where_it_was_measured(values, width, height):
    """One letter a column, at the height of the mean of what the column covers."""
    values = np.array(values)
    rows = field(chart({"x": values}, width=width, height=height), width, height)
    span = (values.max() - values.min()) or 1.0
    for column in range(width):
        heights = [height - 1 - i for i, row in enumerate(rows) if row[column] == "x"]
        start = column * len(values) // width
        mean = values[start : max(start + 1, (column + 1) * len(values) // width)].mean()
        assert len(heights) == 1
        assert abs(heights[0] - (mean - values.min()) / span * (height - 1)) <= 0.5 + 1e-9


def test_a_curve_that_stops_early_leaves_the_rest_empty():
    """Half the axis is its own; where it meets another stands a star."""
    picture = chart({"long": np.zeros(20), "short": np.zeros(10)}, width=20, height=3)
    assert "".join(field(picture, 20, 3)).split() == ["*" * 10 + "l" * 10]


@pytest.mark.parametrize(("mark", "column"), [(0, 0), (10, 10), (19, 19), (20, None), (99, None), (None, None)])
@pytest.mark.parametrize("times", [1, 3])
def test_the_mark_stands_at_its_index(mark, column, times):
    """A line through the field and its label below; none where the axis does not reach."""
    mark = None if mark is None else mark * times
    picture = chart({"x": np.arange(20.0 * times)}, mark=mark, mark_label="here", width=20, height=6)
    rows = field(picture, 20, 6)
    marked = {i for row in rows for i, letter in enumerate(row) if letter == ":"}
    assert marked == ({column} if column is not None else set())
    assert ("^ here" in picture) == (column is not None)
    if column is not None:
        assert picture.split("\n")[-1].index("^") == MARGIN + column


def test_the_axes_say_what_they_measure():
    """Largest and smallest value at the left, the number of values below."""
    lines = chart({"a": np.array([1.25, 4.5]), "b": np.array([2.0, 2.0, 0.5])}, width=30, height=5).split("\n")
    assert lines[0].startswith("  4.50 +") and lines[4].startswith("  0.50 +")
    assert lines[6].split() == ["0", "3"]


@pytest.mark.parametrize("values", [[np.nan], [1.0, np.nan, 2.0], [np.inf, 1.0], [np.nan, np.nan]])
def test_what_is_not_a_number_is_left_out(values):
    """A chart of a broken model has holes, and does not fall over."""
    rows = field(chart({"x": np.array(values)}, width=len(values), height=3), len(values), 3)
    drawn = {i for row in rows for i, letter in enumerate(row) if letter == "x"}
    assert drawn == {i for i, value in enumerate(values) if np.isfinite(value)}


def test_a_constant_is_a_line():
    assert "xxxx" in chart({"x": np.full(4, 7.0)}, width=4, height=3)


@given(st.integers(0, 2**60))
def test_bytes_are_given_in_the_largest_unit(n):
    """The number is right to a twentieth of its unit, and there are fewer than 1,024 of it."""
    number, unit = human_bytes(n).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert abs(float(number) * scale - n) <= 0.05 * scale + 1e-6 * n
    assert float(number) <= 1024 or unit == "TiB"
    assert unit == "B" or float(number) >= 1


def test_a_bar_stays_within_its_width():
    assert [bar(share, 4) for share in (-1.0, 0.0, 0.5, 1.0, 7.0)] == ["....", "....", "##..", "####", "####"]
