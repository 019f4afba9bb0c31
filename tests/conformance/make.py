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
from typing import Any

import numpy as np

from minisink import gpt2, llama
from minisink.cache import KVCache, Policy
from minisink.conformance.golden import NAMES, RECORDED
from minisink.conformance.traces import trace_of
from minisink.hf.arrays import from_arrays, shapes
from minisink.loss import nll_of
from minisink.paths import Cached

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


def record(name, ids, weights, n_sinks, window):
    """One trace: the model reads `ids` token by token through `cache.py`, and every layer is looked into."""
    architecture, config = config_of(name)
    weights = from_arrays(config, weights)
    sizes = (config.n_layers, config.n_kv_heads, config.head_dim)
    path = Cached(KVCache(*sizes, Policy(n_sinks, window), like=weights.embed))
    logits, traces = [], []
    for token in ids:
        inside: Any = {}
        logits.append(architecture.forward(np.array([token]), weights, config, path=path, trace=inside)[0])
        traces.append([{each: layer[each][0] for each in ("q", "k", "v", "mixed")} for layer in inside["layers"]])
    q, k, v, mixed = (
        np.array([[layer[each] for layer in token] for token in traces]) for each in ("q", "k", "v", "mixed")
    )
    losses = nll_of(np.array(logits[:-1]), ids[1:])
    theta = getattr(config, "rope_theta", None)
    trace = trace_of(q, k, v, n_sinks=n_sinks, window=window, theta=theta, name=name, ids=ids, losses=losses)
    np.testing.assert_array_equal(trace.out, mixed)  # what the model's own cache answered
    return trace


def scores_of(trace):
    """All scores (T, L, H, S) of a trace, before the softmax; -inf in an empty slot."""
    (T, L, S), H = trace.token_index.shape, trace.q.shape[2]
    scores = np.full((T, L, H, S), -np.inf)
    for t in range(T):
        for i in range(L):
            scores[t, i, :, : len(trace.held(t, i))] = trace.scores_at(t, i)
    return scores


def build(name):
    """Every array of a file by name."""
    ids, weights = draw(name)
    config = asdict(config_of(name)[1])
    config.pop("qk_norm", None)  # the vectors are older: where nothing is said, heads are not normed
    about = {"config": config, "sizes": SIZES}
    arrays = {"about": np.array(json.dumps(about)), "ids": ids}
    arrays |= {f"weights.{each}": array.astype(np.float16) for each, array in weights.items()}
    for n_sinks, window in SIZES:
        trace = record(name, ids, weights, n_sinks, window)
        recorded = {each: getattr(trace, each) for each in RECORDED if each != "scores"} | {"scores": scores_of(trace)}
        recorded |= {each: recorded[each][:, 0] for each in ("token_index", "positions")}  # all layers hold the same
        arrays |= {f"{n_sinks}+{window}.{each}": recorded[each] for each in RECORDED}
    return arrays


def main(folder):
    """Write the three files."""
    for name in NAMES:
        np.savez_compressed(Path(folder) / f"{name}.npz", **build(name))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python tests/conformance/make.py FOLDER, a folder that is there")
    main(sys.argv[1])
