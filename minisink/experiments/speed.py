"""Cost per token by cache size, for streaming and re-computation.

Rebuilding a window for every token means computing all the tokens it holds, with attention among them; streaming means
computing one, and only its attention grows with the cache. The ratio of the two thus grows about linearly. `decoding`
compares with the *floor*: no decoder for these weights can be faster than the model's matrix-vector products alone.
"""

import tracemalloc
from timeit import timeit

import numpy as np

from ..cache import check_whole
from ..evaluation.plots import STROKES
from ..fast.decoder import Decoder
from ..methods import Streaming, new_cache
from ..system.device import to_host
from ..system.plots import name_lines
from .effects import effect, must_hold, must_learn

# milliseconds per token on an A6000, Llama-2-7B: re-computation / StreamingLLM
IN_PAPER = {256: 63 / 31, 512: 103 / 31, 1024: 223 / 35, 2048: 523 / 45, 4096: 1411 / 65}
PAPER = "Figure 10"
CLAIM = "re-computation / streaming, caches 256 to 4096: 2.0, 3.3, 6.4, 11.6, 21.7 times (7B); 22.2 times (13B, 4096)"
OPTIONS = {"caches": "keys a query sees", "n_sinks": "sinks when streaming", "repeats": "how often each call is timed"}
FAST = {"caches": (64, 128, 256, 512), "repeats": 3}


def run(model, *, caches=tuple(IN_PAPER), n_sinks=4, repeats=5, track=iter):
    """Time a token by streaming and by re-computing its window, for every cache, even beyond the trained length.

    The ``"paper_ratio"`` is NaN where the paper has none. Bytes are of the cache, if any, and the peak of everything
    else allocated while a token is computed, except weights. ``"times"`` are in ms, (repeats, 2).
    """
    caches = sorted({*caches})
    must_hold(caches[0], n_sinks)
    check_whole("--repeats", repeats, 1)
    must_learn(model, caches)
    ids, decoder = np.random.default_rng(0).integers(0, model.config.vocab_size, caches[-1]), None
    for cache in track(caches):
        decoder = full_decoder(model, cache, n_sinks=n_sinks, weights_of=decoder)
        functions = {
            "streaming": lambda decoder=decoder: to_host(decoder.step(0)),
            "recompute": lambda window=ids[:cache]: to_host(model.forward(window, rows=slice(-1, None))),
        }
        ms = 1e3 * np.stack([*timed(functions, repeats=repeats).values()], axis=1)  # (repeats, 2)
        streaming, recompute = np.median(ms, axis=0).tolist()
        row = {"cache": cache, "streaming_ms": streaming, "recompute_ms": recompute, "ratio": recompute / streaming}
        row |= {"paper_ratio": IN_PAPER.get(cache, np.nan)}
        row |= {"streaming_bytes": decoder.cache.nbytes + peak(functions["streaming"])}
        yield row | {"recompute_bytes": peak(functions["recompute"]), "times": ms}


def full_decoder(model, cache, *, n_sinks=4, n_seen=1000, weights_of=None):
    """Return a decoder whose `cache` is full of random keys and values, as after `n_seen` tokens."""
    weights, random = None if weights_of is None else weights_of.weights, np.random.default_rng(0)
    decoder = Decoder(model, Streaming(n_sinks, cache - n_sinks), weights=weights)
    for array in (decoder.cache.keys, decoder.cache.values):
        array[:] = np.asarray(random.standard_normal(array.shape, dtype=np.float32), like=array)
    decoder.cache.n_seen = max(n_seen, cache)
    return decoder


def timed(functions, *, repeats=7, seconds=0.1):
    """Return the seconds per call of each function, a list of `repeats`, each called for about `seconds`.

    They take turns, so anything else that the machine is doing slows all of them.
    """
    calls, times = {}, {name: [] for name in functions}
    for name, function in functions.items():
        once = timeit(function, number=1)  # the first call includes set-up
        once = timeit(function, number=1) if once < seconds else once
        calls[name] = max(1, int(seconds / max(once, 1e-9)))
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(timeit(function, number=calls[name]) / calls[name])
    return times


def peak(function):
    """Return the most bytes that are allocated at once while a function runs."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def floor(decoder, seed=0):
    """Return a function without arguments that computes only a token's matrix-vector products."""
    random = np.random.default_rng(seed)
    pairs = [(np.asarray(random.standard_normal(len(w)).astype(w.dtype), like=w), w) for w in decoder.weights.matrices]

    def products():
        for x, w in pairs:
            y = x.dot(w)
        to_host(y)  # a GPU has only queued them

    return products


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


def effects(rows):
    times = np.stack([row["times"] for row in rows], axis=1)  # (repeats, caches, 2)
    sizes = np.log([row["cache"] for row in rows])

    def ratios(drawn):
        streaming, recompute = np.median(drawn, axis=0).T
        return recompute / streaming

    def power(drawn):
        return np.polyfit(sizes, np.log(ratios(drawn)), 1)[0]

    what = f"re-computation over streaming, cache {rows[-1]['cache']}"
    yield effect(what, times, above=1, stretch=1, of=lambda drawn: ratios(drawn)[-1])
    if len(rows) > 1:
        yield effect("the ratio grows as the cache to the power of", times, above=0.5, below=1.5, stretch=1, of=power)


def finding(rows):
    ratios = (f"{row['ratio']:,.0f} times as long in a cache of {row['cache']:,}" for row in (rows[0], *rows[1:][-1:]))
    return f"A token whose window is re-computed takes, compared with streaming, {', '.join(ratios)}"


def draw(figure, rows):
    """Draw milliseconds per token against the cache, streaming and re-computing, and their ratio."""
    axes, caches = figure.subplots(), [row["cache"] for row in rows]
    for method in ("recompute", "streaming"):
        style = STROKES[method] | {"marker": "o", "ms": 9, "lw": 2.5}
        axes.plot(caches, [row[f"{method}_ms"] for row in rows], label=method, **style)
    for row in rows:
        point = row["cache"], row["recompute_ms"]
        axes.annotate(f"{row['ratio']:,.0f} x", point, xytext=(0, 12), textcoords="offset points", ha="center")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="cache (tokens)", ylabel="milliseconds per token", yscale="log")
    axes.margins(y=0.2)  # room for the numbers above the curve
    axes.set_xticks(caches, [f"{cache:,}" for cache in caches])
    name_lines(axes)
