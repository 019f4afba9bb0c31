"""Where in a text the next token is, while pieces come and blocks are taken."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minisink.evaluation.pieces import TokenReader


def pieces(sizes):
    """Pieces of so many tokens, of 3 bytes each."""
    start = 0
    for size in sizes:
        yield 3 * start, 3 * size, np.arange(start, start + size)
        start += size


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_progress_is_the_byte_of_the_next_token(sizes, data):
    """Whatever the pieces and the blocks, it grows with every token until the last, which is never taken."""
    total = sum(sizes)
    reader = TokenReader(pieces(sizes))
    assert np.concatenate(list(reader)).tolist() == list(range(total))
    taken = 0
    while taken < total - 1:
        n = data.draw(st.integers(1, total - 1 - taken))
        assert reader.advance(n).tolist() == list(range(taken + 1, taken + n + 1))
        taken += n
        start, skip = reader.place
        assert reader.n_bytes == 3 * taken == start + 3 * skip
