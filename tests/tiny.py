"""Tiny models with random weights, and strategies that draw them; sizes differ, so a swapped axis cannot pass."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minisink import gpt2, llama
from minisink.cache import KVCache, Policy
from minisink.families import falcon, gpt_neox, mpt
from minisink.hf.arrays import from_arrays
from minisink.methods import Dense, Recompute, Streaming, Window
from minisink.model import Model
from minisink.paths import Cached
from minisink.retrieval import Retrieval

LLAMA = {"d_model": 10, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "head_dim": 6, "d_ff": 14, "vocab_size": 17}
GPT2 = {"d_model": 24, "n_layers": 3, "n_heads": 4, "d_ff": 14, "vocab_size": 17, "max_positions": 64}
SIZES = {llama: LLAMA, gpt2: GPT2, mpt: GPT2, gpt_neox: GPT2 | {"rotary_dim": 4}, falcon: GPT2 | {"n_kv_heads": 2}}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Tiny:
    """One architecture with its config and weights."""

    arch: Any
    config: Any
    weights: Any

    def forward(self, ids, cache=None, **options):
        path = None if cache is None else Cached(cache)
        return self.arch.forward(np.asarray(ids), self.weights, self.config, path=path, **options)

    def cache(self, policy=None, positions="slot"):
        config, policy = self.config, replace(policy or Dense(), positions=positions)
        like = np.empty(0, np.float64)
        return KVCache(config.n_layers, config.n_kv_heads, config.head_dim, policy, like=like)

    def stream(self, ids, policy=None, positions="slot", chunks=None, cache=None):
        """Logits (T, V) of `ids` fed to a cache in `chunks` (lengths), one token at a time by default."""
        cache = self.cache(policy, positions) if cache is None else cache
        chunks = [1] * len(ids) if chunks is None else chunks
        stops = np.cumsum(chunks)
        assert stops[-1] == len(ids)
        return np.concatenate([self.forward(ids[t - n : t], cache) for n, t in zip(chunks, stops, strict=True)])


def make(arch=llama, seed=0, dtype=np.float64, **changes):
    """A `Tiny` with weights large enough that every part of the model matters."""
    config = arch.Config(**SIZES[arch] | changes)
    random = np.random.default_rng(seed)

    def draw(shape):
        vector = len(shape) == 1
        return random.normal(0.5 if vector else 0.0, 0.7 if vector else 1.6 / np.sqrt(shape[0]), shape).astype(dtype)

    layers, shapes = range(config.n_layers), arch.layer_shapes(config)
    arrays = {f"{i}.{name}": draw(shape) for i in layers for name, shape in shapes.items()}
    arrays["embed"] = random.normal(0.0, 1.0, (config.vocab_size, config.d_model)).astype(dtype)
    if not config.tied:
        arrays["head"] = draw((config.d_model, config.vocab_size))
    if "position" in (shapes := arch.outer_shapes(config)):
        arrays["position"] = random.normal(0.0, 1.0, shapes.pop("position")).astype(dtype)
    arrays |= {name: draw(shape) for name, shape in shapes.items()}
    return Tiny(arch, config, from_arrays(config, arrays))


def method(name, n_sinks=2, window=4, positions="slot"):
    """The method of that name with these sizes, as far as it has them; retrieval fetches two blocks of one token."""
    return {
        "dense": lambda: Dense(positions),
        "window": lambda: Window(window, positions),
        "recompute": lambda: Recompute(window),
        "streaming": lambda: Streaming(n_sinks, window, positions),
        "retrieval": lambda: Retrieval(n_sinks, window, positions, n_blocks=2, block=1),
    }[name]()


METHODS = ("dense", "window", "recompute", "streaming", "retrieval")


def public(model):
    """A `minisink.Model` without a tokenizer, of a tiny one."""
    return Model(model.config, model.weights, name="tiny")


def ids(n_tokens, seed=0):
    """Token ids, no two neighbours alike."""
    steps = np.random.default_rng(seed).integers(1, LLAMA["vocab_size"], n_tokens)
    return np.cumsum(steps) % LLAMA["vocab_size"]


def arrays(*shape, seed=0):
    """Normal float64 numbers."""
    return np.random.default_rng(seed).normal(size=shape)


# Strategies --------------------------------------------------------------------------------------

seeds = st.integers(0, 2**16)
positions = st.sampled_from(["slot", "original"])
policies = st.builds(Policy, st.integers(0, 3), st.integers(1, 6), positions)
normalisers = st.sampled_from([{}, {"softmax": "softmax1"}, {"sink_logit": True}])


@st.composite
def llamas(draw, n_layers=None):
    """A Llama with any grouping, bias, scaling rule and softmax."""
    changes = {name: draw(st.booleans()) for name in ("qkv_bias", "o_bias", "mlp_bias", "tied")}
    changes["n_layers"] = n_layers or draw(st.integers(1, 3))
    changes["n_kv_heads"] = draw(st.sampled_from([2, 1, 4]))
    changes["rope_scaling"] = draw(st.sampled_from([None, {"rope_type": "linear", "factor": 2.0}, LLAMA3]))
    changes["rope_theta"] = draw(st.sampled_from([10000.0, 50.0]))
    return make(llama, draw(seeds), **changes, **draw(normalisers))


@st.composite
def gpt2s(draw, n_layers=None):
    """A GPT-2 with any softmax."""
    changes = {"n_layers": n_layers or draw(st.integers(1, 3)), "tied": draw(st.booleans())}
    return make(gpt2, draw(seeds), **changes, **draw(normalisers))


def models(n_layers=None):
    return llamas(n_layers) | gpt2s(n_layers)


@st.composite
def families(draw, n_layers=None):
    """A model of any other family: Qwen3, GPT-NeoX, MPT or Falcon, with whatever these may have."""
    changes = {"n_layers": n_layers or draw(st.integers(1, 3)), "tied": draw(st.booleans())} | draw(normalisers)
    arch = draw(st.sampled_from([llama, gpt_neox, mpt, falcon]))
    if arch is llama:
        changes |= {"qk_norm": True, "model_type": "qwen3", "n_kv_heads": draw(st.sampled_from([2, 1, 4]))}
    if arch in (gpt_neox, falcon):
        changes |= {"parallel": draw(st.booleans()), "bias": draw(st.booleans())}
        changes |= {"activation": draw(st.sampled_from(["gelu", "gelu_new"]))}
        changes |= {"rope_scaling": draw(st.sampled_from([None, {"rope_type": "linear", "factor": 2.0}, LLAMA3]))}
    if arch is gpt_neox:
        n_heads = draw(st.sampled_from([4, 8]))  # of 6 and of 3 channels
        changes |= {"n_heads": n_heads, "rotary_dim": 2 if n_heads == 8 else draw(st.sampled_from([2, 4, 6]))}
    if arch is falcon:
        changes |= {"n_norms": draw(st.sampled_from([1, 2])), "n_kv_heads": draw(st.sampled_from([1, 2, 4]))}
    if arch is mpt:
        n_heads = draw(st.sampled_from([4, 6, 3]))  # slopes for 3 and 6 are those of others
        changes |= {"n_heads": n_heads, "alibi_bias_max": draw(st.sampled_from([8.0, 2.0]))}
    return make(arch, draw(seeds), **changes)


def all_models(n_layers=None):
    return models(n_layers) | families(n_layers)


def texts(min_size=1, max_size=20):
    """Lists of token ids."""
    return st.lists(st.integers(0, LLAMA["vocab_size"] - 1), min_size=min_size, max_size=max_size)


@st.composite
def chunks(draw, n_tokens):
    """Lengths of 1 or more that add up to `n_tokens`."""
    lengths = []
    while sum(lengths) < n_tokens:
        lengths.append(draw(st.integers(1, n_tokens - sum(lengths))))
    return lengths


@st.composite
def chunked_texts(draw, max_size=20):
    """(ids, chunks)."""
    ids = draw(texts(max_size=max_size))
    return ids, draw(chunks(len(ids)))
