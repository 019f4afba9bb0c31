"""Any cache to a file and back, so that a stream can stop today and go on tomorrow, to the same bits."""

from __future__ import annotations

import os

import numpy as np

from .cache import KVCache
from .fast.blocks import Banded
from .fast.retrieval import Fetching, FetchingRing
from .fast.ring import RingCache
from .retrieval import Retrieval, RetrievalCache
from .system.device import to_host
from .system.files import load_state, save_state

AnyCache = KVCache | Banded | RingCache
CACHES: dict = {
    cache.kind: cache for cache in (KVCache, RetrievalCache, Banded, Fetching, RingCache, FetchingRing)
}  # each has `state` and `from_state`


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
    if type(cache) not in CACHES.values() or not (cache.policy.is_plain or type(cache.policy) is Retrieval):
        raise ValueError(f"{cache!r} is of your own making: a file could not bring it back; keep its arrays yourself")
    arrays, about = cache.state()
    arrays = {name: to_host(array) for name, array in arrays.items()}
    save_state(path, "minisink_cache", about | {"kind": cache.kind}, arrays)


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
    return restored(about, arrays, like)


def restored(about: dict, arrays: dict, like: np.ndarray | None = None) -> AnyCache:
    """The cache of a state, its keys and values on the device of `like`."""
    if like is not None:
        arrays = {n: a if a.dtype == np.int64 else np.asarray(a, like=like) for n, a in arrays.items()}
    return CACHES[about["kind"]].from_state(arrays, about)
