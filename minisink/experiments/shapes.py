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

QWEN3: dict[str, Any] = {"rope_theta": 1e6, "tied": True, "qk_norm": True, "model_type": "qwen3"}
SHAPES: dict[str, Any] = {
    # C, L, H, K, D, F, V
    "novels": llama.Config(128, 4, 4, 4, 32, 352, 1024, max_positions=256),
    "stories15m": llama.Config(288, 6, 6, 6, 48, 768, 32000, tied=True),
    "smollm2-135m": llama.Config(576, 30, 9, 3, 64, 1536, 49152, tied=True),
    "tinyllama-1.1b": llama.Config(2048, 22, 32, 4, 64, 5632, 32000),
    "qwen3-0.6b": llama.Config(1024, 28, 16, 8, 128, 3072, 151936, **QWEN3),
    # C, L, H, F, V
    "gpt2-124m": gpt2.Config(768, 12, 12, 3072, 50257, max_positions=1024),
    "pythia-70m": gpt_neox.Config(512, 6, 8, 2048, 50304, rotary_dim=16),
    "pythia-410m": gpt_neox.Config(1024, 24, 16, 4096, 50304, rotary_dim=16),
}


def random_model(shape, *, seed=0, dtype="float32", max_positions=None):
    """Return a model of one of the `SHAPES`, if need be with more positions; weights are normal with variance 1/fan-in.

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
