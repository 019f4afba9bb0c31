"""Save any cache to a file and load it, so that a stream can stop today and continue tomorrow, bit for bit."""

import os
from dataclasses import fields

import numpy as np

from .cache import KVCache, Policy, by_layer, check_whole
from .fast.blocks import PARTS, Banded
from .fast.ring import RingCache
from .methods import ByLayer, Dense, Method, Recompute, Streaming, Window
from .retrieval import Retrieval, RetrievalCache
from .retrieval.blocks import RetrievalBlocks
from .retrieval.ring import RetrievalRing
from .retrieval.store import evicted_range
from .system.device import to_host
from .system.files import load_state, reading, save_state

AnyCache = KVCache | Banded | RingCache
CACHES: dict = {c.kind: c for c in (KVCache, RetrievalCache, Banded, RetrievalBlocks, RingCache, RetrievalRing)}
MOST_LAYERS = 1 << 16  # more than any model has
METHODS: dict = {m.__name__: m for m in (Policy, Dense, Window, Recompute, Streaming, Retrieval, ByLayer)}


def save_cache(cache: AnyCache, path: str | os.PathLike) -> None:
    """Write a cache to a safetensors file, whole or not at all.

    Parameters
    ----------
    cache : KVCache, retrieval.RetrievalCache, fast.blocks.Banded or fast.ring.RingCache
    path : str or path

    Raises
    ------
    ValueError
        For your own class of cache or policy, which cannot be rebuilt from a file; when an interrupted forward pass has
        left the layers at different tokens; or when the file cannot be written.
    """
    save_state(path, "minisink_cache", *cache_state(cache))


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
        The cache that was saved.

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
        raise ValueError(f"{cache!r} is your own class, which cannot be rebuilt from a file; save its arrays yourself")
    arrays, about = cache.state()
    about |= {"kind": cache.kind, "method": method_state(cache.policy)}
    return about, {name: to_host(array) for name, array in arrays.items()}


def cache_from(about: dict, arrays: dict, like: np.ndarray | None = None, config=None) -> AnyCache:
    """Rebuild a cache from its `cache_state`, with keys and values on the device of `like`.

    Raise ValueError (or KeyError, TypeError, ...: see `system.files.reading`) unless the arrays fit a cache
    of this kind, its method and number of tokens, and a model of this `config`.
    """
    method, make = method_from(about["method"]), CACHES[about["kind"]]
    check_whole("n_seen", about["n_seen"], 0)
    sizes, shapes = _shapes(method, make, about, arrays)
    needs = sizes if config is None else (config.n_layers, config.n_kv_heads, config.head_dim)
    if 0 in sizes or any(has not in (need, None) for has, need in zip(sizes, needs, strict=True)):
        raise ValueError(f"it has (layers, heads, channels) {sizes}; it must have {needs}")
    _check_arrays(arrays, shapes)
    for name in arrays:
        if "token_index" in name and not np.array_equal(arrays[name], _tokens(name, method, about["n_seen"], arrays)):
            raise ValueError(f"{name} does not hold the tokens that {method!r} keeps out of {about['n_seen']}")
    if like is not None:
        arrays = {n: a if a.dtype == np.int64 else np.asarray(a, like=like) for n, a in arrays.items()}
    return make.from_state(method, arrays, about)


def method_state(method: Method) -> dict:
    """Return a method as JSON-able data; ValueError for your own class, which cannot be rebuilt from a file.

    >>> method_state(Streaming(1, 15))
    {'name': 'Streaming', 'n_sinks': 1, 'window': 15, 'positions': 'slot'}
    """
    name = type(method).__name__
    if METHODS.get(name) is not type(method):
        raise ValueError(f"{method!r} is your own class, which cannot be rebuilt from a file; save its arrays yourself")
    if isinstance(method, ByLayer):
        return {"name": name, "policies": [method_state(policy) for policy in method.policies]}
    return {"name": name} | {f.name: getattr(method, f.name) for f in fields(method) if f.init}


def method_from(state: dict, known: dict = METHODS) -> Method:
    """Rebuild a method from its `method_state`, given the `known` classes by name.

    >>> method_from(method_state(ByLayer([Streaming(1, 15), Dense()])))
    ByLayer([Streaming(n_sinks=1, window=15, positions='slot'), Dense(positions='slot')])
    """
    values = {name: value for name, value in state.items() if name != "name"}
    if state["name"] == "ByLayer":
        values["policies"] = [method_from(policy, known) for policy in values["policies"]]
    return known[state["name"]](**values)


# What a cache must hold after n_seen tokens; anything else is refused -------------------------------


