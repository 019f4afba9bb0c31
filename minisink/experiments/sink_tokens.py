"""Where the weight goes: the tokens that get the most weight from later ones, in each layer.

A head may look at a token for what it says, or park its weight there because softmax must spend it. Parked weight adds
little, because the token's values are small (value drain). Small values are a sign, not a proof.
"""

import numpy as np

from ..cache import check_whole
from ..system.device import to_host
from ..system.terminal import table
from .effects import by, effect
from .inside import look_inside, norms, pieces

PAPER = "Guo et al., arXiv:2410.13835"
CLAIM = "idle heads park their weight on the first token, whose values are small (value drain)"
OPTIONS = {"length": "tokens of a piece", "n_texts": "pieces at most", "at_least": "fewest times a token must occur"}
FAST = {"tokens": 1300, "at_least": 5}
TOKENS = 6500

FIRST, NAMED = -1, "the first"  # the first token of any text: in place of its id, and in a row


def run(model, ids, *, length=64, n_texts=100, at_least=20, track=iter):
    """Find the three tokens per layer with the most weight, each in the head that gives it most (`received`)."""
    check_whole("length", length, 2)
    texts = track(pieces(model, ids, length, n_texts))
    by_token = received(((piece, look_inside(model, piece)) for piece in texts), at_least)
    if not by_token:
        raise ValueError(f"no token occurs {at_least} times in these pieces; ask for fewer, or read more text")
    shared_by = model.config.n_heads // model.config.n_kv_heads
    for layer in range(model.config.n_layers):
        for token, head in strongest(by_token, layer):
            about, name = by_token[token], NAMED if token == FIRST else repr(model.decode([token]))
            weight, value = about["weight"][layer, head], about["value"][layer, head // shared_by]
            row = {"layer": layer, "head": head, "token": name, "times": about["times"]}
            yield row | {"weight": float(weight), "value": float(value)}


def received(looks, at_least):
    """Measure the weight that each token id receives in pieces of a text, given with their traces; -1 is the first.

    Only tokens in the first half of a piece count, and only those that occur `at_least` times there. ``"weight"``
    (L, H) is from the queries after a token, ``"value"`` (L, K) the norm of its values / the median of the piece.
    """
    weights, values = {}, {}
    for piece, trace in looks:
        patterns = np.stack([to_host(layer["pattern"]) for layer in trace["layers"]])  # (L, H, T, T)
        value = norms(trace)["value"]  # (L, T, K)
        value = value / np.median(value, axis=1, keepdims=True)
        for k in range(len(piece) // 2):
            token = int(piece[k]) if k else FIRST
            weights.setdefault(token, []).append(patterns[:, :, k + 1 :, k].mean(axis=-1))  # (L, H)
            values.setdefault(token, []).append(value[:, k])  # (L, K)
    return {
        token: {"times": len(seen), "weight": np.mean(seen, axis=0), "value": np.mean(values[token], axis=0)}
        for token, seen in weights.items()
        if len(seen) >= at_least
    }


def strongest(by_token, layer, n=3):
    heads = {token: int(about["weight"][layer].argmax()) for token, about in by_token.items()}
    return sorted(heads.items(), key=lambda item: -by_token[item[0]]["weight"][layer, item[1]])[:n]


def effects(rows):
    top = [of_layer[0] for of_layer in by(rows, "layer").values()]
    first = [row["token"] == NAMED for row in top]
    yield effect("share of layers that look at the first token most", first, above=0.5, stretch=1)
    yield effect("|v| token/median, of the tokens looked at most", [row["value"] for row in top], below=0.5, stretch=1)


def show(rows):
    forms = {"layer": "d", "head": "d", "token": "s", "times": ",", "weight": ".2f", "value": ".2f"}
    cells = [[format(row[key], form) for key, form in forms.items()] for row in rows]
    header = ["layer", "head", "token", "times", "weight", "|v| token/median"]
    return "tokens that later ones look at most\n" + table(header, cells)


def finding(rows):
    top = [of_layer[0] for of_layer in by(rows, "layer").values()]
    first, value = sum(row["token"] == NAMED for row in top), np.mean([row["value"] for row in top])
    most = f"The first token gets the most weight in {first} of {len(top)} layers"
    return f"{most}; values of such tokens have {value:.2f} of the median norm"


def draw(figure, rows):
    """Draw weight against values: parked weight is at the bottom right, weight that is used is above it."""
    axes = figure.subplots()
    for first, marker, label in ((True, "o", "the first token"), (False, "^", "any other")):
        some = [row for row in rows if (row["token"] == NAMED) == first]
        weight, value = ([row[key] for row in some] for key in ("weight", "value"))
        axes.plot(weight, value, marker, ms=13, label=label, ls="", mec="black")
    for row in rows:
        if row["token"] != NAMED and row["weight"] > 0.1 and len(rows) <= 24:  # otherwise they overlap
            point, name = (row["weight"], row["value"]), row["token"].replace("$", r"\$")
            axes.annotate(name, point, xytext=(12, 0), textcoords="offset points", va="center")
    axes.axhline(1.0, color="black", ls=":")
    axes.set(xlabel="mean weight, in the head that gives it most", ylabel="norm of values / median", ylim=(0, None))
    axes.legend()
