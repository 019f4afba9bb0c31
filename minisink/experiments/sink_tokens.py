"""Where the weight goes: the tokens that later queries look at most, in each layer.

``minisink reproduce sink-tokens --model novels-vanilla`` prints them for the sample text that ships. A head may
look at a token for what it says, or park its weight there because softmax must spend it. What is parked adds little:
the token's values are small (value drain; Guo et al., arXiv:2410.13835).
"""

import numpy as np

from ..sinks import look_inside, norms, pieces
from ..system.device import to_host

FIRST = -1  # in place of a token id: the first of a text, whatever it is


def run(model, ids, *, length=64, n_texts=100, at_least=20, on_progress=lambda: None):
    """Weight that tokens receive, by what they are.

    Parameters
    ----------
    model : Model
    ids : ndarray of shape (T,), ints
        Without a begin-of-text token; at least one piece long.
    length : int
        Tokens in a piece, the first included. Counted are those of its first half, so that half a piece or more comes
        after each.
    n_texts : int
        Pieces at most.
    at_least : int
        Tokens that come less often are left out.
    on_progress : callable
        Called after every piece.

    Returns
    -------
    dict of int to dict
        By token id, with -1 for the first of each piece: ``"times"`` it was counted; ``"weight"`` of shape (L, H), the
        mean weight from the queries after it; ``"value"`` of shape (L, K), the norm of its values / median over the
        tokens of the piece, a mean too.

    Raises
    ------
    ValueError
        When the text is shorter than one piece.
    """
    weights, values = {}, {}
    for piece in pieces(model, ids, length, n_texts):
        trace = look_inside(model, piece)
        patterns = np.stack([to_host(layer["pattern"]) for layer in trace["layers"]])  # (L, H, T, T)
        value = norms(trace)["value"]  # (L, T, K)
        value = value / np.median(value, axis=1, keepdims=True)
        for k in range(length // 2):
            token = int(piece[k]) if k else FIRST
            weights.setdefault(token, []).append(patterns[:, :, k + 1 :, k].mean(axis=-1))  # (L, H)
            values.setdefault(token, []).append(value[:, k])  # (L, K)
        on_progress()
    return {
        token: {"times": len(seen), "weight": np.mean(seen, axis=0), "value": np.mean(values[token], axis=0)}
        for token, seen in weights.items()
        if len(seen) >= at_least
    }


def strongest(found, layer, n=3):
    """The tokens with most weight in a layer, in the head that gives it to them.

    Parameters
    ----------
    found : dict
        From `run`.
    layer : int
    n : int

    Returns
    -------
    list of tuple (int, int)
        Token and head, at most `n`, most weight first.
    """
    heads = {token: int(about["weight"][layer].argmax()) for token, about in found.items()}
    return sorted(heads.items(), key=lambda item: -found[item[0]]["weight"][layer, item[1]])[:n]
