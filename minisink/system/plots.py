"""Pictures, drawn with matplotlib (an extra) and written whole or not at all."""

from contextlib import contextmanager
from textwrap import fill

from .files import atomic_write


def look():
    """Return matplotlib's settings for a projector: large letters, lines told apart without colour."""
    from matplotlib.rcsetup import cycler

    colours = ["#2ca02c", "#d62728", "#1f77b4", "#9467bd", "#7f7f7f", "#ff7f0e"]
    lines = cycler(color=colours, linestyle=["-", "--", "-.", ":", "-", "--"])
    settings: dict = {"font.size": 16, "axes.titlesize": 16, "figure.titlesize": 17, "lines.linewidth": 2.5}
    return settings | {"axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3, "axes.prop_cycle": lines}


def new_figure(width, height):
    """Return an empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path):
    """Write a figure, in the kind that the ending of the path says."""
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


@contextmanager
def picture(path, caption, *, size=(11, 6.2)):
    """Yield a figure for a projector; how to get it (a caption) stands below."""
    from matplotlib import rc_context

    with rc_context(look()):
        figure = new_figure(*size)
        yield figure
        figure.supxlabel(fill(caption, 80, break_long_words=False), fontsize=16, color="0.35", family="monospace")
        save_figure(figure, path)
