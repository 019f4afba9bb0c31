"""Tables and charts: nothing is lost, and what is drawn stands where it was measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisink.system.terminal import bar, chart, human_bytes, rolling_mean, table

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
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    assert lines[1] == "  ".join("-" * width for width in widths)
    ends = np.cumsum([width + 2 for width in widths]) - 2
    for line, row in zip([lines[0], *lines[2:]], [header, *rows], strict=True):
        assert line.startswith(row[0])
        for end, cell in zip(ends[1:], row[1:], strict=True):
            assert line[end - len(cell) : end] == cell


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
