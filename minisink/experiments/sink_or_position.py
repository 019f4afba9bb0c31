"""Is it the sink or the position? All four combinations, within the trained length and beyond it."""

from functools import partial

from ..evaluation.jobs import in_order
from ..loss import perplexity, token_nll
from ..methods import Streaming
from ..system.plots import bars, panels
from .effects import effect, must_evict

PAPER = "Section 3.2"
CLAIM = "sinks keep a model alive at any length; positions in the cache matter once a text exceeds the trained length"
OPTIONS = {"cache": "keys a query sees", "n_sinks": "first tokens kept"}
FAST = {"tokens": 700}


def run(model, ids, *, cache=64, n_sinks=1, each=in_order):
    """Measure the loss after the first eviction with sinks and without, with positions in the cache and in the text.

    ``"split"`` is how many of the losses are ``"within"`` the trained length; the rest are ``"beyond"`` it.
    """
    if model.config.learned_positions:
        raise ValueError(f"{model.name} learned its positions: they are mixed into what it caches, and cannot be moved")
    must_evict(len(ids), cache)
    settings = [(n, positions) for n in (n_sinks, 0) for positions in ("slot", "original")]
    yield from each(partial(_row, ids, cache), model, settings)


def _row(ids, cache, model, setting):
    (n, positions), trained = setting, model.config.max_positions
    nll, split = token_nll(model, ids, Streaming(n, cache - n, positions))[cache:], max(0, trained - cache)
    row = {"sinks": n, "positions": positions, "within": perplexity(nll[:split]), "beyond": perplexity(nll[split:])}
    return row | {"nll": nll, "split": min(split, len(nll))}


def costs(rows):
    """Return the loss added, token by token, without the sink; and with the text's positions, within and beyond."""
    nll, split = {(bool(row["sinks"]), row["positions"]): row["nll"] for row in rows}, rows[0]["split"]
    lost, moved = (nll[cell] - nll[True, "slot"] for cell in ((False, "slot"), (True, "original")))
    regions = {"within": moved[:split], "beyond": moved[split:]}
    return lost, {region: part for region, part in regions.items() if len(part)}


def effects(rows):
    lost, moved = costs(rows)
    yield effect("no sink - sink, in nats per token", lost, above=0)
    for region, part in moved.items():
        side = {"above": -0.05, "below": 0.05} if region == "within" else {"above": 0}
        yield effect(f"original - slot, with the sink, {region}", part, **side)


def finding(rows):
    lost, moved = costs(rows)
    each = " and ".join(f"{round(part.mean(), 2) + 0.0:.2f} {region}" for region, part in moved.items())
    sink = f"Evicting the sink costs {lost.mean():.2f} nats per token"
    return f"{sink}, numbering by place in the text {each} the trained length"


def draw(figure, rows):
    """Draw perplexity as bars, within the trained length and beyond: sink or none, slots or places in the text."""
    reached = {f"{region} the trained length": region for region in ("within", "beyond") if rows[0][region] > 0}
    names = [f"{'sink' if row['sinks'] else 'no sink'}\n{row['positions']}" for row in rows]
    kinds = [int(not row["sinks"]) for row in rows]
    for axes, region in panels(figure, reached):
        bars(axes, names, {"perplexity": [row[region] for row in rows]}, form="%.1f", kinds=kinds)
    figure.axes[0].set_ylabel("perplexity")
