"""The key/value cache: which tokens it keeps, and which position each of them is given.

This file is StreamingLLM (Xiao et al., arXiv:2309.17453, section 3.2). Two decisions make it:

1. *Which tokens stay.* The first ``n_sinks`` and the last ``window``; everything between is evicted. The
   current token counts, so a query never sees more than ``capacity = n_sinks + window`` keys.
2. *Which position they get.* Their place in the cache, not in the text: with tokens [0, 1, 2, 3, 6, 7, 8]
   cached, token 9 is decoded at positions [0, 1, 2, 3, 4, 5, 6, 7]. For that, keys are stored **un-rotated**
   and turned to their slot when they are used.

Words: a *token_index* is a place in the text, a *slot* a place in the cache, a *position* the number given to
the encoding. StreamingLLM is ``position := slot``.
"""

from dataclasses import dataclass

import numpy as np

BLOCK = 512  # tokens taken at once while nothing is evicted: bounds the (H, T, S) scores


@dataclass(frozen=True)
class Policy:
    """The two decisions: which tokens stay, and which position they get.

    The first `n_sinks` and the last `window` stay (None: all of them).

    Parameters
    ----------
    n_sinks : int
        First tokens that are never evicted, 0 or more.
    window : int or None
        Most recent tokens kept, the current one included, 1 or more; None keeps everything.
    positions : {"slot", "original"}
        "slot" encodes a token at its place in the cache (StreamingLLM), "original" at its place in the
        text (the ablation).

    Raises
    ------
    ValueError
        For ``n_sinks < 0``, ``window < 1`` or unknown `positions`.
    """

    n_sinks: int = 0
    window: int | None = None
    positions: str = "slot"

    def __post_init__(self):
        if self.n_sinks < 0:
            raise ValueError(f"n_sinks is {self.n_sinks}; it must be 0 or more")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}; it must be 1 or more, for the current token counts")
        if self.positions not in ("slot", "original"):
            raise ValueError(f"positions is {self.positions!r}; it must be 'slot' or 'original'")

    @property
    def capacity(self):
        """Keys a query sees at most, or None without a limit."""
        return None if self.window is None else self.n_sinks + self.window

    def survivors(self, n_slots):
        """Slots that stay when `n_slots` are filled, in order.

        Parameters
        ----------
        n_slots : int

        Returns
        -------
        ndarray of shape (min(n_slots, capacity),)

        Examples
        --------
        >>> keep_sinks(2, 3).survivors(7).tolist()
        [0, 1, 4, 5, 6]
        """
        if self.window is None or n_slots <= self.n_sinks + self.window:
            return np.arange(n_slots)
        return np.concatenate((np.arange(self.n_sinks), np.arange(n_slots - self.window, n_slots)))


    def position(self, token_index):
        """Where a token is encoded when it is the newest: ``min(t, capacity - 1)``, or t for "original"."""
        if self.positions == "original" or self.window is None:
            return token_index
        return np.minimum(token_index, self.capacity - 1)


def keep_all(positions="slot"):
    """Dense attention: nothing is ever evicted."""
    return Policy(positions=positions)


def keep_window(window, positions="slot"):
    """Window attention: only the last `window` tokens stay."""
    return Policy(0, window, positions)


def keep_sinks(n_sinks, window, positions="slot"):
    """StreamingLLM: the first `n_sinks` tokens and the last `window` stay."""
    return Policy(n_sinks, window, positions)


