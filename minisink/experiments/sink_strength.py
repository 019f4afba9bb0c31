"""How strong the sink of a model is, measured as Gu et al. (arXiv:2410.10781, section 3.2) do it, in small.

``minisink reproduce sink-strength`` prints it for the sample text that ships.
"""

import numpy as np

from ..sinks import look_inside, massive, norms, pieces, sink_rate, weight_on_first


def run(model, ids, *, length=64, n_texts=100, on_progress=lambda: None):
    """Cut a text into pieces, each with the begin-of-text token first, and look inside.

    Parameters
    ----------
    model : Model
    ids : ndarray of shape (T,), ints
        Without a begin-of-text token; at least one piece long.
    length : int
        Tokens in a piece, the first included.
    n_texts : int
        Pieces at most.

    on_progress : callable
        Called after every piece.

    Returns
    -------
    dict
        ``"n_texts"``; ``"sink_rate"``: Sink_1^0.3, from 0 to 1; and by layer, each of shape (L,):
        ``"weight"`` on the first token by later ones, ``"residual"`` and ``"value"``: norm of the first
        token / median of the others; ``"massive"``: see `sinks.massive`.

    Raises
    ------
    ValueError
        When the text is shorter than one piece.
    """
    rates, weights, residuals, values, largest = [], [], [], [], []
    for piece in pieces(model, ids, length, n_texts):
        trace = look_inside(model, piece)
        patterns = [layer["pattern"] for layer in trace["layers"]]
        length_of = norms(trace)
        rates.append(sink_rate(patterns))
        weights.append([weight_on_first(pattern).mean() for pattern in patterns])
        residuals.append(_first_to_median(length_of["residual"]))
        values.append(_first_to_median(length_of["value"].mean(axis=-1)))
        largest.append(massive(trace))
        on_progress()
    means = {"weight": weights, "residual": residuals, "value": values, "massive": largest}
    return {"n_texts": len(rates), "sink_rate": float(np.mean(rates)), **{k: np.mean(v, 0) for k, v in means.items()}}


def _first_to_median(norm):
    """(L, T) -> (L,)."""
    return norm[:, 0] / np.median(norm[:, 1:], axis=1)
