"""Pictures, drawn with matplotlib (an extra) and written whole or not at all.

A picture must be readable from the last row, and without telling red from green. A sentence above it says what was
found, its letters are large, and its colours (from Okabe and Ito, and from Tol) only repeat what a line style, a hatch
or a name shows.
"""

from contextlib import contextmanager
from itertools import cycle
from textwrap import fill, shorten

import numpy as np

from .files import atomic_write

BLUE, VERMILLION, GREEN, PURPLE, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#882255", "#6E6E6E", "#000000"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, GREY, BLACK)
HATCHES = ("", "//", "..", "xx", "\\\\", "")
SIZE, LETTERS = (11, 6.2), 16  # inches, points: 2.7 % of the height of a 4:3 slide that it fills


def look():
    """Return matplotlib's settings for a projector: large letters, lines distinguishable without colour."""
    from matplotlib.rcsetup import cycler

    lines = cycler(color=PALETTE, linestyle=["-", "--", "-.", ":", "-", "--"])
    settings: dict = {"font.size": LETTERS, "lines.linewidth": 2.5, "axes.prop_cycle": lines}
    settings |= {f"{part}size": LETTERS for part in ("axes.title", "axes.label", "xtick.label", "ytick.label")}
    settings |= {"legend.fontsize": LETTERS, "figure.titlesize": 19}
    settings |= {"axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3}
    return settings | {"axes.formatter.min_exponent": 7}  # a logarithmic axis shows 0.01, not 10 to the power of -2


@contextmanager
def picture(path, title, caption=""):
    """Yield a figure with a title above (the finding in a sentence) and a caption below (the command that draws it)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(look()):
        figure = Figure(figsize=SIZE, layout="constrained")
        lines = len(title) // 70 + 1  # of about equal length
        figure.suptitle(fill(title, len(title) // lines + 8, break_on_hyphens=False).replace("$", r"\$"))
        yield figure
        if caption:
            short = shorten(caption, 300, placeholder=" ...")  # it may name 154 folders
            below = fill(short, 80, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
            figure.supxlabel(below.replace("$", r"\$"), fontsize=LETTERS, color=GREY, family="monospace")
        with atomic_write(path) as unfinished:
            figure.savefig(unfinished, dpi=150)


def panels(figure, groups, **options):
    """Yield axes and the value for each title in a dict of values: panels in a row that share a scale."""
    row = figure.subplots(1, len(groups), sharey=True, squeeze=False, **options)[0]
    for axes, (title, group) in zip(row, groups.items(), strict=True):
        axes.set_title(title)
        yield axes, group


def curves(axes, x, series):
    """Draw a line with markers over `x` for each series, a dict of values by name."""
    for (name, values), marker in zip(series.items(), cycle("osD^v")):
        axes.plot(x, values, marker=marker, ms=9, label=name)


def heat(axes, values, **labels):
    """Draw weights (rows, columns), 0 to 1, as colours, and return the image."""
    image = axes.imshow(values, vmin=0.0, vmax=1.0, cmap="magma", interpolation="nearest", aspect="auto")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.set(**labels)
    return image


def name_lines(axes, gap=0.08):
    """Write the name of each line at its end, in its colour, at least `gap` of the axes' height apart."""
    axes.get_ylim()  # sets the scale
    on_axes, ends = axes.transData - axes.transAxes, []
    for line in axes.lines:
        points = [point for point in np.asarray(line.get_xydata(), float) if np.isfinite(point).all()]
        if points and not line.get_label().startswith("_"):
            ends.append((on_axes.transform(points[-1])[1], line.get_label(), line.get_color()))
    place = -gap
    for end, label, colour in sorted(ends):
        place = max(place + gap, min(end, 1.0 - gap * (len(ends) - 1)))
        axes.text(1.02, place, label, color=colour, va="center", transform=axes.transAxes)


def bars(axes, names, series, *, form="", kinds=None, lying=False, errors=None):
    """Draw a bar for each name, side by side for several series, with its number formatted by `form`.

    `series` maps labels to values, NaN if missing; `errors` maps them to error bars. In a single series, bars of the
    same kind (`kinds`, integers) look alike.
    """
    width = 0.8 / len(series)
    for i, (label, values) in enumerate(series.items()):
        alike = kinds or [i] * len(names)
        places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * width
        look_of = {"color": [PALETTE[kind % 6] for kind in alike], "hatch": [HATCHES[kind % 6] for kind in alike]}
        if errors:
            look_of["xerr" if lying else "yerr"] = errors[label]
        drawn = (axes.barh if lying else axes.bar)(places, values, width, label=label, edgecolor="black", **look_of)
        if form:
            axes.bar_label(drawn, fmt=lambda x: form % (round(x, 3) + 0.0), padding=4)  # not -0.000
            axes.margins(**{"x" if lying else "y": 0.12})
    (axes.set_yticks if lying else axes.set_xticks)(range(len(names)), names)
    axes.grid(visible=False, axis="y" if lying else "x")
    if lying and not axes.yaxis_inverted():  # panels may share it
        axes.invert_yaxis()
    if len(series) > 1:
        axes.legend()
