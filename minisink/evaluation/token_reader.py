"""Where in a text is the next token? Pieces of ids go to the model in blocks that do not end with the pieces."""

from collections import deque
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """A token's place: the byte where its piece begins, and its index in the piece."""

    start: int
    skip: int


class TokenReader:
    """Ids on their way to the model; a piece is kept until all of it is taken in, so that a run can stop at any token.

    `pieces` is an iterator of (Place where it begins, number of its bytes, its ids (T,)); the model has already
    taken in `skip` tokens of the first.
    """

    def __init__(self, pieces, skip=0):
        self._pieces, self._skip = pieces, skip
        self._pending = deque()

    def __iter__(self):
        to_skip = self._skip
        for piece in self._pieces:
            self._pending.append(piece)
            ids = piece[2]
            yield ids[to_skip:]
            to_skip = max(0, to_skip - len(ids))

    def advance(self, n):
        """Count the next `n` tokens as taken in by the model; return those that follow each of them."""
        targets, missing, skip = [], n, self._skip + 1
        for _, _, ids in self._pending:
            targets.append(ids[skip : skip + missing])
            missing, skip = missing - len(targets[-1]), max(0, skip - len(ids))
        self._skip += n
        while self._pending and self._skip >= len(self._pending[0][2]):
            self._skip -= len(self._pending.popleft()[2])
        return np.concatenate(targets)

    @property
    def place(self):
        """The Place of the next token."""
        return self._pending[0][0]._replace(skip=self._skip)

    @property
    def n_bytes(self):
        """Bytes of the text before the next token; within a piece, by its share of tokens."""
        place, size, ids = self._pending[0]
        return place.start + size * self._skip // len(ids)
