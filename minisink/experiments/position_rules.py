"""Position rules: the number that an engine gives each token it holds, and a proof of which distances a rule keeps.

In StreamingLLM a key in the window is as far from the query as in the text, and a sink as far as in the cache. A rule
that gives these distances is StreamingLLM, whatever it moves or rotates (docs/position-rules.md).
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np

from ..cache import KVCache, LayerCache, Policy, blocks
from ..evaluation.policies import HalfAtOnce


@dataclass(frozen=True)
class Numbered(Policy):
    """StreamingLLM's tokens, numbered by another rule."""

    rule: Any = None  # (S,) token_index j, n_sinks s, window w -> (S,) positions

    def positions_of(self, token_index):
        return self.rule(token_index, self.n_sinks, self.window)


def ring(j, s, w):
    """Rotate keys to their place j; the query to its place t for the window, and to its slot for the sinks."""
    return np.where(j < s, j, min(j[-1], s + w - 1) - (j[-1] - j))


def shift(j, s, w):
    """Rotate a key to the slot it arrives in; when a token is evicted, move the later ones down by one."""
    came, left = np.minimum(j, s + w - 1), j[-1] - np.maximum(j, s + w - 1)
    return came - np.where(j < s, 0, np.maximum(left, 0))


def rules(trained: int | None = None) -> dict[str, Callable]:
    """Return the rules by name, each a function from n_sinks and window to a policy."""
    return {
        "slots": Policy,
        "ring": partial(Numbered, rule=ring),
        "shift": partial(Numbered, rule=shift),
        "original": partial(Policy, positions="original"),
        # the place in a ring of twice the window
        "modulo 2W": partial(Numbered, rule=lambda j, s, w: np.where(j < s, j, s + (j - s) % (2 * w))),
        "half at once": HalfAtOnce,
        # every new key is rotated to the last slot, for good
        "one place": partial(Numbered, rule=lambda j, s, w: np.minimum(j, s + w - 1)),
        # the place in the text modulo the trained length, or modulo twice the cache
        "modulo trained": partial(Numbered, rule=lambda j, s, w: j % (trained or 2 * (s + w))),
    }


def seen(layer: LayerCache, n_tokens: int) -> list[tuple[list[int], list[int]]]:
    """Take in a chunk of tokens as `paths.cached_attention` does; return the token_index and positions each sees.

    >>> [index for index, _ in seen(KVCache(1, 1, 0, Policy(1, 2)).layers[0], 5)]
    [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]
    """
    each = []
    for run in blocks(layer, n_tokens):
        T = run.stop - run.start
        layer.append(*np.zeros((2, T, 1, 0)))
        index, positions = layer.token_index.tolist(), layer.positions.tolist()
        each += [(index[:n], positions[:n]) for n in range(len(index) - T + 1, len(index) + 1)]
    return each


def prove(make: Callable, most_sinks: int = 3, widest: int = 5) -> dict[str, Any]:
    """Compare a rule with StreamingLLM in all caches up to these sizes, over n_sinks + 4W tokens, in all chunkings.

    Return whether each query sees the right ``"tokens"``; whether a key in the ``"window"`` is as far from it as in the
    text, and one of the ``"sinks"`` as far as in the cache; whether ``"chunks"`` all agree; and the ``"first"`` wrong
    distance: n_sinks, window, t, key, the distance and the right one. The state after t tokens depends on t alone (this
    is checked too), so all pairs of a state and the length of the next chunk cover all chunkings.

    >>> prove(rules()["modulo 2W"])["first"]
    (0, 2, 4, 3, -3, 1)
    """
    kept: dict = dict.fromkeys(("tokens", "window", "sinks", "chunks"), True) | {"first": None}
    for n_sinks, window in product(range(most_sinks + 1), range(1, widest + 1)):
        states, queries = [KVCache(1, 1, 0, make(n_sinks, window)).layers[0]], []
        for t in range(T := n_sinks + 4 * window):
            states.append(copy(states[t]))
            queries += seen(states[t + 1], 1)
        for t, stop in combinations(range(T + 1), 2):
            after = copy(states[t])
            kept["chunks"] &= seen(after, stop - t) == queries[t:stop]
            kept["chunks"] &= after.token_index.tolist() == states[stop].token_index.tolist()
        for t, (index, positions) in enumerate(queries):
            kept["tokens"] &= index == [j for j in range(t + 1) if j < n_sinks or t - j < window]
            for key, position in zip(index, positions, strict=True):
                kind, newest = ("sinks", min(t, n_sinks + window - 1)) if key < n_sinks else ("window", t)
                if (distance := positions[-1] - position) != newest - key:
                    kept[kind], first = False, (n_sinks, window, t, key, distance, newest - key)
                    kept["first"] = kept["first"] or first
    return kept
