"""The golden vectors: recorded traces of three tiny models, with their weights.

They are in `vectors/`, one file per model, in double precision and without pickle, so that any program can read them
with ``numpy.load(file, allow_pickle=False)``. An array of a trace is called by its sizes, "1+4.token_index" for one
sink and a window of four; a weight, in half precision, as minisink calls it, "weights.0.wq"; "about" is the config as
JSON. `tests/conformance/make.py` made them.
"""

import json
from typing import Any

import numpy as np

from .. import gpt2, llama
from ..hf.arrays import from_arrays
from ..methods import Streaming
from ..model import Model
from . import texts
from .texts import FOLDER
from .traces import Trace

NAMES = ("llama", "gqa", "gpt2")  # one head per key; two heads per key; no rotation, learned positions
RECORDED = ("q", "k", "v", "token_index", "positions", "scores", "out", "losses")


def load(name: str) -> tuple[Trace, ...]:
    """Return the recorded traces of one of `NAMES`, one for each size of cache; ValueError for another name."""
    file = read(name)
    about = json.loads(str(file["about"]))
    theta = about["config"].get("rope_theta")
    traces = []
    for n_sinks, window in about["sizes"]:
        arrays = {each: file[f"{n_sinks}+{window}.{each}"] for each in RECORDED if each != "scores"}
        (T, S), L = arrays["positions"].shape, arrays["q"].shape[1]
        for each in ("token_index", "positions"):  # recorded once for all layers
            arrays[each] = np.broadcast_to(arrays[each][:, None], (T, L, S))
        traces.append(Trace(name, n_sinks, window, theta, Streaming(n_sinks, window), ids=file["ids"], **arrays))
    return tuple(traces)


def model(name: str) -> Model:
    """Return the model whose vectors these are, in double precision; its `save` writes a Hugging Face folder."""
    if name in texts.TEXTS:
        return texts.model(name)
    file = read(name)
    architecture: Any = gpt2 if name == "gpt2" else llama
    config = architecture.Config(**json.loads(str(file["about"]))["config"])
    learned = [each for each in file if each.startswith("weights.")]
    weights = {each.removeprefix("weights."): file[each].astype(np.float64) for each in learned}
    return Model(config, from_arrays(config, weights), name=name)


def read(name):
    """Return every array of a file by name."""
    if name not in NAMES:
        raise ValueError(f"name is {name!r}; there are golden vectors of {', '.join(NAMES)}")
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)
