"""Pictures: each kind of file, whole or not at all."""

import sys

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from minisink.system.files import check_picture
from minisink.system.plots import LETTERS, PALETTE, SIZE, bars, look, name_lines, picture

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def draw(path):
    with picture(path, "a title", "a caption") as figure:
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
        ("none/loss.png", "cannot be written .No such file or directory"),
        ("loss", "ends in one of .*png"),
        ("loss.xyz", "ends in one of"),
        ("loss.png.txt", "ends in one of"),
        (".png", "ends in one of"),
        ("folder.png", "a folder; a file is needed"),
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


def luminance(colour):
    """How bright a colour is (WCAG 2)."""
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
    return sum(part * x for part, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", PALETTE)
def test_every_colour_stands_out_from_white(colour):
    """By 3 to 1 at least, as lines and large letters need it."""
    assert 1.05 / (luminance(colour) + 0.05) >= 3


def test_letters_are_read_from_the_last_row():
    """On a slide of 1024 x 768 that a picture fills from side to side: 2.6 % of its height, every kind of text."""
    sizes = {name: size for name, size in look().items() if name.endswith("size")}
    assert len(sizes) >= 7 and min(sizes.values()) == LETTERS
    assert LETTERS / 72 * 1024 / SIZE[0] >= 0.026 * 768


def test_lines_are_named_at_their_ends():
    """Each once, in its colour, in the order of the ends, and none on another; lines without a name have none."""
    figure = Figure()
    axes = figure.subplots()
    ends = {"low": 1.0, "top": 9.0, "as low": 1.001, "as top": 9.0}
    for name, end in ends.items():
        axes.plot([0.0, 1.0], [5.0, end], label=name)
    axes.plot([0.0, 1.0], [0.0, 10.0])
    name_lines(axes, gap=0.1)
    places = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert sorted(places, key=places.get) == sorted(ends, key=lambda name: (ends[name], name))
    apart = sorted(places.values())
    assert min(b - a for a, b in zip(apart, apart[1:], strict=False)) > 0.099 and apart[0] >= 0 and apart[-1] <= 1
    colours = {line.get_label(): line.get_color() for line in axes.lines}
    assert all(text.get_color() == colours[text.get_text()] for text in axes.texts)


@pytest.mark.parametrize("lying", [False, True])
def test_bars_are_told_apart_without_colour(lying):
    """Series beside each other and kinds in one series: never one colour without a hatch of its own."""
    axes = Figure().subplots()
    bars(axes, ["a", "b"], {"one": [1.0, 2.0], "two": [2.0, float("nan")]}, lying=lying)
    kinds = {(patch.get_facecolor(), patch.get_hatch()) for patch in axes.patches}
    assert len(kinds) == len({colour for colour, _ in kinds}) == len({hatch for _, hatch in kinds}) == 2
    axes = Figure().subplots()
    bars(axes, ["a", "b", "c"], {"one": [1.0, 2.0, 3.0]}, kinds=[0, 1, 0], form="%.1f", lying=lying)
    first, second, third = ((patch.get_facecolor(), patch.get_hatch()) for patch in axes.patches)
    assert first == third != second and first[1] != second[1]
    assert [text.get_text() for text in axes.texts] == ["1.0", "2.0", "3.0"]
