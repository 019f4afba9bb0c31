"""The learned arrays of a model by name: what is read, saved, counted and trained.

``"embed"`` is an array of the model, ``"0.wq"`` one of its layer 0. A tied output matrix has no separate name: it is
the embedding. Each architecture's `outer_shapes` and `layer_shapes` say what differs.
"""

from typing import Any

import numpy as np

from .. import gpt2, llama
from ..families import falcon, gpt_neox, mpt

ARCHITECTURES: dict[str, Any] = {"llama": llama, "mistral": llama, "qwen2": llama, "qwen3": llama}
ARCHITECTURES |= {"gpt2": gpt2, "gpt_neox": gpt_neox, "mpt": mpt, "falcon": falcon}


def shapes(config):
    """List every learned array: name to shape."""
    arch, V, C = ARCHITECTURES[config.model_type], config.vocab_size, config.d_model
    outer = {"embed": (V, C)} | ({} if config.tied else {"head": (C, V)}) | arch.outer_shapes(config)
    layer = arch.layer_shapes(config)
    return outer | {f"{i}.{name}": shape for i in range(config.n_layers) for name, shape in layer.items()}


def from_arrays(config, arrays):
    """Make `Weights` from the arrays that `shapes` lists."""
    arch = ARCHITECTURES[config.model_type]
    names = arch.layer_shapes(config)
    layers = [arch.LayerWeights(**{name: arrays[f"{i}.{name}"] for name in names}) for i in range(config.n_layers)]
    outer = {name: arrays[name] for name in ("embed", *arch.outer_shapes(config))}
    return arch.Weights(layers=layers, head=arrays["embed"].T if config.tied else arrays["head"], **outer)


def to_arrays(config, weights):
    """Undo `from_arrays`."""
    return {name: array_of(weights, name) for name in shapes(config)}


def by_kind(fused, config):  # (..., (H + 2 K) D) -> (..., (H + 2 K) D)
    """Reorder fused columns stored head by head: the queries of a key, the key, its value, and so on.

    >>> from minisink.families.falcon import Config
    >>> sizes = {"d_model": 6, "n_layers": 1, "n_heads": 6, "n_kv_heads": 2, "d_ff": 9, "vocab_size": 5}
    >>> by_kind(np.array([*"abcKVdefLW"]), Config(**sizes)).tolist()
    ['a', 'b', 'c', 'd', 'e', 'f', 'K', 'L', 'V', 'W']
    """
    outer, K = fused.shape[:-1], config.n_kv_heads
    heads = fused.reshape(*outer, K, config.n_heads // K + 2, config.head_dim)
    kinds = heads[..., :-2, :], heads[..., -2, :], heads[..., -1, :]
    return np.concatenate([kind.reshape(*outer, -1) for kind in kinds], axis=-1)


def by_head(joined, config):  # (..., (H + 2 K) D) -> (..., (H + 2 K) D)
    """Undo `by_kind`."""
    outer, H, K, D = joined.shape[:-1], config.n_heads, config.n_kv_heads, config.head_dim
    kinds = np.split(joined, (H * D, (H + K) * D), axis=-1)
    heads = [kind.reshape(*outer, K, -1, D) for kind in kinds]
    return np.concatenate(heads, axis=-2).reshape(*outer, -1)


def array_of(weights, name):
    """Look up one array by name; None if the model lacks it."""
    layer, _, field = name.rpartition(".")
    return getattr(weights.layers[int(layer)] if layer else weights, field)
