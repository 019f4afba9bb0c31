"""Pictures: each kind of file, whatever was measured, whole or not at all."""

import sys

import numpy as np
import pytest
import tiny

import minisink
from minisink import gpt2, llama, sinks
from minisink.system.files import check_picture
from minisink.system.plots import above_recompute, draw_inspection, draw_losses, for_a_lesson

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
LOSSES = {name: np.linspace(4, 3 + i, 60 - i) for i, name in enumerate(["dense", "window", "streaming", "another"])}


def draw(path):
    draw_losses(path, LOSSES, title="a title", evicted_from=20)


@pytest.mark.parametrize("ending", MAGIC)
def test_the_ending_says_which_kind(tmp_path, ending):
    """PNG, PDF or SVG; one file, and nothing beside it."""
    path = tmp_path / f"loss.{ending}"
    check_picture(path)
    draw(path)
    assert path.read_bytes().startswith(MAGIC[ending])
    assert list(tmp_path.iterdir()) == [path]
    draw(str(path).replace(ending, ending.upper()))
    assert len(list(tmp_path.iterdir())) in (1, 2)  # one, where case does not count


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


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_every_head_is_drawn(tmp_path, arch):
    """A picture of patterns and norms, also where every value is zero."""
    model = tiny.make(arch)
    public = minisink.Model(model.config, model.weights, name="tiny")
    patterns = [layer["pattern"] for layer in sinks.look_inside(public, tiny.ids(7))["layers"]]
    summary = sinks.summary(sinks.look_inside(public, tiny.ids(7)))
    for tokens in (list("abcdefg"), ["a word"] * 7):
        draw_inspection(tmp_path / "heads.png", patterns, summary, tokens=tokens, title="heads")
    assert (tmp_path / "heads.png").read_bytes().startswith(MAGIC["png"])


def test_a_picture_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    """An error while drawing: what lay there stays, and nothing lies beside it."""
    path = tmp_path / "loss.png"
    path.write_bytes(b"old")

    def broken(figure, name, **_):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    with pytest.raises(ValueError, match="loss.png: cannot be written .No space"):
        draw(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/loss.png", "there is no folder"),
        ("loss", "ends in one of .*png"),
        ("loss.xyz", "ends in one of"),
        ("loss.png.txt", "ends in one of"),
        (".png", "ends in one of"),
        ("folder.png", "is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, message):
    """Before the work, by name."""
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=message) as caught:
        check_picture(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_lesson_gets_large_letters_or_the_name_of_the_extra(monkeypatch):
    import matplotlib

    with matplotlib.rc_context():
        assert for_a_lesson().rcParams["font.size"] >= 16
        assert len({style["linestyle"] for style in matplotlib.rcParams["axes.prop_cycle"]}) >= 4
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'minisink\[tutorials\]'"):
        for_a_lesson()


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'minisink\[plot\]'"):
        check_picture(tmp_path / "loss.png")
