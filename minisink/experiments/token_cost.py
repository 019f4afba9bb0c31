"""Cost per token by cache size, for streaming and re-computation.

A window rebuilt for every token costs as many tokens as it holds, and attention among them all; a stream costs one
token, and only its attention grows with the cache. So the ratio of the two grows about linearly.
"""

import numpy as np

from ..evaluation.plots import STROKES
from ..system.plots import name_lines
from . import speed
from .effects import effect

PAPER = "Figure 10"
CLAIM = "re-computation / streaming, caches 256 to 4096: 2.0, 3.3, 6.4, 11.6, 21.7 times (7B); 22.2 times (13B, 4096)"
OPTIONS = {"caches": "keys a query sees", "n_sinks": "sinks when streaming", "repeats": "times that a call is timed"}
FAST = {"caches": (64, 128, 256, 512), "repeats": 3}


def run(model, *, caches=tuple(speed.PAPER), n_sinks=4, repeats=5, track=iter):
    """Time a token in every cache, also beyond the trained length, and yield the rows of `speed.compare`."""
    yield from speed.compare(model, sorted(set(caches)), n_sinks=n_sinks, repeats=repeats, track=track)


def effects(rows):
    times = np.stack([row["times"] for row in rows], axis=1)  # (repeats, caches, 2)
    sizes = np.log([row["cache"] for row in rows])

    def ratios(drawn):
        streaming, recompute = np.median(drawn, axis=0).T
        return recompute / streaming

    def power(drawn):
        return np.polyfit(sizes, np.log(ratios(drawn)), 1)[0]

    what = f"re-computation over streaming, cache {rows[-1]['cache']}"
    yield effect(what, times, above=1, stretch=1, of=lambda drawn: ratios(drawn)[-1])
    if len(rows) > 1:
        yield effect("the ratio grows as the cache to the power of", times, above=0.5, below=1.5, stretch=1, of=power)


def finding(rows):
    ratios = (f"{row['ratio']:,.0f} times as long in a cache of {row['cache']:,}" for row in (rows[0], *rows[1:][-1:]))
    return f"A token whose window is re-computed takes, compared with streaming, {', '.join(ratios)}"


def draw(figure, rows):
    """Draw milliseconds per token against the cache, streaming and re-computing, and their ratio."""
    axes, caches = figure.subplots(), [row["cache"] for row in rows]
    for method in ("recompute", "streaming"):
        style = STROKES[method] | {"marker": "o", "ms": 9, "lw": 2.5}
        axes.plot(caches, [row[f"{method}_ms"] for row in rows], label=method, **style)
    for row in rows:
        point = row["cache"], row["recompute_ms"]
        axes.annotate(f"{row['ratio']:,.0f} x", point, xytext=(0, 12), textcoords="offset points", ha="center")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="cache (tokens)", ylabel="milliseconds per token", yscale="log")
    axes.margins(y=0.2)  # room for the numbers above the curve
    axes.set_xticks(caches, [f"{cache:,}" for cache in caches])
    name_lines(axes)
