"""How well a model predicts a text, token by token, under each of the methods.

The loss of a token is its negative log-likelihood in nats; ``perplexity = exp(mean)``. A token is predicted
from what the method's cache holds *at that moment*. In a single forward pass over the text nothing would be evicted,
and window, streaming and dense attention would agree to the last digit.

Every method runs in blocks at memory speed (`fast.blocks`), or with ``readable=True`` through `cache`, as in the paper.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .cache import KVCache, check_whole
from .fast.blocks import Banded, Windows
from .methods import DEFAULT, Method, Recompute, check_cache, check_method, make_cache, refuse_both, warn_beyond
from .model import Model
from .ops import log_softmax
from .paths import Path
from .system.device import to_host

CHUNK = 256  # tokens per forward pass; the results do not depend on it


def token_nll(
    model: Model,
    ids: Sequence[int] | np.ndarray,
    method: Method = DEFAULT,
    *,
    readable: bool = False,
    cache: KVCache | Path | None = None,
) -> np.ndarray:
    """Return the negative log-likelihood of every token but the first.

    Parameters
    ----------
    model : Model
    ids : sequence or ndarray of shape (T,), ints
    method : Dense, Window, Recompute, Streaming, Retrieval, ByLayer or your own Policy
        What a query sees; by default ``Streaming(n_sinks=4, window=252)``.
    readable : bool
        Evict, number and rotate in `cache.KVCache`, where you can set a breakpoint, and rebuild windows one at a time.
        The numbers are the same, but it is slower. Your own policy and `ByLayer` always run this way.
    cache : KVCache or path, optional
        Your own cache, instead of a method; the tokens are added to it.

    Returns
    -------
    ndarray of shape (T-1,)
        Nats, in the dtype of the model (float32).

    Raises
    ------
    ValueError
        For bad ids or a bad `method`, both a method and a cache, or a position that a GPT-2 has not learned.

    Examples
    --------
    >>> from minisink import Dense, load
    >>> model = load("novels")
    >>> nll = token_nll(model, model.encode("It was a dark night, and the wind blew."), Dense())
    >>> bool(np.exp(nll.mean()) < model.config.vocab_size)
    True
    """
    blocks = nll_blocks(model, ids, method, readable=readable, cache=cache)
    return np.concatenate([np.empty(0, model.dtype), *blocks])


def nll_blocks(
    model: Model,
    ids: Sequence[int] | np.ndarray,
    method: Method = DEFAULT,
    *,
    chunk: int = CHUNK,
    readable: bool = False,
    cache: KVCache | Path | None = None,
) -> Iterator[np.ndarray]:
    """Return an iterator over what `token_nll` returns, a block of up to `chunk` tokens at a time.

    The results do not depend on `chunk`. Errors are raised immediately; a GPT-2 runs up to its last position.
    """
    ids = model.check_ids(ids)
    check_whole("chunk", chunk, 1)
    if cache is None and isinstance(method, Recompute):
        check_method(model, method)
        return recomputed(model, ids, method, chunk, readable=readable)
    return losses(model, ids, cache_of(model, method, cache, readable=readable), chunk)


def losses(model, ids, cache, chunk):
    """Yield the losses of all `ids` (T,) except the first; the cache takes in all except the last, `chunk` at a time.

    Chunks are cut where they would be in the whole text, so a stream read in pieces gives the same bits. There is one
    more cut where the learned positions of a GPT-2 end, so that it gets that far.
    """
    start = 0
    while start < len(ids) - 1:
        n_learned = model.config.max_positions - cache.n_seen
        n = min(chunk - cache.n_seen % chunk, len(ids) - 1 - start, n_learned if n_learned > 0 else chunk)
        warn_beyond(model, getattr(cache, "policy", None), cache.n_seen, cache.n_seen + n)
        yield nll_of(model.forward(ids[start : start + n], cache=cache), ids[start + 1 : start + n + 1])
        start += n


def cache_of(model: Model, method: Method, cache: Any = None, *, readable: bool = False) -> Any:
    """Return the caller's cache, checked, or an empty one: a `KVCache`, or if possible its version for blocks."""
    refuse_both(method, cache)
    if cache is not None:
        check_cache(model, cache)
        return cache
    check_method(model, method)
    if readable or isinstance(method, Recompute) or not method.is_plain or method.window is None:
        return make_cache(model, method)
    return (method.block_cache or Banded)(model.config.n_layers, method)


def recomputed(model, ids, method, chunk, *, readable=False):
    """Return an iterator over the losses of all `ids` (T,) except the first, under a `Recompute`."""
    lead = model.check_ids(method.lead) if method.lead else ids[:0]
    return (_recompute_each if readable else _recompute_batched)(model, ids, method.window, lead, chunk)


def _recompute_batched(model, ids, window, lead, chunk):
    """Yield the loss of every token given the previous `window`, rebuilt from scratch, many windows per pass."""
    n_first = min(window, len(ids) - 1)
    if n_first:  # until the text outgrows the window, the windows are its beginnings: one dense pass
        yield nll_of(model.forward(ids[:n_first]), ids[1 : n_first + 1])
    last = slice(window - 1, None, window)  # the row of each window's last token
    at_once = max(1, 4 * chunk // window)  # windows side by side: about 1,000 tokens per pass
    for start in range(window + 1, len(ids), at_once):
        targets = np.arange(start, min(start + at_once, len(ids)))  # (B,)
        recent = ids[targets[:, None] + np.arange(len(lead) - window, 0)]  # (B, window - len(lead))
        windows = np.concatenate((np.tile(lead, (len(targets), 1)), recent), axis=1)  # (B, window)
        logits = model.forward(windows.reshape(-1), cache=Windows(window), rows=last)  # (B, V)
        yield nll_of(logits, ids[targets])


def _recompute_each(model, ids, window, lead, chunk):
    """Yield what `_recompute_batched` does, one window, one pass, one token at a time."""
    for t in range(1, len(ids)):
        recent = ids[max(0, t - window) : t]
        if t > window:  # the text has outgrown the window
            recent = np.concatenate((lead, recent[len(lead) :]))
        yield nll_of(model.forward(recent, rows=slice(-1, None)), ids[t : t + 1])


def nll_of(logits, targets):  # (T, V), (T,) -> (T,)
    """Return ``-log softmax(logits)[target]`` in nats, on the host.

    >>> nll_of(np.array([[0.0, 0.0]]), np.array([1])).round(4).tolist()
    [0.6931]
    """
    picked = np.arange(len(targets), like=logits), np.asarray(targets, like=logits)
    return to_host(-log_softmax(logits)[picked])


def perplexity(nll: np.ndarray) -> float:
    """Return ``exp(mean nll)``.

    Parameters
    ----------
    nll : ndarray of shape (T,)
        Nats.

    Returns
    -------
    float
        NaN if there are no tokens.

    Examples
    --------
    >>> round(perplexity(np.log([2.0, 8.0])), 4)
    4.0
    """
    return float(np.exp(np.mean(nll, dtype=np.float64))) if len(nll) else float("nan")
