"""The signs of a sink in a whole model: each read off a trace of `Model.forward`, by the measures of `sinks`."""

import numpy as np

from ..sinks import ratio_to_median, sink_rate, weight_on_first
from ..system.device import to_host


def look_inside(model, ids, cache=None):
    """Run a text, densely or through a cache, and keep everything: the trace that `llama.forward` describes."""
    trace = {}
    model.forward(ids, cache, trace=trace)
    return trace


def norms(trace):
    """Length of each token's vectors: ``"residual"`` (L, T), after each layer; ``"key"`` and ``"value"`` (L, T, K)."""
    layers = trace["layers"]
    return {
        "residual": np.stack([np.linalg.norm(x, axis=-1) for x in after_layers(trace)]),
        "key": np.stack([np.linalg.norm(to_host(layer["k"]), axis=-1) for layer in layers]),
        "value": np.stack([np.linalg.norm(to_host(layer["v"]), axis=-1) for layer in layers]),
    }


def residual_ratio(trace, key=0):  # -> (L,)
    """Compare a token's residual stream after each layer with the others': see `sinks.ratio_to_median`."""
    return ratio_to_median(norms(trace)["residual"], key)


def value_ratio(trace, key=0):  # -> (L,)
    """Compare a token's values, a mean over heads, with the others'; far below 1 is the value drain."""
    return ratio_to_median(norms(trace)["value"].mean(axis=-1), key)


def massive(trace):  # -> (L,)
    """``max |x| / median |x|`` of the residual stream after each layer, over all tokens and channels.

    Sun et al. (section 2) call an entry massive that is a thousand times the median.
    """
    return np.array([abs(x).max() / np.median(abs(x)) for x in after_layers(trace)])


def after_layers(trace):
    """List the residual stream (T, C) after each layer."""
    layers = trace["layers"]
    return [to_host(x) for x in [layer["x"] for layer in layers[1:]] + [trace["x"]]]  # left one, entered the next


def summary(trace, *, n_first=1):
    """Gather everything ``minisink inspect`` shows, from a trace of at least ``n_first + 1`` tokens.

    The dict has ``"layers"``, for each a dict with ``"residual_first"`` and ``"residual_median"`` (norm of the residual
    stream after the layer: of the first token, and the median of the others) and ``"heads"``, for each query head a
    dict with ``"weight_on_first"``, ``"key_first"``, ``"key_median"``, ``"value_first"`` and ``"value_median"`` (norms
    in the key/value head it shares); and ``"sink_rate"``: `sink_rate` of the first token.
    """
    patterns = [layer["pattern"] for layer in trace["layers"]]
    length = norms(trace)
    shared_by = len(patterns[0]) // length["key"].shape[-1]  # H / K
    layers = []
    for i, pattern in enumerate(patterns):
        heads = []
        for head, weight in enumerate(weight_on_first(pattern, n_first)):
            key, value = (length[name][i, :, head // shared_by] for name in ("key", "value"))  # (T,)
            heads.append({"weight_on_first": float(weight), **_first_and_median("key", key)})
            heads[-1].update(_first_and_median("value", value))
        layers.append({**_first_and_median("residual", length["residual"][i]), "heads": heads})
    return {"layers": layers, "sink_rate": sink_rate(patterns)}


def _first_and_median(name, norm):
    return {f"{name}_first": float(norm[0]), f"{name}_median": float(np.median(norm[1:]))}


def pieces(model, ids, length, n_texts):
    """Cut a text (T,) into at most `n_texts` lists of `length` ids; if it begins with `config.bos`, so does each.

    What is left over at the end is left out; a text shorter than one piece is a ValueError.
    """
    lead = [int(token) for token in ids[:1] if token == model.config.bos]
    ids, step = ids[len(lead) :], length - len(lead)
    if step < 1:
        raise ValueError(f"a piece of {length} tokens has no room for the text; choose {1 + len(lead)} or more")
    if n_texts < 1:
        raise ValueError(f"{n_texts} pieces of a text; take 1 or more")
    starts = range(0, len(ids) - step + 1, step)[:n_texts]
    if not starts:
        raise ValueError(f"the text has {len(ids)} tokens; a piece takes {step}")
    return [[*lead, *ids[start : start + step]] for start in starts]
