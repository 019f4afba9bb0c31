"""Any cache to a file and back, so that a stream can stop today and go on tomorrow, to the same bits."""

from __future__ import annotations

import os
from dataclasses import fields

import numpy as np

from .cache import KVCache, Policy
from .fast.blocks import Banded
from .fast.ring import RingCache
from .methods import ByLayer, Dense, Method, Recompute, Streaming, Window
from .retrieval import Retrieval, RetrievalCache
from .retrieval.blocks import RetrievalBlocks
from .retrieval.ring import RetrievalRing
from .system.device import to_host
from .system.files import load_state, save_state

AnyCache = KVCache | Banded | RingCache
CACHES: dict = {  # each has `state` and `from_state`
    cache.kind: cache for cache in (KVCache, RetrievalCache, Banded, RetrievalBlocks, RingCache, RetrievalRing)
}
METHODS: dict = {
    method.__name__: method for method in (Policy, Dense, Window, Recompute, Streaming, Retrieval, ByLayer)
}


def save_cache(cache: AnyCache, path: str | os.PathLike) -> None:
    """Write a cache to a safetensors file, whole or not at all.

    Parameters
    ----------
    cache : KVCache, retrieval.RetrievalCache, fast.blocks.Banded or fast.ring.RingCache
    path : str or path

    Raises
    ------
    ValueError
        For a cache or policy of your own, which could not be made anew from a file; when an interrupted forward pass
        left the layers at different tokens; or when the file cannot be written.
    """
    about, arrays = cache_state(cache)
    save_state(path, "minisink_cache", about, arrays)


def load_cache(path: str | os.PathLike, *, like: np.ndarray | None = None) -> AnyCache:
    """Read a cache that `save_cache` wrote.

    Parameters
    ----------
    path : str or path
    like : ndarray, optional
        Array whose device the cache goes to; the host by default.

    Returns
    -------
    KVCache, retrieval.RetrievalCache, fast.blocks.Banded or fast.ring.RingCache
        What was saved.

    Raises
    ------
    ValueError
        When the file is not a saved cache, or was changed or damaged since it was written.
    """
    about, arrays = load_state(path, "minisink_cache", "a saved minisink cache")
    return cache_from(about, arrays, like)


def cache_state(cache: AnyCache) -> tuple[dict, dict]:
    """Return what JSON can hold of a cache, its method among it, and its arrays on the host."""
    if type(cache) not in CACHES.values():
        raise ValueError(f"{cache!r} is a class of your own: a file could not bring it back; keep its arrays yourself")
    arrays, about = cache.state()
    about |= {"kind": cache.kind, "method": method_state(cache.policy)}
    return about, {name: to_host(array) for name, array in arrays.items()}


def cache_from(about: dict, arrays: dict, like: np.ndarray | None = None) -> AnyCache:
    """Return the cache whose `cache_state` this is, its keys and values on the device of `like`."""
    if like is not None:
        arrays = {n: a if a.dtype == np.int64 else np.asarray(a, like=like) for n, a in arrays.items()}
    return CACHES[about["kind"]].from_state(method_from(about["method"]), arrays, about)


def method_state(method: Method) -> dict:
    """Return what JSON can hold of a method; ValueError for one of your own, which a file could not bring back.

    >>> method_state(Streaming(1, 15))
    {'name': 'Streaming', 'n_sinks': 1, 'window': 15, 'positions': 'slot'}
    """
    name = type(method).__name__
    if METHODS.get(name) is not type(method):
        raise ValueError(f"{method!r} is a class of your own: a file could not bring it back; keep its arrays yourself")
    if isinstance(method, ByLayer):
        return {"name": name, "policies": [method_state(policy) for policy in method.policies]}
    return {"name": name} | {f.name: getattr(method, f.name) for f in fields(method) if f.init}


def method_from(state: dict) -> Method:
    """Return the method whose `method_state` this is.

    >>> method_from(method_state(ByLayer([Streaming(1, 15), Dense()])))
    ByLayer([Streaming(n_sinks=1, window=15, positions='slot'), Dense(positions='slot')])
    """
    values = {name: value for name, value in state.items() if name != "name"}
    if state["name"] == "ByLayer":
        values["policies"] = [method_from(policy) for policy in values["policies"]]
    return METHODS[state["name"]](**values)
