"""Models of well-known shapes with random weights: how fast a model is does not depend on what it has learned."""

from dataclasses import replace
from typing import Any

import numpy as np

from .. import gpt2, llama
from ..families import gpt_neox
from ..hf.arrays import from_arrays
from ..hf.folder import from_tensors, tensor_shapes
from ..hf.layout import lay_out
from ..model import Model

SHAPES: dict[str, Any] = {
    "novels": llama.Config(
        d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, head_dim=32, d_ff=352, vocab_size=1024, max_positions=256
    ),
    "stories15m": llama.Config(
        d_model=288, n_layers=6, n_heads=6, n_kv_heads=6, head_dim=48, d_ff=768, vocab_size=32000, tied=True
    ),
    "smollm2-135m": llama.Config(
        d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, d_ff=1536, vocab_size=49152, tied=True
    ),
    "gpt2-124m": gpt2.Config(d_model=768, n_layers=12, n_heads=12, d_ff=3072, vocab_size=50257, max_positions=1024),
    "tinyllama-1.1b": llama.Config(
        d_model=2048, n_layers=22, n_heads=32, n_kv_heads=4, head_dim=64, d_ff=5632, vocab_size=32000
    ),
    "pythia-70m": gpt_neox.Config(d_model=512, n_layers=6, n_heads=8, d_ff=2048, vocab_size=50304, rotary_dim=16),
    "pythia-410m": gpt_neox.Config(d_model=1024, n_layers=24, n_heads=16, d_ff=4096, vocab_size=50304, rotary_dim=16),
    "qwen3-0.6b": llama.Config(
        d_model=1024,
        n_layers=28,
        n_heads=16,
        n_kv_heads=8,
        head_dim=128,
        d_ff=3072,
        vocab_size=151936,
        rope_theta=1e6,
        tied=True,
        qk_norm=True,
        model_type="qwen3",
    ),
}


def random_model(shape, *, seed=0, dtype="float32", max_positions=None):
    """Return a model of one of the `SHAPES`, without a tokenizer, with normal weights of variance 1 / fan-in.

    `max_positions` may be more than the shape's own: speed is measured beyond what a model was trained for.

    >>> random_model("novels").n_parameters
    1066112
    """
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}; it must be one of {', '.join(SHAPES)}")
    config = SHAPES[shape]
    config = replace(config, max_positions=max(config.max_positions, max_positions or 0))
    random = np.random.default_rng(seed)
    sizes = tensor_shapes(config)

    def tensor(name):
        array = random.standard_normal(sizes[name], dtype=np.float32)
        if array.ndim == 2:
            array *= np.float32(array.shape[-1] ** -0.5)
        return array

    arrays = lay_out(config, from_tensors(config, tensor), np.empty(0, dtype))
    return Model(config, from_arrays(config, arrays), name=shape)
