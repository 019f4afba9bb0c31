"""How strong a sink is: the sink rate of natural, random and repeated text.

Sink_k^eps is the share of heads whose mean weight on key k, alpha_k, is above eps (Gu et al., section 3.2). The
first token should be a sink because it is first, not for what it says, so random tokens have one too. A single token,
repeated, has one only if its copies differ. With learned positions they do; but with rotary positions or ALiBi, scores
depend only on distance, so every copy has the same stream, and none can be special (without a begin-of-text token).
"""

from itertools import product

import numpy as np

from ..cache import check_whole
from ..positions import kind_of
from ..sinks import importance, sink_kind, stable_rank
from ..system.device import to_host
from ..system.plots import bars, curves
from ..system.terminal import table
from .effects import by, effect
from .inside import look_inside, massive, pieces, residual_ratio, value_ratio

PAPER = "Gu et al., arXiv:2410.10781, section 3"
CLAIM = "natural / repeated text: GPT-2-XL 77.0 / 62.3 % of heads have a sink, Llama-2-7B 92.5 / 0.0 %"
OPTIONS = {"lengths": "tokens of a piece", "n_texts": "pieces at most"}
FAST = {"tokens": 1300, "lengths": (16, 64), "n_texts": 20}
TOKENS = 6500
TEXTS = ("natural", "random", "repeated")
EPS = (0.1, 0.2, 0.3, 0.4, 0.5)


