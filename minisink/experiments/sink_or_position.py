"""Is it the sink or the position? The 2 x 2 of both, within the trained length and beyond it."""

from functools import partial

import numpy as np

from ..evaluation.jobs import in_order
from ..loss import perplexity, token_nll
from ..methods import Streaming
from ..system.plots import bars
from ..system.terminal import count, number, table
from .effects import effect, must_evict, pivot

PAPER = "Section 3.2"
CLAIM = "sinks keep a model alive at any length; positions in the cache matter once a text is longer than the training"
OPTIONS = {"cache": "keys a query sees", "n_sinks": "first tokens kept"}
FAST = {"tokens": 700}


def run(model, ids, *, cache=64, n_sinks=1, each=in_order):
    """Measure the loss after the first eviction with sinks and without, numbered in the cache and in the text.

    Each row has ``"sinks"``, ``"positions"``; perplexity ``"within"`` the trained length, from the first eviction on,
    and ``"beyond"`` it, NaN where the text does not reach there; ``"nll"``, and ``"split"``, where it does.
    """
    if model.config.learned_positions:
        raise ValueError(f"{model.name} learned its positions: they are mixed into what it caches, and cannot be moved")
    must_evict(len(ids), cache)
    settings = [(n, positions) for n in (n_sinks, 0) for positions in ("slot", "original")]
    yield from each(partial(_row, ids, cache), model, settings)


def _row(ids, cache, model, setting):
    (n, positions), trained = setting, model.config.max_positions
    nll = token_nll(model, ids, Streaming(n, cache - n, positions))
    within, beyond = perplexity(nll[cache:trained]), perplexity(nll[max(cache, trained) :])
    row = {"sinks": n, "positions": positions, "within": within, "beyond": beyond}
    return row | {"nll": nll[cache:], "split": max(0, min(trained, len(nll)) - cache)}


def effects(rows):
    """Judge what the sink brings with positions in the cache, and these with the sink, within and beyond."""
    nll = {(bool(row["sinks"]), row["positions"]): row["nll"] for row in rows}
    split = rows[0]["split"]
    with_sink = nll[True, "slot"]
    yield effect("no sink - sink, in nats per token", nll[False, "slot"] - with_sink, above=0)
    moved = nll[True, "original"] - with_sink
    if len(moved[:split]):
        yield effect("original - slot, with the sink, within", moved[:split], above=-0.05, below=0.05)
    if len(moved[split:]):
        yield effect("original - slot, with the sink, beyond", moved[split:], above=0)


def show(rows):
    """Return the 2 x 2, perplexity within / beyond the trained length."""
    _, lines = pivot(rows, "sinks", "positions", lambda row: f"{number(row['within'])} / {number(row['beyond'])}")
    header = ["within / beyond the trained length", "in the cache", "in the text"]
    return table(header, [[count(n, "sink") if n else "no sink", *cells] for n, cells in lines.items()])


def finding(rows):
    """Say what it costs to lose the sink, and what to keep the positions of the text, within and beyond."""
    nll = {(bool(row["sinks"]), row["positions"]): row["nll"] for row in rows}
    lost, moved = ((nll[key] - nll[True, "slot"]) for key in ((False, "slot"), (True, "original")))
    split, names = rows[0]["split"], ("within", "beyond")
    parts = {name: part for name, part in zip(names, (moved[:split], moved[split:]), strict=True) if len(part)}
    costs = " and ".join(f"{round(part.mean(), 2) + 0.0:.2f} {name}" for name, part in parts.items())
    costs = f"numbering by place in the text {costs} the trained length"
    return f"Evicting the sink costs {lost.mean():.2f} nats per token, {costs}"


def draw(figure, rows):
    """Draw perplexity as bars, within the trained length and beyond: sink or none, slots or places in the text."""
    reached = [region for region in ("within", "beyond") if not np.isnan(rows[0][region])]
    panels = figure.subplots(1, len(reached), sharey=True, squeeze=False)[0]
    for axes, region in zip(panels, reached, strict=True):
        names = [f"{'sink' if row['sinks'] else 'no sink'}\n{row['positions']}" for row in rows]
        kinds = [0 if row["sinks"] else 1 for row in rows]
        bars(axes, names, {"perplexity": [row[region] for row in rows]}, form="%.1f", kinds=kinds)
        axes.set_title(f"{region} the trained length")
    panels[0].set_ylabel("perplexity")
