"""The seam between a model and its cache: which keys a token sees.

A model turns its tokens into queries, keys and values and hands them to a *path*, which says what each query reads.
That is all a model knows about caches, so an architecture is written once for all of them:

===================  ===================================================================================
`Uncached`           the whole text, no cache
`Cached`             what a `cache.KVCache` has kept: the readable path, literally the paper
`fast.blocks`        ``Banded``, the same for whole blocks of tokens, and ``Windows``, rebuilt from scratch
`retrieval`          brings back what was evicted
===================  ===================================================================================

Any object with the two methods of `Path` is a path. To measure losses and write text (`loss`, `generation`)
it also needs ``n_seen``: how many tokens it has taken in.
"""

from typing import Any, Protocol

import numpy as np

from .attention import attend, causal_mask
from .cache import KVCache, blocks
from .ops import softmax
from .positions import bias_of

BLOCK = 512  # queries processed at once: bounds the (H, T, S) scores of a long text


class Path(Protocol):
    """What a model asks of its path: `positions` once per forward pass, `mix` once per layer, in order."""

    def positions(self, n_tokens: int) -> np.ndarray:
        """Return the position (T,) of each of the next tokens when it is newest; raise ValueError if no more fit.

        GPT-2 adds them to its embedding. In Llama positions enter in `mix`, by rotation.
        """
        ...

    def mix(self, layer: int, q: Any, k: Any, v: Any, rotate: Any, *, normalise: Any, trace: dict | None) -> Any:
        """Mix the values of the keys that T new tokens see, their own included, -> (T, H, D).

        q (T, H, D), k and v (T, K, D) come un-rotated; ``rotate(x, positions)`` is the encoding (see `positions`;
        `positions.bias_of` is added to the scores), ``normalise(scores)`` turns (H, T, S) scores into weights, and a
        dict passed as `trace` receives ``"scores"`` and ``"pattern"`` (H, T, S).
        """
        ...


class Uncached:
    """The whole text, no cache: token t is at position t and sees tokens 0 to t."""

    def positions(self, n_tokens):  # -> (T,)
        """0, 1, 2, ..."""
        return np.arange(n_tokens)

    def mix(self, layer, q, k, v, rotate, **options):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Apply `causal_attention`; the layer number does not matter."""
        return causal_attention(q, k, v, rotate, **options)


class Cached:
    """New tokens attend to what a `KVCache` has kept, and are added to it."""

    def __init__(self, cache: KVCache):
        self.cache = cache

    def positions(self, n_tokens):  # -> (T,)
        """Return each token's slot on arrival or its place in the text, depending on the cache's policy."""
        return self.cache.next_positions(n_tokens)

    def mix(self, layer, q, k, v, rotate, **options):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Apply `cached_attention` to the cache of one layer."""
        return cached_attention(q, k, v, self.cache.layers[layer], rotate, **options)


def cached_attention(q, k, v, layer, rotate, *, normalise=softmax, trace=None):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
    """Attend to what the `LayerCache` has kept, the new tokens included: append, evict, number, rotate, attend.

    The readable path, as in the paper. In a trace, S is the largest number of slots that any query saw;
    for a query that saw fewer, the rest are ``-inf`` and 0.
    """
    mixed = np.empty_like(q)
    traces = []  # one trace per run of tokens
    for new in blocks(layer, len(q)):
        n_new = new.stop - new.start
        layer.append(k[new], v[new])  # and evict
        positions = layer.positions  # (S,)
        keys = rotate(layer.keys, positions)
        queries = rotate(q[new], positions[-n_new:])  # the new tokens hold the last slots
        visible = causal_mask(n_new, len(keys), like=q)
        bias = bias_of(rotate, positions[-n_new:], positions, like=q)
        traces.append(None if trace is None else {})
        mixed[new] = attend(queries, keys, layer.values, visible, bias=bias, normalise=normalise, trace=traces[-1])
    if trace is not None:
        for name, fill in (("scores", -np.inf), ("pattern", 0.0)):
            trace[name] = side_by_side([block[name] for block in traces], fill)
    return mixed


def causal_attention(q, k, v, rotate, *, block=BLOCK, normalise=softmax, trace=None):  # (T, H, D), 2 x (T, K, D)
    """Dense attention within one text, `block` queries at a time, -> (T, H, D): each sees itself and all before it."""
    T = len(q)
    q, k = rotate(q, np.arange(T)), rotate(k, np.arange(T))
    block = block if trace is None else T  # a trace needs the whole (H, T, T) pattern
    mixed = np.empty_like(q)
    for start in range(0, T, block):
        stop = min(start + block, T)  # queries start..stop need only the keys up to stop
        options = {"bias": bias_of(rotate, np.arange(start, stop), np.arange(stop), like=q), "normalise": normalise}
        visible = causal_mask(stop - start, stop, like=q)
        mixed[start:stop] = attend(q[start:stop], k[:stop], v[:stop], visible, trace=trace, **options)
    return mixed


def side_by_side(blocks, fill):
    """Join [(H, T_i, S_i), ...] along T, padding S to the widest with `fill`."""
    widest = max(block.shape[-1] for block in blocks)
    padded = [np.pad(b, ((0, 0), (0, 0), (0, widest - b.shape[-1])), constant_values=fill) for b in blocks]
    return np.concatenate(padded, axis=1)
