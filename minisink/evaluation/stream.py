"""The losses of a text that arrives in pieces and is never held whole: gigabytes in constant memory."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..cache import KVCache, check_whole
from ..loss import CHUNK, cache_of, losses
from ..methods import DEFAULT, Method, Recompute
from ..model import Model
from ..paths import Path


def nll_stream(
    model: Model,
    pieces: Iterable[Sequence[int] | np.ndarray],
    method: Method = DEFAULT,
    *,
    chunk: int = CHUNK,
    readable: bool = False,
    cache: KVCache | Path | None = None,
) -> Iterator[np.ndarray]:
    """Yield losses like `loss.nll_blocks`, for a text that arrives in pieces.

    Parameters
    ----------
    model, method, readable
        As in `loss.token_nll`; not `Recompute`, which reads its text more than once. `Dense` grows with the text.
    pieces : iterable of (sequence or ndarray of ints)
        Together the ids of the text; each of any length, even empty.
    chunk : int
        Tokens per forward pass. Neither this nor where the pieces end changes the results.
    cache : KVCache or path, optional
        The cache after the tokens before `pieces`, instead of a method; it takes the new ones in.

    Returns
    -------
    iterator of ndarray
        Together (T-1,) nats. An exception raised by `pieces` is raised after the losses of all tokens before it.

    Raises
    ------
    ValueError
        As in `loss.nll_blocks`.

    Examples
    --------
    >>> from minisink import load, token_nll
    >>> model = load("novels")
    >>> ids = model.encode("It was a dark night, and the wind blew.")
    >>> nll = np.concatenate([*nll_stream(model, (ids[i : i + 3] for i in range(0, len(ids), 3)))])
    >>> bool(np.allclose(nll, token_nll(model, ids), atol=1e-5))
    True
    """
    check_whole("chunk", chunk, 1)
    if cache is None and isinstance(method, Recompute):
        raise ValueError(f"{method!r} reads its text more than once, so it cannot come in pieces")
    begun = cache_of(model, method, cache, readable=readable)
    blocks = in_blocks(model, iter(pieces), chunk, begun.n_seen)
    return (nll for block in blocks for nll in losses(model, block, begun, chunk))


def in_blocks(model, pieces, chunk, n_seen=0):
    """Yield blocks of ``chunk + 1`` ids, however the text is cut: the last id of each is the first of the next.

    The first block is shorter after `n_seen` tokens, so that blocks end where those of the whole text do. A token waits
    until the one it predicts is known. An exception raised by `pieces` is raised after the last block.
    """
    pending, failure, size = np.empty(0, np.int64), None, chunk - n_seen % chunk
    try:
        for piece in pieces:
            pending = np.concatenate((pending, model.check_ids(piece))) if len(piece) else pending
            while len(pending) > size:
                yield pending[: size + 1]
                pending, size = pending[size:], chunk
    except Exception as error:
        failure = error
    if len(pending) > 1:
        yield pending
    if failure is not None:
        raise failure
