"""Save any cache to a file and load it, so that a stream can stop today and continue tomorrow, bit for bit."""

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
from .system.files import load_state, reading, save_state

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
        For your own class of cache or policy, which a file cannot rebuild; when an interrupted forward pass has
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
        Array whose device the cache moves to; the host by default.

    Returns
    -------
    KVCache, retrieval.RetrievalCache, fast.blocks.Banded or fast.ring.RingCache
        What was saved.

    Raises
    ------
    ValueError
        When the file is not a saved cache, or has been changed or damaged since it was written.
    """
    with reading(path, what := "a saved minisink cache"):
        about, arrays = load_state(path, "minisink_cache", what)
        return cache_from(about, arrays, like)


def cache_state(cache: AnyCache) -> tuple[dict, dict]:
    """Return a cache's JSON-able metadata, its method included, and its arrays on the host."""
    if type(cache) not in CACHES.values():
        raise ValueError(f"{cache!r} is your own class, which a file cannot rebuild; save its arrays yourself")
    arrays, about = cache.state()
    about |= {"kind": cache.kind, "method": method_state(cache.policy)}
    return about, {name: to_host(array) for name, array in arrays.items()}


def cache_from(about: dict, arrays: dict, like: np.ndarray | None = None) -> AnyCache:
    """Return the cache whose `cache_state` this is, its keys and values on the device of `like`.

    Call it within `system.files.reading`: the digest of a file shows damage, but not who wrote it.
    """
    if like is not None:
        arrays = {n: a if a.dtype == np.int64 else np.asarray(a, like=like) for n, a in arrays.items()}
    return CACHES[about["kind"]].from_state(method_from(about["method"]), arrays, about)


def method_state(method: Method) -> dict:
    """Return a method as JSON-able data; ValueError for your own class, which a file cannot rebuild.

    >>> method_state(Streaming(1, 15))
    {'name': 'Streaming', 'n_sinks': 1, 'window': 15, 'positions': 'slot'}
    """
    name = type(method).__name__
    if METHODS.get(name) is not type(method):
        raise ValueError(f"{method!r} is your own class, which a file cannot rebuild; save its arrays yourself")
    if isinstance(method, ByLayer):
        return {"name": name, "policies": [method_state(policy) for policy in method.policies]}
    return {"name": name} | {f.name: getattr(method, f.name) for f in fields(method) if f.init}


def method_from(state: dict, known: dict = METHODS) -> Method:
    """Return the method whose `method_state` this is, of the classes `known` by name.

    >>> method_from(method_state(ByLayer([Streaming(1, 15), Dense()])))
    ByLayer([Streaming(n_sinks=1, window=15, positions='slot'), Dense(positions='slot')])
    """
    values = {name: value for name, value in state.items() if name != "name"}
    if state["name"] == "ByLayer":
        values["policies"] = [method_from(policy, known) for policy in values["policies"]]
    return known[state["name"]](**values)
