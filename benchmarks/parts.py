"""One text on two processes against one, the memory of the weights, and what the run-up of the parts costs.

    OPENBLAS_NUM_THREADS=1 python benchmarks/parts.py --tokens 1000000 --write docs/benchmarks.md

Both read the same tokens in turns, in one run, and the losses are compared. The run-up is worked out: each part begins
as many tokens earlier as attention reaches back through the layers.
"""

import argparse
import os
import re
import time
from pathlib import Path

import numpy as np
import page
from measure import say

import minisink
from minisink.evaluation.jobs import in_order, processes
from minisink.evaluation.parts import reach
from minisink.hf.shipped import sample_text
from minisink.loss import CHUNK
from minisink.methods import Streaming
from minisink.system.files import read_text

METHOD, PARTS = Streaming(4, 252), (10_000, 50_000, 200_000, 1_000_000)
MACHINES = 1000


def main():
    """Measure, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", default="novels", metavar="MODEL", help="whose weights are shared")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page whose section this is")
    args = parser.parse_args()
    began, model = page.busy(), minisink.load("novels")
    story = model.encode(read_text(sample_text()), bos=False)
    ids = np.concatenate((model.encode(""), np.resize(story, args.tokens - 1)))
    started, one, two, apart = in_turns(model, ids, args.repeats)
    shared = memory(args.memory)
    section = [
        "## One text on two processes",
        "",
        f"`{page.command()}`; {os.cpu_count()} cores; {began}.",
        f"`novels`, {METHOD!r}, {args.tokens:,} tokens: one process takes {one:.1f} s and two take {two:.1f} s,",
        f"which is {one / two:.2f} times as fast (medians of {args.repeats} alternating runs). The losses differ by at",
        f"most {apart:.1g} nats. Starting two processes takes {started:.1f} s. Together, the two workers and the",
        f"process that starts them hold {shared:.2f} copies of the weights of `{args.memory}`.",
        "",
        f"The calculated cost of the run-up, which is {reach(model, METHOD, CHUNK):,} tokens per part:",
        "",
        *run_up(reach(model, METHOD, CHUNK)),
    ]
    print("\n".join(section))
    if args.write:
        page.put_section(args.write, section)


def in_turns(model, ids, repeats):
    """Return the seconds that two processes take to start, the medians of one and of two, and how far losses differ."""
    began = time.perf_counter()
    with processes(2) as executor:
        list(in_order(tokens_of, model, [ids[:2]] * 2, executor))
        started, seconds = time.perf_counter() - began, {None: [], executor: []}
        for turn in range(repeats):
            losses = []
            for who in seconds:
                say(f"turn {turn + 1}: {'two processes' if who else 'one process'}")
                began = time.perf_counter()
                losses.append(np.concatenate(list(minisink.nll_parts(model, ids, METHOD, executor=who))))
                seconds[who].append(time.perf_counter() - began)
    return started, *map(np.median, seconds.values()), np.abs(losses[0] - losses[1]).max()


def tokens_of(model, ids):
    """Read a few tokens."""
    return model.forward(ids).shape


def memory(name):
    """Return how often the weights are in memory: the parts of three processes, by the weights once."""
    model, held = minisink.load(name), []
    with processes(2) as executor:
        for of_one in in_order(weights_held, model, range(2), executor):
            held, here = [*held, of_one], weights_held(model, None)
    return (sum(held) + here) / (model.n_parameters * model.dtype.itemsize)


def weights_held(model, _):
    """Return this process's part of the pages of the weights, in bytes (Linux)."""
    model.forward(np.arange(4))
    time.sleep(1)  # until the other has read them too
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    return 1024 * sum(map(int, re.findall(r"/weights(?: \(deleted\))?\n(?:.*\n){2,6}?Pss: +(\d+)", maps)))


def run_up(n_before):
    """Return a table: parts of some lengths, what each costs, and how many tokens a thousand machines read."""
    lines = ["| tokens per part | run-up | tokens on 1,000 machines |", "|---:|---:|---:|"]
    return lines + [f"| {n:,} | {n_before / n:.2%} | {MACHINES * n:,} |" for n in PARTS]


if __name__ == "__main__":
    main()
