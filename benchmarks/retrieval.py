"""What it costs to bring back what was evicted: milliseconds and bytes against the number of evicted tokens.

    python benchmarks/retrieval.py --write docs/retrieval.md

The model has the shape of SmolLM2-135M, a cache of 4 + 252, and 8 blocks of 16. Its weights are random, which does not
affect the time. The evicted tokens are random too, and go into the cache all at once. Streaming and retrieval take
turns, token by token.
"""

import argparse
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np  # noqa: E402
import page  # noqa: E402
from measure import say  # noqa: E402

import minisink  # noqa: E402
from minisink import Retrieval, Streaming  # noqa: E402
from minisink.experiments.shapes import SHAPES, random_model
from minisink.fast.decoder import Decoder
from minisink.methods import cache_bytes_per_token

N_SINKS, WINDOW = 4, 252
BUSY = page.busy()


def main():
    """Measure, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--evicted", type=int, nargs="+", default=[0, 1000, 4000, 32000])
    parser.add_argument("--tokens", type=int, default=2000, help="length of a text that is measured as a whole")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--write", metavar="FILE", help="the Markdown page to put this section into")
    args = parser.parse_args()
    model = random_model(args.shape, max_positions=8192)
    streaming = Decoder(model, Streaming(N_SINKS, WINDOW))
    streaming(np.arange(WINDOW + 99))
    rows = [decoding(model, streaming, n, args.repeats) for n in args.evicted]
    header = ["evicted", "stored", "streaming", "retrieval", "", "by the bound", ""]
    section = [
        "## What it costs",
        "",
        f"`{page.command()}`, {page.count(int(os.environ['OPENBLAS_NUM_THREADS']))}, shape {args.shape}, cache "
        f"{N_SINKS} + {WINDOW}, 8 blocks of 16. Times are milliseconds per token,",
        f"medians of tokens taken in turn ({BUSY}). A token takes {cache_bytes_per_token(model):,} "
        "bytes, evicted or not, or up to twice that because buffers grow by doubling.",
        "",
        *page.table(header, rows),
        text(model, args.tokens),
        "",
    ]
    print("\n".join(section))
    if args.write:
        page.put_section(args.write, section)


def decoding(model, streaming, n_evicted, repeats):
    """Return one row of the table."""
    say(f"decoding after {n_evicted:,} evicted tokens")
    row = {}
    for select in ("best", "bound"):
        decoder = filled(model, streaming.weights, n_evicted, select)
        seconds: dict = {"streaming": [], select: []}
        for _ in range(repeats):
            for name, decode in (("streaming", streaming), (select, decoder)):
                start = time.perf_counter()
                decode.step(7)
                seconds[name].append(time.perf_counter() - start)
        row |= {name: 1e3 * float(np.median(values)) for name, values in seconds.items() if name not in row}
        row[f"{select} x"] = float(np.median(seconds[select]) / np.median(seconds["streaming"]))
        del decoder
    stored = f"{n_evicted * cache_bytes_per_token(model) / 1e6:,.0f} MB"
    cells = [f"{row['streaming']:.1f}"]
    for select in ("best", "bound"):
        cells += [f"{row[select]:.1f}", f"{row[f'{select} x']:.2f} x"]
    return [f"{n_evicted:,}", stored, *cells]


def filled(model, weights, n_evicted, select):
    """Return a decoder that has seen `n_evicted` more tokens than its slots hold."""
    decoder = Decoder(model, Retrieval(N_SINKS, WINDOW, select=select), weights=weights)
    cache, random = decoder.cache, np.random.default_rng(0)
    for layer in range(model.config.n_layers):
        shape = (n_evicted + WINDOW, model.config.n_kv_heads, model.config.head_dim)
        keys = random.standard_normal(shape, dtype=np.float32)
        cache.stores[layer].put(N_SINKS, keys, keys)
    cache.n_seen = n_evicted + N_SINKS + WINDOW
    return decoder


def text(model, n_tokens):
    """Return a sentence about a text that is measured as a whole."""
    say(f"a text of {n_tokens:,} tokens")
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, n_tokens)
    seconds = {}
    for method in (Streaming(N_SINKS, WINDOW), Retrieval(N_SINKS, WINDOW)):
        start = time.perf_counter()
        minisink.token_nll(model, ids, method)
        seconds[method.name] = time.perf_counter() - start
    times = seconds["retrieval"] / seconds["streaming"]
    return (
        f"The loss of a text of {n_tokens:,} tokens takes {seconds['streaming']:.1f} s with streaming and "
        f"{seconds['retrieval']:.1f} s with retrieval, {times:.2f} times as long."
    )


if __name__ == "__main__":
    main()
