"""Why the window breaks: what every layer brings home, with the first token in the cache and without.

``minisink reproduce why`` prints, for each layer, the weight on the oldest token of the cache, the norm of its value
beside the others', and the norm of what attention mixes: with one sink and a window, and with a window of the same
size. With the sink gone, the weight that was parked there falls on tokens whose values are not small.
"""

import numpy as np

from ..methods import new_cache
from ..system.device import to_host


def run(model, ids, *, cache=64, on_progress=lambda: None):
    """Stream a text through both caches, token by token, and look inside every layer.

    Parameters
    ----------
    model : Model
    ids : ndarray of shape (T,), ints
        Longer than the cache.
    cache : int
        Keys a query sees, 2 or more.
    on_progress : callable
        Called after every token.

    Returns
    -------
    dict of str to dict
        For "streaming" and "window": ``"weight"`` on the oldest slot, mean over the heads; ``"value"``, the norm of the
        oldest slot's value / the median of the others, mean over the heads; ``"mixed"``, the norm of what attention
        brings home. Each of shape (T - cache, L): the tokens after the first eviction, ``ids[cache:]``.

    Raises
    ------
    ValueError
        When nothing is evicted, or for a cache without room for a sink and a window.
    """
    if cache < 2:
        raise ValueError(f"a cache of {cache} cannot hold a sink and a window: give it 2 tokens or more")
    if len(ids) <= cache:
        raise ValueError(f"the text has {len(ids)} tokens and the cache holds {cache}: nothing is evicted")
    caches = {
        "streaming": new_cache(model, n_sinks=1, window=cache - 1),
        "window": new_cache(model, method="window", window=cache),
    }
    found = {name: {"weight": [], "value": [], "mixed": []} for name in caches}
    for kept in caches.values():
        model.forward(ids[:cache], cache=kept, rows=slice(-1, None))
    for token in ids[cache:]:
        for name, kept in caches.items():
            trace = {}
            model.forward([token], cache=kept, rows=slice(-1, None), trace=trace)
            pairs = list(zip(trace["layers"], kept.layers, strict=True))
            values = [np.linalg.norm(to_host(layer.values), axis=-1) for _, layer in pairs]  # each (S, K)
            found[name]["weight"].append([float(inside["pattern"][:, 0, 0].mean()) for inside, _ in pairs])
            found[name]["value"].append([float((v[0] / np.median(v[1:], axis=0)).mean()) for v in values])
            found[name]["mixed"].append([float(np.linalg.norm(to_host(inside["mixed"]))) for inside, _ in pairs])
        on_progress()
    return {name: {key: np.array(rows) for key, rows in about.items()} for name, about in found.items()}
