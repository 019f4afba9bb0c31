"""The golden vectors: recorded traces of three tiny models, with their weights.

They lie in `vectors/`, one file a model, in double precision and without pickle, so that any program can read them with
``numpy.load(file, allow_pickle=False)``. An array of a trace is called by its sizes, "1+4.token_index" for one sink
and a window of four; a weight, in half precision, as minisink calls it, "weights.0.wq"; "about" is the config as JSON.
`tests/conformance/make.py` made them. The keys as attention meets them are not among them: `rotated` keys.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import gpt2, llama
from ..hf.arrays import from_arrays
from ..model import Model
from ..positions import rope_frequencies, rotate
from .traces import Trace

NAMES = ("llama", "gqa", "gpt2")  # a head a key; two heads a key; no rotation, learned positions
FOLDER = Path(__file__).with_name("vectors")
RECORDED = ("q", "k", "v", "token_index", "positions", "scores", "out", "losses")


def load(name: str) -> tuple[Trace, ...]:
    """Return the recorded traces of one of `NAMES`, one for each size of cache; ValueError for another name."""
    file = read(name)
    about = json.loads(str(file["about"]))
    theta = about["config"].get("rope_theta")
    traces = []
    for n_sinks, window in about["sizes"]:
        arrays = {each: file[f"{n_sinks}+{window}.{each}"] for each in RECORDED}
        keys = rotated(arrays["k"], arrays["token_index"], arrays["positions"], theta)
        traces.append(Trace(name, n_sinks, window, theta, ids=file["ids"], keys=keys, **arrays))
    return tuple(traces)


def rotated(k, token_index, positions, theta):  # (T, L, K, D), 2 x (T, S) -> (T, L, S, K, D)
    """Return the keys in every slot, rotated to their positions; 0 in an empty slot."""
    (_, L, K, D), (T, S) = k.shape, token_index.shape
    keys = np.where(token_index[..., None, None, None] < 0, 0.0, k[token_index])  # (T, S, L, K, D)
    if theta is not None:
        heads = keys.reshape(T * S, L * K, D)
        keys = rotate(heads, positions.ravel(), rope_frequencies(D, theta)).reshape(keys.shape)
    return keys.swapaxes(1, 2)


def model(name: str) -> Model:
    """Return the model whose traces these are, in double precision; its `save` writes a Hugging Face folder."""
    file = read(name)
    architecture: Any = gpt2 if name == "gpt2" else llama
    config = architecture.Config(**json.loads(str(file["about"]))["config"])
    weights = {
        each.removeprefix("weights."): array.astype(np.float64)
        for each, array in file.items()
        if each.startswith("weights.")
    }
    return Model(config, from_arrays(config, weights), name=name)


def read(name):
    """Return every array of a file by name."""
    if name not in NAMES:
        raise ValueError(f"name is {name!r}; there are golden vectors of {', '.join(NAMES)}")
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)
