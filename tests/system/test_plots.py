"""Pictures: each kind of file, whole or not at all."""

import sys

import pytest

from minisink.system.files import check_picture
from minisink.system.plots import picture

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def draw(path):
    with picture(path, "a caption") as figure:
        figure.subplots().plot([1.0, 2.0])


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


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'minisink\[plot\]'"):
        check_picture(tmp_path / "loss.png")
