"""The methods by name, and the cache each of them stands for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from .cache import KVCache, Policy, keep_all, keep_sinks, keep_window
from .model import Model
from .retrieval import Retrieval, RetrievalCache

PAPER = ("dense", "window", "recompute", "streaming")  # the four that the paper compares
METHODS = (*PAPER, "retrieval")
WITH_SINKS = ("streaming", "retrieval")
N_SINKS, CAPACITY = 4, 256  # what every method has in sight unless something else is asked for
N_BLOCKS, BLOCK = 8, 16  # what "retrieval" brings back besides: 128 tokens


def window_of(method: str, n_sinks: int, window: int | None) -> int:
    """The window, or by default what gives every method 256 slots: beside its sinks, "streaming" has the rest.

    >>> window_of("streaming", 4, None), window_of("window", 4, None), window_of("window", 4, 60)
    (252, 256, 60)
    """
    if window is not None:
        return window
    return CAPACITY - n_sinks if method in WITH_SINKS else CAPACITY


def policy_of(
    model: Model,
    method: str,
    n_sinks: int,
    window: int | None,
    positions: str = "slot",
    *,
    n_blocks: int = N_BLOCKS,
    block: int = BLOCK,
    select: str = "best",
    store: int | None = None,
    stacklevel: int = 3,
) -> Policy:
    """Which tokens a method keeps, and where it says they stand.

    Parameters
    ----------
    model : Model
    method : {"dense", "window", "recompute", "streaming", "retrieval"}
    n_sinks : int
        First tokens kept; only "streaming" and "retrieval" have any.
    window : int, optional
        Last tokens kept, the current one included; "dense" keeps all. For "recompute", the tokens each
        window is rebuilt from. See `window_of` for the default.
    positions : {"slot", "original"}
    n_blocks, block, select, store
        What "retrieval" brings back: see `retrieval.Retrieval`.
    stacklevel : int
        Of the warning: by default it points at who called the caller.

    Returns
    -------
    Policy

    Raises
    ------
    ValueError
        For an unknown method, `positions` or `select`, ``n_sinks < 0``, ``window < 1``, ``n_blocks < 0``,
        ``block < 1`` or ``store < 1``.

    Warns
    -----
    UserWarning
        When a query may see more keys than in any text the model was trained on; when a block is longer than the
        window.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    window = window_of(method, n_sinks, window)
    retrieval = Retrieval(n_sinks, window, positions, n_blocks, block, select, store)  # checks all, whatever is used
    policy: Policy = retrieval
    if method == "dense":
        policy = keep_all(positions)
    elif method == "streaming":
        policy = keep_sinks(n_sinks, window, positions)
    elif method != "retrieval":
        policy = keep_window(window, positions)
    elif n_blocks and block > window:
        warnings.warn(
            f"a block of {block} tokens is longer than the window of {window}: each that comes back outweighs it",
            stacklevel=stacklevel,
        )
    trained = model.config.max_positions
    if policy.capacity is not None and policy.capacity > trained:
        warnings.warn(
            f"a cache of {policy.capacity} tokens is longer than the {trained} positions {model.name} was trained on",
            stacklevel=stacklevel,
        )
    return policy


def new_cache(
    model: Model,
    *,
    method: str = "streaming",
    n_sinks: int = N_SINKS,
    window: int | None = None,
    positions: str = "slot",
    n_blocks: int = N_BLOCKS,
    block: int = BLOCK,
    select: str = "best",
    store: int | None = None,
) -> KVCache:
    """An empty cache for `model`, to be passed to `Model.forward`.

    Parameters
    ----------
    model : Model
    method : {"dense", "window", "streaming", "retrieval"}
    n_sinks : int
        First tokens kept for good by "streaming" and "retrieval".
    window : int, optional
        Last tokens kept, the current one included; by default a capacity of 256, so 252 beside four sinks.
    positions : {"slot", "original"}
        "slot" encodes a token at its place in the cache, "original" at its place in the text.
    n_blocks, block, select, store
        What "retrieval" brings back: see `retrieval.Retrieval`.

    Returns
    -------
    KVCache
        For "retrieval" a `retrieval.RetrievalCache`.

    Raises
    ------
    ValueError
        For an unknown method, one that keeps no cache ("recompute"), or values out of range.
    """
    if method == "recompute":
        raise ValueError("method 'recompute' keeps no cache: it rebuilds every window from its tokens")
    options: dict = {"n_blocks": n_blocks, "block": block, "select": select, "store": store}
    return cache_for(model, policy_of(model, method, n_sinks, window, positions, **options))


def cache_for(model: Model, policy: Policy) -> KVCache:
    """An empty cache of a model's size, with any policy, one of your own included."""
    config = model.config
    if isinstance(policy, Retrieval):
        return RetrievalCache(config.n_layers, config.n_kv_heads, config.head_dim, policy, like=model.weights.embed)
    return KVCache(config.n_layers, config.n_kv_heads, config.head_dim, policy, like=model.weights.embed)


def check_cache(model: Model, cache, method, n_sinks, window, positions, **retrieval) -> None:
    """A cache that is given must fit, and says by itself what it keeps: refuse another method or size beside it."""
    model.path_of(cache)
    if not hasattr(cache, "n_seen"):
        raise ValueError(f"cache is {cache!r}; here it needs `n_seen` too, the number of tokens it has taken in")
    given = {"method": method, "n_sinks": n_sinks, "window": window, "positions": positions} | retrieval
    usual: dict = {"method": "streaming", "n_sinks": N_SINKS, "window": None, "positions": "slot"}
    usual |= {"n_blocks": N_BLOCKS, "block": BLOCK, "select": "best", "store": None}
    beside = [f"{name}={value!r}" for name, value in given.items() if value != usual[name]]
    if beside and getattr(cache, "policy", None) != policy_of(model, method, n_sinks, window, positions, **retrieval):
        raise ValueError(f"{', '.join(beside)} cannot be given beside cache=, which says by itself what it keeps")


def warn_beyond(model: Model, policy, before: int, after: float) -> None:
    """Say it once, when a text whose evicted tokens keep their places goes beyond the trained length."""
    trained = model.config.max_positions
    if isinstance(policy, Retrieval) and policy.positions == "original" and before <= trained < after:
        warnings.warn(
            f"positions='original': from token {trained} on, what is fetched may stand farther than {model.name} was "
            "trained on; positions='slot' keeps it within",
            stacklevel=4,
        )


def lead_of(model: Model, ids: np.ndarray, window: int) -> np.ndarray:
    """What a rebuilt window of a text begins with: the begin-of-text token if the text does, and there is room.

    Parameters
    ----------
    model : Model
    ids : ndarray of shape (T,), ints
    window : int

    Returns
    -------
    ndarray of shape (1,) or (0,), ints
        For `lead` of `loss.token_nll` and `generation.generate`.
    """
    begun = len(ids) > 0 and ids[0] == model.config.bos and window > 1
    return ids[: int(begun)]


def check_lead(model: Model, lead: Sequence[int] | np.ndarray, window: int) -> np.ndarray:
    """The tokens that go in front of a rebuilt window, as an array shorter than the window."""
    lead = model.check_ids(lead) if len(lead) else np.empty(0, np.int64)
    if len(lead) >= window:
        raise ValueError(f"lead has {len(lead)} tokens; a window of {window} has no room for any other")
    return lead


def cache_bytes_per_token(model: Model) -> int:
    """Bytes that the keys and values of one token take: ``2 L K D`` numbers."""
    config = model.config
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * model.dtype.itemsize
