"""How well a model predicts a text, token by token, under each of the methods.

The loss of a token is its negative log-likelihood in nats; ``perplexity = exp(mean)``. A token is predicted
from what the method's cache holds *at that moment*: evaluating in one forward pass, where nothing is ever
evicted, would make the window, streaming and dense attention agree to the last digit.

Each runs in blocks at memory speed (`fast.blocks`), or with ``readable=True`` through `cache` as the paper has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from .cache import KVCache, Policy, check_whole
from .fast.blocks import Banded, Windows
from .fast.retrieval import Fetching
from .methods import BLOCK, N_BLOCKS, N_SINKS, cache_for, check_cache, check_lead, policy_of, warn_beyond, window_of
from .model import Model
from .ops import log_softmax
from .paths import Path
from .retrieval import Retrieval
from .system.device import to_host

CHUNK = 256  # tokens a forward pass takes; the results do not depend on it


def token_nll(
    model: Model,
    ids: Sequence[int] | np.ndarray,
    *,
    method: str = "streaming",
    n_sinks: int = N_SINKS,
    window: int | None = None,
    positions: str = "slot",
    n_blocks: int = N_BLOCKS,
    block: int = BLOCK,
    select: str = "best",
    store: int | None = None,
    lead: Sequence[int] | np.ndarray = (),
    readable: bool = False,
    cache: KVCache | Path | None = None,
) -> np.ndarray:
    """Negative log-likelihood of every token but the first.

    Parameters
    ----------
    model : Model
    ids : sequence or ndarray of shape (T,), ints
    method : {"dense", "window", "recompute", "streaming", "retrieval"}
    n_sinks : int
        First tokens kept for good by "streaming" and "retrieval".
    window : int, optional
        Last tokens a query sees, itself included ("dense" sees all). "recompute" rebuilds each window of
        this many tokens from scratch, at positions 0 to ``window - 1``. By default each method has 256 tokens in
        sight: "streaming" 252 beside four sinks, the others a window of 256.
    positions : {"slot", "original"}
        "slot" numbers tokens within the cache (StreamingLLM), "original" within the text.
    n_blocks, block, select, store
        What "retrieval" brings back of what was evicted, `n_blocks` blocks of `block` tokens for each query: see
        `retrieval.Retrieval`.
    lead : sequence of int
        Tokens put in front of every window that "recompute" rebuilds; they count towards `window`. A model
        trained with ``<s>`` first in every sample knows no text without it: give it ``[model.config.bos]``.
    readable : bool
        Evict, number and rotate through `cache.KVCache`, and rebuild windows one by one: the same numbers, slower,
        and a breakpoint there is hit.
    cache : KVCache or path, optional
        A cache of your own, instead of a method; it takes the tokens in.

    Returns
    -------
    ndarray of shape (T-1,)
        Nats, in the dtype of the model (float32).

    Raises
    ------
    ValueError
        For bad ids, an unknown method, a size out of range, or a GPT-2 asked for a position it
        has not learned.

    Examples
    --------
    >>> from minisink import load
    >>> model = load("novels")
    >>> nll = token_nll(model, model.encode("It was a dark night, and the wind blew."), method="dense")
    >>> bool(np.exp(nll.mean()) < model.config.vocab_size)
    True
    """
    blocks = nll_blocks(
        model,
        ids,
        method=method,
        n_sinks=n_sinks,
        window=window,
        positions=positions,
        n_blocks=n_blocks,
        block=block,
        select=select,
        store=store,
        lead=lead,
        readable=readable,
        cache=cache,
    )
    return np.concatenate([np.empty(0, model.dtype), *blocks])


def nll_blocks(
    model: Model,
    ids: Sequence[int] | np.ndarray,
    *,
    method: str = "streaming",
    n_sinks: int = N_SINKS,
    window: int | None = None,
    positions: str = "slot",
    n_blocks: int = N_BLOCKS,
    block: int = BLOCK,
    select: str = "best",
    store: int | None = None,
    lead: Sequence[int] | np.ndarray = (),
    chunk: int = CHUNK,
    readable: bool = False,
    cache: KVCache | Path | None = None,
) -> Iterator[np.ndarray]:
    """`token_nll` as it comes, a block at a time.

    Parameters
    ----------
    model, ids, method, n_sinks, window, positions, n_blocks, block, select, store, lead, readable, cache
        As in `token_nll`.
    chunk : int
        Tokens a forward pass takes. The results do not depend on it.

    Returns
    -------
    iterator of ndarray
        Together (T-1,) nats.

    Raises
    ------
    ValueError
        As `token_nll`; at once, except that a GPT-2 runs until the first position it has not learned.
    """
    ids = model.check_ids(ids)
    check_whole("chunk", chunk, 1)
    retrieval: dict = {"n_blocks": n_blocks, "block": block, "select": select, "store": store}
    if cache is not None:
        check_cache(model, cache, method, n_sinks, window, positions, **retrieval)
        return _streamed(model, iter([ids]), cache, chunk)
    window = window_of(method, n_sinks, window)
    policy = policy_of(model, method, n_sinks, window, positions, **retrieval)
    if method == "recompute":
        lead = check_lead(model, lead, window)
        return (_rebuilt if readable else _side_by_side)(model, ids, window, lead, chunk)
    return _streamed(model, iter([ids]), empty_cache(model, policy, readable=readable), chunk)


def nll_stream(
    model: Model,
    pieces: Iterable[Sequence[int] | np.ndarray],
    *,
    method: str = "streaming",
    n_sinks: int = N_SINKS,
    window: int | None = None,
    positions: str = "slot",
    n_blocks: int = N_BLOCKS,
    block: int = BLOCK,
    select: str = "best",
    store: int | None = None,
    chunk: int = CHUNK,
    readable: bool = False,
    cache: KVCache | Path | None = None,
) -> Iterator[np.ndarray]:
    """`nll_blocks` of a text that comes in pieces and is never held as a whole: gigabytes in constant memory.

    Parameters
    ----------
    model : Model
    pieces : iterable of (sequence or ndarray of ints)
        Which together are the ids of the text; each of any length, also none.
    method : {"dense", "window", "streaming", "retrieval"}
        "dense" keeps every key and grows with the text.
    n_sinks, window, positions, n_blocks, block, select, store, readable
        As in `token_nll`.
    chunk : int
        Tokens a forward pass takes. Neither this nor where the pieces end changes the results.
    cache : KVCache or path, optional
        What the tokens before `pieces` left, instead of an empty one of the method; it takes the new ones in.

    Yields
    ------
    ndarray
        Together (T-1,) nats. An exception that `pieces` raises comes through after the losses of all tokens
        before it.

    Raises
    ------
    ValueError
        As `nll_blocks`; for "recompute", which reads its text more than once.

    Examples
    --------
    >>> from minisink import load
    >>> model = load("novels")
    >>> ids = model.encode("It was a dark night, and the wind blew.")
    >>> nll = np.concatenate(list(nll_stream(model, iter([ids[:5], ids[5:]]), window=60)))
    >>> bool(abs(nll - token_nll(model, ids, window=60)).max() < 1e-4)
    True
    """
    check_whole("chunk", chunk, 1)
    retrieval: dict = {"n_blocks": n_blocks, "block": block, "select": select, "store": store}
    if cache is not None:
        check_cache(model, cache, method, n_sinks, window, positions, **retrieval)
        return _streamed(model, iter(pieces), cache, chunk)
    if method == "recompute":
        raise ValueError("method 'recompute' reads its text more than once, so it cannot come in pieces")
    policy = policy_of(model, method, n_sinks, window, positions, **retrieval)
    return _streamed(model, iter(pieces), empty_cache(model, policy, readable=readable), chunk)


def empty_cache(model: Model, policy: Policy, *, readable: bool = False) -> KVCache | Banded:
    """What a method keeps: a `KVCache`, or where that would be slow what takes whole blocks of tokens.

    Parameters
    ----------
    model : Model
    policy : Policy
        From `methods.policy_of`.
    readable : bool

    Returns
    -------
    KVCache or fast.blocks.Banded
    """
    if readable or policy.window is None or (isinstance(policy, Retrieval) and policy.is_control):
        return cache_for(model, policy)
    if isinstance(policy, Retrieval):
        return Fetching(model.config.n_layers, policy)
    return Banded(model.config.n_layers, policy)


def _streamed(model, pieces, cache, chunk):
    """Blocks of `chunk` tokens, however the pieces come; a token waits until the next one is known.

    One block more ends where the learned positions of a GPT-2 end, so that it gets that far.
    """
    waiting = np.empty(0, np.int64)
    failure: Exception | None = None
    limit = model.config.max_positions - cache.n_seen  # tokens until then
    while failure is None:
        try:
            piece = next(pieces)
        except StopIteration as end:  # its traceback holds this frame, and with it the cache, for the garbage collector
            failure = end.with_traceback(None)
        except Exception as error:  # goes on to the caller
            failure = error
        else:
            waiting = np.concatenate((waiting, model.check_ids(piece))) if len(piece) else waiting
        while len(waiting) > chunk or (failure is not None and len(waiting) > 1):
            n = min(chunk, len(waiting) - 1, limit if limit > 0 else chunk)
            warn_beyond(model, getattr(cache, "policy", None), cache.n_seen, cache.n_seen + n)
            yield nll_of(model.forward(waiting[:n], cache=cache), waiting[1 : n + 1])
            waiting, limit = waiting[n:], limit - n
    if not isinstance(failure, StopIteration):
        raise failure


def _side_by_side(model, ids, window, lead, chunk):
    """Every token from the `window` tokens before it, built from scratch, many windows in a pass."""
    n_first = min(window, len(ids) - 1)
    if n_first:  # until the text outgrows the window, the windows are its beginnings: one dense pass
        yield nll_of(model.forward(ids[:n_first]), ids[1 : n_first + 1])
    last = slice(window - 1, None, window)  # the row of each window's last token
    at_once = max(1, 4 * chunk // window)  # windows side by side: about 1,000 tokens a pass
    for start in range(window + 1, len(ids), at_once):
        targets = np.arange(start, min(start + at_once, len(ids)))  # (B,)
        recent = ids[targets[:, None] + np.arange(len(lead) - window, 0)]  # (B, window - len(lead))
        windows = np.concatenate((np.tile(lead, (len(targets), 1)), recent), axis=1)  # (B, window)
        logits = model.forward(windows.reshape(-1), cache=Windows(window), rows=last)  # (B, V)
        yield nll_of(logits, ids[targets])


def _rebuilt(model, ids, window, lead, chunk):
    """The same as a reader of the paper would do it: one window, one pass, one token."""
    for t in range(1, len(ids)):
        recent = ids[max(0, t - window) : t]
        if t > window:  # the text has outgrown the window
            recent = np.concatenate((lead, recent[len(lead) :]))
        yield nll_of(model.forward(recent, rows=slice(-1, None)), ids[t : t + 1])


def nll_of(logits, targets):
    """``-log softmax(logits)[target]``.

    Parameters
    ----------
    logits : ndarray of shape (T, V)
    targets : ndarray of shape (T,), ints

    Returns
    -------
    numpy.ndarray of shape (T,)
        Nats.

    Examples
    --------
    >>> nll_of(np.array([[0.0, 0.0]]), np.array([1])).round(4).tolist()
    [0.6931]
    """
    picked = np.arange(len(targets), like=logits), np.asarray(targets, like=logits)
    return to_host(-log_softmax(logits)[picked])


def perplexity(nll: np.ndarray) -> float:
    """``exp(mean nll)``.

    Parameters
    ----------
    nll : ndarray of shape (T,)
        Nats.

    Returns
    -------
    float
        NaN for no tokens.

    Examples
    --------
    >>> round(perplexity(np.log([2.0, 8.0])), 4)
    4.0
    """
    return float(np.exp(np.mean(nll, dtype=np.float64))) if len(nll) else float("nan")
