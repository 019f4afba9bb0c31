"""Scripted conversations, one turn per line, and their statistics.

The assistant's reply may follow after a TAB. It is then scored instead of generated, so that every method gets the same
words and its score does not depend on chance.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..experiments.last_words import repeated
from ..system.files import read_text

FOLDER = Path(__file__).parent / "turns"  # the shipped scripts


class Line(NamedTuple):
    """One turn of a script."""

    words: str
    reply: str | None  # None: to be generated


def shipped():
    """Return the names of the scripts that ship.

    >>> shipped()
    ['day', 'name', 'questions', 'replies', 'told']
    """
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def read_turns(path):
    """Return the turns (`Line`) of a file, or of the shipped script of that name.

    A line ends only where a person pressed Enter, not at other characters that Unicode or Python counts as line ends.

    Raise ValueError for a file that cannot be read or has no turns, and for a line without words or an empty reply.
    """
    if path in shipped() and not Path(path).exists():
        path = FOLDER / f"{path}.txt"
    turns = []
    for number, line in enumerate(read_text(path, newline="").split("\n"), 1):
        words, _, reply = map(str.strip, line.partition("\t"))
        if not line.strip():
            continue
        if not words or ("\t" in line and not reply):
            what = "a TAB without a reply after it" if words else "no words"
            raise ValueError(f"{path}: line {number} has {what}; a line is a turn, or a turn, a TAB and a reply")
        turns.append(Line(words, reply or None))
    if not turns:
        raise ValueError(f"{path}: has no turns; a line is a turn")
    return turns


class Measured:
    """The losses and repetitions of a conversation, over the turns that began after the first eviction."""

    def __init__(self):
        self.nll, self.grams, self.again = [], 0, 0.0

    def add(self, *, nll=None, answer=()):
        """Count the losses of a reply, or the tokens of an answer."""
        self.nll += [] if nll is None else list(nll)
        n_grams = max(0, len(answer) - 3)
        self.grams += n_grams
        self.again += repeated(answer) * n_grams

    @property
    def reply_nll(self):
        """Mean loss per token of the replies, in nats; NaN if there were none."""
        return float(np.mean(self.nll)) if self.nll else float("nan")

    @property
    def repeated(self):
        """Share of the 4-grams of an answer already seen in it; NaN if there were none."""
        return self.again / self.grams if self.grams else float("nan")