def run(model, ids, *, lengths=(16, 64, 128), n_texts=100, seed=0, track=iter):
    """Look inside a model as it reads short texts of three kinds.

    Yield a row for each ``"text"``, ``"length"``, ``"key"`` (the first four and the middle one) and ``"layer"``, with
    means over ``"n_texts"`` pieces: the ``"weight"`` on the key from later queries; norms of its ``"residual"`` stream
    and its ``"value"``, relative to the other tokens' median; ``"massive"`` (`inside.massive`); ``"stable_rank"`` of a
    head's output; ``"sink_0.1"`` etc., the share of heads with alpha above 0.1 etc.; ``"alpha"``, (N, H), by piece.
    """
    check_whole("length", min(lengths), 8, ", so that a piece has a middle")
    for text, length in track([*product(TEXTS, lengths)]):
        keys, natural = (0, 1, 2, 3, length // 2), pieces(model, ids, length, n_texts)
        by_piece = [signs(look_inside(model, piece), keys) for piece in made(model, natural, text, seed)]
        means = {name: np.stack([one[name] for one in by_piece]) for name in by_piece[0]}  # (N, keys, L)
        alphas = means.pop("alpha")  # (N, keys, L, H)
        for (i, key), layer in product(enumerate(keys), range(model.config.n_layers)):
            alpha = alphas[:, i, layer]
            row = {"text": text, "length": length, "key": key, "layer": layer, "n_texts": len(by_piece)}
            row |= {name: float(values[:, i, layer].mean()) for name, values in means.items()}
            row |= {f"sink_{eps}": float((alpha > eps).mean()) for eps in EPS}
            kind = sink_kind(row["value"]) if (alpha.mean(axis=0) > 0.3).any() else "none"
            yield row | {"kind": kind, "positions": kind_of(model.config), "alpha": alpha}


def made(model, natural, text, seed):
    """Yield pieces of the same lengths: unchanged, of random tokens, or each of one random token repeated."""
    random = np.random.default_rng(seed)
    for piece in natural:
        drawn = random.integers(0, model.config.vocab_size, len(piece))
        if text == "repeated":
            drawn[:] = drawn[0]
        elif piece[0] == model.config.bos:
            drawn[0] = piece[0]
        yield piece if text == "natural" else drawn


def signs(trace, keys):
    """Return what a row shows, (keys, L) each, by name; and ``"alpha"``, (keys, L, H)."""
    patterns = [to_host(layer["pattern"]) for layer in trace["layers"]]
    ranks = [stable_rank(layer["mixed"]).mean() for layer in trace["layers"]]
    return {
        "weight": [[pattern[:, key + 1 :, key].mean() for pattern in patterns] for key in keys],
        "residual": [residual_ratio(trace, key) for key in keys],
        "value": [value_ratio(trace, key) for key in keys],
        "massive": [massive(trace)] * len(keys),
        "stable_rank": [ranks] * len(keys),
        "alpha": np.stack([importance(pattern)[:, keys] for pattern in patterns]).transpose(2, 0, 1),
    }


def rates(rows, text, length, key, eps=0.3):
    """Return Sink_k^eps of each piece: (N,)."""
    matching = [row for row in rows if (row["text"], row["length"], row["key"]) == (text, length, key)]
    return np.mean([row["alpha"] > eps for row in matching], axis=(0, 2))


def effects(rows):
    length, positions = usual_length(rows), rows[0]["positions"]
    first = {text: rates(rows, text, length, 0) for text in TEXTS}
    beyond = {text: first[text] - rates(rows, text, length, length // 2) for text in TEXTS}
    yield effect("Sink_1^0.3, natural text: first - middle token", beyond["natural"], above=0, stretch=1)
    yield effect("random text: first - middle token", beyond["random"], above=0, stretch=1)
    yield effect("first token: natural - repeated text", first["natural"] - first["repeated"], above=0, stretch=1)
    if positions == "learned":
        yield effect("repeated text, learned positions: first - middle token", beyond["repeated"], above=0, stretch=1)
    else:
        yield effect(f"repeated text, {positions} positions: first token", first["repeated"], below=0.01, stretch=1)


def usual_length(rows):
    return min((row["length"] for row in rows), key=lambda length: abs(length - 64))


def show(rows):
    length = usual_length(rows)
    layers = [row for row in rows if (row["text"], row["length"], row["key"]) == ("natural", length, 0)]
    header = ["layer", "weight on first", "|x|/median", "|v|/median", "largest x", "stable rank", "sink"]
    digits = {"layer": "d", "weight": ".2f", "residual": ".1f", "value": ".2f", "massive": ".0f", "stable_rank": ".1f"}
    by_layer = [[*(format(row[key], form) for key, form in digits.items()), row["kind"]] for row in layers]
    columns = ["text", "tokens", *(f"1>{eps}" for eps in EPS), "2>0.3", "3>0.3", "4>0.3", "mid"]
    cells = []
    for text, n in by(rows, "text", "length"):
        sinks = [rates(rows, text, n, 0, eps) for eps in EPS] + [rates(rows, text, n, key) for key in (1, 2, 3, n // 2)]
        cells.append([text, str(n), *(f"{100 * rate.mean():.1f}" for rate in sinks)])
    rate = f"sink rate {rates(rows, 'natural', length, 0).mean():.1%} over {layers[0]['n_texts']} pieces"
    first = f"{rate} of {length} tokens, natural text\n{table(header, by_layer)}"
    return f"{first}\n\nSink_k^eps (k>eps), % of heads\n{table(columns, cells)}"


def finding(rows):
    length = usual_length(rows)
    each = ", ".join(f"{100 * rates(rows, text, length, 0).mean():.0f}% in {text} text" for text in TEXTS)
    return f"Heads that have their sink on the first token: {each}"


def draw(figure, rows):
    """Draw the sink rate of the first token by threshold, and of each key, for all kinds of text."""
    length = usual_length(rows)
    by_eps, by_key = figure.subplots(1, 2, sharey=True)
    keys = (0, 1, 2, 3, length // 2)
    curves(by_eps, EPS, {text: [100 * rates(rows, text, length, 0, eps).mean() for eps in EPS] for text in TEXTS})
    series = {text: [100 * rates(rows, text, length, key).mean() for key in keys] for text in TEXTS}
    bars(by_key, [str(key + 1) for key in keys], series, form="%.0f")
    by_eps.set(title=f"first of {length} tokens", xlabel="least mean weight of a sink")
    by_eps.set(ylabel="heads with a sink (%)", ylim=(-3, 103))
    by_key.set(title="each token, least weight 0.3", xlabel="token")
