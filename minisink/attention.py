"""Attention: queries against keys, in four steps that can each be looked at.

::

    scores  = q · k / sqrt(D)            how well each query fits each key
    masked  = scores, -inf where a query may not look
    pattern = softmax(masked)            rows sum to one: the weight must go somewhere
    mixed   = pattern @ values           what each query takes home

The second half of the file says *which* keys a query meets: all of the text (`Dense`), or what a cache has
kept (`Cached`). A model is handed one of these two and knows nothing else about caches.
"""

import math
from functools import partial

import numpy as np

from .ops import relu, softmax, softmax1, softmax_with_sink

BLOCK = 512  # queries taken at once: bounds the (H, T, S) scores of a long text


def causal_mask(n_queries, n_keys, like=None):
    """True where a query may look: at its own key and everything before it.

    The queries are the last `n_queries` of the `n_keys` tokens, so query t stands at slot ``S - T + t``.

    Parameters
    ----------
    n_queries, n_keys : int
        T and S, with T <= S.
    like : ndarray, optional
        Array whose device the mask goes to.

    Returns
    -------
    ndarray of bool, shape (T, S)

    Examples
    --------
    >>> causal_mask(2, 4).astype(int).tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    return banded_mask(n_queries, n_keys, n_keys, like)


def banded_mask(n_queries, n_keys, window, like=None):
    """True where a query may look: at its own key and the ``window - 1`` before it.

    Parameters
    ----------
    n_queries, n_keys : int
        T and S, with T <= S; the queries are the last T of the S tokens.
    window : int
        Keys a query sees at most, its own included.
    like : ndarray, optional
        Array whose device the mask goes to.

    Returns
    -------
    ndarray of bool, shape (T, S)

    Examples
    --------
    >>> banded_mask(2, 4, 2).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 1, 1]]
    """
    like = np.empty(0) if like is None else like
    own = np.arange(n_keys - n_queries, n_keys, like=like)[:, None]  # (T, 1): each query's own slot
    slot = np.arange(n_keys, like=like)  # (S,)
    return (slot <= own) & (slot > own - window)


def additive(visible, dtype):
    """The mask as a number to add to a score: 0 where a query may look, -inf where not.

    Parameters
    ----------
    visible : ndarray of bool, shape (T, S)
    dtype : numpy dtype

    Returns
    -------
    ndarray of shape (T, S)

    Examples
    --------
    >>> additive(np.array([[True, False]]), np.float32).tolist()
    [[0.0, -inf]]
    """
    return np.where(visible, 0.0, -np.inf).astype(dtype)


def attend(q, keys, values, visible=None, *, normalise=softmax, trace=None):
    """Mix the values of the visible keys, by how well each key fits the query.

    ``softmax(q k^T / sqrt(D) + mask) v`` (Vaswani et al., arXiv:1706.03762, section 3.2.1). With fewer
    key/value heads than query heads, H / K neighbouring query heads share one (grouped-query attention,
    arXiv:2305.13245): they are folded into the rows of one product, and no key is copied.

    Parameters
    ----------
    q : ndarray of shape (T, H, D)
        Queries, rotated.
    keys : ndarray of shape (S, K, D)
        Keys, rotated; K divides H.
    values : ndarray of shape (S, K, D)
    visible : ndarray of bool, shape (T, S), optional
        True where a query may look; None lets it look everywhere.
    normalise : callable
        Scores to pattern along the last axis: `ops.softmax`, `ops.softmax1`, or
        `ops.softmax_with_sink` with its logit bound.
    trace : dict, optional
        Receives ``"scores"`` (masked) and ``"pattern"``, each of shape (H, T, S).

    Returns
    -------
    ndarray of shape (T, H, D)

    Raises
    ------
    ValueError
        When there is no key to look at.

    Examples
    --------
    Two equal keys share the weight, so the values are averaged:

    >>> attend(np.zeros((1, 1, 2)), np.zeros((2, 1, 2)), np.array([[[2.0, 0.0]], [[4.0, 0.0]]])).tolist()
    [[[3.0, 0.0]]]
    """
    if len(keys) == 0:
        raise ValueError("attention over no keys: the cache is empty")
    scores = score(q, keys)  # (H, T, S)
    if visible is not None:
        scores += additive(visible, scores.dtype)
    pattern = normalise(scores)  # (H, T, S)
    if trace is not None:
        trace["scores"], trace["pattern"] = scores, pattern
    return mix(pattern, values)


def score(q, keys):
    """How well each query fits each key: ``q · k / sqrt(D)``.

    Parameters
    ----------
    q : ndarray of shape (T, H, D)
    keys : ndarray of shape (S, K, D)

    Returns
    -------
    ndarray of shape (H, T, S)
    """
    (T, H, D), (S, K, _) = q.shape, keys.shape
    rows = q.reshape(T, K, H // K, D).transpose(1, 2, 0, 3) * (1.0 / math.sqrt(D))  # -> (K, H/K, T, D)
    products = rows.reshape(K, H // K * T, D) @ keys.transpose(1, 2, 0)  # @ (K, D, S) -> (K, H/K * T, S)
    return products.reshape(H, T, S)


def mix(pattern, values):
    """Average the values by the pattern's weights.

    Parameters
    ----------
    pattern : ndarray of shape (H, T, S)
    values : ndarray of shape (S, K, D)

    Returns
    -------
    ndarray of shape (T, H, D)
    """
    (H, T, S), (_, K, D) = pattern.shape, values.shape
    mixed = pattern.reshape(K, H // K * T, S) @ values.swapaxes(0, 1)  # @ (K, S, D) -> (K, H/K * T, D)
    return mixed.reshape(H, T, D).swapaxes(0, 1)  # -> (T, H, D)


def normaliser(kind, sink_logits=None):
    """The function that turns scores into a pattern, for `attend`.

    Parameters
    ----------
    kind : {"softmax", "softmax1", "relu"}
    sink_logits : ndarray of shape (H,), optional
        A learned sink logit for each head; goes with "softmax".

    Returns
    -------
    callable
        (H, T, S) -> (H, T, S)
    """
    if sink_logits is not None:
        return partial(softmax_with_sink, sink_logit=sink_logits[:, None, None])
    return {"softmax": softmax, "softmax1": softmax1, "relu": relu}[kind]


def causal_attention(q, k, v, turn, *, block=BLOCK, normalise=softmax, trace=None):
    """Dense attention within one text: every token sees itself and all before it.

    Parameters
    ----------
    q : ndarray of shape (T, H, D)
        Un-rotated.
    k, v : ndarray of shape (T, K, D)
        Un-rotated.
    turn : callable
        ``turn(x, positions)`` gives vectors their positions: `positions.rotate` or `positions.unrotated`.
    block : int
        Queries taken at once; the result does not depend on it.
    normalise : callable
        See `attend`.
    trace : dict, optional
        See `attend`.

    Returns
    -------
    ndarray of shape (T, H, D)
    """
    T = len(q)
    q, k = turn(q, np.arange(T)), turn(k, np.arange(T))
    block = block if trace is None else T  # whoever looks inside gets one (H, T, T) pattern
    mixed = np.empty_like(q)
    for start in range(0, T, block):
        stop = min(start + block, T)  # queries start..stop need only the keys up to stop
        visible = causal_mask(stop - start, stop, like=q)
        mixed[start:stop] = attend(q[start:stop], k[:stop], v[:stop], visible, normalise=normalise, trace=trace)
    return mixed


def cached_attention(q, k, v, layer, turn, *, normalise=softmax, trace=None):
    """Attention of new tokens over what a cache has kept, themselves included.

    The readable path, literally as the paper says it: append, evict, number what is left, rotate the
    cached keys to those numbers, attend.

    Parameters
    ----------
    q : ndarray of shape (T, H, D)
        Of the new tokens, un-rotated.
    k, v : ndarray of shape (T, K, D)
        Of the new tokens, un-rotated.
    layer : LayerCache
        Changed: it holds the new tokens afterwards.
    turn : callable
        See `causal_attention`.
    normalise : callable
        See `attend`.
    trace : dict, optional
        Receives ``"scores"`` and ``"pattern"`` of shape (H, T, S), S the most slots any of the queries
        saw; a query that saw fewer has ``-inf`` and 0 in the rest.

    Returns
    -------
    ndarray of shape (T, H, D)
    """
    mixed = np.empty_like(q)
    seen = []  # a trace of each run of tokens
    for new in layer.blocks(len(q)):
        n_new = new.stop - new.start
        layer.append(k[new], v[new])
        positions = layer.positions  # (S,)
        keys = turn(layer.keys, positions)
        queries = turn(q[new], positions[-n_new:])  # the new tokens hold the last slots
        visible = causal_mask(n_new, len(keys), like=q)
        seen.append(None if trace is None else {})
        mixed[new] = attend(queries, keys, layer.values, visible, normalise=normalise, trace=seen[-1])
    if trace is not None:
        for name, fill in (("scores", -np.inf), ("pattern", 0.0)):
            trace[name] = _side_by_side([block[name] for block in seen], fill)
    return mixed


class Dense:
    """The whole text, no cache: token t stands at position t and sees tokens 0 to t."""

    def positions(self, n_tokens):
        """ndarray of shape (T,): the position of each token."""
        return np.arange(n_tokens)

    def mix(self, layer, q, k, v, turn, **options):
        """`causal_attention`; the number of the layer does not matter."""
        return causal_attention(q, k, v, turn, **options)


class Cached:
    """New tokens over what a `KVCache` has kept; the cache takes them in.

    Parameters
    ----------
    cache : KVCache
    """

    def __init__(self, cache):
        self.cache = cache

    def positions(self, n_tokens):
        """ndarray of shape (T,): the position of each new token when it is the newest."""
        return self.cache.next_positions(n_tokens)

    def mix(self, layer, q, k, v, turn, **options):
        """`cached_attention` over the cache of one layer."""
        return cached_attention(q, k, v, self.cache.layers[layer], turn, **options)


def _side_by_side(blocks, fill):
    """Join [(H, T_i, S_i), ...] along T, padding S to the widest with `fill`."""
    widest = max(block.shape[-1] for block in blocks)
    padded = [np.pad(b, ((0, 0), (0, 0), (0, widest - b.shape[-1])), constant_values=fill) for b in blocks]
    return np.concatenate(padded, axis=1)
