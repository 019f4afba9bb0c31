"""An endless stream: loss and memory stay the same, however long it gets.

Each tenth of a stream is compared with a reader who begins right there, with the same sinks and window but no past. If
anything added up along the stream (positions, rounding, what evicted tokens left behind), the two would drift apart.
"""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..loss import cache_of, perplexity, token_nll
from ..methods import Streaming, cache_bytes_per_token
from ..system.plots import BLACK, curves, name_lines
from ..system.terminal import human_bytes
from .effects import effect, exactly, must_hold

PAPER = "Figure 5"
CLAIM = "perplexity is flat over 4 million tokens, and memory is only that of the cache"
OPTIONS = {"tokens": "tokens to stream", "cache": "keys a query sees", "n_sinks": "sinks among them"}
FAST = {"tokens": 3000}
TENTHS = 10


def run(model, text, *, tokens=50_000, cache=128, n_sinks=4, seed=0, track=iter):
    """Stream a text, beginning `seed` tenths into it, and reread each tenth of the stream as if it began there.

    One row per tenth: how many ``"readings"`` of the text that makes; the ``"perplexity"``, and ``"begun_here"``, that
    of a fresh reader with only sinks and a window; bytes of the cache, the process, and all keys and values (dense).
    """
    ids, bos = model.encode(text, bos=False), [] if model.config.bos is None else [model.config.bos]
    if not len(ids):
        raise ValueError("the text is empty; there is nothing to stream")
    must_hold(cache, n_sinks)
    if tokens // TENTHS <= cache:
        least = TENTHS * (cache + 1)
        raise ValueError(f"a tenth of {tokens:,} tokens fits in a cache of {cache}: use --tokens {least} or more")
    start = seed * len(ids) // TENTHS
    text_ids = np.take(ids, range(start, start + tokens - len(bos)), mode="wrap")
    stream = np.concatenate((bos, text_ids)).astype(np.int64)  # (T,)
    method = Streaming(n_sinks, cache - n_sinks)
    stream_cache = cache_of(model, method)
    bounds = np.linspace(0, tokens - 1, TENTHS + 1).astype(int)  # the last token predicts nothing
    for first, last in track([*pairwise(bounds)]):
        nll = token_nll(model, stream[first : last + 1], cache=stream_cache)
        restart = np.concatenate((stream[:n_sinks], stream[max(n_sinks, first - method.window) : last + 1]))
        nll_here = token_nll(model, restart, cache=cache_of(model, method))[first - last :]
        row = {"tokens": int(last + 1), "readings": (last + 1 - len(bos)) / len(ids)}
        row |= {"perplexity": perplexity(nll), "begun_here": perplexity(nll_here)}
        held = sum(array.nbytes for array in stream_cache.state()[0].values())  # without those of the next token
        row |= {"cache_bytes": held, "process_bytes": process_bytes()}
        yield row | {"dense_bytes": int(last) * cache_bytes_per_token(model), "nll": nll, "nll_here": nll_here}


def process_bytes():
    """Return the memory of this process, or NaN where the system (macOS, Windows) does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return float("nan")


def effects(rows):
    above = np.concatenate([row["nll"] - row["nll_here"] for row in rows]).astype(np.float64)
    line = np.stack((np.linspace(0, 1, len(above)), above), axis=1)
    yield effect("change along the text of stream - fresh start, nats", line, of=slope, above=-0.05, below=0.05)
    grown = rows[-1]["cache_bytes"] - rows[0]["cache_bytes"]
    yield exactly("cache growth since the first tenth, bytes", grown, below=1)


def slope(line):  # (N, 2) -> float
    """Return the slope of the straight line nearest to points x, y."""
    x, y = (line - line.mean(axis=0)).T
    return float(x @ y / (x @ x))


def finding(rows):
    last = rows[-1]
    cache, dense = (human_bytes(last[key]) for key in ("cache_bytes", "dense_bytes"))
    read = f"perplexity {last['perplexity']:.2f}, and {last['begun_here']:.2f} if reading begins there"
    return f"The last tenth of {last['tokens']:,} tokens has {read}; the cache takes {cache}, all keys {dense}"


def draw(figure, rows):
    """Draw the perplexity of each tenth, in the stream and when starting afresh there, with memory below."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    tokens, perplexities, begun = ([row[key] for row in rows] for key in ("tokens", "perplexity", "begun_here"))
    upper.plot(tokens, perplexities, ls="-", lw=7, label="in the stream")
    upper.plot(tokens, begun, ls="--", lw=2, color=BLACK, label="begun at this tenth")
    upper.set(ylabel="perplexity", ylim=(0, 1.2 * max(perplexities)))
    kinds = {"process_bytes": "process", "dense_bytes": "if all were kept", "cache_bytes": "the cache"}
    curves(lower, tokens, {label: [row[key] / 2**20 for row in rows] for key, label in kinds.items()})
    lower.set(xlabel="tokens streamed", ylabel="memory (MiB)", yscale="log")
    lower.xaxis.set_major_formatter("{x:,.0f}")
    for axes in (upper, lower):
        name_lines(axes, gap=0.18)
