"""How a sink grows while the loss falls: the logs of trainings, beside each other.

``minisink reproduce growth`` prints the logs of the models that ship; ``--plot growth.png`` draws them.
"""

import numpy as np

from ..system.files import whole_file
from ..training.log import read

LOGS = "log*.csv"  # of one training; where it was begun anew in another context, one a part, in order of their names


def read_logs(folder):
    """The logs of a training, its parts one after another.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict of str to ndarray
        As from `read_log`, the tokens counted on; and ``"parts"``, shape (P,), the tokens at which each part began.

    Raises
    ------
    ValueError
        For a folder without a log, or a file that is none.
    """
    parts = [read_log(path) for path in sorted(folder.glob(LOGS))]
    if not parts:
        raise ValueError(f"{folder}: holds no log ({LOGS})")
    began = np.cumsum([0.0] + [part["tokens"][-1] for part in parts])[:-1]
    for part, start in zip(parts, began, strict=True):
        part["tokens"] += start
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} | {"parts": began}


def read_log(path):
    """The log that ``minisink train lm`` writes.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict of str to ndarray
        For N rows and L layers: ``"tokens"`` seen until then, shape (N,); nats a token, ``"loss"`` on held-out text and
        ``"gap"``, what window attention loses more than one sink in a cache of the same size, each (N,); and
        ``"weight"`` on the first token, (N, L).

    Raises
    ------
    ValueError
        For a file that is no such log.
    """
    names, rows = read(path)
    missing = [name for name in ("tokens", "valid_loss", "window_nll", "one_sink_nll", "sink_0") if name not in names]
    if missing or not rows:
        what = f"no column {missing[0]}" if missing else "no row"
        raise ValueError(f"{path}: not the log of a `minisink train lm` run ({what})")
    columns = dict(zip(names, np.array([[float(x) for x in row] for row in rows]).T, strict=True))
    tokens, loss = columns["tokens"], columns["valid_loss"]
    gap = columns["window_nll"] - columns["one_sink_nll"]
    weight = np.stack([columns[name] for name in names if name.startswith("sink_")], axis=1)  # (N, L)
    return {"tokens": tokens, "loss": loss, "gap": gap, "weight": weight}


def draw(path, logs):
    """Trainings over the tokens they have seen: held-out loss, weight on the first token, and what it is worth.

    Parameters
    ----------
    path : str or path
        Of the picture, which is written whole or not at all.
    logs : dict of str to dict
        By the name of the model, from `read_logs`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    loss, weight, gap = figure.subplots(1, 3)
    for start in sorted({start / 1e6 for log in logs.values() for start in log["parts"][1:]}):
        for axes in (loss, weight, gap):
            axes.axvline(start, color="0.6", ls=":", lw=1.5)
    for i, (name, log) in enumerate(logs.items()):
        tokens, stroke = log["tokens"] / 1e6, {"lw": 2, "ls": ("-", "--", "-.", ":")[i % 4]}
        loss.plot(tokens, log["loss"], label=name, **stroke)
        weight.plot(tokens, log["weight"].max(axis=1), **stroke)
        gap.plot(tokens, log["gap"], **stroke)
    loss.set_title("loss on held-out text (nats)", fontsize=13)
    weight.set_title("weight on the first token, strongest layer", fontsize=13)
    gap.set_title("window minus one sink (nats)", fontsize=13)
    for axes in (loss, weight, gap):
        axes.set_xlabel("million tokens of training", fontsize=13)
        axes.grid(alpha=0.3)
    figure.legend(fontsize=12, loc="outside lower center", ncols=len(logs))
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
