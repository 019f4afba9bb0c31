"""Shared by the classroom commands: checks of options, and a training to watch."""

import sys

from ..system.files import check_picture
from .common import at_least

LOOKS = 40  # times a training is shown


def check(args, **least):
    """Validate minimum values, a positive rate, and a writable plot path."""
    at_least(args, **least)
    if args.rate is not None and not 0 < args.rate < float("inf"):
        raise ValueError(f"--rate is {args.rate}; it must be a number above 0")
    check_picture(args.plot)


def watch(toy, n_steps, panel):
    """Train, showing rows now and then, and return the list of (step, row), ending with the final one.

    `panel` turns such a list into lines of text: the last row, next to the first.
    """
    live, every = sys.stdout.isatty(), max(1, n_steps // LOOKS)
    history = [(0, toy.look())]
    print(panel(history), flush=True)
    for step in range(1, n_steps + 1):
        toy.step()
        if step % every == 0 or step == n_steps:
            history.append((step, toy.look()))
            text = panel(history)
            if live:  # write over the panel before: up as many lines, and clear each
                text = f"\x1b[{text.count(chr(10)) + 1}A" + "".join(f"\x1b[2K{line}\n" for line in text.split("\n"))
                print(text, end="", flush=True)
            elif len(history) % 5 == 1 or step == n_steps:  # if output cannot be overwritten
                print(text, flush=True)
    return history
