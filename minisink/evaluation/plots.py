"""What a method loses along a text, as a picture; the colour and stroke of each method."""

import numpy as np

from ..system.plots import new_figure, save_figure
from ..system.terminal import rolling_mean, rolling_span

COLOURS = {  # also for those who do not see red and green apart (Okabe and Ito)
    "dense": "#7f7f7f",
    "window": "#d55e00",
    "recompute": "#56b4e9",
    "streaming": "#00386b",
    "retrieval": "#cc79a7",
}
# told apart without colour too: re-computation is broad and lies below, streaming runs in it
STROKES: dict = {
    "dense": {"ls": ":", "lw": 2},
    "window": {"ls": "-", "lw": 2.5},
    "recompute": {"ls": "-", "lw": 9, "alpha": 0.5},
    "streaming": {"ls": "--", "lw": 2.5},
    "retrieval": {"ls": "-.", "lw": 2},
}


def draw_losses(path, losses, *, title, evicted_from=None, group=1):
    """Draw the rolling loss of each method along a text (Figure 3 of StreamingLLM), and say what eviction adds.

    Parameters
    ----------
    path : str or path
    losses : dict of str to ndarray of shape (T,)
        Nats per token, by method.
    title : str
    evicted_from : int, optional
        Token at which the first eviction happens.
    group : int
        Tokens that share a loss, their mean: of a long text more than this is not seen.
    """
    span = rolling_span(losses)
    figure = new_figure(11, 6.2)
    axes = figure.subplots()
    rolled = {method: rolling_mean(nll, span) for method, nll in losses.items()}
    first = span // 4  # a mean of the first few tokens is wild
    for method, curve in rolled.items():
        tokens = group * np.arange(1, len(curve) + 1)
        stroke = STROKES.get(method, {"lw": 2})
        axes.plot(tokens[first:], curve[first:], color=COLOURS.get(method, "black"), **stroke)
    settled = np.concatenate([np.empty(0), *(curve[span:] for curve in rolled.values())])
    if np.isfinite(settled).any():  # and does not set the scale
        low, high = np.nanmin(settled), np.nanmax(settled)
        axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    _name_curves(axes, rolled, fontsize=20)
    if evicted_from is not None:
        axes.axvline(evicted_from, color="black", ls=":")
        axes.text(evicted_from, 0.99, " first eviction", va="top", fontsize=16, transform=axes.get_xaxis_transform())
    more = {name: float(nll.mean()) for name, nll in above_recompute(losses).items() if len(nll)}
    sentence = ", ".join(f"{name} {x:.2f}" for name, x in more.items()).replace("-0.00", "0.00")
    figure.suptitle(f"{title}\nnats per token above re-computation: {sentence}" if more else title, fontsize=19)
    axes.set_xlabel("token", fontsize=17)
    axes.set_ylabel(f"loss (nats, mean of the last {span * group})", fontsize=16)
    axes.tick_params(labelsize=16)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def _name_curves(axes, curves, *, fontsize, gap=0.075):
    """Write the name of each curve beside its end, `gap` of the axes' height apart at least."""
    low, high = axes.get_ylim()
    ends = {name: (curve[-1] - low) / (high - low) for name, curve in curves.items() if len(curve)}
    place = -np.inf
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        place = max(place + gap, min(end, 1.0)) if np.isfinite(end) else place + gap
        place = max(place, 0.0)
        style = {"color": COLOURS.get(name, "black"), "fontsize": fontsize, "va": "center"}
        axes.text(1.01, place, name, transform=axes.transAxes, **style)


def above_recompute(losses):
    """Tell how much more window and streaming lose than re-computation at each token; nothing if that is missing."""
    if "recompute" not in losses:
        return {}
    return {m: losses[m] - losses["recompute"] for m in ("window", "streaming") if m in losses}
