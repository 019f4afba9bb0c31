"""Which way a weight should lie for one token: every matrix-vector product of a model, in both layouts.

    python benchmarks/layouts.py --threads 1 2 --write docs/benchmarks.md

``x.dot(w)`` with w as (in, out), or ``w.dot(x)`` with w as (out, in); both row by row in memory, both once through all
matrices of the model, in turn. `minisink.fast.fused` uses the first.
"""

import argparse
import json
import os
import subprocess
import sys


def main():
    """Measure in a process for each number of threads, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["novels", "stories15m", "smollm2-135m", "gpt2-124m"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each turn")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page whose section this is")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # here, with this process's threads
    args = parser.parse_args()
    if args.measure:
        print(json.dumps({shape: measured(shape, args) for shape in args.shapes}))
        return
    import page

    results = [in_process_of(threads, args) for threads in args.threads]
    lines = [
        "## How a weight is stored",
        "",
        f"`{page.command()}`: milliseconds for all matrix-vector products of one token, with weights stored",
        "as (in, out) or as (out, in), and the ratio of the second to the first.",
        "",
    ]
    header, rows = ["shape"], {shape: [shape] for shape in args.shapes}
    for threads, result in zip(args.threads, results, strict=True):
        header += [f"(in, out), {page.count(threads)}", "(out, in)", "ratio"]
        for shape, (first, second) in result.items():
            rows[shape] += [page.short(1e3 * first), page.short(1e3 * second), f"{second / first:.2f}"]
    lines += page.table(header, rows.values())
    print("\n".join(lines))
    if args.write:
        page.put_section(args.write, lines)


def in_process_of(threads, args):
    """{shape: [seconds of (in, out), seconds of (out, in)]} with that many threads."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--measure", "--repeats", str(args.repeats), "--seconds", str(args.seconds)]
    run = subprocess.run(
        [*command, "--shapes", *args.shapes], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(run.stdout)


def measured(shape, args):
    """Return the seconds per token of both layouts."""
    import numpy as np
    from contestants import steadily
    from measure import say, take_turns

    from minisink.experiments.shapes import random_model
    from minisink.fast.fused import fuse

    say(f"both layouts, {shape}")
    model = random_model(shape)
    first = fuse(model.weights, model.config).matrices
    second = [np.ascontiguousarray(w.T) for w in first]
    vectors = [np.random.default_rng(0).standard_normal(len(w), dtype=np.float32) for w in first]

    def in_out():
        for x, w in zip(vectors, first, strict=True):
            x.dot(w)

    def out_in():
        for x, w in zip(vectors, second, strict=True):
            w.dot(x)

    seconds = take_turns({"in_out": steadily(in_out), "out_in": steadily(out_in)}, args.repeats, args.seconds)
    return [seconds["in_out"], seconds["out_in"]]


if __name__ == "__main__":
    main()
