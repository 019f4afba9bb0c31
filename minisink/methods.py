"""The four methods by name, and the cache each of them stands for."""

import warnings

import numpy as np

from .cache import KVCache, keep_all, keep_sinks, keep_window

METHODS = ("dense", "window", "recompute", "streaming")


def policy_of(model, method, n_sinks, window, positions="slot"):
    """Which tokens a method keeps.

    Parameters
    ----------
    model : Model
    method : {"dense", "window", "recompute", "streaming"}
    n_sinks : int
        First tokens kept; only "streaming" has any.
    window : int
        Last tokens kept, the current one included; "dense" keeps all. For "recompute", the tokens each
        window is rebuilt from.
    positions : {"slot", "original"}

    Returns
    -------
    Policy

    Raises
    ------
    ValueError
        For an unknown method or `positions`, ``n_sinks < 0`` or ``window < 1``.

    Warns
    -----
    UserWarning
        When a query may see more keys than in any text the model was trained on.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    policy = keep_sinks(n_sinks, window, positions)  # checks all three, whatever the method uses
    if method == "dense":
        policy = keep_all(positions)
    elif method != "streaming":
        policy = keep_window(window, positions)
    trained = model.config.max_positions
    if policy.capacity is not None and policy.capacity > trained:
        warnings.warn(
            f"a cache of {policy.capacity} tokens is longer than the {trained} positions {model.name} was trained on",
            stacklevel=3,
        )
    return policy


def lead_of(model, ids, window):
    """What a rebuilt window of a text begins with: the begin-of-text token if the text does, and there is room.

    Parameters
    ----------
    model : Model
    ids : ndarray of shape (T,), ints
    window : int

    Returns
    -------
    ndarray of shape (1,) or (0,), ints
        For `lead` of `perplexity.token_nll` and `generate.generate`.
    """
    begun = len(ids) > 0 and ids[0] == model.config.bos and window > 1
    return ids[: int(begun)]


def check_lead(model, lead, window):
    """The tokens that go in front of a rebuilt window, as an array shorter than the window."""
    lead = model.check_ids(lead) if len(lead) else np.empty(0, np.int64)
    if len(lead) >= window:
        raise ValueError(f"lead has {len(lead)} tokens; a window of {window} has no room for any other")
    return lead


def new_cache(model, *, method="streaming", n_sinks=4, window=252, positions="slot"):
    """An empty cache for `model`, to be passed to `Model.forward`.

    Parameters
    ----------
    model : Model
    method : {"dense", "window", "streaming"}
    n_sinks : int
        First tokens kept for good by "streaming".
    window : int
        Last tokens kept, the current one included.
    positions : {"slot", "original"}
        "slot" encodes a token at its place in the cache, "original" at its place in the text.

    Returns
    -------
    KVCache

    Raises
    ------
    ValueError
        For an unknown method, one that keeps no cache ("recompute"), or values out of range.
    """
    if method == "recompute":
        raise ValueError("method 'recompute' keeps no cache: it rebuilds every window from its tokens")
    config, policy = model.config, policy_of(model, method, n_sinks, window, positions)
    like = model.weights.embed
    return KVCache(config.n_layers, config.n_kv_heads, config.head_dim, policy, like=like)


def cache_bytes_per_token(model):
    """Bytes that the keys and values of one token take: ``2 L K D`` numbers.

    Parameters
    ----------
    model : Model

    Returns
    -------
    int
    """
    config = model.config
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * model.dtype.itemsize
