"""How a sink emerges while the loss falls: logs of training runs, or a model's checkpoints, side by side.

Gu et al. (arXiv:2410.10781, sections 4 and 5): a sink appears once the loss has fallen, given enough data, and sooner
if every sample starts with the same token. Each log is from one training run, so an interval over its last measurements
says nothing about other seeds. A model without a log is measured checkpoint by checkpoint: Pythia was saved 154 times
during training, from step0 to step143000 (Biderman et al., arXiv:2304.01373, section 2.1).
"""

import re
from pathlib import Path

import numpy as np

from ..evaluation.difference import Difference, paired
from ..hf.fields import read_json
from ..hf.shipped import shipped, shipped_names
from ..loss import nll_of, token_nll
from ..methods import Streaming, Window
from ..model import load
from ..system.device import to_host
from ..system.plots import GREY, name_lines
from ..system.terminal import table
from ..training.log import read
from .effects import by, effect, exactly, must_evict, must_hold
from .inside import look_inside, pieces, stretch

PAPER = "Gu et al., 2410.10781"
CLAIM = "a fixed first token brings a sink, after the loss has fallen; "
CLAIM += "without one, 50-100M tokens bring none (60M model)"
SHIPPED = ("novels", "novels-vanilla", "novels-softmax1", "novels-gpt2", "novels-alibi", "novels-neox")
OPTIONS = {
    "trainings": "shipped names, or folders with logs from `train lm`",
    "checkpoints": "folders of a model during training, step0 step1000 ..., to measure instead of reading a log",
    "cache": "keys a checkpoint's query sees",
    "tokens": "how much of the text a checkpoint reads",
}
FAST = {"tokens": 600}  # of checkpoints
EPSILON = 0.3  # the mean weight above which Gu et al. call it a sink
LOGS = "log*.csv"  # from one training run; if it was restarted with a different context, one per part, ordered by name
SHOWN = 5  # rows of each log in the table
PIECE = 128  # tokens per piece in which a checkpoint reads the text


def run(text="", *, trainings=SHIPPED, checkpoints=(), cache=64, tokens=3000, seed=0, track=iter):
    """Read the logs, row by row; or measure checkpoints.

    Each row has ``"first"``, whether samples begin with a "fixed" or with "any" token, "?" without a config;
    ``"tokens"`` seen so far; ``"loss"`` on held-out text, nats per token; ``"weight"`` on the first token in the
    strongest ``"layer"``, averaged over its heads; ``"gap"``, how much more a window loses than one sink and a window.
    A checkpoint has ``"step"`` instead of tokens, and adds the gap's ``"error"`` and ``"lost"``, the gap by token.
    """
    if checkpoints:
        yield from measure(text, checkpoints, cache, tokens, seed, track)
        return
    folders = {}
    for name in trainings:
        folder = shipped(name) if name in shipped_names() else Path(name)
        if folders.setdefault(folder.resolve().name, folder) != folder:
            raise ValueError(f"{folder}: another training run has this name, {folders[folder.resolve().name]}")
    for name, folder in track([*folders.items()]):
        first, began = "?", 0.0
        if (config := folder / "config.json").is_file():
            first = "any" if read_json(config).get("bos_token_id") is None else "fixed"
        logs = sorted(folder.glob(LOGS))
        if not logs:
            raise ValueError(f"{folder}: holds no log ({LOGS})")
        for part, log in enumerate(map(read_log, logs)):  # one after another, with a running count of tokens
            for i, weights in enumerate(log["weight"]):
                row = {"training": name, "first": first, "part": part, "tokens": int(began + log["tokens"][i])}
                row |= {"loss": float(log["loss"][i]), "weight": float(weights.max()), "layer": int(weights.argmax())}
                yield row | {"gap": float(log["gap"][i]), "weights": weights}
            began += log["tokens"][-1]


def read_log(path):
    """Read a log that ``minisink train lm`` wrote: columns (N,) as in the rows of `run`, and ``"weight"`` (N, L)."""
    names, rows = read(path)
    if not rows or not {"tokens", "valid_loss", "window_nll", "one_sink_nll", "sink_0"} <= {*names}:
        raise ValueError(f"{path}: not the log of a `minisink train lm` run, or it has no rows")
    columns = dict(zip(names, np.array(rows, float).T, strict=True))
    gap = columns["window_nll"] - columns["one_sink_nll"]
    weight = np.stack([columns[name] for name in names if name.startswith("sink_")], axis=1)  # (N, L)
    return {"tokens": columns["tokens"], "loss": columns["valid_loss"], "gap": gap, "weight": weight}


