"""What makes a token a sink: the first token's properties are given to another token, or taken away.

The first token differs from all others in three ways: it sees only itself, it is at position 0, and it may be a word
that comes first in every text. A middle token is given each in turn, and the first token loses each. A GPT-2 adds a
learned vector at position 0; a Llama only rotates keys, so a token that sees only itself cannot tell where it is.
"""

from itertools import product

import numpy as np

from ..attention import attend, causal_mask
from ..cache import check_whole
from ..loss import nll_of
from ..positions import bias_of
from ..sinks import ratio_to_median
from ..system.plots import bars
from ..system.terminal import table
from .effects import by, effect, gather
from .inside import look_inside, norms, pieces, residual_ratio

PAPER = "arXiv:2605.06611"
CLAIM = "a token in the middle that is masked to see only itself becomes a sink, like the first one"
MODELS = ("novels", "novels-gpt2", "novels-vanilla")
OPTIONS = {"length": "tokens of each text, 8 or more", "n_texts": "pieces of the text, drawn at random"}
FAST = {"length": 64, "n_texts": 6}
EPS = 0.3  # a head with more weight than this on a token has a sink there (Gu et al., arXiv:2410.10781, section 3.2)


class Altered:
    """A path like `paths.Uncached`, with custom positions, in which one token may see only itself."""

    def __init__(self, where, alone=None):
        self.where, self.alone = where, alone  # (T,) positions, and a token_index or None

    def positions(self, n_tokens):
        return self.where

    def mix(self, layer, q, k, v, rotate, **options):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        visible = causal_mask(len(q), len(k), like=q)  # by token_index, whatever the positions are
        if self.alone is not None:
            visible[self.alone, : self.alone] = False
        bias = bias_of(rotate, self.where, self.where, like=q)
        return attend(rotate(q, self.where), rotate(k, self.where), v, visible, bias=bias, **options)


def conditions(ids, middle):
    """Return, by name: the ids, a path that alters them, and which token may be a sink."""
    traded, copied, swapped = np.arange(len(ids)), ids.copy(), ids.copy()
    traded[[0, middle]] = middle, 0
    copied[middle], swapped[0] = ids[0], ids[middle]
    as_it_is = Altered(np.arange(len(ids)))
    return {
        "first": (ids, as_it_is, 0),
        "middle": (ids, as_it_is, middle),
        "middle, sees only itself": (ids, Altered(as_it_is.where, middle), middle),
        "middle, at position 0": (ids, Altered(traded), middle),
        "middle, both": (ids, Altered(traded, middle), middle),
        "middle, the first's word": (copied, as_it_is, middle),
        "first, another word": (swapped, as_it_is, 0),
        "first, another position": (ids, Altered(traded), 0),
        "second, first left out": (ids[1:], Altered(as_it_is.where[:-1]), 0),
    }


def run(models, text, *, length=128, n_texts=20, seed=0, track=iter):
    """Measure weight, value, residual stream and loss for every token that may be a sink.

    Each row has the ``"weight"`` that queries in the second half put on this token: mean over heads, layers and texts,
    and ``"largest"`` of any layer; ``"sinks"``, the share of all heads in which it is a sink, ``"rates"`` (N,) in each
    text; ``"value"``, its norm / the others' median; ``"residual"``, the same for the stream, in the layer where it is
    largest; ``"nll"`` of the second half.
    """
    check_whole("length", length, 8, ", so that a text has a middle")
    texts = {}
    for name, model in models.items():
        if length > model.config.max_positions:
            raise ValueError(f"length is {length}; {name} has only {model.config.max_positions} positions")
        cut = pieces(model, model.encode(text), length, len(text))
        texts[name] = [np.array(cut[i]) for i in np.random.default_rng(seed).permutation(len(cut))[:n_texts]]
    for model, name in track([*product(models, conditions(np.arange(length), length // 2))]):
        looks = [look(models[model], *conditions(ids, length // 2)[name], n_last=length // 2) for ids in texts[model]]
        weights, values, residuals, nll = (np.stack(values) for values in zip(*looks, strict=True))  # (N, L, H), (N, L)
        rates = (weights > EPS).mean(axis=(1, 2))
        row = {"model": model, "token": name, "weight": float(weights.mean())}
        row |= {"largest": float(weights.mean(axis=(0, 2)).max()), "sinks": float(rates.mean())}
        row |= {"value": float(values.mean()), "residual": float(residuals.mean(axis=0).max())}
        yield row | {"nll": float(nll.mean()), "rates": rates}


def look(model, ids, path, token, *, n_last):  # -> (L, H), (L,), (L,), (n_last - 2,)
    """Return the weight on a token, its norms relative to the others', and the losses of the last words."""
    trace, last = look_inside(model, ids, path), slice(-n_last + 1, None)
    patterns = np.stack([layer["pattern"] for layer in trace["layers"]])  # (L, H, T, T)
    value = ratio_to_median(norms(trace)["value"].swapaxes(1, 2), token)  # (L, T, K) -> (L, K)
    nll = nll_of(trace["logits"][last][:-1], ids[last][1:])
    return patterns[:, :, last, token].mean(axis=-1), value.mean(axis=1), residual_ratio(trace, token), nll


def effects(rows):
    for model, rows_of_model in by(rows, "model").items():
        rates = {row["token"]: row["rates"] for row in rows_of_model}
        for name in ("first", "middle, sees only itself"):
            what = f"{model}: share of heads with a sink there: {name} - unchanged middle"
            yield effect(what, rates[name] - rates["middle"], above=0, stretch=1)


def show(rows):
    columns, tables = ["weight", "largest", "sinks", "value", "residual", "nll"], []
    for model, rows_of_model in by(rows, "model").items():
        cells = [[row["token"], *(f"{row[key]:.3f}" for key in columns)] for row in rows_of_model]
        tables.append(table([model, *columns], cells))
    return "\n\n".join(tables)


def finding(rows):
    weight = {(row["model"], row["token"]): row["weight"] for row in rows}
    alone, first = "middle, sees only itself", "first"
    each = [f"{model} {weight[model, alone]:.2f} and {weight[model, first]:.2f}" for model in by(rows, "model")]
    return f"Weight on a middle token that sees only itself, and on the first: {', '.join(each)}"


def draw(figure, rows):
    """Draw the mean weight on each token that may be a sink, as bars, one per model."""
    axes, series = figure.subplots(), gather(rows, "model", "weight")
    bars(axes, [*by(rows, "token")], series, form="%.2f" if len(series) == 1 else "", lying=True)
    axes.set_xlabel("weight on the token (mean over heads and layers)")
