"""How strong a sink is, and why there is one: read off a pattern, or off a trace of `Model.forward`.

Softmax weights sum to one (`ops.softmax`), so a head that looks for nothing must still put its weight somewhere. It
learns to put it on a token that every query can see and that has little to give: the first. Such a token is an
*attention sink*, and three signs go together:

- many heads put much of their weight on it, whatever it says: `weight_on_first`, `sink_rate`;
- its values are small, so that looking at it changes little: `norms`, `value_ratio`, `sink_kind`, `stable_rank`;
- its residual stream is far larger than any other's: `residual_ratio`, `massive`.

(Xiao et al., arXiv:2309.17453, section 3.1; Gu et al., arXiv:2410.10781; Sun et al., arXiv:2402.17762; Guo et al.,
arXiv:2410.13835.) Without a softmax that must be spent there is none: `ops.softmax1`, ``minisink train backcopy``.
"""

import numpy as np

from .system.device import to_host


def importance(pattern):  # (H, T, T) causal -> (H, T)
    """How much weight each key gets: ``alpha_k = mean over queries i >= k of pattern[i, k]`` (Gu et al., section 3.2).

    >>> importance(np.array([[[1.0, 0.0], [0.5, 0.5]]])).tolist()
    [[0.75, 0.5]]
    """
    T = pattern.shape[-1]
    return to_host(pattern).sum(axis=1) / np.arange(T, 0, -1)  # key k is seen by T - k queries


def sink_rate(patterns, *, key=0, eps=0.3):  # a list of (H, T, T), one a layer -> float
    """Share of heads, over all layers, with ``alpha_key > eps`` (Gu et al., section 3.2: T = 64, a mean of 100 texts).

    >>> sink_rate([np.array([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])], key=1, eps=0.6)
    0.5
    """
    return float(np.mean([importance(pattern)[:, key] > eps for pattern in patterns]))


def weight_on_first(pattern, n_first=1):  # (H, T, T) causal -> (H,)
    """Mean weight on the first tokens, by the queries after them; a ValueError when there are none.

    >>> weight_on_first(np.array([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.25, 0.25]]])).tolist()
    [0.5]
    """
    if not 1 <= n_first < pattern.shape[-1]:
        raise ValueError(
            f"weight on the first {n_first} of {pattern.shape[-1]} tokens: choose 1 or more, and fewer than all"
        )
    return to_host(pattern)[:, n_first:, :n_first].sum(axis=-1).mean(axis=-1)


def to_others(norm, key=0):  # (..., T) -> (...)
    """How long the vector of one token is, beside the others: ``norm[key] / median of norm[i != key]``.

    >>> to_others(np.array([[6.0, 1.0, 2.0, 3.0]])).tolist()
    [3.0]
    """
    return norm[..., key] / np.median(np.delete(norm, key, axis=-1), axis=-1)


def sink_kind(ratio):
    """What it means to look at a sink with such a `value_ratio` (arXiv:2606.08105).

    >>> [sink_kind(ratio) for ratio in (0.1, 0.5, 1.1, 3.0)]
    ['no-op', 'between', 'broadcast', 'between']
    """
    if ratio < 0.2:
        return "no-op"  # nothing is brought home: the head is off
    return "broadcast" if 0.8 <= ratio <= 1.25 else "between"  # the same is brought home to all


def stable_rank(mixed):  # (T, H, D) -> (H,)
    """How many directions the output A (T, D) of a head has: ``|A|_F^2 / |A|_2^2``, from 1 to its rank; 0 for zeros.

    A head whose queries all look at one token brings home one vector: 1.

    >>> stable_rank(np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]])).tolist()
    [2.0]
    """
    squares = np.linalg.svd(to_host(mixed).swapaxes(0, 1), compute_uv=False) ** 2  # (H, min(T, D)), the largest first
    largest = squares[:, 0]
    return np.divide(squares.sum(axis=-1), largest, out=np.zeros_like(largest), where=largest > 0)


# Looking inside a model: the rest of this page reads better after `llama` ---------------------------


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
    """The residual stream of a token after each layer, beside the others: see `to_others`."""
    return to_others(norms(trace)["residual"], key)


def value_ratio(trace, key=0):  # -> (L,)
    """The values of a token, a mean over heads, beside the others; far below 1 is the value drain."""
    return to_others(norms(trace)["value"].mean(axis=-1), key)


def massive(trace):  # -> (L,)
    """``max |x| / median |x|`` of the residual stream after each layer, over all tokens and channels.

    Sun et al. (section 2) call an entry massive that is a thousand times the median.
    """
    return np.array([abs(x).max() / np.median(abs(x)) for x in after_layers(trace)])


def after_layers(trace):
    """The residual stream (T, C) after each layer."""
    layers = trace["layers"]
    return [to_host(x) for x in [layer["x"] for layer in layers[1:]] + [trace["x"]]]  # left one, entered the next


def summary(trace, *, n_first=1):
    """Everything ``minisink inspect`` shows.

    Parameters
    ----------
    trace : dict
        From `look_inside`, of at least ``n_first + 1`` tokens.
    n_first : int

    Returns
    -------
    dict
        ``"layers"``: a dict a layer with ``"residual_first"`` and ``"residual_median"`` (norm of the residual
        stream after the layer: of the first token, and the median of the others) and ``"heads"``, a dict a
        query head with ``"weight_on_first"``, ``"key_first"``, ``"key_median"``, ``"value_first"`` and
        ``"value_median"`` (norms in the key/value head it shares); ``"sink_rate"``: `sink_rate` of the first
        token.

    Raises
    ------
    ValueError
        For a text too short.
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
    """A text (T,) cut into at most `n_texts` lists of `length` ids; if it begins with `config.bos`, so does each.

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
