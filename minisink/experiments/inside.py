"""The signs of a sink in a whole model: each read off a trace of `Model.forward`, using the measures in `sinks`."""

import numpy as np

from ..cache import check_whole
from ..methods import lead_of
from ..sinks import ratio_to_median, sink_rate, weight_on_first
from ..system.device import to_host
from ..system.plots import curves, heat, name_lines, picture

NAMED = 12  # tokens named along an axis
CELLS = 32  # heads whose weights are also written as numbers


def look_inside(model, ids, cache=None):
    """Run a text, densely or through a cache; return the trace that `llama.forward` describes, and its ``"logits"``."""
    trace = {}
    return trace | {"logits": model.forward(ids, cache, trace=trace)}


def after_layers(trace):
    """List the residual stream (T, C) after each layer, the one that enters the next."""
    return [to_host(x) for x in [layer["x"] for layer in trace["layers"][1:]] + [trace["x"]]]


def norms(trace):
    """Return each token's norms: ``"residual"`` (L, T), after each layer; ``"key"`` and ``"value"`` (L, T, K)."""
    vectors = {"residual": after_layers(trace)}
    vectors |= {name: [to_host(layer[name[0]]) for layer in trace["layers"]] for name in ("key", "value")}
    return {name: np.linalg.norm(np.stack(each), axis=-1) for name, each in vectors.items()}


def residual_ratio(trace, key=0):  # -> (L,)
    """Compare a token's residual stream after each layer with that of other tokens: see `sinks.ratio_to_median`."""
    return ratio_to_median(norms(trace)["residual"], key)


def value_ratio(trace, key=0):  # -> (L,)
    """Compare a token's values, averaged over heads, with the other tokens'; far below 1 means value drain."""
    return ratio_to_median(norms(trace)["value"].mean(axis=-1), key)


def massive(trace):  # -> (L,)
    """Return ``max |x| / median |x|`` of the stream after each layer; Sun et al. (section 2) call 1,000 massive."""
    return np.array([abs(x).max() / np.median(abs(x)) for x in after_layers(trace)])


def summary(trace, *, n_first=1):
    """Gather everything ``minisink inspect`` shows, from a trace of at least ``n_first + 1`` tokens.

    Norms are given for the first token, and as the median over the rest: of the residual stream after each of the
    ``"layers"``; and for each of its ``"heads"``, of keys and values in the key/value head that it shares.
    """
    layers, length, patterns = [], norms(trace), [layer["pattern"] for layer in trace["layers"]]
    shared_by = len(patterns[0]) // length["key"].shape[-1]  # H / K

    def first_and_median(name, *place):
        norm = length[name][place]
        return {f"{name}_first": float(norm[0]), f"{name}_median": float(np.median(norm[1:]))}

    for i, pattern in enumerate(patterns):
        heads = []
        for h, weight in enumerate(weight_on_first(pattern, n_first)):
            both = [first_and_median(name, i, slice(None), h // shared_by) for name in ("key", "value")]
            heads.append({"weight_on_first": float(weight)} | both[0] | both[1])
        layers.append(first_and_median("residual", i) | {"heads": heads})
    return {"layers": layers, "sink_rate": sink_rate(patterns)}


def pieces(model, ids, length, n_texts):
    """Cut a text (T,) into at most `n_texts` lists of `length` ids; if it begins with `config.bos`, so does each.

    Drop the remainder; raise ValueError for a text shorter than one piece.
    """
    lead = [int(token) for token in ids[:1] if token == model.config.bos]
    ids, step = ids[len(lead) :], length - len(lead)
    check_whole("length", length, 1 + len(lead))
    check_whole("n_texts", n_texts, 1)
    if len(ids) < step:
        raise ValueError(f"the text has {len(ids)} tokens; a piece takes {step}")
    return [[*lead, *ids[start : start + step]] for start in range(0, len(ids) - step + 1, step)[:n_texts]]


def stretch(model, ids, n_tokens, seed=0):
    """Return `n_tokens` of a text, or all of it, beginning with the begin-of-text token if the text does.

    A `seed` of 0 is the beginning. Later seeds give consecutive stretches, and start over at the end of the text.
    """
    n_lead, room = len(lead_of(model, ids, n_tokens)), len(ids) - n_tokens
    start = seed * (n_tokens - n_lead) % (room + 1) if room > 0 else 0
    return np.concatenate((ids[:n_lead], ids[n_lead + start : start + n_tokens]))


def draw_inspection(path, patterns, summary, *, tokens, name, several="token"):
    """Draw every head's weight on the first token, the pattern of the head with the most, and norms by layer.

    `patterns` holds one (H, T, T) array per layer; `several` says how many first tokens there are.
    """
    layers = summary["layers"]
    weights = np.array([[head["weight_on_first"] for head in layer["heads"]] for layer in layers])  # (L, H)
    layer, head = np.unravel_index(weights.argmax(), weights.shape)
    title = f"Heads of {name} give the first {several} {weights.mean():.0%} of their weight on average"
    title += f", and head {head} of layer {layer} {weights.max():.0%}"
    with picture(path, title) as figure:
        all_heads, pattern, norms = figure.subplots(1, 3, width_ratios=[1, 1.2, 0.8])
        heat(all_heads, weights, title="weight on the first", xlabel="head", ylabel="layer")
        for (i, h), weight in np.ndenumerate(weights if weights.size <= CELLS else []):
            stands_out = "white" if weight < 0.6 else "black"
            all_heads.text(h, i, f"{weight:.0%}", ha="center", va="center", color=stands_out)
        image = heat(pattern, patterns[layer][head], title=f"layer {layer}, head {head}", xlabel="key")
        every = -(-len(tokens) // NAMED)  # there is no room to name every token of a long text
        ticks, names = range(0, len(tokens), every), [token[:7].replace("$", r"\$") for token in tokens[::every]]
        pattern.set_xticks(ticks, names, rotation=90)
        pattern.set_yticks(ticks, names)
        figure.colorbar(image, ax=[all_heads, pattern], location="bottom", shrink=0.5, label="weight")
        stream = [row["residual_first"] / (row["residual_median"] or np.inf) for row in layers]
        values = [[head["value_first"] / (head["value_median"] or np.inf) for head in row["heads"]] for row in layers]
        values = np.mean(values, axis=1).tolist()
        curves(norms, range(len(layers)), {"stream": stream, "values": values})
        norms.axhline(1.0, color="black", ls=":")
        norms.set(title="norm / median", xlabel="layer", yscale="log" if min(stream + values) > 0 else "linear")
        norms.locator_params(axis="x", integer=True)
        name_lines(norms)
