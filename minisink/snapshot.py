"""A cache to a file and back, so that a stream can stop today and go on tomorrow, to the same bits."""

import json
from dataclasses import asdict

import numpy as np
from safetensors import SafetensorError, safe_open

from .cache import KVCache, Policy
from .device import to_host
from .files import save_arrays


def save_cache(cache, path):
    """Write a cache to a safetensors file, whole or not at all.

    Parameters
    ----------
    cache : KVCache
    path : str or path

    Raises
    ------
    ValueError
        When an interrupted forward pass left the layers at different tokens, or the file cannot be written.
    """
    cache.next_positions(0)  # raises if so: there would be nothing to go on from
    arrays = {"token_index": cache.token_index}
    for i, layer in enumerate(cache.layers):
        arrays[f"keys.{i}"] = np.ascontiguousarray(to_host(layer.keys))
        arrays[f"values.{i}"] = np.ascontiguousarray(to_host(layer.values))
    about = asdict(cache.policy) | {"n_seen": cache.n_seen}
    save_arrays(arrays, path, {"minisink_cache": json.dumps(about)})


def load_cache(path, *, like=None):
    """Read a cache that `save_cache` wrote.

    Parameters
    ----------
    path : str or path
    like : ndarray, optional
        Array whose device the cache goes to; the host by default.

    Returns
    -------
    KVCache

    Raises
    ------
    ValueError
        When the file is not a saved cache.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["minisink_cache"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        n_layers = sum(name.startswith("keys.") for name in arrays)
        _, n_kv_heads, head_dim = arrays["keys.0"].shape
        n_seen = about.pop("n_seen")
        cache = KVCache(n_layers, n_kv_heads, head_dim, Policy(**about))
        for i, layer in enumerate(cache.layers):
            layer.keys, layer.values = arrays[f"keys.{i}"], arrays[f"values.{i}"]
            if like is not None:
                layer.keys, layer.values = np.asarray(layer.keys, like=like), np.asarray(layer.values, like=like)
            layer.token_index, layer.n_seen = arrays["token_index"], n_seen
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a saved minisink cache ({error})") from error
    return cache
