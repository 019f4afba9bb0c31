"""How strong the sink of a model is, measured as Gu et al. (arXiv:2410.10781, section 3.2) do it, in small.

``python -m minisink.experiments.sink_strength novels`` prints it for the sample text that ships.
"""

import argparse
import sys

import numpy as np

from ..errors import in_one_line
from ..model import load
from ..resources import sample_text
from ..sinks import look_inside, massive, norms, pieces, sink_rate, weight_on_first
from ..terminal import table


def run(model, ids, *, length=64, n_texts=100):
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
    means = {"weight": weights, "residual": residuals, "value": values, "massive": largest}
    return {"n_texts": len(rates), "sink_rate": float(np.mean(rates)), **{k: np.mean(v, 0) for k, v in means.items()}}


def _first_to_median(norm):
    """(L, T) -> (L,)."""
    return norm[:, 0] / np.median(norm[:, 1:], axis=1)


def main(argv=None):
    """Print the table of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["novels"], help="shipped names or folders (novels)")
    for name in parser.parse_args(argv).models:
        model = load(name)
        found = run(model, model.encode(sample_text().read_text(encoding="utf-8"), bos=False))
        print(
            f"{name}: sink rate {found['sink_rate']:.1%} over {found['n_texts']} pieces of 64 tokens of the sample text"
        )
        columns = (found[key] for key in ("weight", "residual", "value", "massive"))
        rows = [
            [str(i), f"{weight:.2f}", f"{x:.1f}", f"{v:.2f}", f"{most:.0f}"]
            for i, (weight, x, v, most) in enumerate(zip(*columns, strict=True))
        ]
        header = ["layer", "weight on the first", "|x| first/median", "|v| first/median", "largest/median activation"]
        print(table(header, rows))


if __name__ == "__main__":
    sys.exit(in_one_line(main))
