"""Long texts with the shipped `novels`: does a token cost the same after a million others, in time and in memory?

    python benchmarks/long.py                                 # a million tokens decoded, four million evaluated
    python benchmarks/long.py --write docs/benchmarks.md      # and a section of the page of decode.py
    python benchmarks/long.py --tokens 10000 --evaluate 20000 # a quick look

Streaming with 4 sinks and a window of 252. The decoder's cache is saved on the way, after 100, 1,000, ... tokens. At
the end decoders continue from each of these, in turn with the matrix-vector products alone, so that whatever else
the machine does affects them all. Memory is what this process holds (RSS), read from the system.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings
from itertools import cycle
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import page  # noqa: E402
from contestants import steadily  # noqa: E402
from measure import say, take_turns  # noqa: E402
from page import short  # noqa: E402

import minisink  # noqa: E402
from minisink.evaluation.stream import nll_stream
from minisink.experiments import speed
from minisink.fast.decoder import Decoder
from minisink.hf.shipped import sample_text

METHOD = minisink.Streaming(4, 252)
PIECE = 4096  # tokens that come at once


def main():
    """Decode, evaluate, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000, help="to decode")
    parser.add_argument("--evaluate", type=int, default=4_000_000, help="tokens whose loss is worked out")
    parser.add_argument("--text", nargs="+", metavar="FILE", help="read again and again; default: the sample text")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each decoder's turn")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page whose section this is")
    args = parser.parse_args()
    if args.tokens < 100 or min(args.evaluate, args.repeats) < 1:
        parser.error("--tokens is 100 or more, --evaluate and --repeats 1 or more")
    warnings.filterwarnings("ignore", "a cache of 256 tokens is longer", UserWarning)
    model = minisink.load("novels")
    files = [Path(file) for file in args.text or [sample_text()]]
    ids = model.encode("\n".join(file.read_text(encoding="utf-8") for file in files))
    lines = [*heading(files, ids), *decoded(model, ids, args), *evaluated(model, ids, args)]
    print("\n".join(lines))
    if args.write:
        page.put_section(args.write, lines)


def heading(files, ids):
    """Yield what was run, on what."""
    yield "## Long texts, `novels`, streaming with 4 sinks and a window of 252"
    yield ""
    yield f"- command: `{page.command()}`"
    yield f"- text: {', '.join(file.name for file in files)}, {len(ids):,} tokens, repeated"
    yield f"- {page.count(int(os.environ['OPENBLAS_NUM_THREADS']))}; {page.busy()}"
    yield ""


def decoded(model, ids, args):
    """Yield lines: time and memory of a token after that many others."""
    points = [n for n in (10**i for i in range(2, 10)) if n <= args.tokens]
    text = cycle(ids.tolist())
    decoder, memory, pace = Decoder(model, METHOD), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        minisink.save_cache(decoder.cache, Path(folder, "empty"))  # saving takes its memory before any is measured
        start, before = time.perf_counter(), 0
        for n in points:
            say(f"decoding to token {n:,}")
            for _ in range(n - before):
                decoder.step(next(text))
            pace[n] = (time.perf_counter() - start) / (n - before)
            memory[n] = resident()
            minisink.save_cache(decoder.cache, Path(folder, str(n)))
            start, before = time.perf_counter(), n
        turns = {"floor": steadily(speed.floor(decoder))}
        for n in points:
            again = Decoder(model, METHOD, cache=minisink.load_cache(Path(folder, str(n))), weights=decoder.weights)
            turns[n] = steadily(lambda again=again: again.step(next(text)))
        say("decoding on from each of them, in turn")
        seconds = take_turns(turns, args.repeats, args.seconds)
    first = seconds.get(1000, seconds[points[0]])
    yield "### Decoding"
    yield ""
    header = [
        "tokens decoded",
        "µs per token, interleaved",
        "relative to 1,000 tokens",
        "µs per token since the row above",
        "memory, MB",
    ]
    rows = []
    for n in points:
        times = short(1e6 * seconds[n]), f"{seconds[n] / first:.3f}", short(1e6 * pace[n])
        rows.append([f"{n:,}", *times, f"{memory[n] / 1e6:.1f}"])
    yield from page.table(header, rows)
    yield f"Interleaved with these, the matrix-vector products alone took {short(1e6 * seconds['floor'])} µs."
    if len(points) > 2:
        late, early = points[-1], points[1]
        ratio, grown = seconds[late] / seconds[early], (memory[late] - memory[early]) / 1e6
        reached = verdict(ratio <= 1.05)
        yield f"Token {late:,} takes {ratio:.3f} times as long as token {early:,} (goal: at most 1.05; {reached});"
        yield f"memory changed by {grown:+.2f} MB between the two (goal: at most 1; {verdict(grown <= 1)})."
    yield ""


def evaluated(model, ids, args):
    """Yield lines: the loss of a long text in blocks."""
    say(f"the loss of {args.evaluate:,} tokens")
    start, done, rows = time.perf_counter(), 0, []
    memory = []
    every = max(1, args.evaluate // 8)
    for nll in nll_stream(model, pieces(ids, args.evaluate + 1), METHOD):
        done += len(nll)
        if done >= every * (len(rows) + 1) or done == args.evaluate:
            took = time.perf_counter() - start
            memory.append(resident())
            rows.append([f"{done:,}", f"{took:.0f}", f"{done / took:,.0f}", f"{memory[-1] / 1e6:.1f}"])
    yield "### Perplexity in blocks"
    yield ""
    yield from page.table(["tokens", "seconds", "tokens/s", "memory, MB"], rows)
    minutes = took / 60
    if args.evaluate >= 4_000_000:
        grown = (memory[-1] - memory[0]) / 1e6
        yield f"The run took {minutes:.1f} minutes (goal: at most 5; {verdict(minutes <= 5)});"
        yield f"memory changed by {grown:+.2f} MB after the first row."
        yield ""


def pieces(ids, n):
    """Yield the same text again and again, n tokens in all, a piece at a time."""
    text = cycle(range(0, len(ids), PIECE))
    while n:
        start = next(text)
        piece = ids[start : start + min(PIECE, n)]
        n -= len(piece)
        yield piece


def resident():
    """Return the bytes of memory that this process holds; elsewhere than on Linux, the most it ever held."""
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.exists():
        return 1024 * int(rollup.read_text().split("Rss:")[1].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def verdict(reached):
    """Return a word for a goal."""
    return "reached" if reached else "**not reached**"


if __name__ == "__main__":
    main()
