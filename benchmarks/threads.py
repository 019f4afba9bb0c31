"""From which size a second BLAS thread pays, and what a script costs while four other processes are busy.

    python benchmarks/threads.py --write docs/benchmarks.md

It times the products of a layer by width, for one token (decoding) and for a block of 256, on one thread and on all in
turn: first on the machine as it is (it should be quiet), then while other processes keep every core busy. Then it times
a script that measures the loss of a text under `novels`, with the default threads and with ``OPENBLAS_NUM_THREADS=1``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import page
from measure import say
from threadpoolctl import threadpool_limits

import minisink
from minisink.hf.shipped import sample_text
from minisink.loss import CHUNK
from minisink.system.threads import SMALL, one_thread

BUSY = 4  # processes
VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def main():
    """Measure, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 288, 576, 1024, 1536, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each turn")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page whose section this is")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # the script, in this process
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(script()))
        return
    began, quiet = page.busy(), {}
    for width in args.widths:
        say(f"products of width {width}")
        quiet[width] = products(width, args)
    with busy_processes():
        busy = {}
        for width in args.widths:
            say(f"products of width {width}, beside {BUSY} busy processes")
            busy[width] = products(width, args)
        say("a script")
        as_they_come, one = scripts(args.repeats)
    section = [
        "## One BLAS thread or all",
        "",
        f"`{page.command()}`; {os.cpu_count()} cores; {began}.",
        f"The products of a layer of each width, for one token and for a block of {CHUNK}. Quiet: the speed of all",
        f"threads relative to one. Busy, with {BUSY} other processes: the processor time relative to one thread.",
        "",
        *page.table(
            ["width", "quiet: one token", "quiet: a block", "busy: one token", "busy: a block"],
            [[f"{w:,}", *ratios(quiet[w], "seconds", 1), *ratios(busy[w], "processor", -1)] for w in args.widths],
        ),
        f"A model narrower than {SMALL:,} therefore runs on one thread; lowering the number of threads and restoring",
        f"it takes {1e6 * a_call():.1f} µs per call. With {BUSY} other busy processes, `token_nll` on `novels` takes",
        f"{1e6 * as_they_come:.0f} µs of processor time per token with default threads, and {1e6 * one:.0f} µs with",
        f"`OPENBLAS_NUM_THREADS=1`, a ratio of {as_they_come / one:.2f} (goal: at most 1.4).",
        "",
    ]
    print("\n".join(section))
    if args.write:
        page.put_section(args.write, section)


def products(width, args):
    """Return ``{(tokens, threads): (seconds, processor seconds)}`` of a layer's products, medians of turns."""
    random = np.random.default_rng(0)
    up, down = (random.standard_normal(shape, dtype=np.float32) for shape in ((width, 4 * width), (4 * width, width)))
    times = {(n, threads): [] for n in (1, CHUNK) for threads in (1, None)}
    for _ in range(args.repeats):
        for (n, threads), turns in times.items():
            x = random.standard_normal((n, width), dtype=np.float32)
            with threadpool_limits(threads, "blas"):
                turns.append(turn(lambda x=x: x.dot(up).dot(down), args.seconds))
    return {key: np.median(turns, axis=0) for key, turns in times.items()}


def turn(step, seconds):
    """Return the seconds and the processor seconds of one step, over as many as the time allows."""
    step()
    wall, processor, n = time.perf_counter(), time.process_time(), 0
    while (took := time.perf_counter() - wall) < seconds or n == 0:
        step()
        n += 1
    return took / n, (time.process_time() - processor) / n


def ratios(measured, what, sign):
    """Return the cells of a token and of a block: one thread over all (`sign` 1), or all over one (-1)."""
    i = ("seconds", "processor").index(what)
    return [f"{(measured[n, 1][i] / measured[n, None][i]) ** sign:.2f}" for n in (1, CHUNK)]


@contextmanager
def busy_processes():
    """Keep the cores busy in a block."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def scripts(repeats):
    """Return the processor seconds per token, medians of turns, with threads as they come and with one."""
    free = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    times = {"": [], "1": []}
    for _ in range(repeats):
        for threads, turns in times.items():
            environment = free | ({VARIABLES[0]: threads} if threads else {})
            command = [sys.executable, __file__, "--measure"]
            run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            turns.append(json.loads(run.stdout))
    return [float(np.median(turns)) for turns in times.values()]


def script():
    """Return the processor seconds per token of what any script may do."""
    model = minisink.load("novels")
    ids = model.encode(sample_text().read_text(encoding="utf-8"))
    minisink.token_nll(model, ids[:CHUNK])
    start = time.process_time()
    minisink.token_nll(model, ids)
    return (time.process_time() - start) / len(ids)


def a_call():
    """Return the least seconds of a block on one thread that does nothing."""
    best = 1.0
    for _ in range(2000):
        start = time.perf_counter()
        with one_thread():
            pass
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