class LayerCache:
    """Keys and values of one layer, in slot order.

    Attributes
    ----------
    keys : ndarray of shape (S, K, D)
        Un-rotated.
    values : ndarray of shape (S, K, D)
    token_index : ndarray of shape (S,), int64
        Place in the text of the token in each slot.
    n_seen : int
        Tokens appended since the start, evicted ones included.
    """

    def __init__(self, keys, values, policy):
        self.keys = keys
        self.values = values
        self.policy = policy
        self.token_index = np.arange(len(keys))
        self.n_seen = len(keys)

    def blocks(self, n_tokens):
        """Cut `n_tokens` new tokens into runs that may share one set of slots.

        While the cache fills up nothing leaves, so a run of tokens can be appended at once and masked
        causally. From then on each token evicts one and moves the slots, and goes alone.

        Parameters
        ----------
        n_tokens : int

        Yields
        ------
        slice
            Into the new tokens.
        """
        start = 0
        while start < n_tokens:
            room = n_tokens if self.policy.capacity is None else self.policy.capacity - len(self.keys)
            stop = min(n_tokens, start + max(1, min(room, BLOCK)))
            yield slice(start, stop)
            start = stop

    def append(self, keys, values):
        """Add a run from `blocks` and evict what the policy lets go.

        Parameters
        ----------
        keys, values : ndarray of shape (T, K, D)
            Of the T newest tokens; keys un-rotated.
        """
        n_new = len(keys)
        keys = np.concatenate((self.keys, keys))  # (S, K, D), (T, K, D) -> (S + T, K, D)
        values = np.concatenate((self.values, values))
        index = np.concatenate((self.token_index, np.arange(self.n_seen, self.n_seen + n_new)))
        stay = self.policy.survivors(len(keys))
        if len(stay) < len(keys):  # evict
            keys, values, index = keys[stay], values[stay], index[stay]
        self.keys, self.values, self.token_index = keys, values, index
        self.n_seen += n_new

    @property
    def positions(self):
        """ndarray of shape (S,): the position each slot is encoded at now."""
        return np.arange(len(self.keys)) if self.policy.positions == "slot" else self.token_index


class KVCache:
    """Keys and values of every layer; the only thing in the readable path that changes.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim : int
        L, K and D of the model.
    policy : Policy
        From `keep_all`, `keep_window` or `keep_sinks`.
    like : ndarray, optional
        Array whose dtype and device the cache takes; float32 on the host by default.

    Attributes
    ----------
    layers : list of LayerCache
        One a layer.

    Examples
    --------
    The example of the paper, with 4 sinks and a window of 4, before and after token 9:

    >>> cache = KVCache(1, 1, 2, keep_sinks(4, 4))
    >>> for token in np.zeros((9, 1, 1, 2), np.float32):
    ...     cache.layers[0].append(token, token)
    >>> cache.token_index.tolist()
    [0, 1, 2, 3, 5, 6, 7, 8]
    >>> cache.layers[0].append(token, token)
    >>> cache.token_index.tolist(), cache.layers[0].positions.tolist()
    ([0, 1, 2, 3, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7])
    """

    def __init__(self, n_layers, n_kv_heads, head_dim, policy, *, like=None):
        like = np.empty(0, np.float32) if like is None else like
        empty = np.zeros_like(like, shape=(0, n_kv_heads, head_dim))
        self.policy = policy
        self.layers = [LayerCache(empty, empty, policy) for _ in range(n_layers)]

    def __len__(self):
        """Slots filled."""
        return len(self.layers[-1].keys)

    @property
    def capacity(self):
        """Keys a query sees at most, or None without a limit."""
        return self.policy.capacity

    @property
    def token_index(self):
        """ndarray of shape (S,): place in the text of the token in each slot."""
        return self.layers[-1].token_index

    @property
    def n_seen(self):
        """Tokens taken in since the start, evicted ones included."""
        return self.layers[-1].n_seen

    @property
    def nbytes(self):
        """Bytes of all keys and values held."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def next_positions(self, n_tokens):
        """The positions that the next tokens are encoded at, each when it is the newest.

        Parameters
        ----------
        n_tokens : int
            T.

        Returns
        -------
        ndarray of shape (T,)
            Place in the text, which ``positions="slot"`` holds at the last slot: ``min(t, capacity - 1)``.

        Raises
        ------
        ValueError
            When an interrupted forward pass left the layers at different tokens.
        """
        if any(layer.n_seen != self.n_seen for layer in self.layers):
            raise ValueError("this cache was left half-way by an interrupted forward pass; start a new one")
        return self.policy.position(np.arange(self.n_seen, self.n_seen + n_tokens))
