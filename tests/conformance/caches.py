"""Right caches to be checked, and wrong ones as an engine has them."""

import numpy as np

from minisink import conformance
from minisink.cache import LayerCache, Policy
from minisink.paths import cached_attention
from minisink.wrong_turns import CHUNKS
from minisink.wrong_turns.right import plain


def readable(state, q, k, v, *, n_sinks, window, theta, encoding=None, policy=None):
    """`cache.LayerCache` and `paths.cached_attention`, with all there is to show."""
    empty = np.zeros((0, *k.shape))
    state = LayerCache(empty, empty, policy or Policy(n_sinks, window)) if state is None else state
    encoding = plain(theta, q.shape[-1]) if encoding is None else encoding
    seen: dict = {}
    out = cached_attention(q[None], k[None], v[None], state, encoding, trace=seen)[0]
    shown = {"token_index": state.token_index, "positions": state.positions, "scores": seen["scores"][:, 0]}
    return out, state, shown | {"keys": encoding(state.keys, state.positions)}


def fed(turn, traces=conformance.NAMES, chunks=(9, 1), shows=True, dtype=np.float64, **options):
    """The report on a wrong turn taken in every layer of an engine that reads one text after the other."""
    chunks = chunks if turn in CHUNKS else None
    n_layers = traces.q.shape[1] if isinstance(traces, conformance.Trace) else 2
    step = engine(turn, n_layers, chunks=chunks, shows=shows, dtype=dtype)
    return conformance.check(step, traces, chunks=chunks, shared=True, **options)


def engine(turn, n_layers, *, chunks=None, shows=True, dtype=np.float64):
    """A step, for all layers, of an engine that takes a wrong turn."""
    before = []

    def step(state, q, k, v, *, layer, **sizes):
        if state is None:
            same = before and before[0].keys[0].shape == k.shape[-2:]  # as it is within one model
            state = turn.layers(n_layers, before if same else [], **sizes)
            before[:] = state
        out = (state[layer].steps if chunks else state[layer].step)(q, k, v).astype(dtype)
        return out, state, state[layer].show() if shows else None

    return step