def _shapes(method, make, about, arrays):
    """Return the sizes (L, K, D) of a cache, None for unknown, and the shape of each of its arrays, by name."""
    n_seen = about["n_seen"]
    usual = {"kv_cache": KVCache, "block_cache": Banded, "ring_cache": RingCache}
    if make not in [getattr(method, name, None) or cache for name, cache in usual.items()]:
        raise ValueError(f"{method!r} has no cache of {make.kind}")
    if issubclass(make, RingCache):
        L, K, S, D = arrays["keys"].shape
        if not max(1, _n_held(method, n_seen)) <= S <= (method.capacity or S):
            raise ValueError(f"{S} slots for {n_seen} tokens under {method!r}")
        shapes: dict = {"keys": (L, K, S, D), "values": (L, K, S, D)}
    elif issubclass(make, Banded):
        check_whole("n_layers", L := about["n_layers"], 1)
        if L > MOST_LAYERS:
            raise ValueError(f"n_layers is {L}")
        K, D = arrays["keys.0"].shape[1:] if n_seen else (None, None)
        n_sinks, n_recent = min(n_seen, method.n_sinks), min(n_seen, method.window - 1)
        slots = zip(PARTS, (n_sinks, n_sinks, n_recent, n_recent), strict=True)
        shapes = {f"{part}.{i}": (S, K, D) for part, S in slots for i in range(L if n_seen else 0)}
    else:
        L, (_, K, D) = sum(name.startswith("keys.") for name in arrays), arrays["keys.0"].shape
        S = [_n_held(policy, n_seen) for policy in by_layer(method, L)]
        shapes = {f"{part}.{i}": (S[i], K, D) for part in ("keys", "values") for i in range(L)}
        shapes |= {f"token_index.{i}": (S[i],) for i in range(L)}
    if isinstance(method, Retrieval):
        shapes |= (_shapes_evicted if issubclass(make, KVCache) else _shapes_stored)(method, about, arrays, L, K, D)
    return (L, K, D), shapes


def _n_held(policy, n_seen):
    return n_seen if policy.capacity is None else min(n_seen, policy.capacity)


def _shapes_stored(method, about, arrays, L, K, D):
    """Return the shapes of an `EvictedStore`'s arrays: every token that is not a sink, starting at some block."""
    n_seen, first_blocks = about["n_seen"], about["first_blocks"]
    if len(first_blocks) != (L if n_seen and method.n_blocks else 0):
        raise ValueError(f"it has {len(first_blocks)} first_blocks, for {L} layers")
    oldest, shapes = int(evicted_range(method, max(0, n_seen - 1))[0]), {}
    for i, first in enumerate(first_blocks):
        check_whole("first_blocks", first, 0)
        if first * method.block > oldest:
            raise ValueError(f"first_blocks has {first}, but stored token {oldest} may be fetched")
        n_stored = max(0, n_seen - method.n_sinks - first * method.block)
        shapes |= {f"stored_keys.{i}": (n_stored, K, D), f"stored_values.{i}": (n_stored, K, D)}
    return shapes


def _evicted(method, n_seen):
    """Return how many tokens a `Store` was given, how many of them it has forgotten, and its block numbers."""
    n_forgotten, n_evicted = map(int, evicted_range(method, n_seen - 1))
    return n_evicted, n_forgotten, range(n_forgotten // method.block, -(-n_evicted // method.block))


def _shapes_evicted(method, about, arrays, L, K, D):
    n_evicted, _, numbers = _evicted(method, about["n_seen"])
    N, B = len(numbers), arrays["store_keys.0"].shape[1]
    n_last = n_evicted - numbers[-1] * method.block if N else 0
    if about["n_evicted"] != n_evicted or not n_last <= B <= method.block or (N > 1 and B < method.block):
        raise ValueError(f"{about['n_evicted']} tokens evicted, {N} blocks of {B}")
    shapes: dict = {f"store_{part}.{i}": (N, B, K, D) for part in ("keys", "values") for i in range(L)}
    return shapes | {f"store_token_index.{i}": (N, B) for i in range(L)}


def _check_arrays(arrays, shapes):
    """Raise ValueError unless arrays have these names and shapes, and hold floats of one width, or token indices."""
    if arrays.keys() != shapes.keys():
        raise ValueError(f"missing or unexpected: {', '.join(sorted(arrays.keys() ^ shapes.keys()))[:80]}")
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{name} has shape {array.shape}; it must be {shapes[name]}")
    floats = {array.dtype for name, array in arrays.items() if "token_index" not in name}
    wholes = {array.dtype.kind for name, array in arrays.items() if "token_index" in name}
    if len(floats) > 1 or not {dtype.kind for dtype in floats} <= {"f"} or not wholes <= {"i"}:
        raise ValueError("its keys and values must be floats of one width, its token indices whole numbers")


def _tokens(name, method, n_seen, arrays):
    """Return which tokens the slots of the readable path hold, if the number of slots is right."""
    if name.startswith("store_"):
        n_evicted, n_forgotten, numbers = _evicted(method, n_seen)
        order = np.array(numbers)[:, None] * method.block + np.arange(arrays[name].shape[1])
        return np.where((order >= n_forgotten) & (order < n_evicted), order + method.n_sinks, -1)
    policy = method.policies[int(name.split(".")[1])] if isinstance(method, ByLayer) else method
    token_index = np.arange(len(arrays[name]))
    token_index[policy.n_sinks :] += n_seen - len(token_index)
    return token_index
