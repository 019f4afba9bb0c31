"""The figures of a lesson."""

import re
import sys

import numpy as np
import pytest

import minisink
from minisink.cache import LayerCache
from minisink.fast.ring import RingCache
from minisink.teaching import figures

LAST_ROW = 0.026  # of a slide's height: the least that is read from there
ON_A_SLIDE = 0.68  # of its height a figure takes: tutorials/teacher/slides.py


@pytest.fixture(autouse=True)
def _as_it_was():
    import matplotlib

    with matplotlib.rc_context({"backend": "agg"}):
        yield
        matplotlib.pyplot.close("all")


def drawn(draw, *args):
    """Draw, and return the figure and all words in it."""
    draw(*args)
    figure = figures.for_a_lesson().gcf()
    (axes,) = figure.axes
    texts = [*axes.texts, axes.title]
    if axes.axison:
        texts += [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
        texts += axes.get_legend().get_texts()
    return figure, texts


def inside(text, figure):
    (left, low), (right, high) = text.get_window_extent().get_points()
    return left >= -1 and low >= -1 and right <= figure.bbox.width + 1 and high <= figure.bbox.height + 1


PICTURES = [
    (figures.transformer, minisink.load("novels")),
    (figures.kept_over_time, minisink.Streaming(4, 4), 13),
    (figures.ring, minisink.Streaming(2, 4), 9),
]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture[0].__name__)
def test_a_picture_is_read_from_the_last_row(picture):
    """No letter is smaller than that, and none is cut off."""
    figure, texts = drawn(*picture)
    figure.canvas.draw()
    assert [text.get_text() for text in texts if not inside(text, figure)] == []
    small = {
        text.get_text() for text in texts if text.get_fontsize() / 72 / figure.get_figheight() * ON_A_SLIDE < LAST_ROW
    }
    assert small == set()


@pytest.mark.parametrize("method", [minisink.Streaming(2, 3), minisink.Streaming(1, 4, "original"), minisink.Window(3)])
def test_what_is_kept_is_drawn_as_the_cache_has_it(method):
    """A cell's number is the position that a cache gives the token, and a token without one is evicted."""
    _, texts = drawn(figures.kept_over_time, method, 9)
    written = {
        text.get_position(): int(text.get_text())
        for text in texts
        if text.get_fontsize() == 17 and text.get_text().isdigit()
    }
    layer, right = LayerCache(np.zeros((0, 1, 2)), np.zeros((0, 1, 2)), method), {}
    for now in range(9):
        layer.append(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)))
        held = zip(layer.token_index.tolist(), layer.positions.tolist(), strict=True)
        right |= {(token, now): position for token, position in held}
    assert written == right


@pytest.mark.parametrize(("n_sinks", "window", "newest"), [(2, 4, 9), (1, 5, 17), (0, 3, 7)])
def test_the_ring_is_drawn_as_it_lies(n_sinks, window, newest):
    """Clockwise from the top the tokens stand in the order of their slots; what is written over leaves."""
    method = minisink.Streaming(n_sinks, window)
    cache = RingCache(1, 1, 2, method)
    cache.n_seen = newest + 1
    _, texts = drawn(figures.ring, method, newest)
    places = {
        int(text.get_text()): np.subtract(text.get_position(), (8.7, 2.55))
        for text in texts
        if text.get_fontsize() == 24
    }
    clockwise = sorted(places, key=lambda token: np.arctan2(places[token][0], places[token][1]) % (2 * np.pi))
    assert clockwise == cache.token_index[n_sinks:].tolist()
    words = " ".join(text.get_text() for text in texts)
    before, (over,) = cache.token_index.tolist(), re.findall(r"overwrite token (\d+)", words)
    cache.n_seen += 1
    assert set(before) - set(cache.token_index.tolist()) == {int(over)}
    assert f"rotated to {n_sinks + window - 1}," in words and f"rotated to {newest}," in words


def test_a_lesson_gets_large_letters_or_the_name_of_the_extra(monkeypatch):
    import matplotlib

    assert figures.for_a_lesson().rcParams["font.size"] >= 16
    assert len({style["linestyle"] for style in matplotlib.rcParams["axes.prop_cycle"]}) >= 4
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'minisink\[tutorials,gguf,chat\]'"):
        figures.for_a_lesson()
