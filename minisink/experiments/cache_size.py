"""Perplexity by the size of the cache: a larger one is not always better.

A cache larger than the trained length has more slots than the model has learned to use, as dense attention has on a
long text. All sizes are compared on the same tokens, those after the first eviction from the largest.
"""

from functools import partial
from itertools import pairwise

from ..evaluation.jobs import in_order
from ..loss import perplexity, token_nll
from ..methods import Streaming
from ..system.plots import bars
from .effects import effect, must_evict, must_hold, must_learn

PAPER = "Table 6"
CLAIM = "each doubling helps but the last, to the trained length: 512 9.73, 1024 9.32, 2048 9.08, 4096 9.59 (Llama-2)"
OPTIONS = {"caches": "keys a query sees", "n_sinks": "first tokens kept"}
FAST = {"tokens": 1000, "caches": (64, 128, 256, 512)}


def run(model, ids, *, caches=(16, 32, 64, 128, 256, 512), n_sinks=4, each=in_order):
    """Stream a text through caches of several sizes; losses cover tokens after the first eviction from the largest."""
    caches = sorted(set(caches))
    must_hold(caches[0], n_sinks)
    must_evict(len(ids), caches[-1])
    must_learn(model, caches)
    yield from each(partial(_row, ids, n_sinks, caches[-1]), model, caches)


def _row(ids, n_sinks, largest, model, cache):
    nll = token_nll(model, ids, Streaming(n_sinks, cache - n_sinks))[largest:]
    sizes = {"cache": cache, "n_sinks": n_sinks, "window": cache - n_sinks}
    return sizes | {"perplexity": perplexity(nll), "trained": model.config.max_positions, "nll": nll}


def effects(rows):
    last = max((row["cache"] for row in rows if row["cache"] <= row["trained"]), default=0)
    for small, large in pairwise(rows):
        beyond = ", beyond the trained length" if large["cache"] > large["trained"] else ""
        what = f"cache {small['cache']} - {large['cache']}{beyond}, nats per token"
        side = {"below": 0} if large["cache"] >= last else {"above": 0}  # in the paper, even the trained length loses
        yield effect(what, small["nll"] - large["nll"], **side)


def finding(rows):
    each = ", ".join(f"{row['perplexity']:.1f} with {row['cache']}" for row in rows)
    return f"Perplexity is {each} visible keys; training had at most {rows[0]['trained']}"


def draw(figure, rows):
    """Draw perplexity by the size of the cache as bars; those beyond the trained length are hatched."""
    axes, kinds = figure.subplots(), [int(row["cache"] > row["trained"]) for row in rows]
    bars(axes, [row["cache"] for row in rows], {"": [row["perplexity"] for row in rows]}, form="%.2f", kinds=kinds)
    hatched = f"; hatched: more than the {rows[0]['trained']:,} of training" * any(kinds)
    axes.set(xlabel=f"cache (keys a query sees, {rows[0]['n_sinks']} of them sinks{hatched})", ylabel="perplexity")
