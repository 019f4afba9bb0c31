"""Why the window breaks: where the sink's weight goes once it is evicted.

The same tokens are streamed through two caches of equal size: one keeps the first token, the other only the last ones.
Without the first token, the softmax's denominator loses its largest term, so every other weight grows (docs/why.md).
"""

import numpy as np

from ..cache import check_whole
from ..methods import Streaming, Window, new_cache
from ..system.device import to_host
from ..system.plots import curves, name_lines
from .effects import by, effect, gather, must_evict
from .inside import look_inside

PAPER = "Section 3.1"
CLAIM = "the first token's term is far above the others in the softmax; without it the weights shift"
OPTIONS = {"cache": "keys a query sees", "token": "one token of the text (the mean over all after the first eviction)"}
FAST = {"tokens": 200}
TOKENS = 1000
MEASURES = ("weight", "next", "value", "mixed", "all", "rest")


def run(model, ids, *, cache=64, token=None, track=iter):
    """Stream a text through both caches, and look inside every layer, at one `token` or at all of ``ids[cache:]``.

    Each row has ``"oldest"``, what is in slot 0: the "sink", or the oldest token of a "window". Means over the heads
    and tokens: ``"weight"`` on slot 0, and ``"next"``, the largest on any other; ``"value"``, the norm of its value /
    the median of the others; ``"mixed"``, the norm of attention's output; ``"all"``, the logarithm of the softmax's
    denominator, and ``"rest"``, the same without slot 0, in nats. ``"by_token"`` (6, N): these six, token by token.
    """
    check_whole("cache", cache, 2, ": a sink and a window")
    must_evict(len(ids), cache)
    if token is not None and not cache <= token < len(ids):
        raise ValueError(f"token is {token}; it must be one after the first eviction, {cache} to {len(ids) - 1}")
    caches = {"sink": new_cache(model, Streaming(1, cache - 1)), "window": new_cache(model, Window(cache))}
    looks: dict = {(layer, name): [] for layer in range(model.config.n_layers) for name in caches}
    for kv_cache in caches.values():
        model.forward(ids[:cache], cache=kv_cache, rows=slice(-1, None))
    for t in track(range(cache, len(ids) if token is None else token + 1)):
        for name, kv_cache in caches.items():
            trace = look_inside(model, ids[t : t + 1], kv_cache)
            for layer, both in enumerate(zip(trace["layers"], kv_cache.layers, strict=True)):
                if token in (None, t):
                    looks[layer, name].append(look(*both))
    for (layer, name), tokens in looks.items():
        by_token = np.array([[about[key] for about in tokens] for key in MEASURES])  # (6, N)
        means = dict(zip(MEASURES, by_token.mean(axis=1).tolist(), strict=True))
        slots = np.mean([about["slots"] for about in tokens], axis=0)
        yield {"layer": layer, "oldest": name, **means, "by_token": by_token, "slots": slots}


def look(inside, layer_cache):
    scores, pattern = (to_host(inside[name])[:, 0].astype(np.float64) for name in ("scores", "pattern"))  # (H, S)
    norm = np.linalg.norm(to_host(layer_cache.values), axis=-1)  # (S, K)
    denominator, rest = (np.logaddexp.reduce(x, axis=-1).mean() for x in (scores, scores[:, 1:]))
    about = {"weight": pattern[:, 0].mean(), "next": pattern[:, 1:].max(axis=-1).mean()}
    about["value"] = (norm[0] / np.median(norm[1:], axis=0)).mean()
    about["mixed"] = np.linalg.norm(to_host(inside["mixed"]))
    return about | {"all": denominator, "rest": rest, "slots": pattern.mean(axis=0)}


def effects(rows):
    by_layer = gather(rows, "oldest", "by_token").values()
    sink, window = (dict(zip(MEASURES, np.mean(all_layers, axis=0), strict=True)) for all_layers in by_layer)
    yield effect("weight on the sink - largest weight elsewhere", sink["weight"] - sink["next"], above=0)
    yield effect("norm of the sink's value / the others' median", sink["value"], below=1)
    yield effect("weight on the oldest: window - sink", window["weight"] - sink["weight"], below=0)
    yield effect("log of the denominator, in nats: window - sink", window["all"] - sink["all"], below=0)
    yield effect("norm of the output: window / sink", window["mixed"] / sink["mixed"], above=1)


def finding(rows):
    by_name = {key: [np.mean([row[key] for row in some]) for some in by(rows, "oldest").values()] for key in MEASURES}
    (kept, gone), (short, long) = by_name["weight"], by_name["mixed"]
    longer = f"attention's output is {long / short:.2f} times as long"
    return f"The sink takes {kept:.0%} of the weight; once it is evicted, slot 0 takes {gone:.0%}, and {longer}"


def draw(figure, rows):
    """Draw the weight by slot, and by layer the weight on slot 0 and the norm of attention's output."""
    by_slot, weight, norm = figure.subplots(1, 3)
    names, layers = by(rows, "oldest"), [*by(rows, "layer")]
    for name, series in names.items():
        by_slot.plot(np.mean([row["slots"] for row in series], axis=0), label=name)
    for axes, key in ((weight, "weight"), (norm, "mixed")):
        curves(axes, layers, {name: [row[key] for row in series] for name, series in names.items()})
        axes.locator_params(axis="x", integer=True)
    by_slot.set(title="weight by slot", xlabel="slot", yscale="log")
    weight.set(title="weight on slot 0", xlabel="layer", ylim=(-0.01, None))
    norm.set(title="norm of the output", xlabel="layer", ylim=(0, None))
    name_lines(norm)
