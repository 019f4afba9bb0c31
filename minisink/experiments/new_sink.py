"""What makes a token a sink: the first token's properties are given to another, and taken away.

The first token differs from all others in three ways: it sees only itself, it is at position 0, and it may be a
word that comes first in every text. Each is given to a token in the middle: a mask that shows it only itself
(arXiv:2605.06611), the position of the first, the word of the first. And each is taken from the first: it trades its
position, is another word, or is left out. A GPT-2 adds a learned vector at position 0; a Llama rotates keys, and a
token that sees only itself does not know where it is.
"""

import numpy as np

from ..attention import attend, causal_mask
from ..loss import nll_of
from ..positions import bias_of
from ..system.plots import bars
from ..system.terminal import table
from .effects import by, effect
from .inside import norms, pieces

PAPER = "arXiv:2605.06611"
CLAIM = "a token in the middle that is masked to see only itself becomes a sink, as the first one is"
MODELS = ("novels", "novels-gpt2", "novels-vanilla")
OPTIONS = {"length": "tokens of each text, 8 or more", "n_texts": "pieces of the text, drawn by the seed"}
FAST = {"length": 64, "n_texts": 6}
EPS = 0.3  # a head with more weight than this on a token has a sink there (Gu et al., arXiv:2410.10781, section 3.2)


class Altered:
    """A path like `paths.Uncached`, with its own positions, in which one token may see only itself."""

    def __init__(self, where, alone=None):
        self.where, self.alone = where, alone  # (T,) positions, and a token_index or None

    def positions(self, n_tokens):
        """Return its own positions."""
        return self.where

    def mix(self, layer, q, k, v, rotate, **options):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Attend causally by token_index, whatever the positions are."""
        visible = causal_mask(len(q), len(k), like=q)
        if self.alone is not None:
            visible[self.alone, : self.alone] = False
        bias = bias_of(rotate, self.where, self.where, like=q)
        return attend(rotate(q, self.where), rotate(k, self.where), v, visible, bias=bias, **options)


def conditions(ids, middle):
    """Return by name the ids, their alterations, and which token may be a sink."""
    positions = np.arange(len(ids))
    traded = positions.copy()
    traded[[0, middle]] = middle, 0
    copied, swapped = ids.copy(), ids.copy()
    copied[middle], swapped[0] = ids[0], ids[middle]
    return {
        "first": (ids, Altered(positions), 0),
        "middle": (ids, Altered(positions), middle),
        "middle, sees only itself": (ids, Altered(positions, middle), middle),
        "middle, at position 0": (ids, Altered(traded), middle),
        "middle, both": (ids, Altered(traded, middle), middle),
        "middle, the first's word": (copied, Altered(positions), middle),
        "first, another word": (swapped, Altered(positions), 0),
        "first, another position": (ids, Altered(traded), 0),
        "second, first left out": (ids[1:], Altered(positions[:-1]), 0),
    }


def run(models, text, *, length=128, n_texts=20, seed=0, track=iter):
    """Measure weight, value, residual stream and loss for every token that may be a sink.

    Each row has ``"model"``, ``"token"``; ``"weight"`` of the queries in the second half on this token: mean over
    heads, layers and texts, and ``"largest"`` of any layer; ``"sinks"``, the share of all heads in which it is one;
    ``"value"``, norm of its value / the others' median, mean over heads and layers; ``"residual"``, the same of the
    residual stream, in the layer where it is largest; ``"nll"`` of the second half, nats per token. ``"rates"``
    (N,): the share of heads in each text.
    """
    if length < 8:
        raise ValueError(f"length is {length}; a text with a middle takes 8 tokens or more")
    for name, model in models.items():
        if length > model.config.max_positions:
            raise ValueError(f"length is {length}; {name} knows {model.config.max_positions} positions")
    texts = {}
    for name, model in models.items():
        cut = pieces(model, model.encode(text), length, len(text))
        texts[name] = [np.array(cut[i]) for i in np.random.default_rng(seed).permutation(len(cut))[:n_texts]]
    names = list(conditions(np.arange(length), length // 2))
    for model, name in track([(model, name) for model in models for name in names]):
        looks = [look(models[model], *conditions(ids, length // 2)[name], n_last=length // 2) for ids in texts[model]]
        weights, values, residuals, nll = (np.stack(values) for values in zip(*looks, strict=True))  # (N, L, H), (N, L)
        rates = (weights > EPS).mean(axis=(1, 2))
        row = {"model": model, "token": name, "weight": float(weights.mean())}
        row |= {"largest": float(weights.mean(axis=(0, 2)).max()), "sinks": float(rates.mean())}
        row |= {"value": float(values.mean()), "residual": float(residuals.mean(axis=0).max())}
        yield row | {"nll": float(nll.mean()), "rates": rates}


def look(model, ids, path, token, *, n_last):
    """Return for one text the weight on a token (L, H), its norms relative to the others' (2 x L,), and the losses.

    The losses are of the last ``n_last - 1`` tokens: the same words in each condition.
    """
    trace: dict = {}
    logits = model.forward(ids, cache=path, trace=trace)
    patterns = np.stack([layer["pattern"] for layer in trace["layers"]])  # (L, H, T, T)
    length = norms(trace)
    others = np.arange(len(ids)) != token
    value, residual = (x[:, token] / np.median(x[:, others], axis=1) for x in (length["value"], length["residual"]))
    last = slice(-n_last + 1, None)
    nll = nll_of(logits[last][:-1], ids[last][1:])
    return patterns[:, :, last, token].mean(axis=-1), value.mean(axis=1), residual, nll


def effects(rows):
    """Judge in how many more heads than an ordinary token each is a sink, text by text."""
    for model, rows_of_model in by(rows, "model").items():
        rates = {row["token"]: row["rates"] for row in rows_of_model}
        for name in ("first", "middle, sees only itself"):
            if {name, "middle"} <= rates.keys():
                what = f"{model}: share of heads with a sink there: {name} - middle as it is"
                yield effect(what, rates[name] - rates["middle"], above=0, stretch=1)


def show(rows):
    """Return one table per model."""
    columns = ["weight", "largest", "sinks", "value", "residual", "nll"]
    tables = []
    for model, rows_of_model in by(rows, "model").items():
        cells = [[row["token"], *(f"{row[key]:.3f}" for key in columns)] for row in rows_of_model]
        tables.append(table([model, *columns], cells))
    return "\n\n".join(tables)


def finding(rows):
    """Say how much weight a middle token that sees only itself gets, and the first one."""
    weight = {(row["model"], row["token"]): row["weight"] for row in rows}
    both = ("middle, sees only itself", "first")
    pairs = {model: [weight[model, name] for name in both] for model in by(rows, "model")}
    each = ", ".join(f"{model} {alone:.2f} and {first:.2f}" for model, (alone, first) in pairs.items())
    return f"Weight on a middle token that sees only itself, and on the first: {each}"


def draw(figure, rows):
    """Draw bars for each token that may be a sink, one for each model: the mean weight on it."""
    axes, tokens = figure.subplots(), [*by(rows, "token")]
    series = {model: [row["weight"] for row in runs] for model, runs in by(rows, "model").items()}
    bars(axes, tokens, series, form="%.2f" if len(series) == 1 else "", lying=True)
    axes.set_xlabel("weight on the token (mean over heads and layers)")
