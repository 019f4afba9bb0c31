"""Where the weight goes, averaged over many short texts, layer by layer.

Much of what a head looks at differs from text to text, so averaging blurs it; what remains is what the head does in
any text. Two habits stand out: a bright diagonal, the nearest tokens, and a bright first column, the sink.
"""

import numpy as np

from ..cache import check_whole
from ..system.device import to_host
from ..system.plots import curves, heat, name_lines, panels
from .effects import effect
from .inside import look_inside, pieces

PAPER = "Figures 2, 7 and 12"
CLAIM = "the first two layers look at nearby tokens, all later ones mostly at the first (Llama-2-7B, 256 sentences)"
OPTIONS = {"length": "tokens of a piece", "n_texts": "pieces at most", "side": "tokens per side of a map"}
FAST = {"tokens": 1300, "n_texts": 20}
TOKENS = 6500
LOCAL = 2  # the first layers, which the paper finds local
NEAR = 4  # near tokens: the query itself and the three before it


def run(model, ids, *, length=64, n_texts=100, side=16, track=iter):
    """Average the attention of each layer over pieces of a text.

    One row per layer: the last token's weight on the ``"first"``, averaged over heads, and its ``"spread"``; its
    weight on ``"near"`` tokens; ``"logit"``, its score with the first token minus the mean of its other scores.
    ``"heads"``, ``"near_heads"`` (H,), the two weights by head; ``"pattern"`` (side, side), that of the first queries.
    """
    n_layers = model.config.n_layers
    if n_layers <= LOCAL:
        raise ValueError(f"{model.name} has {n_layers} layers; the claim is about those beyond the first {LOCAL}")
    check_whole("side", side, 2 * NEAR + 1)
    check_whole("length", length, side, ": maps are parts of the pieces")
    last, drawn = np.zeros((2, n_layers, model.config.n_heads, length)), np.zeros((n_layers, side, side))
    texts = pieces(model, ids, length, n_texts)
    for piece in track(texts):
        for i, layer in enumerate(look_inside(model, piece)["layers"]):
            pattern = to_host(layer["pattern"])  # (H, T, T)
            last[:, i] += pattern[:, -1], to_host(layer["scores"])[:, -1]
            drawn[i] += pattern[:, :side, :side].mean(axis=0)
    weights, scores = last / len(texts)
    for i in range(n_layers):
        first, near = weights[i, :, 0], weights[i, :, -NEAR:].sum(axis=-1)
        logit = float((scores[i, :, 0] - scores[i, :, 1:].mean(axis=-1)).mean())
        row = {"layer": i, "first": float(first.mean()), "spread": float(first.std())}
        row |= {"least": float(first.min()), "most": float(first.max()), "near": float(near.mean()), "logit": logit}
        yield row | {"tokens": length, "heads": first, "near_heads": near, "pattern": drawn[i] / len(texts)}


def effects(rows):
    early, late = (np.concatenate([row["heads"] for row in part]) for part in (rows[:LOCAL], rows[LOCAL:]))
    near, tokens = np.concatenate([row["near_heads"] for row in rows[:LOCAL]]), rows[0]["tokens"]
    what = f"layers 0 to {LOCAL - 1}: weight on the nearest {NEAR} - on the first"
    yield effect(what, near - early, above=0, stretch=1)
    yield effect(f"layers {LOCAL} and up: weight on the first of {tokens}", late, above=1 / tokens, stretch=1)
    pooled = np.concatenate((early, late))
    labelled = np.stack((pooled, np.arange(len(pooled)) >= len(early)), axis=-1)
    yield effect(f"excess over layers 0 to {LOCAL - 1}", labelled, above=0, stretch=1, of=later_more)


def later_more(labelled):
    """Return the mean of the values (N, 2) whose label is 1, minus the mean of the rest; NaN if either is missing."""
    values, late = labelled[:, 0], labelled[:, 1] == 1
    return values[late].mean() - values[~late].mean() if late.any() and not late.all() else np.nan


def finding(rows):
    parts = rows[:LOCAL], rows[LOCAL:]
    (a, b), (c, d) = ([np.mean([row[key] for row in part]) for key in ("first", "near")] for part in parts)
    early = f"In the first {LOCAL} layers the first token gets {a:.0%} of the weight, the nearest {NEAR} get {b:.0%}"
    return f"{early}; in later ones they get {c:.0%} and {d:.0%}"


def draw(figure, rows):
    """Draw maps of the first layers and two later ones, and below them the first token's weight in all layers."""
    shown = {f"layer {i}": i for i in sorted({0, 1, (len(rows) + 1) // 2, len(rows) - 1})}
    above, below = figure.subfigures(2, 1)
    for panel, i in panels(above, shown):
        image = heat(panel, rows[i]["pattern"], xlabel="key")
    above.axes[0].set_ylabel("query")
    above.colorbar(image, ax=above.axes, label="weight")
    axes = below.subplots()
    layers, first, near, spread = (np.array([row[key] for row in rows]) for key in ("layer", "first", "near", "spread"))
    axes.fill_between(layers, np.maximum(first - spread, 0), first + spread, alpha=0.2)
    curves(axes, layers, {"on the first": first, f"on the nearest {NEAR}": near})
    axes.axhline(1 / rows[0]["tokens"], color="black", ls=":", label="equal weights")
    axes.set(xlabel="layer (band: how heads spread)", ylabel=f"weight of token {rows[0]['tokens'] - 1}", ylim=(0, None))
    axes.locator_params(axis="x", integer=True)
    name_lines(axes, gap=0.2)
