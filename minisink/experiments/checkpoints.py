"""The checkpoints of one model in the order of its training, for `emergence` without a log.

Pythia was saved 154 times while it learned, step0 to step143000 (Biderman et al., arXiv:2304.01373, section 2.1).
"""

import re
from pathlib import Path

import numpy as np

from ..evaluation.difference import paired
from ..loss import nll_of, token_nll
from ..methods import Streaming, Window
from ..model import load
from ..system.device import to_host
from .effects import must_evict, must_hold
from .inside import look_inside, pieces, stretch

PIECE = 128  # tokens
OF_CHECKPOINTS = {
    "checkpoints": "folders of a model as it learned, step0 step1000 ..., to be measured instead of reading a log",
    "cache": "keys a checkpoint's query sees",
    "tokens": "how much of the text it reads",
}


def in_order(folders):
    """Return (step, folder) pairs by the numbers in the folders' names, or in the given order if no name has one."""
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")
    numbers = [re.match(r"(?:.*step)?\D*(\d+)", folder.name) for folder in folders]
    if any(numbers) and not all(numbers):
        raise ValueError(f"{folders[numbers.index(None)]}: no number in its name to say the step; others have one")
    steps = [int(number[1]) if number else i for i, number in enumerate(numbers)]
    for i, step in enumerate(steps):
        if step in steps[:i]:
            raise ValueError(f"{folders[i]}: step {step} again, after {folders[steps.index(step)]}")
    return sorted(zip(steps, folders, strict=True))


def measure(text, folders, cache, tokens, seed, track):
    """Yield a row of `emergence.run` for each checkpoint; all read the same tokens."""
    must_hold(cache, 1)
    first: list = []
    for step, folder in track(in_order([Path(folder) for folder in folders])):
        model = load(folder)
        ids, config = stretch(model, model.encode(text), tokens, seed), model.config
        must_evict(len(ids), cache)
        about = [config.model_type, config.n_layers, config.vocab_size, *ids]
        first = first or [folder, about]
        if about != first[1]:
            raise ValueError(f"{folder} is of another model than {first[0]}, or has another tokenizer")
        looks = [look(model, piece) for piece in pieces(model, ids, min(PIECE, len(ids)), len(ids))]
        loss, weights = (np.mean(values, axis=0) for values in zip(*looks, strict=True))  # (), (L,)
        window, sink = (token_nll(model, ids, kept)[cache:] for kept in (Window(cache), Streaming(1, cache - 1)))
        gap = paired(window, sink)
        row = {"training": folder.resolve().parent.name, "first": "?", "part": 0, "step": step, "loss": float(loss)}
        row |= {"weight": float(weights.max()), "layer": int(weights.argmax()), "gap": gap.mean, "error": gap.error}
        row |= {f"weight_{i}": float(weight) for i, weight in enumerate(weights)}
        yield row | {"weights": weights, "lost": window - sink}


def look(model, ids):  # (T,) -> (), (L,)
    """Return the mean loss of a piece, and the weight on its first token by the queries of its second half."""
    trace = look_inside(model, ids)
    weights = [to_host(layer["pattern"])[:, len(ids) // 2 :, 0].mean() for layer in trace["layers"]]
    return nll_of(trace["logits"][:-1], ids[1:]).mean(), weights
