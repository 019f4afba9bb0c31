"""Make the golden vectors, by the readable path.

    python tests/conformance/make.py FOLDER

writes `llama.npz`, `gqa.npz` and `gpt2.npz`. Weights are random and large, so that every part of a model matters, and
multiples of 1/64, so that half precision holds them; heads are of 64 channels, which every engine and kernel takes; and
24 tokens go round the smallest ring many times. The files come out the same to the byte where BLAS has the same
kernels, and to 1e-14 or so elsewhere.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

import minisink
from minisink import Model, gpt2, llama
from minisink.conformance.golden import NAMES, RECORDED, recorded, replayed
from minisink.hf.arrays import from_arrays, shapes
from minisink.loss import nll_of

N_TOKENS, VOCABULARY = 24, 128
SIZES = ((0, 5), (1, 4), (4, 3), (2, 1))  # n_sinks, window

LLAMA: dict = {"d_model": 128, "n_heads": 2, "n_kv_heads": 2, "head_dim": 64, "d_ff": 96, "rope_theta": 10000.0}
GQA: dict = {"d_model": 256, "n_heads": 4, "n_kv_heads": 2, "head_dim": 64, "d_ff": 96, "rope_theta": 500.0}
GPT2: dict = {"d_model": 128, "n_heads": 2, "d_ff": 96, "max_positions": 64, "tied": False}
BOTH: dict = {"n_layers": 2, "vocab_size": VOCABULARY}


def config_of(name):
    """Architecture and config."""
    if name == "gpt2":
        return gpt2, gpt2.Config(**GPT2, **BOTH)
    return llama, llama.Config(**(LLAMA if name == "llama" else GQA), **BOTH)


def draw(name):
    """Token ids, and every weight by name."""
    architecture, config = config_of(name)
    random = np.random.default_rng(NAMES.index(name))
    weights = {}
    for each, shape in shapes(config).items():
        centre, spread = (0.5, 0.7) if len(shape) == 1 else (0.0, 1.0 if each == "embed" else 1.6 / np.sqrt(shape[0]))
        weights[each] = np.round(64 * random.normal(centre, spread, shape)) / 64
    steps = random.integers(1, VOCABULARY, N_TOKENS)  # no two neighbours alike
    return np.cumsum(steps) % VOCABULARY, weights


def losses_of(model, ids, n_sinks, window):
    """Losses of a model that reads token by token through `cache.py`."""
    cache = minisink.new_cache(model, minisink.Streaming(n_sinks, window))
    logits = np.concatenate([model.forward([token], cache=cache) for token in ids])
    return nll_of(logits[:-1], ids[1:])


def build(name):
    """Every array of a file by name."""
    ids, weights = draw(name)
    config = asdict(config_of(name)[1])
    config.pop("qk_norm", None)  # the vectors are older: where nothing is said, heads are not normed
    about = {"config": config, "sizes": SIZES}
    arrays = {"about": np.array(json.dumps(about)), "ids": ids}
    arrays |= {f"weights.{each}": array.astype(np.float16) for each, array in weights.items()}
    model = Model(config_of(name)[1], from_arrays(config_of(name)[1], weights), name=name)
    for n_sinks, window in SIZES:
        trace = replayed(model, ids, n_sinks, window, losses_of(model, ids, n_sinks, window))
        made = recorded(trace)
        arrays |= {f"{n_sinks}+{window}.{each}": made[each] for each in RECORDED}
    return arrays


def main(folder):
    """Write the three files."""
    for name in NAMES:
        np.savez_compressed(Path(folder) / f"{name}.npz", **build(name))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python tests/conformance/make.py FOLDER, a folder that is there")
    main(sys.argv[1])
