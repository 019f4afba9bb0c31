"""Trained with a dedicated sink, without one, and with softmax1: how many first tokens each model needs.

Three models learned the same text in the same way, except for one thing. *Vanilla* saw samples that begin anywhere;
with *softmax1*, the zero sink, a query may leave weight unspent; with a *sink token*, every sample began with it.
"""

from ..loss import perplexity, token_nll
from ..methods import Streaming
from ..system.plots import curves, name_lines, panels
from .effects import by, effect, gather, must_evict, must_hold
from .inside import stretch

PAPER = "Table 3"
CLAIM = "0, 1, 4 kept: vanilla 27.9, 18.5, 18.1; softmax1 29214, 19.9, 18.0; a sink token 1235, 18.0, 18.0: one will do"
MODELS = ("novels-vanilla", "novels-softmax1", "novels")
OPTIONS = {"caches": "keys a query sees", "sinks": "first tokens kept", "tokens": "how much of the text"}
FAST = {"tokens": 600, "caches": (64,)}


def run(models, text, *, caches=(64, 128), sinks=(0, 1, 2, 4), tokens=3000, seed=0, track=iter):
    """Measure each model's loss after the first eviction, for every cache and number of first tokens."""
    must_hold(min(caches), max(sinks))
    texts = {name: stretch(model, model.encode(text), tokens, seed) for name, model in models.items()}
    for ids in texts.values():
        must_evict(len(ids), max(caches))
    for name, cache, n in track([(name, cache, n) for name in models for cache in caches for n in sinks]):
        nll = token_nll(models[name], texts[name], Streaming(n, cache - n))[cache:]
        about = {"model": name, "trained": trained_with(models[name].config), "cache": cache, "n_sinks": n}
        yield about | {"perplexity": perplexity(nll), "nll": nll}


def effects(rows):
    for (name, cache, trained), group in by(rows, "model", "cache", "trained").items():
        nll = {row["n_sinks"]: row["nll"] for row in group}
        if {0, 1} <= nll.keys():
            yield effect(f"{name}, cache {cache}: none - one, nats per token", nll[0] - nll[1], above=0)
        if {1, 4} <= nll.keys():
            side = {"above": -0.05, "below": 0.05} if trained == "sink token" else {"above": 0}
            yield effect(f"{name}, cache {cache}: one - four, nats per token", nll[1] - nll[4], **side)


def finding(rows):
    cache, (few, *more) = rows[0]["cache"], by(rows, "n_sinks")
    many = more[0] if more else few
    nll = {(row["model"], row["n_sinks"]): row["nll"] for row in rows if row["cache"] == cache}
    costs = {name: (nll[name, few] - nll[name, many]).mean() for name in by(rows, "model")}
    each = ", ".join(f"{name} {round(x, 2) + 0.0:.2f}" for name, x in costs.items())
    return f"In a cache of {cache}, keeping {few} first tokens instead of {many} costs, in nats per token: {each}"


def draw(figure, rows):
    """Draw perplexity by the number of first tokens kept, one line per model, one panel per cache."""
    sinks = [str(n) for n in by(rows, "n_sinks")]
    for axes, group in panels(figure, {f"cache {cache}": group for cache, group in by(rows, "cache").items()}):
        curves(axes, sinks, gather(group, "model", "perplexity"))
        axes.set_xlabel("first tokens kept")
    figure.axes[0].set_ylabel("perplexity after eviction")
    name_lines(axes)


def trained_with(config):
    """Tell from the config what a model learned with: "softmax1", a "sink token" before every text, or "vanilla"."""
    begun = "vanilla" if config.bos is None else "sink token"
    return begun if config.softmax == "softmax" else config.softmax
