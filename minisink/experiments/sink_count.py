"""How many sinks a model needs, in caches of several sizes, with re-computation."""

from functools import partial

import numpy as np

from ..evaluation.jobs import in_order
from ..loss import perplexity, token_nll
from ..methods import Recompute, Streaming, lead_of
from ..system.plots import curves
from ..system.terminal import count, number, table
from .effects import by, effect, gather, must_evict, pivot

PAPER = "Table 2"
CLAIM = "a cache fails without sinks, nearly holds up with one, and holds up with four (Llama-2-7B 3360, 11.9, 9.6)"
OPTIONS = {"caches": "keys a query sees", "sinks": "first tokens kept"}
FAST = {"tokens": 600, "caches": (64,), "sinks": (0, 1, 4)}


def run(model, texts, *, caches=(64, 128, 256), sinks=(0, 1, 2, 4, 8), each=in_order):
    """Measure the perplexity of some texts, each read separately, for every cache and number of sinks in it.

    The ``"perplexity"`` is over all texts together, NaN where a GPT-2 has not learned the positions or a cache has
    no room for a window; ``"nll"`` covers the tokens after the first eviction.
    """
    yield from cells(model, texts, [(cache, n) for cache in caches for n in (*sinks, "re-computed")], each)


def cells(model, texts, wanted, each=in_order):
    """Yield the rows of `run` for some pairs of a cache and a number of sinks."""
    must_evict(max(map(len, texts)), min(cache for cache, _ in wanted))
    return each(partial(_cell, texts), model, wanted)


def _cell(texts, model, setting):
    (cache, n), recompute = setting, setting[1] == "re-computed"
    unlearned = model.config.learned_positions and cache > model.config.max_positions
    if unlearned or cache <= (0 if recompute else n):
        losses = [np.full(len(ids) - 1, np.nan) for ids in texts]
    elif recompute:
        losses = [token_nll(model, ids, Recompute(cache, lead_of(model, ids, cache))) for ids in texts]
    else:
        losses = [token_nll(model, ids, Streaming(n, cache - n)) for ids in texts]
    late = np.concatenate([nll[cache:] for nll in losses])
    return {"cache": cache, "n_sinks": n, "perplexity": perplexity(np.concatenate(losses)), "nll": late}


def effects(rows):
    for cache, group in by(rows, "cache").items():
        nll = {row["n_sinks"]: row["nll"] for row in group}
        if {0, 1} <= nll.keys():
            yield effect(f"cache {cache}: none - one, nats per token", nll[0] - nll[1], above=0)
        if {4, "re-computed"} <= nll.keys():
            yield effect(f"cache {cache}: four - re-computed, nats per token", nll[4] - nll["re-computed"], below=0.05)


def show(rows):
    columns, lines = pivot(rows, "cache", "n_sinks", lambda row: number(row["perplexity"]))
    return table(["cache", *map(_kept, columns)], [[str(cache), *cells] for cache, cells in lines.items()])


def _kept(n):
    return n if n == "re-computed" else count(n, "sink")


def finding(rows):
    cache, rows_of_cache = next(iter(by(rows, "cache").items()))
    ppl = {row["n_sinks"]: row["perplexity"] for row in rows_of_cache}
    each = [f"{number(x, '.1f')} {'' if n == 're-computed' else 'with '}{_kept(n)}" for n, x in ppl.items()]
    return f"In a cache of {cache}, perplexity is {', '.join(each)}"


def draw(figure, rows):
    """Draw perplexity against the number of sinks, one line per cache, dotted where windows are re-computed."""
    axes, sinks, ppl = figure.subplots(), [*by(rows, "n_sinks")][:-1], gather(rows, "cache", "perplexity")
    curves(axes, range(len(sinks)), {f"cache {cache}": kept for cache, (*kept, _) in ppl.items()})
    for line, (*_, recomputed) in zip([*axes.lines], ppl.values(), strict=True):
        axes.axhline(recomputed, color=line.get_color(), ls=":", lw=2)
    axes.set_xticks(range(len(sinks)), sinks)
    axes.set(xlabel="sinks kept (dotted: windows re-computed)", ylabel="perplexity")
    axes.legend()
