"""What a method loses along a text, as a picture; the colour and stroke of each method."""

import numpy as np

from ..system.plots import BLACK, BLUE, GREY, PURPLE, VERMILLION, name_lines, picture
from ..system.terminal import rolling_mean, rolling_span
from .difference import SURE, Difference, paired

# distinguishable without colour too: streaming is broad, and re-computation runs inside it
STROKES: dict = {
    "dense": {"color": GREY, "ls": ":", "lw": 2},
    "window": {"color": VERMILLION, "ls": "-", "lw": 4},
    "recompute": {"color": BLACK, "ls": "--", "lw": 1.5, "zorder": 4},
    "streaming": {"color": BLUE, "ls": "-", "lw": 6},
    "retrieval": {"color": PURPLE, "ls": "-.", "lw": 2},
    "newlines": {"color": PURPLE, "ls": "-.", "lw": 2, "zorder": 3},
}


def draw_losses(path, losses, *, title, evicted_from=None, group=1):
    """Draw the rolling loss of each method along a text (Figure 3 of StreamingLLM), and say what eviction adds.

    `losses` maps methods to nats per token, (T,), each the mean of `group` tokens if the text is long. The `title`
    names the text; the first eviction is at token `evicted_from`.
    """
    above = {name: _how_much_more(nll) for name, nll in above_recompute(losses).items() if len(nll)}
    own = {name: f"{nll.mean():.2f} nats per token" for name, nll in losses.items() if len(nll)}
    each = ", ".join(f"{name} loses {loss}" for name, loss in (above or own).items())
    title += f": {'compared with re-computed windows, ' if above else ''}{each}" if each else ""
    with picture(path, title) as figure:
        plot_losses(figure.subplots(), losses, {"first eviction": evicted_from}, group=group)


def plot_losses(axes, losses, marks, *, group=1):
    """Draw rolling losses on given axes, each with its name, and a line at every marked token."""
    span = rolling_span(losses)
    rolled = {method: rolling_mean(nll, span) for method, nll in losses.items()}
    first = span // 4  # a mean of only a few tokens is too noisy
    for method, curve in rolled.items():
        tokens = group * np.arange(1, len(curve) + 1)
        axes.plot(tokens[first:], curve[first:], label=method, **STROKES.get(method, {}))
    settled = np.concatenate([np.empty(0), *(curve[span:] for curve in rolled.values())])
    if np.isfinite(settled).any():  # only later values set the scale
        low, high = np.nanmin(settled), np.nanmax(settled)
        axes.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.15 * (high - low) + 1e-3)
    name_lines(axes)
    for i, (name, token) in enumerate(marks.items()):
        if token is not None and token < group * max(map(len, rolled.values())):
            axes.axvline(token, color="black", ls=":", lw=1.5)
            axes.text(token, 0.98 - 0.08 * i, f" {name}", va="top", transform=axes.get_xaxis_transform())
    axes.set(xlabel="token", ylabel=f"loss (nats, mean of the last {span * group})")


def _how_much_more(difference):
    """Describe the mean difference of losses, (N,), as zero if it is within three standard errors of zero."""
    gap = paired(difference, 0 * difference) if len(difference) > 1 else Difference(difference.mean(), 0.0)
    return more(0.0 if abs(gap.mean) < SURE * gap.error else gap.mean, unit="nats per token")


def more(x, *, unit=""):
    """Describe a difference.

    >>> more(0.251), more(-0.15, unit="nats"), more(0.001)
    ('0.25 more', '0.15 nats less', 'as much')
    """
    size = f"{abs(x):.2f}"
    return " ".join([size, *unit.split(), "more" if x > 0 else "less"]) if float(size) else "as much"


def above_recompute(losses):
    """Return how much more window and streaming lose than re-computation at each token; {} if that is missing."""
    methods = [m for m in ("window", "streaming") if m in losses and "recompute" in losses]
    return {m: losses[m] - losses["recompute"] for m in methods}
