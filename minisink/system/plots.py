"""Pictures, drawn with matplotlib (the extra ``minisink[plot]``) and written whole or not at all."""

from contextlib import contextmanager

import numpy as np

from .files import whole_file
from .terminal import rolling_mean, rolling_span

COLOURS = {
    "dense": "#7f7f7f",
    "window": "#d62728",
    "recompute": "#1f77b4",
    "streaming": "#2ca02c",
    "retrieval": "#9467bd",
}
# told apart without colour too: re-computation is broad and lies below, streaming runs in it
STROKES: dict = {
    "dense": {"ls": ":", "lw": 2},
    "window": {"ls": "-", "lw": 2},
    "recompute": {"ls": "-", "lw": 7, "alpha": 0.35},
    "streaming": {"ls": "--", "lw": 2},
    "retrieval": {"ls": "-.", "lw": 2},
}


NAMED = 20  # tokens named along an axis


def _save(figure, path):
    """Write a picture."""
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


def _look():
    """Large letters, lines told apart without colour."""
    from matplotlib.rcsetup import cycler

    colours = ["#2ca02c", "#d62728", "#1f77b4", "#9467bd", "#7f7f7f", "#ff7f0e"]
    lines = cycler(color=colours, linestyle=["-", "--", "-.", ":", "-", "--"])
    look: dict = {"font.size": 16, "axes.titlesize": 16, "figure.titlesize": 17, "lines.linewidth": 2.5}
    return look | {"axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3, "axes.prop_cycle": lines}


def for_a_lesson():
    """``matplotlib.pyplot``, set up as `picture` is, for figures in a notebook.

    Raises
    ------
    ValueError
        Without matplotlib, naming the extra that brings it.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ValueError("the figures of a lesson need matplotlib: pip install 'minisink[tutorials]'") from None
    pyplot.rcParams.update(_look() | {"figure.figsize": (11, 5), "figure.constrained_layout.use": True})
    return pyplot


@contextmanager
def picture(path, caption, *, size=(11, 6.2)):
    """A figure for a projector: large letters, lines told apart without colour, and how to get it below.

    Parameters
    ----------
    path : str or path
        Of the picture.
    caption : str
        Model and command.
    size : (float, float)
        Inches.

    Yields
    ------
    matplotlib.figure.Figure
        To draw on; written afterwards.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_look()):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.supxlabel(caption, fontsize=11, color="0.35", family="monospace")
        _save(figure, path)


