"""The golden vectors: recorded traces of three tiny models, with their weights.

docs/check-your-cache.md describes the files in `vectors/`, and `tests/conformance/make.py` made them. A release's
wheel holds the models, texts and losses; `read` computes the rest from them with the readable path.
"""

import json
from functools import lru_cache
from typing import Any

import numpy as np

from .. import gpt2, llama
from ..hf.arrays import from_arrays
from ..methods import Streaming, new_cache
from ..model import Model
from . import texts
from .texts import FOLDER
from .traces import Trace, trace_of

NAMES = ("llama", "gqa", "gpt2")  # one head per key; two heads per key; no rotation, learned positions
RECORDED = ("q", "k", "v", "token_index", "positions", "scores", "out", "losses")


def load(name: str) -> tuple[Trace, ...]:
    """Return the recorded traces of one of `NAMES`, one for each cache size; ValueError for any other name."""
    file = read(name)
    about = json.loads(str(file["about"]))
    theta, traces = about["config"].get("rope_theta"), []
    for n_sinks, window in about["sizes"]:
        arrays = {each: file[f"{n_sinks}+{window}.{each}"] for each in RECORDED if each != "scores"}
        for each in ("token_index", "positions"):  # recorded once for all layers
            arrays[each] = np.repeat(arrays[each][:, None], arrays["q"].shape[1], axis=1)  # (T, S) -> (T, L, S)
        traces.append(Trace(name, n_sinks, window, theta, Streaming(n_sinks, window), ids=file["ids"], **arrays))
    return tuple(traces)


def model(name: str) -> Model:
    """Return the model behind these vectors, in double precision; its `save` writes a Hugging Face folder."""
    return texts.model(name) if name in texts.TEXTS else _model(name, read(name))


def _model(name, file):
    architecture: Any = gpt2 if name == "gpt2" else llama
    config = architecture.Config(**json.loads(str(file["about"]))["config"])
    learned = [each for each in file if each.startswith("weights.")]
    weights = {each.removeprefix("weights."): file[each].astype(np.float64) for each in learned}
    return Model(config, from_arrays(config, weights), name=name)


def read(name):
    """Return every array in a file by name."""
    if name not in NAMES:
        raise ValueError(f"name is {name!r}; there are golden vectors of {', '.join(NAMES)}")
    return {each: array.copy() for each, array in _read(FOLDER / f"{name}.npz").items()}


@lru_cache
def _read(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    sizes = json.loads(str(arrays["about"]))["sizes"]
    for n_sinks, window in sizes if f"{sizes[0][0]}+{sizes[0][1]}.q" not in arrays else ():
        losses = arrays[f"{n_sinks}+{window}.losses"]
        trace = replayed(_model(path.stem, arrays), arrays["ids"], n_sinks, window, losses)
        arrays |= {f"{n_sinks}+{window}.{each}": array for each, array in recorded(trace).items()}
    return arrays


def replayed(model, ids, n_sinks, window, losses):
    """Feed a model one token at a time through `cache.py`, and return the trace of all its layers."""
    cache, layers = new_cache(model, Streaming(n_sinks, window)), []
    for token in ids:
        inside: dict = {}
        model.forward([token], cache=cache, trace=inside)
        layers.append(inside["layers"])
    q, k, v = (np.array([[layer[each][0] for layer in token] for token in layers]) for each in "qkv")  # (T, L, H, D)
    theta = getattr(model.config, "rope_theta", None)
    return trace_of(q, k, v, n_sinks=n_sinks, window=window, theta=theta, name=model.name, ids=ids, losses=losses)


def recorded(trace):
    """Return the arrays of `RECORDED` by name: slots once for all layers, -inf for the score of an empty slot."""
    (T, L, S), H = trace.token_index.shape, trace.q.shape[2]
    scores = np.full((T, L, H, S), -np.inf)
    for t, i in np.ndindex(T, L):
        scores[t, i, :, : len(trace.held(t, i))] = trace.scores_at(t, i)
    arrays = {each: getattr(trace, each) for each in RECORDED if each != "scores"} | {"scores": scores}
    return arrays | {each: arrays[each][:, 0] for each in ("token_index", "positions")}
