"""What the sink costs in 8 bits: activations rounded, with its outliers and without.

Whatever enters a matrix product is rounded to whole steps, as integer arithmetic needs it; the largest number of the
whole text sets the step. The sink token brings the largest numbers by far (Sun et al., arXiv:2402.17762), so a step is
large, and of all other tokens little is left (Bondarenko et al., arXiv:2306.12929). Three ways out are measured beside
it: what the first token has beyond all others stays in float, the whole first token does, or each token has a step of
its own; as a control, a token in the middle stays in float. Weights stay as they are.
"""

from dataclasses import replace

import numpy as np

from ..evaluation.plots import more
from ..loss import nll_of, perplexity
from ..model import Model
from ..system.plots import bars
from ..system.terminal import number, table
from .effects import by, effect, pivot
from .inside import pieces

PAPER = "Bondarenko et al., arXiv:2306.12929"
CLAIM = "a few outliers, those of the sink, make 8 bits a number expensive; without them the loss stays"
OPTIONS = {"bits": "of an activation, its sign included", "length": "tokens of each text, read densely"}
FAST = {"tokens": 600, "bits": (8, 4)}
TOKENS = 2000
SPARED = ("outliers in float", "first token in float")  # what the sink brings is left out of the step
WAYS = ("a step a tensor", "outliers in float", "first token in float", "middle token in float", "a step a token")


def rounded(x, step):
    """Return ``x`` in whole steps; a step of 0 leaves nothing to round.

    >>> rounded(np.array([0.9, -0.6, 0.2]), 0.5).tolist()
    [1.0, -0.5, 0.0]
    """
    return np.rint(x / np.where(step == 0, 1, step)) * step


def round_tokens(x, bits, way):  # (T, F) -> (T, F)
    """Return the input of a matrix product, rounded so that the largest number is the last step, ``2^(bits - 1) - 1``.

    >>> x = np.array([[100.0, 1.0], [2.0, 1.2]])
    >>> round_tokens(x, 3, "a step a tensor").round(1).tolist()
    [[100.0, 0.0], [0.0, 0.0]]
    >>> round_tokens(x, 3, "outliers in float").round(1).tolist()
    [[100.0, 1.3], [2.0, 1.3]]
    """
    steps = 2 ** (bits - 1) - 1
    if way == "a step a token":
        return rounded(x, abs(x).max(axis=-1, keepdims=True) / steps)
    if way == "a step a tensor":
        return rounded(x, abs(x).max() / steps)
    spared = len(x) // 2 if way == "middle token in float" else 0  # a control
    limit = abs(np.delete(x, spared, axis=0)).max()
    result = rounded(x, limit / steps)
    if way == "outliers in float":
        result[spared] = np.where(abs(x[spared]) > limit, x[spared], result[spared])
    else:
        result[spared] = x[spared]
    return result


class Rounding:
    """A matrix that rounds what is multiplied with it: ``x @ Rounding(w, ...)`` is ``round_tokens(x, ...) @ w``."""

    __array_ufunc__ = None  # NumPy leaves the product to `__rmatmul__`

    def __init__(self, w, bits, way):
        self.w, self.bits, self.way = w, bits, way

    def __rmatmul__(self, x):
        return round_tokens(x, self.bits, self.way) @ self.w


def rounding(model, bits, way):
    """Return the same model, every matrix of its layers a `Rounding`; the one to the vocabulary stays in float."""
    layers = []
    for layer in model.weights.layers:
        matrices = {name: w for name, w in vars(layer).items() if w is not None and w.ndim == 2}
        layers.append(replace(layer, **{name: Rounding(w, bits, way) for name, w in matrices.items()}))
    return Model(model.config, replace(model.weights, layers=layers), name=model.name)


def run(model, ids, *, bits=(8, 6, 4), length=128, track=iter):
    """Measure the loss of some texts in float, and with activations in so many bits.

    Where `ids` begin with the model's begin-of-text token, each of the texts does. A step is found for one text.

    Each row has ``"bits"``, 32 in float; ``"rounding"``, which of `WAYS`; ``"perplexity"``; ``"added"``, nats a token
    beside float; ``"nll"``, of each token.
    """
    if length < 4:
        raise ValueError(f"length is {length}; a text takes 4 tokens or more")
    if length > model.config.max_positions:
        raise ValueError(f"length is {length}; {model.name} knows {model.config.max_positions} positions")
    if min(bits) < 2:
        raise ValueError(f"bits is {min(bits)}; a sign and a step take 2 or more")
    texts, exact = np.array(pieces(model, ids, length, len(ids))), None
    for n, way in track([(32, "none"), *((n, way) for n in bits for way in WAYS)]):
        variant = model if way == "none" else rounding(model, n, way)
        nll = np.concatenate([nll_of(variant.forward(text)[:-1], text[1:]) for text in texts])
        exact = nll if exact is None else exact
        measured = {"perplexity": perplexity(nll), "added": float((nll - exact).mean()), "nll": nll}
        yield {"bits": n, "rounding": way} | measured


def effects(rows):
    """Judge in the most bits measured: what one step for all costs, and what of this is due to the first token."""
    most = max((row["bits"] for row in rows[1:]), default=32)
    nll = {row["rounding"]: row["nll"] for row in rows if row["bits"] in (most, 32)}
    claimed: dict = {
        ("a step a tensor", "none"): {"above": 0},
        ("a step a tensor", "outliers in float"): {"above": 0},
        ("first token in float", "none"): {"above": -0.05, "below": 0.05},
        ("a step a token", "none"): {"above": -0.05, "below": 0.05},
        ("a step a tensor", "middle token in float"): {"above": -0.05, "below": 0.05},
    }
    for (way, reference), bounds in claimed.items():
        if {way, reference} <= nll.keys():  # a run that was stopped has only some
            name = "float" if reference == "none" else reference
            yield effect(f"{most} bits: {way} - {name}, nats a token", nll[way] - nll[reference], **bounds)


def show(rows):
    """Return a table with a row a way to round, a column a number of bits."""
    columns, lines = pivot(rows[1:], "rounding", "bits", lambda row: number(row["perplexity"]))
    header = [f"perplexity, in float {rows[0]['perplexity']:.2f}", *(f"{n} bits" for n in columns)]
    return table(header, [[way, *cells] for way, cells in lines.items()])


def finding(rows):
    """Say what most bits cost, by way of rounding."""
    bits = max((row["bits"] for row in rows[1:]), default=32)
    added = {row["rounding"]: row["added"] for row in rows if row["bits"] == bits}
    each = (f"{way} {more(added[way], digits=3)}" for way in WAYS if way in added and way != "outliers in float")
    return f"With {bits} bits a number, nats per token lost, compared with floats: {', '.join(each)}"


def draw(figure, rows):
    """Draw a panel for each number of bits, a bar for each way to round: the loss added."""
    bits = by(rows[1:], "bits")
    panels = figure.subplots(1, len(bits), sharey=True, squeeze=False)[0]
    for axes, (n, rows_of_bits) in zip(panels, bits.items(), strict=True):
        names, added = ([row[key] for row in rows_of_bits] for key in ("rounding", "added"))
        kinds = [2 if name == "a step a token" else int(name not in SPARED) for name in names]
        bars(axes, names, {"added": added}, form="%+.3f" if n > 5 else "%+.2f", kinds=kinds, lying=True)
        axes.margins(x=0.8)
        axes.set(title=f"{n} bits", xlabel="nats per token")
        axes.locator_params(axis="x", nbins=2)