def measure(text, folders, cache, tokens, seed, track):
    """Yield a row of `run` for each checkpoint; all read the same tokens."""
    must_hold(cache, 1)
    first: list = []
    for step, folder in track(in_order([Path(folder) for folder in folders])):
        model = load(folder)
        ids, config = stretch(model, model.encode(text), tokens, seed), model.config
        must_evict(len(ids), cache)
        about = [config.model_type, config.n_layers, config.vocab_size, *ids]
        first = first or [folder, about]
        if about != first[1]:
            raise ValueError(f"{folder} is from a different model than {first[0]}, or has a different tokenizer")
        looks = [look(model, piece) for piece in pieces(model, ids, min(PIECE, len(ids)), len(ids))]
        loss, weights = (np.mean(values, axis=0) for values in zip(*looks, strict=True))  # (), (L,)
        window, sink = (token_nll(model, ids, kept)[cache:] for kept in (Window(cache), Streaming(1, cache - 1)))
        gap = paired(window, sink)
        row = {"training": folder.resolve().parent.name, "first": "?", "part": 0, "step": step, "loss": float(loss)}
        row |= {"weight": float(weights.max()), "layer": int(weights.argmax()), "gap": gap.mean, "error": gap.error}
        row |= {f"weight_{i}": float(weight) for i, weight in enumerate(weights)}
        yield row | {"weights": weights, "lost": window - sink}


def in_order(folders):
    """Return (step, folder) pairs by the numbers in the folders' names, or in the given order if no name has one."""
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")
    numbers = [re.match(r"(?:.*step)?\D*(\d+)", folder.name) for folder in folders]
    if any(numbers) and not all(numbers):
        raise ValueError(f"{folders[numbers.index(None)]}: no number in its name to give the step; others have one")
    steps = [int(number[1]) if number else i for i, number in enumerate(numbers)]
    for i, step in enumerate(steps):
        if step in steps[:i]:
            raise ValueError(f"{folders[i]}: step {step} again, as in {folders[steps.index(step)]}")
    return sorted(zip(steps, folders, strict=True))


def look(model, ids):  # (T,) -> (), (L,)
    """Return the mean loss of a piece, and the weight on its first token from the queries in its second half."""
    trace = look_inside(model, ids)
    weights = [to_host(layer["pattern"])[:, len(ids) // 2 :, 0].mean() for layer in trace["layers"]]
    return nll_of(trace["logits"][:-1], ids[1:]).mean(), weights


def effects(rows):
    for name, log in by(rows, "training").items():
        weight, loss = (np.array([row[key] for row in log]) for key in ("weight", "loss"))
        last, first, what = weight[-max(1, len(weight) // 4) :], log[0]["first"], f"{name}: weight on the first token"
        if first == "?":
            yield effect(f"{what}, end - start", last - weight[0], above=0)
        else:
            yield effect(what, last, **{{"any": "below", "fixed": "above"}[first]: EPSILON})
        if first != "any":
            later = half_way(log, weight) - half_way(log, -loss)
            unit = "steps" if "step" in log[0] else "M tokens"
            yield exactly(f"{name}: half of the sink - half of the fall of the loss, {unit}", later, above=0)
            if "lost" in log[-1]:
                yield effect(f"{name}: window - one sink at the end, nats per token", log[-1]["lost"], above=0)


def half_way(rows, values):
    """Return the `place` where a curve was first half-way from its first value to its last."""
    return place(rows[int(np.argmax(values >= (values[0] + values[-1]) / 2))])


def place(row):
    return row["step"] if "step" in row else row["tokens"] / 1e6


def show(rows):
    lines, steps = [], "step" in rows[0]
    for name, log in by(rows, "training").items():
        for row in reversed(log[:: -1 if steps else -len(log) // SHOWN]):
            weights = " ".join(f"{weight:.2f}" for weight in row["weights"])
            at = f"{place(row):,}" if steps else f"{place(row):.1f}M"
            gap = str(Difference(row["gap"], row["error"])) if steps else f"{row['gap']:+.3f}"
            lines.append([name, at, f"{row['loss']:.2f}", weights, gap])
    header = ["training", "step" if steps else "tokens", "held out", "weight on first, by layer", "window - sink"]
    return table(header, lines)


def finding(rows):
    ends = {name: log[-1] for name, log in by(rows, "training").items()}
    each = ", ".join(f"{name} {row['weight']:.2f}" for name, row in ends.items())
    places = [*map(place, ends.values())]
    after = f"{max(places):,} steps" if "step" in rows[0] else f"{min(places):.1f}M to {max(places):.1f}M tokens"
    return f"After {after}, weight on the first token in the strongest layer: {each}"


def draw(figure, rows):
    """Draw held-out loss, weight on the first token, and the benefit of a sink, against tokens seen or steps."""
    titles = {"loss": "loss (nats)", "weight": "weight on the first", "gap": "window - sink (nats)"}
    for axes, (key, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for name, log in by(rows, "training").items():
            x = [*map(place, log)]
            axes.plot(x, [row[key] for row in log], label=name)
            if "step" in log[0]:
                axes.set_xscale("symlog", linthresh=max(1, *x[:2]))  # Pythia's: powers of two, then thousands
                axes.xaxis.get_major_locator().set_params(numticks=4)
            for _, part in [*by(log, "part").items()][1:]:
                axes.axvline(place(part[0]), color=GREY, ls=":", lw=1.5)
        axes.set(title=title, xlabel="step" if "step" in rows[0] else "million tokens")
        if key == "weight":
            axes.axhline(EPSILON, color="black", lw=1)
    name_lines(axes)
