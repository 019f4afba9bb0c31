"""Golden losses: per-token losses of trained models on one text under many methods, for checking whole engines.

Random weights have no sinks, so a cache that loses its sinks still passes; these models are trained. "about", in the
header of a file in `vectors/`, has the config, rope_theta, and each setting as a method. "gate" is not a model but one
layer of attention whose output is multiplied by a sigmoid (arXiv:2505.06708): q, k, v, the gate's logits and the
output. `tests/conformance/make_losses.py` made them all with the readable path.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ..evaluation.policies import Blockwise, HalfAtOnce
from ..hf.arrays import from_arrays
from ..methods import Method
from ..model import Model, load
from ..snapshot import METHODS, method_from

TEXTS = ("novels", "novels-vanilla", "novels-softmax1", "novels-sink-logit", "novels-gpt2")
FOLDER = Path(__file__).with_name("vectors")
KNOWN = METHODS | {"Blockwise": Blockwise, "HalfAtOnce": HalfAtOnce}


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of one model under one method, for every token in a text except the first."""

    name: str  # of the model
    method: Method
    ids: np.ndarray  # (T,)
    losses: np.ndarray  # (T - 1,), nats, in float64
    chunks: tuple[int, ...]  # sizes of chunks to feed the text in; they do not change the losses
    setting: str  # name of the method in the file, such as "1+15"

    def __str__(self):
        return f"{self.name}, {self.method}"


def losses(name: str) -> tuple[Losses, ...]:
    """Return the recorded losses of one of `TEXTS`, one for each method; ValueError for any other name.

    >>> [each.method for each in losses("novels")][:2]
    [Dense(positions='slot'), Window(window=16, positions='slot')]
    """
    (about, arrays), found = read(name), []
    for setting, state in about["settings"].items():
        nll, method = arrays[f"{setting}.losses"], method_from(state, KNOWN)
        found.append(Losses(name, method, arrays["ids"][: len(nll) + 1], nll, tuple(about["chunks"]), setting))
    return tuple(found)


def model(name: str, dtype: str = "float64") -> Model:
    """Return the model behind these losses: one that ships, or novels-softmax1 with trained sink logits."""
    about, _ = read(name)
    shipped = load(about["model"], dtype=dtype)
    return with_sink_logits(shipped, about["sink_logits"], name) if "sink_logits" in about else shipped


def with_sink_logits(model, sink_logits, name):  # (L, H)
    """Return a Llama with a sink logit for every head and its other weights unchanged."""
    config = replace(model.config, softmax="softmax", sink_logit=True)
    logits = {f"{i}.sink_logits": np.array(row, model.dtype) for i, row in enumerate(sink_logits)}
    return Model(config, from_arrays(config, model.arrays() | logits), model.tokenizer, name=name)


def read(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the "about" of a file and its arrays by name; "gate" has a file too."""
    if name not in (*TEXTS, "gate"):
        raise ValueError(f"name is {name!r}; there are golden losses of {', '.join(TEXTS)}")
    with safe_open(FOLDER / f"{name}.safetensors", "numpy") as file:
        return json.loads(file.metadata()["about"]), {each: file.get_tensor(each) for each in file.keys()}
