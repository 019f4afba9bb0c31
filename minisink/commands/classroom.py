"""Shared by the classroom commands: their options, and a training run to watch."""

import sys
from pathlib import Path

from ..system.files import check_picture
from ..system.terminal import bar
from .common import at_least

LOOKS = 40  # panels shown in a training run


def add_training(parser, *, seed, layers, steps, rate):
    """Add the options of a training run; `seed`, `layers` and `rate` complete their help."""
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N", help=f"seed of {seed} (%(default)s)")
    add("--layers", type=int, default=layers[0], metavar="N", help=f"attention layers (%(default)s{layers[1]})")
    add("--steps", type=int, default=steps, metavar="N", help="steps of 32 texts (%(default)s)")
    add("--rate", type=float, metavar="X", help=f"peak learning rate ({rate})")
    add("--workers", type=int, default=1, metavar="N", help="threads (%(default)s)")
    add("--device", default="cpu", help="cpu or cuda (%(default)s)")
    add("--plot", type=Path, metavar="FILE", help="draw the curves (needs matplotlib)")
    add("--json", action="store_true", help="print a line of JSON at the end")


def check(args, **least):
    at_least(args, seed=0, layers=1, steps=1, workers=1, **least)
    if args.rate is not None and not 0 < args.rate < float("inf"):
        raise ValueError(f"--rate is {args.rate}; it must be a number above 0")
    check_picture(args.plot)


def watch(toy, n_steps, bars, title=""):
    """Train, showing a panel now and then, and return the list of (step, look), from before the first step to the end.

    `bars` turns the first and the latest look into a list of bars: name, share, and the text after the bar.
    """
    live, every = sys.stdout.isatty(), max(1, n_steps // LOOKS)
    history = []
    for step in range(n_steps + 1):
        if step > 0:
            toy.step()
        if step % every and step != n_steps:
            continue
        history.append((step, toy.look()))
        lines = [f"{name:24} {bar(share)} {value}" for name, share, value in bars(history[0][1], history[-1][1])]
        lines.insert(0, f"{title}step {step} of {n_steps}")
        if live and step > 0:  # overwrite the previous panel: move up, and clear each line
            print(f"\x1b[{len(lines)}A" + "".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
        elif len(history) % 5 == 1 or step == n_steps:  # not every panel, if output cannot be overwritten
            print("\n".join(lines), flush=True)
    return history
