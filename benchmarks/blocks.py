"""What stands between the loss of a text in blocks and its floor: the products alone, and the time of every line.

    python benchmarks/blocks.py --write docs/benchmarks.md

The `novels` shape, streaming, one block of tokens after the other through a full cache.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np  # noqa: E402
import page  # noqa: E402
import report  # noqa: E402
from contestants import steadily  # noqa: E402
from lines import time_of_lines  # noqa: E402
from measure import say, take_turns  # noqa: E402

import minisink  # noqa: E402
from minisink.experiments.shapes import random_model
from minisink.fast.blocks import Banded
from minisink.loss import CHUNK, nll_of


def main():
    """Measure, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each turn")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page whose section this is")
    args = parser.parse_args()
    say("blocks and their products")
    model = random_model("novels", max_positions=4096)
    policy = minisink.Streaming(4, args.cache - 4)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, CHUNK + 1)
    cache = Banded(model.config.n_layers, policy)

    def block():
        nll_of(model.forward(ids[:-1], cache=cache), ids[1:])

    seconds = take_turns({"block": steadily(block), "products": steadily(products(model))}, args.repeats, args.seconds)
    say("line by line")
    lines = time_of_lines(block, seconds=15 * args.seconds)
    share = seconds["products"] / seconds["block"]
    block, least = (page.short(1e6 * seconds[name] / CHUNK) for name in ("block", "products"))
    section = [
        f"## Where a block's time goes, `novels` shape, cache {args.cache}",
        "",
        f"`{page.command()}`, {page.count(int(os.environ['OPENBLAS_NUM_THREADS']))}: {CHUNK} tokens at once",
        f"take {block} µs per token. The products with the weights, which no implementation can avoid, take {least} µs",
        f"when run alone, or {share:.0%} of that.",
        "",
        *report.timed([(line, s / CHUNK) for line, s in lines]),
    ]
    print("\n".join(section))
    if args.write:
        page.put_section(args.write, section)


def products(model):
    """Return a function that multiplies a block with every weight, and does nothing else."""
    names = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
    matrices = [getattr(layer, name) for layer in model.weights.layers for name in names] + [model.weights.head]
    random = np.random.default_rng(0)
    pairs = [(random.standard_normal((CHUNK, len(w)), dtype=np.float32), w) for w in matrices]

    def multiply():
        for x, w in pairs:
            x @ w

    return multiply


if __name__ == "__main__":
    main()
