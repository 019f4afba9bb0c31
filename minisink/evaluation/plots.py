"""What a method loses along a text, as a picture; the colour and stroke of each method."""

import numpy as np

from ..system.plots import new_figure, save_figure
from ..system.terminal import rolling_mean, rolling_span

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


def draw_losses(path, losses, *, title, evicted_from=None, group=1):
    """Draw the rolling loss of each method along a text (Figure 3 of StreamingLLM), and what eviction adds to it.

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
    above = above_recompute(losses)
    figure = new_figure(11, 8 if above else 5)
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
    save_figure(figure, path)


def above_recompute(losses):
    """Tell how much more window and streaming lose than re-computation at each token; nothing if that is missing."""
    if "recompute" not in losses:
        return {}
    return {m: losses[m] - losses["recompute"] for m in ("window", "streaming") if m in losses}
