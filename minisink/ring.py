"""Decoding at memory speed: one token at a time over a ring buffer, equal to the readable path of `cache`.

A `cache.KVCache` does what the paper says, step by step: it moves its slots together after every eviction and
rotates every key to its slot at every step. None of that is needed, because the score of a query at position m and
a key at position n depends on ``m - n`` only. With n_sinks = 2 and a window of 4, token 9 meets::

    token        0  1     6  7  8  9         what is left in the cache
    position     0  1     2  3  4  5         StreamingLLM: the slot; the query stands at 5
    distance     5  4     3  2  1  0         all that the scores know
    9 - token    9  8     3  2  1  0         right for the window as it is, wrong for the sinks only

So every key is rotated once, by its token_index, and never touched again. The query is rotated twice:

- by its own token_index (9) for the window, where the distance in the text is the distance in the cache;
- by its slot, ``min(t, capacity - 1)`` (5), for the sinks, whose slot *is* their token_index.

A key that never changes need not move either: the window is a ring, where token t takes the slot of token
``t - window``, which has just left. Softmax does not care in which order it meets the keys.

With ``positions="original"`` the distance in the text is meant everywhere, and one rotation does. GPT-2 rotates
nothing; its position is added before the first layer.

Here are the buffers and the attention of one token over them; `decoder` puts a whole model around it.
"""

import json

import numpy as np
from safetensors import SafetensorError, safe_open

from .cache import Policy, check_positions
from .files import save_arrays

FIRST_BUFFER = 64  # slots that a cache without a limit starts with


class RingCache:
    """Keys and values of every layer in buffers that are allocated once.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim : int
        L, K and D.
    policy : cache.Policy
        Without a window the buffers double whenever they are full.
    positions : {"slot", "original"}
        As in `cache.KVCache`.
    dtype : numpy dtype

    Attributes
    ----------
    keys : ndarray of shape (L, K, S, D)
        Rotated to their token_index, pairs of channels side by side; S is the capacity.
    values : ndarray of shape (L, K, S, D)
    n_seen : int
        Tokens taken in since the start, evicted ones included.
    """

    def __init__(self, n_layers, n_kv_heads, head_dim, policy, *, positions="slot", dtype=np.float32):
        check_positions(positions)
        self.policy = policy
        self.positions = positions
        S = policy.capacity or FIRST_BUFFER
        self.keys = np.zeros((n_layers, n_kv_heads, S, head_dim), dtype)
        self.values = np.zeros_like(self.keys)
        self.n_seen = 0

    def __len__(self):
        """Slots filled."""
        return self.n_seen if self.policy.capacity is None else min(self.n_seen, self.policy.capacity)

    @property
    def nbytes(self):
        """Bytes of the buffers, full or not."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def token_index(self):
        """ndarray of shape (len(self),): place in the text of the token in each slot."""
        tokens = np.arange(max(0, self.n_seen - (self.policy.window or self.n_seen)), self.n_seen)
        held = np.arange(len(self))  # the sinks, and everything before the first eviction
        held[[self.slot(t) for t in tokens]] = tokens
        return held

    def slot(self, t):
        """The slot of token t: its own for a sink, round and round for the others.

        Parameters
        ----------
        t : int

        Returns
        -------
        int
        """
        n_sinks, window = self.policy.n_sinks, self.policy.window
        return t if window is None or t < n_sinks else n_sinks + (t - n_sinks) % window

    def position(self, t):
        """The position at which token t enters: ``min(t, capacity - 1)``, or t itself for "original"."""
        capacity = self.policy.capacity
        return t if self.positions == "original" or capacity is None else min(t, capacity - 1)

    def make_room(self, n_tokens):
        """Double the buffers of a cache without a limit until they hold `n_tokens`."""
        while self.policy.capacity is None and n_tokens > self.keys.shape[2]:
            self.keys = np.concatenate((self.keys, np.zeros_like(self.keys)), axis=2)
            self.values = np.concatenate((self.values, np.zeros_like(self.values)), axis=2)

    def save(self, path):
        """Write the cache to a safetensors file, whole or not at all; `RingCache.load` gives the same bits.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        ValueError
            When the file cannot be written.
        """
        policy = self.policy
        about = {"n_seen": self.n_seen, "n_sinks": policy.n_sinks, "window": policy.window, "positions": self.positions}
        save_arrays({"keys": self.keys, "values": self.values}, path, {"minisink_ring": json.dumps(about)})

    @classmethod
    def load(cls, path):
        """Read a cache that `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        RingCache

        Raises
        ------
        ValueError
            When the file is not a saved ring.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["minisink_ring"])
                keys, values = file.get_tensor("keys"), file.get_tensor("values")
            n_layers, n_kv_heads, S, head_dim = keys.shape
            policy, n_seen = Policy(about["n_sinks"], about["window"]), about["n_seen"]
            cache = cls(n_layers, n_kv_heads, head_dim, policy, positions=about["positions"], dtype=keys.dtype)
            if (
                values.shape != keys.shape
                or S != (policy.capacity or max(S, n_seen))
                or not (isinstance(n_seen, int) and n_seen >= 0)
            ):
                raise ValueError(f"keys of shape {keys.shape} and values of {values.shape} after {n_seen!r} tokens")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a saved minisink ring ({error})") from error
        cache.keys, cache.values, cache.n_seen = keys, values, n_seen
        return cache


def attend_newest(qkv, keys, values, slot, n_apart, phases, normalise):
    """Attention of the newest token over the live slots, its own among them.

    Parameters
    ----------
    qkv : ndarray of shape ((H + 2 K) D,)
        Its queries, divided by sqrt(D), keys and values; un-rotated.
    keys : ndarray of shape (K, S, D)
        Of the live slots; the new key is written to `slot`.
    values : ndarray of shape (K, S, D)
    slot : int
    n_apart : int
        Keys of the first slots that are met by the query as `phases` turns it second.
    phases : ndarray of shape (P, 1, D/2), complex, or None
        ``exp(i angle)`` of each pair of channels, at the token's own index first; None where nothing rotates.
    normalise : callable
        Scores (H, 1, S) to pattern.

    Returns
    -------
    ndarray of shape (H D,)
    """
    K, S, D = keys.shape
    heads = qkv.reshape(-1, D)  # (H + 2 K, D)
    H = len(heads) - 2 * K
    qk = heads[None, : H + K]  # (1, H + K, D)
    if phases is not None:
        qk = (qk.view(phases.dtype) * phases).view(qkv.dtype)  # (1, H + K, D/2) * (P, 1, D/2) -> (P, H + K, D)
    q = qk[:, :H].reshape(-1, K, H // K, D)
    keys[:, slot] = qk[0, H:]
    values[:, slot] = heads[H + K :]
    scores = q[0] @ keys.swapaxes(1, 2)  # (K, H/K, D) @ (K, D, S) -> (K, H/K, S)
    if n_apart:
        scores[:, :, :n_apart] = q[1] @ keys[:, :n_apart].swapaxes(1, 2)
    pattern = normalise(scores.reshape(H, 1, S)).reshape(K, H // K, S)
    return (pattern @ values).reshape(-1)  # (K, H/K, S) @ (K, S, D) -> (K, H/K, D) -> (H D,)


def softmax_unmasked(scores):
    """`ops.softmax` in place, without its care for rows where every key is masked: every slot here is live.

    Parameters
    ----------
    scores : ndarray of shape (..., S)
        Overwritten.

    Returns
    -------
    ndarray of shape (..., S)
        `scores`.

    Examples
    --------
    >>> softmax_unmasked(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=-1, keepdims=True)
    return scores
