"""Which parts of a sink are needed: its key, its value, its word, its spike.

Once a cache of one sink and a window is full, the key and value in the sink's slot are replaced, and the loss of the
later tokens shows what is missing. What a first token says hardly matters; its value is small, and its key attracts the
weight. In `novels` its spike, a few channels of the residual stream many times larger than the rest, makes both in the
later layers. Sun et al. (arXiv:2402.17762) set these channels to zero, and to their mean over many texts.
"""

from dataclasses import replace

import numpy as np

from ..cache import check_whole
from ..loss import cache_of, perplexity, token_nll
from ..methods import Streaming, Window
from ..system.device import to_host
from ..system.plots import bars
from .effects import effect, must_evict
from .inside import look_inside

PAPER = "Table 1; Sun et al., section 2"
CLAIM = "a newline can be the sink (5.60, not 5.40), and its value can be left out; "
CLAIM += "setting its spike to zero breaks the model, setting it to its mean does not"
OPTIONS = {"cache": "keys a query sees", "others": "other first tokens, over which to average the spike"}
FAST = {"tokens": 500, "others": 8}
MASSIVE = 100  # times the median
EQUAL, WORSE = {"above": -0.05, "below": 0.05}, {"above": 0}  # nats per token
CLAIMED: dict = {"evicted": WORSE, "key kept, value zero": EQUAL, "value kept, key zero": WORSE}
CLAIMED |= {"a newline": EQUAL, "spike: zero": WORSE, "spike: its mean": EQUAL}


def run(model, ids, *, cache=64, others=32, seed=0, track=iter):
    """Measure the loss after the first eviction, with the sink as it was and with something else in its slot.

    The mean spike is over `others`, put first one at a time; the random one has the size of the true one; "elsewhere"
    moves the same numbers to channels drawn at random. Losses begin with the second token after the first eviction.
    """
    check_whole("cache", cache, 3, ": a sink and a window of 2")
    must_evict(len(ids), cache)
    baseline = None
    for name, slot in track([*slots(model, ids, cache, others, seed).items()]):
        nll = losses(model, ids, cache, slot)
        baseline = nll if baseline is None else baseline
        yield {"sink": name, "perplexity": perplexity(nll), "added": float((nll - baseline).mean()), "nll": nll}


def slots(model, ids, cache, others, seed):
    """Return what is put into the slot of the sink: for every layer a key and value, each (1, K, D); None evicts it."""
    newline = model.encode("\n", bos=False)
    if len(newline) != 1:
        raise ValueError(f"{model.name} writes a line break as {len(newline)} tokens; here it must be one")
    tokens = np.setdiff1d(ids, [ids[0], *newline])
    if not len(tokens) or others < 1:
        raise ValueError(f"others is {others}, and the text has {len(tokens)} other tokens; both must be at least 1")
    random = np.random.default_rng(seed)
    first, *alone = [look_inside(model, [token]) for token in (ids[0], *random.choice(tokens, others))]
    layer, channels = spike(look_inside(model, ids[:cache]))
    x, *streams = [trace["layers"][layer + 1]["x"] for trace in (first, *alone)]  # (1, C), after that layer
    massive = to_host(x)[0, channels]
    elsewhere = random.permutation(np.setdiff1d(np.arange(x.shape[1]), channels))[: len(channels)]
    spikes = {
        "zero": 0 * massive,
        "its mean": np.mean([to_host(stream)[0, channels] for stream in streams], axis=0),
        "random": random.normal(0.0, np.sqrt(np.mean(massive**2)), len(channels)),
        "elsewhere": 0 * massive,
    }
    as_it_was = pairs(first)
    variants = {
        "as it was": as_it_was,
        "evicted": None,
        "key kept, value zero": [(k, 0 * v) for k, v in as_it_was],
        "value kept, key zero": [(0 * k, v) for k, v in as_it_was],
        "both zero": [(0 * k, 0 * v) for k, v in as_it_was],
        "another token": pairs(alone[0]),
        "a newline": pairs(look_inside(model, newline)),
    }
    for name, values in spikes.items():
        changed = x.copy()
        changed[0, channels] = np.asarray(values, like=x)
        if name == "elsewhere":
            changed[0, elsewhere] = x[0, channels[: len(elsewhere)]]
        variants[f"spike: {name}"] = as_it_was[: layer + 1] + pairs(from_layer(model, layer + 1, changed))
    return variants


def pairs(trace):  # -> L of (1, K, D), (1, K, D)
    return [(layer["k"], layer["v"]) for layer in trace["layers"]]


def spike(trace):
    """Find after which layer (not the last, which no keys follow) token 0's stream is largest, and in which channels.

    Massive means a hundred times the median of all tokens and channels; if no channel is, take the largest.
    """
    ratios = [abs(x[0]) / np.median(abs(x)) for x in (to_host(layer["x"]) for layer in trace["layers"][1:])]
    if not ratios:
        raise ValueError("a one-layer model makes no keys after its layer, so it has no spike to change")
    layer = int(np.argmax([ratio.max() for ratio in ratios]))
    return layer, np.flatnonzero(ratios[layer] >= min(MASSIVE, ratios[layer].max()))


def from_layer(model, layer, x):  # (1, C)
    """Return the trace of the layers from `layer` up, given the residual stream `x` that enters them."""
    changes = {"position": np.zeros_like(model.weights.position)} if model.config.learned_positions else {}
    weights = replace(model.weights, embed=x, layers=model.weights.layers[layer:], **changes)
    trace: dict = {}
    config = replace(model.config, n_layers=model.config.n_layers - layer)
    model.architecture.forward([0], weights, config, trace=trace)
    return trace


def losses(model, ids, cache, slot):
    """Return the nats of ``ids[cache + 1:]``: fill the cache with the unchanged text, then replace its sink."""
    if slot is None:
        return token_nll(model, ids, Window(cache))[cache:]
    path = cache_of(model, Streaming(1, cache - 1))
    model.forward(ids[:cache], cache=path, rows=slice(-1, None))
    path.layers = [(*pair, *layer[2:]) for pair, layer in zip(slot, path.layers, strict=True)]  # see fast.blocks
    return token_nll(model, ids[cache:], cache=path)


def effects(rows):
    nll = {row["sink"]: row["nll"] for row in rows}
    for name, bounds in CLAIMED.items():
        yield effect(f"{name}, nats per token added", nll[name] - nll["as it was"], **bounds)


def finding(rows):
    added = {row["sink"]: row["added"] for row in rows}
    words = {"evicted": "evicting it", "key kept, value zero": "setting its value to zero"}
    words |= {"a newline": "putting a newline in its place", "spike: zero": "setting its spike to zero"}
    each = ", ".join(f"{what} costs {added[name]:.2f}" for name, what in words.items())
    return f"What the sink is for, in nats per token: {each}"


def draw(figure, rows):
    """Draw the nats added by each replacement for the sink."""
    axes, names = figure.subplots(), [row["sink"] for row in rows]
    kinds = [1 if "spike" in name else 2 if "zero" in name else 0 for name in names]
    bars(axes, names, {"added": [row["added"] for row in rows]}, form="%+.3f", kinds=kinds, lying=True)
    axes.set(xlabel="loss added, in nats per token", xmargin=0.15, ymargin=0.15)
