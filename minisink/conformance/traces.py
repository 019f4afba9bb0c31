"""A trace: what a cache is given, token by token, and everything it must then hold and answer.

Letters: T tokens, L layers, H query heads, K key/value heads, D width of a head, S slots. A cache that is not full yet
leaves its last slots empty: there `token_index` and `positions` are -1, keys 0 and scores -inf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..attention import attend
from ..cache import KVCache, check_whole, keep_sinks
from ..positions import rope_frequencies, rotate


@dataclass(frozen=True, eq=False)
class Trace:
    """Queries, keys and values of T tokens in L layers, and what StreamingLLM makes of them.

    Attributes
    ----------
    name : str
        "llama", "gqa" or "gpt2" for a recorded one, "drawn" otherwise.
    n_sinks, window : int
        The current token counts: a query sees at most ``n_sinks + window`` keys.
    theta : float or None
        Base of the rotary angles; None where nothing is rotated (GPT-2).
    q : ndarray of shape (T, L, H, D)
        Un-rotated, like the keys.
    k, v : ndarray of shape (T, L, K, D)
    token_index : ndarray of shape (T, S), int64
        Tokens held when token t attends, itself included, in slot order.
    positions : ndarray of shape (T, S), int64
        Position of each slot then; without rotation, the position its token was embedded at when it came in.
    keys : ndarray of shape (T, L, S, K, D)
        As attention meets them: rotated to their positions.
    scores : ndarray of shape (T, L, H, S)
        ``q · k / sqrt(D)``, before the softmax.
    out : ndarray of shape (T, L, H, D)
        What each query takes home.
    ids : ndarray of shape (T,), ints, or None
        The text, if a model read one.
    losses : ndarray of shape (T - 1,) or None
        Nats a token that the model lost on it, from the second token on.
    """

    name: str
    n_sinks: int
    window: int
    theta: float | None
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    token_index: np.ndarray
    positions: np.ndarray
    keys: np.ndarray
    scores: np.ndarray
    out: np.ndarray
    ids: np.ndarray | None = None
    losses: np.ndarray | None = None

    def __repr__(self):
        T, L, H, D = self.q.shape
        return f"<{self}: {T} tokens, {L} layers, {H}/{self.k.shape[2]} heads of {D}>"

    def __str__(self):
        return f"{self.name}, n_sinks={self.n_sinks}, window={self.window}"

    @property
    def capacity(self) -> int:
        """Keys a query sees at most."""
        return self.n_sinks + self.window

    def held(self, t: int) -> list[int]:
        """Tokens held when token t attends, in slot order."""
        return self.token_index[t, : min(t + 1, self.capacity)].tolist()

    def places(self, t: int) -> list[int]:
        """Their positions."""
        return self.positions[t, : min(t + 1, self.capacity)].tolist()


def trace_of(q, k, v, *, n_sinks, window, theta, name="drawn", ids=None, losses=None):  # (T, L, H, D), 2 x (T, L, K, D)
    """What the readable cache holds and answers, one token after the other, as a `Trace`."""
    (T, L, H, D), K = q.shape, k.shape[2]
    cache = KVCache(L, K, D, keep_sinks(n_sinks, window), like=q)
    S = cache.policy.n_sinks + window
    frequencies = None if theta is None else rope_frequencies(D, theta)
    token_index, positions = np.full((T, S), -1), np.full((T, S), -1)
    keys, scores, out = np.zeros((T, L, S, K, D)), np.full((T, L, H, S), -np.inf), np.zeros((T, L, H, D))
    for t in range(T):
        for i, layer in enumerate(cache.layers):
            layer.append(k[t : t + 1, i], v[t : t + 1, i])  # and evict
            held, query, seen = layer.keys, q[t : t + 1, i], {}
            if frequencies is not None:
                held = rotate(held, layer.positions, frequencies)
                query = rotate(query, layer.positions[-1:], frequencies)
            out[t, i] = attend(query, held, layer.values, trace=seen)[0]
            keys[t, i, : len(held)], scores[t, i, :, : len(held)] = held, seen["scores"][:, 0]
        index = cache.token_index
        token_index[t, : len(index)] = index
        positions[t, : len(index)] = cache.positions if theta is not None else np.minimum(index, S - 1)
    return Trace(name, n_sinks, window, theta, q, k, v, token_index, positions, keys, scores, out, ids, losses)


def drawn(
    seed: int = 0,
    *,
    n_sinks: int = 1,
    window: int = 4,
    n_tokens: int = 24,
    n_layers: int = 1,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int = 6,
    theta: float | None = 10000.0,
) -> Trace:
    """A trace of normal random numbers in any size.

    Parameters
    ----------
    seed : int
    n_sinks, window : int
        0 or more, and 1 or more: the current token counts.
    n_tokens, n_layers, n_heads, n_kv_heads, head_dim : int
        T, L, H, K and D; H is a multiple of K, and D even where keys rotate.
    theta : float or None
        Base of the rotary angles; None rotates nothing.

    Returns
    -------
    Trace

    Raises
    ------
    ValueError
        For a number out of range.

    Examples
    --------
    >>> trace = drawn(n_sinks=2, window=3, n_tokens=7)
    >>> trace.held(6), trace.places(6)
    ([0, 1, 4, 5, 6], [0, 1, 2, 3, 4])
    """
    sizes = {"n_tokens": n_tokens, "n_layers": n_layers, "n_heads": n_heads}
    for name, value in (sizes | {"n_kv_heads": n_kv_heads, "head_dim": head_dim}).items():
        check_whole(name, value, 1)
    if n_heads % n_kv_heads:
        raise ValueError(f"n_heads is {n_heads}; it must be a multiple of n_kv_heads, {n_kv_heads}")
    if theta is not None and head_dim % 2:
        raise ValueError(f"head_dim is {head_dim}; channels rotate in pairs, so it must be even, or theta None")
    random = np.random.default_rng(seed)
    q = random.normal(size=(n_tokens, n_layers, n_heads, head_dim))
    k, v = random.normal(size=(2, n_tokens, n_layers, n_kv_heads, head_dim))
    return trace_of(q, k, v, n_sinks=n_sinks, window=window, theta=theta)
