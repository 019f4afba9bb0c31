"""How near other families come to their floors: a token, a turn of a conversation, and memory.

    python benchmarks/families.py --write docs/benchmarks.md
    python benchmarks/families.py --shapes pythia-70m --repeats 3   # a quick look

Random weights; the floor is the products with the weights alone, in turn with what is measured beside it.
"""

import argparse
import gc
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np  # noqa: E402
import page  # noqa: E402
from contestants import steadily  # noqa: E402
from long import resident  # noqa: E402
from measure import CACHE, say, take_turns  # noqa: E402
from page import short  # noqa: E402

from minisink.experiments import speed
from minisink.experiments.shapes import SHAPES, random_model
from minisink.fast.decoder import PREFILL

DEFAULT = ["smollm2-135m", "pythia-70m", "pythia-410m", "qwen3-0.6b"]
MOST = 1.2  # times the floor, and times the weights


def main():
    """Measure one shape after the other, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=DEFAULT)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each turn")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page whose section this is")
    args = parser.parse_args()
    lines, rows = [*heading()], []
    for shape in args.shapes:
        say(shape)
        rows.append(row(shape, args.repeats, args.seconds))
        gc.collect()
    header = [
        "shape",
        "floor, ms per token",
        "decoding",
        "floor, ms per turn",
        "turn",
        "memory, MB",
        "relative to the weights",
    ]
    lines += page.table(header, rows)
    print("\n".join(lines))
    if args.write:
        page.put_section(args.write, lines)


def heading():
    """Yield what was run."""
    yield "## Other families: time per token, time per turn, memory"
    yield ""
    yield f"`{page.command()}`, {page.count(int(os.environ['OPENBLAS_NUM_THREADS']))}; {page.busy()}."
    yield f"Streaming with 4 sinks, {CACHE} visible keys, float32. A turn is {PREFILL} tokens in one block plus"
    yield "one more token, with a full cache. The ratio to the floor (products with the weights alone) is in brackets."
    yield f"Memory is the growth of the process, including the turn and decoding. Our goal is at most {MOST}"
    yield "for both ratios, in decoding and in memory."
    yield ""


def row(shape, repeats, seconds):
    """Return the cells of one shape."""
    before = resident()
    model = random_model(shape, max_positions=4096)
    decoder = speed.full_decoder(model, CACHE)
    floor, ids = speed.floor(decoder), np.random.default_rng(0).integers(0, model.config.vocab_size, PREFILL + 1)
    of_token = {"floor": steadily(floor), "decoding": steadily(lambda: decoder.step(0))}
    of_token = take_turns(of_token, repeats, seconds)
    of_turn = {"floor": steadily(products(decoder, floor)), "turn": steadily(lambda: decoder(ids))}
    of_turn = take_turns(of_turn, min(3, repeats), seconds)
    gc.collect()
    memory, weights = resident() - before, sum(array.nbytes for array in model.arrays().values())
    times = [of_token["decoding"] / of_token["floor"], of_turn["turn"] / of_turn["floor"], memory / weights]
    token, turn = short(1e3 * of_token["decoding"]), short(1e3 * of_turn["turn"])
    cells = [short(1e3 * of_token["floor"]), f"{token} ({times[0]:.2f})", short(1e3 * of_turn["floor"])]
    return [shape, *cells, f"{turn} ({times[1]:.2f})", short(memory / 1e6), f"{times[2]:.2f}"]


def products(decoder, floor):
    """Return a function that does the products of a turn: of a block, which needs no logits, and of one token."""
    random, matrices = np.random.default_rng(0), decoder.weights.matrices[:-1]
    blocks = {n: random.standard_normal((PREFILL, n), dtype=np.float32) for n in {len(w) for w in matrices}}

    def multiply():
        for w in matrices:
            blocks[len(w)] @ w
        floor()

    return multiply


if __name__ == "__main__":
    main()
