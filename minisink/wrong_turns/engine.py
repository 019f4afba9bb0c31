"""Wrong turns that do not show in one head of one layer of a Llama that reads one text from arrays of its own."""

import numpy as np

from .positions import Shifted
from .right import Cache


class WrongGroup(Cache):
    """query head h reads key head h % K; neighbours share one, h // (H / K), so repeat each key head, not the whole row
    of them
    """

    name = "wrong key head"

    @staticmethod
    def repeated(x, H):  # (S, K, D) -> (S, H, D)
        """Return a key head for each query head."""
        return x[:, np.arange(H) % x.shape[1]]

    def mix(self, query, keys, values):
        return super().mix(query, *(self.repeated(x, query.shape[1]) for x in (keys, values)))


class RotatesGPT2(Cache):
    """keys are rotated where nothing rotates; with theta=None positions are in the embedding already, and cannot be
    moved
    """

    name = "learned positions rotated"

    def __init__(self, *, n_sinks, window, theta):
        super().__init__(n_sinks=n_sinks, window=window, theta=10000.0 if theta is None else theta)


class NoCopy(Cache):
    """every slot holds the newest token; it came in a buffer that is used again, so keep a copy, not a view"""

    name = "no copy kept"

    def attend(self, q, keys, values):
        return super().attend(q, np.repeat(keys[-1:], len(keys), axis=0), np.repeat(values[-1:], len(keys), axis=0))


class OneForAll(Cache):
    """layers share one state, and their keys stand between each other's; give each its own"""

    name = "one state for all layers"

    @classmethod
    def layers(cls, n_layers, before, **sizes):
        return super().layers(n_layers, before, **sizes)[:1] * n_layers


class CountsInEveryLayer(Cache):
    """a position counter that every layer moves on; with L layers two neighbours stand L places apart: count a token
    once
    """

    name = "a position counter per layer"

    @property
    def positions(self):
        return [slot * self.n_layers for slot in range(len(self.token_index))]


class ShiftsInEveryLayer(Shifted):
    """a shift of all positions that every layer begins; with L layers a key moves L slots down when one token leaves:
    begin it in one layer
    """

    name = "a shift begun in every layer"  # seen in: positions that all layers share

    def shifts(self, slot, token):
        begun = super().shifts(slot, token) * self.n_layers
        return begun - self.still(token) * self.n_left if begun else 0

    def still(self, token):
        """Count the layers that begin the last shift later; they move the newest too, which has come in by then."""
        return self.n_layers - 1 - self.layer if token < self.capacity else 0


class KeysShiftInEveryLayer(ShiftsInEveryLayer):
    """Likewise, but what comes in at that moment is shifted by none of them."""

    def still(self, token):
        return self.n_layers - 1 - self.layer


class NotReset(Cache):
    """the cache is not reset between texts; what the last one left is still there, and seen: begin each with an empty
    state
    """

    name = "not reset between texts"  # seen in: a reset that forgets what the slots hold

    @classmethod
    def layers(cls, n_layers, before, **sizes):
        caches = super().layers(n_layers, before, **sizes)
        for cache, former in zip(caches, before, strict=False):
            cache.n_seen, cache.token_index = former.n_seen, former.token_index
            cache.keys, cache.values = former.keys, former.values
        return caches
