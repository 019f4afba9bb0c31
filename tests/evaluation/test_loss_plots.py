"""Losses along a text as a picture, whatever was measured."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from minisink.evaluation.plots import STROKES, above_recompute, draw_losses


def test_every_method_is_drawn_to_its_end(tmp_path):
    """Four methods, one of them not the paper's, of different lengths; with and without a panel of differences."""
    losses = {name: np.linspace(4, 3 + i, 60 - i) for i, name in enumerate(["dense", "window", "streaming", "another"])}
    for name, curves in {"one.png": losses, "two.png": losses | {"recompute": losses["dense"][:57]}}.items():
        curves = {method: nll[:57] for method, nll in curves.items()} if name == "two.png" else curves
        draw_losses(tmp_path / name, curves, title="a title", evicted_from=20)
        assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize("losses", [{"window": np.empty(0)}, {"window": np.ones(1)}, {"window": np.full(9, np.nan)}])
def test_the_smallest_measurement_is_drawn(tmp_path, losses):
    """No token, one token, and tokens without a loss."""
    draw_losses(tmp_path / "loss.png", losses, title="")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_above_recompute_is_a_difference():
    """Window and streaming less re-computation; nothing without it."""
    losses = {"dense": np.ones(3), "window": np.full(3, 4.0), "recompute": np.array([1.0, 2.0, 3.0])}
    assert {k: v.tolist() for k, v in above_recompute(losses).items()} == {"window": [3.0, 2.0, 1.0]}
    assert above_recompute({"window": np.ones(3)}) == {}


def test_the_title_says_what_eviction_adds(tmp_path, monkeypatch):
    """Relative to re-computation where there is one; every curve is named, in the stroke of its method."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.touch())
    losses = {"dense": np.full(60, 5.0), "window": np.full(60, 4.0)}
    losses |= {"recompute": np.full(60, 3.0), "streaming": np.full(60, 2.999)}
    draw_losses(tmp_path / "loss.png", losses, title="a title", evicted_from=20)
    draw_losses(tmp_path / "one.png", {"window": losses["window"]}, title="a text")
    (axes,) = drawn[0].axes
    names = {text.get_text(): text for text in axes.texts if text.get_text() in losses}
    assert set(names) == set(losses) and len(axes.lines) == len(losses) + 1
    for line, name in zip(axes.lines, losses, strict=False):
        assert line.get_color() == names[name].get_color() == STROKES[name]["color"]
    titles = [" ".join(figure.get_suptitle().split()) for figure in drawn]
    above = "compared with re-computed windows, window loses 1.00 nats per token more, streaming loses as much"
    assert titles == [f"a title: {above}", "a text: window loses 4.00 nats per token"]


def test_what_may_be_chance_is_no_difference_in_the_title(tmp_path, monkeypatch):
    drawn, rng = [], np.random.default_rng(0)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.touch())
    losses = {"recompute": np.full(400, 3.0), "streaming": 2.98 + rng.normal(0, 0.3, 400), "window": np.full(400, 3.5)}
    draw_losses(tmp_path / "loss.png", losses, title="a title")
    title = " ".join(drawn[0].get_suptitle().split())
    assert title.endswith("window loses 0.50 nats per token more, streaming loses as much")
