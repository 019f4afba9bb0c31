"""How long a call takes, and how far decoding is from the floor.

The *floor* of decoding is only the matrix-vector products of the model: no decoder of these weights can be faster. Both
are timed a few calls of one after a few of the other, so that whatever else the machine does slows both.
"""

import tracemalloc
from timeit import timeit

import numpy as np

from ..fast.decoder import Decoder
from ..methods import Streaming, new_cache
from ..system.device import to_host


def full_decoder(model, cache, *, n_sinks=4, n_seen=1000, weights_of=None):
    """Return a decoder whose `cache` is full of random keys and values, as after `n_seen` tokens."""
    weights, random = None if weights_of is None else weights_of.weights, np.random.default_rng(0)
    decoder = Decoder(model, Streaming(n_sinks, cache - n_sinks), weights=weights)
    for array in (decoder.cache.keys, decoder.cache.values):
        array[:] = np.asarray(random.standard_normal(array.shape, dtype=np.float32), like=array)
    decoder.cache.n_seen = max(n_seen, cache)
    return decoder


def floor(decoder, seed=0):
    """Return a function without arguments that does only a token's matrix-vector products."""
    random = np.random.default_rng(seed)
    pairs = [(np.asarray(random.standard_normal(len(w)).astype(w.dtype), like=w), w) for w in decoder.weights.matrices]

    def products():
        for x, w in pairs:
            y = x.dot(w)
        to_host(y)  # a GPU has only queued them

    return products


def timed(functions, *, repeats=7, seconds=0.1):
    """Return the seconds per call of each function, a list of `repeats`, each called for about `seconds` in turn."""
    calls, times = {}, {name: [] for name in functions}
    for name, function in functions.items():
        once = timeit(function, number=1)  # the first call includes set-up
        once = timeit(function, number=1) if once < seconds else once
        calls[name] = max(1, int(seconds / max(once, 1e-9)))
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(timeit(function, number=calls[name]) / calls[name])
    return times


def decoding(model, *, cache=256, n_sinks=4, repeats=7, seconds=0.1, readable=False):
    """Time decoding against its floor, at token 1,000 and at token 1,000,000, and on request the readable path."""
    early = full_decoder(model, cache, n_sinks=n_sinks)
    late = full_decoder(model, cache, n_sinks=n_sinks, n_seen=1_000_000, weights_of=early)
    functions = {"floor": floor(early), "early": lambda: to_host(early.step(0)), "late": lambda: to_host(late.step(0))}
    if readable:
        full = new_cache(model, Streaming(n_sinks, cache - n_sinks))
        model.forward(np.zeros(cache, int), cache=full, rows=slice(-1, None))
        functions["readable"] = lambda: to_host(model.forward([0], cache=full))
    times = timed(functions, repeats=repeats, seconds=seconds)
    ms = {name: 1e3 * float(np.median(took)) for name, took in times.items()}
    row = {"readable_ms": ms["readable"]} if readable else {}
    row |= {"cache": cache, "floor_ms": ms["floor"], "decode_ms": ms["early"], "late_ms": ms["late"]}
    row |= {"over_floor": ms["early"] / ms["floor"], "late_over_early": ms["late"] / ms["early"]}
    return row | {"tokens_per_second": 1e3 / ms["early"], "cache_bytes": early.cache.nbytes}


def peak(function):
    """Return the most bytes that are allocated at once while a function runs."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
