"""Summaries of the losses of a text of any length: their sum, a curve of bounded size, and a growing CSV file."""

import csv
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import check_whole
from ..system.files import blame

POINTS = 1 << 15  # points of the curve
TAIL = 4096  # bytes at the end by which a CSV file is recognised


class Tally:
    """The sum of all losses so far, in nats, and a curve: means over groups, which double in size as needed.

    Its rows, for a CSV file, are one per token, or one of running perplexity per `every` tokens.

    >>> tally = Tally(every=2)
    >>> tally.add(np.log([2.0, 8.0, 4.0]))
    [(2, 1.3862943611198906, 4.0)]
    >>> tally.last_row()
    [(3, 1.3862943611198906, 4.0)]
    """

    def __init__(self, every=None):
        self.every = every
        self.n_tokens, self.total = 0, 0.0
        self.since_row = 0.0  # nats
        self.sums, self.group = np.zeros(POINTS), 1

    @property
    def nll(self):
        """Mean loss in nats; NaN for no tokens."""
        return self.total / self.n_tokens if self.n_tokens else float("nan")

    @property
    def perplexity(self):
        """``exp(nll)``."""
        return float(np.exp(self.nll))

    def add(self, nll, ids=()):
        """Count the losses (T,) of the next tokens, `ids`, in nats, and return the rows that are now complete.

        A row is (index, id, loss) of a token, or (tokens so far, mean loss of the last `every`, perplexity of all).
        """
        self._add_to_curve(nll)
        each = enumerate(zip(ids, nll, strict=False), self.n_tokens + 1)
        rows = [] if self.every else [(i, int(id_), float(loss)) for i, (id_, loss) in each]
        while len(nll):
            part = nll[: self.every - self.n_tokens % self.every] if self.every else nll
            nats = float(np.sum(part, dtype=np.float64))
            self.n_tokens += len(part)
            self.total += nats
            self.since_row += nats
            if self.every and self.n_tokens % self.every == 0:
                rows.append((self.n_tokens, self.since_row / self.every, self.perplexity))
                self.since_row = 0.0
            nll = nll[len(part) :]
        return rows

    def last_row(self):
        """Return a list with one row for the tokens left over, or an empty list."""
        rest = self.n_tokens % self.every if self.every else 0
        return [(self.n_tokens, self.since_row / rest, self.perplexity)] if rest else []

    def _add_to_curve(self, nll):
        while self.n_tokens + len(nll) > self.group * len(self.sums):
            pairs = self.sums.reshape(-1, 2).sum(axis=1)
            self.sums = np.concatenate((pairs, np.zeros_like(pairs)))
            self.group *= 2
        np.add.at(self.sums, np.arange(self.n_tokens, self.n_tokens + len(nll)) // self.group, nll)

    def curve(self):
        """Return the mean loss of each group of tokens, in nats: (ceil(n_tokens / group),)."""
        n_points = -(-self.n_tokens // self.group)
        counts = np.minimum(self.group, self.n_tokens - self.group * np.arange(n_points))
        return self.sums[:n_points] / counts

    def state(self):
        """Return everything needed to resume: (list of numbers, ndarray)."""
        return [self.n_tokens, self.total, self.since_row, self.group], self.sums

    def restore(self, numbers, sums):
        """Restore from the result of `state`; ValueError for impossible numbers."""
        self.n_tokens, total, since_row, self.group = numbers
        self.total, self.since_row, self.sums = float(total), float(since_row), sums
        check_whole("tokens", self.n_tokens, 0)
        check_whole("tokens that share a point", self.group, 1)
        if sums.shape != (POINTS,) or sums.dtype != np.float64 or self.n_tokens > self.group * POINTS:
            raise ValueError(f"a curve of {sums.shape} points of {self.group} tokens, for {self.n_tokens}")


class GrowingCsv:
    """A CSV file that always holds the results so far; no file if the path is None.

    An older file of that name is replaced when the first rows arrive, so a run that fails earlier costs nothing.
    """

    def __init__(self, path, every=None):
        self.path: Any = Path(path) if path else None
        self._file = None
        self.header = ("tokens", "mean_nll", "perplexity") if every else ("token_index", "id", "nll")

    def add(self, rows):
        """Write rows to the file at once, floats with all their digits; ValueError if that fails."""
        if not self.path:
            return
        with blame(self.path, "cannot be written"):
            if self._file is None:
                self._file = open(self.path, "w", newline="", encoding="utf-8")
                rows = [self.header, *rows]
            csv.writer(self._file).writerows(rows)
            self._file.flush()

    def mark(self):
        """Return [bytes written, digest of the last of them]: where `resume` continues."""
        size = os.path.getsize(self.path)
        return [size, _tail(self.path, size)]

    def resume(self, mark):
        """Cut the file at the mark, to continue there; ValueError, and no change, if it is not the marked file."""
        size, digest = mark
        with blame(self.path, "cannot be continued"):
            if os.path.getsize(self.path) < size or _tail(self.path, size) != digest:
                raise ValueError(f"{self.path}: not the CSV file that the run wrote before it stopped")
            os.truncate(self.path, size)
            self._file = open(self.path, "a", newline="", encoding="utf-8")

    def close(self):
        """Close the file; any remainder that does not fit on a full disk has been reported by `add`."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()


def _tail(path, size):
    with open(path, "rb") as file:
        file.seek(max(0, size - TAIL))
        return hashlib.sha256(file.read(min(size, TAIL))).hexdigest()
