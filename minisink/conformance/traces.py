"""A trace: what a cache is given, token by token, and everything it must then hold and answer.

Letters: T tokens, L layers, H query heads, K key/value heads, D width of a head, S slots. A cache that is not full yet
leaves its last slots empty: there `token_index` and `positions` are -1, keys 0 and scores -inf.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from ..cache import KVCache, Policy, check_whole
from ..paths import cached_attention
from ..positions import rope_frequencies, rotate, unrotated


@dataclass(frozen=True, eq=False)
class Trace:
    """Queries, keys and values of T tokens in L layers, and what StreamingLLM makes of them."""

    name: str  # "llama", "gqa" or "gpt2" for a recorded one, "drawn" otherwise
    n_sinks: int
    window: int  # the current token counts: a query sees at most n_sinks + window keys
    theta: float | None  # base of the rotary angles; None where nothing is rotated (GPT-2)
    q: np.ndarray  # (T, L, H, D), un-rotated, like the keys
    k: np.ndarray  # (T, L, K, D)
    v: np.ndarray  # (T, L, K, D)
    token_index: np.ndarray  # (T, S), ints: held when token t attends, itself included, in slot order
    positions: np.ndarray  # (T, S), ints: of each slot then; without rotation, where its token was embedded
    keys: np.ndarray  # (T, L, S, K, D), as attention meets them: rotated to their positions
    scores: np.ndarray  # (T, L, H, S), before the softmax
    out: np.ndarray  # (T, L, H, D)
    ids: np.ndarray | None = None  # (T,), the text, if a model read one
    losses: np.ndarray | None = None  # (T - 1,), nats per token, from the second token on

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
        """Return the tokens held when token t attends, in slot order."""
        return self.token_index[t, : min(t + 1, self.capacity)].tolist()

    def places(self, t: int) -> list[int]:
        """Return their positions."""
        return self.positions[t, : min(t + 1, self.capacity)].tolist()


def trace_of(q, k, v, *, n_sinks, window, theta, name="drawn", ids=None, losses=None):  # (T, L, H, D), 2 x (T, L, K, D)
    """Run the readable path, one token after the other, and return what the cache holds and answers as a `Trace`."""
    (T, L, H, D), K = q.shape, k.shape[2]
    cache = KVCache(L, K, D, Policy(n_sinks, window), like=q)
    S = cache.policy.n_sinks + window
    by_slot = unrotated if theta is None else partial(rotate, frequencies=rope_frequencies(D, theta))
    token_index, positions = np.full((T, S), -1), np.full((T, S), -1)
    keys, scores, out = np.zeros((T, L, S, K, D)), np.full((T, L, H, S), -np.inf), np.zeros((T, L, H, D))
    for t in range(T):
        for i, layer in enumerate(cache.layers):
            token, inside, n = slice(t, t + 1), {}, min(t + 1, S)
            out[t, i] = cached_attention(q[token, i], k[token, i], v[token, i], layer, by_slot, trace=inside)[0]
            keys[t, i, :n], scores[t, i, :, :n] = by_slot(layer.keys, layer.positions), inside["scores"][:, 0]
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
    """Draw a trace of normal random numbers, in any size; raise ValueError for a number out of range.

    The current token counts in `window`; H is a multiple of K, and D even where keys rotate; with a `theta` of None
    nothing does.

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