def draw_losses(path, losses, *, title, evicted_from=None, group=1):
    """Rolling loss of each method along a text (Figure 3 of StreamingLLM), and what eviction adds to it.

    Parameters
    ----------
    path : str or path
        Of the picture.
    losses : dict of str to ndarray of shape (T,)
        Nats a token, by method.
    title : str
    evicted_from : int, optional
        Token at which the first eviction happens.
    group : int
        Tokens that share a loss, their mean: of a long text more than this is not seen.
    """
    from matplotlib.figure import Figure

    span = rolling_span(losses)
    above = above_recompute(losses)
    figure = Figure(figsize=(11, 8 if above else 5), layout="constrained")
    panels = figure.subplots(2 if above else 1, 1, sharex=True, squeeze=False)[:, 0]
    labels = [f"loss (nats, mean of the last {span * group})", "loss above re-computation (nats)"]
    for axes, curves, label in zip(panels, (losses, above), labels, strict=False):
        for method, nll in curves.items():
            rolled = rolling_mean(nll, span)
            tokens = group * np.arange(1, len(nll) + 1)
            axes.plot(tokens, rolled, label=method, color=COLOURS.get(method), **STROKES.get(method, {"lw": 2}))
        settled = [rolling_mean(nll, span)[span:] for nll in curves.values() if len(nll) > span]
        values = np.concatenate([np.empty(0), *settled])
        if np.isfinite(values).any():  # a mean of the first few tokens is wild, and does not set the scale
            low, high = np.nanmin(values), np.nanmax(values)
            axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
        if evicted_from is not None:
            axes.axvline(evicted_from, color="black", ls=":", label="first eviction")
        axes.set_ylabel(label, fontsize=13)
        axes.legend(fontsize=13, loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside the curves, not on them
        axes.grid(alpha=0.3)
    panels[0].set_title(title, fontsize=14)
    panels[-1].set_xlabel("token", fontsize=13)
    _save(figure, path)


def above_recompute(losses):
    """How much more window and streaming lose than re-computation, token by token.

    Parameters
    ----------
    losses : dict of str to ndarray of shape (T,)
        Nats a token, by method.

    Returns
    -------
    dict of str to ndarray of shape (T,)
        Empty where re-computation was not measured.
    """
    if "recompute" not in losses:
        return {}
    return {m: losses[m] - losses["recompute"] for m in ("window", "streaming") if m in losses}


def draw_inspection(path, patterns, summary, *, tokens, title):
    """Attention patterns of every head, and beside them what makes a sink: residual and value norms.

    Parameters
    ----------
    path : str or path
        Of the picture.
    patterns : list of ndarray of shape (H, T, T)
        One a layer.
    summary : dict
        From `sinks.summary`.
    tokens : list of str
        The T tokens, named on the axes.
    title : str
    """
    from matplotlib.figure import Figure

    n_layers, n_heads = len(patterns), len(patterns[0])
    figure = Figure(figsize=(2.2 * n_heads + 4.5, 2.2 * n_layers + 1.8), layout="constrained")
    every = -(-len(tokens) // NAMED)  # of a long text not every token has room for its name
    ticks, names = range(0, len(tokens), every), [name[:9] for name in tokens[::every]]
    grid = figure.subplots(n_layers, n_heads + 1, squeeze=False, width_ratios=[1] * n_heads + [1.3])
    for i, (pattern, row) in enumerate(zip(patterns, summary["layers"], strict=True)):
        for head, axes in enumerate(grid[i, :n_heads]):
            image = axes.imshow(pattern[head], vmin=0.0, vmax=1.0, cmap="magma", interpolation="nearest", aspect="auto")
            axes.set_title(f"layer {i} head {head}: {row['heads'][head]['weight_on_first']:.0%}", fontsize=10)
            axes.set_xticks(ticks, names if i == n_layers - 1 else [], rotation=90, fontsize=8)
            axes.set_yticks(ticks, [] if head else names, fontsize=8)
        grid[i, 0].set_ylabel("query", fontsize=10)
        bars = grid[i, n_heads]
        ratios = {"residual": _ratio(row["residual_first"], row["residual_median"])}
        for h, head in reversed(list(enumerate(row["heads"]))):
            ratios[f"value {h}"] = _ratio(head["value_first"], head["value_median"])
        bars.barh(list(ratios), list(ratios.values()), color=["#ff7f0e", *["#1f77b4"] * n_heads])
        bars.axvline(1.0, color="black", ls=":")
        bars.set_title("norm of first token / median", fontsize=10)
    figure.colorbar(image, ax=grid[:, :n_heads], location="bottom", shrink=0.5, label="weight on a key")
    figure.suptitle(title, fontsize=13)
    _save(figure, path)


def _ratio(first, median):
    return first / median if median else 0.0


def draw_speed(path, rows, *, title):
    """Milliseconds a token, re-computing and streaming, by the size of the cache (Figure 10 of StreamingLLM).

    Parameters
    ----------
    path : str or path
        Of the picture.
    rows : list of dict
        From `experiments.speed.compare`.
    title : str
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    plot_speed(axes, rows)
    axes.set_title(title, fontsize=14)
    axes.grid(alpha=0.3)
    _save(figure, path)


def plot_speed(axes, rows, *, size=13):
    """The same on axes that are there, in letters of a size."""
    caches = [row["cache"] for row in rows]
    again = "sliding window with re-computation (times StreamingLLM)"
    for method, label in (("recompute", again), ("streaming", "StreamingLLM")):
        ms = [row[f"{method}_ms"] for row in rows]
        axes.plot(caches, ms, marker="o", lw=2, ls=STROKES[method]["ls"], color=COLOURS[method], label=label)
    for row in rows:
        where = row["cache"], row["recompute_ms"]
        axes.annotate(
            f"{row['ratio']:.0f}x", where, xytext=(0, 8), textcoords="offset points", ha="center", fontsize=size - 1
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(y=0.15)  # room for the numbers above the curve
    axes.set_xticks(caches, [str(cache) for cache in caches])
    axes.set_xlabel("cache (tokens)", fontsize=size)
    axes.set_ylabel("milliseconds per token", fontsize=size)
    axes.legend(fontsize=size)
