"""Wrong turns that do not show in one head of one layer of a Llama that reads a single text from fresh arrays."""

import numpy as np

from .positions import Shifted
from .right import Cache, likewise, plain


class WrongGroup(Cache, name="wrong key head"):
    """query head h reads key head h % K; neighbouring query heads share key head h // (H / K), so repeat each key head,
    not the whole row of them
    """

    @staticmethod
    def repeated(x, H):  # (S, K, D) -> (S, H, D)
        """Return a key head for each query head."""
        return x[:, np.arange(H) % x.shape[1]]

    def mix(self, query, keys, values):
        return super().mix(query, *(self.repeated(x, query.shape[1]) for x in (keys, values)))


class RotatesGPT2(Cache, name="learned positions rotated"):
    """keys are rotated where nothing should be; with theta=None, positions are already in the embedding and cannot be
    moved
    """

    def rotated(self, x, positions):
        return super().rotated(x, positions) if self.rotates else plain(10000.0, x.shape[-1])(x, np.array(positions))


class NoCopy(Cache, name="no copy kept"):
    """every slot holds the newest token; it arrived in a buffer that is reused, so keep a copy, not a view"""

    def attend(self, q, keys, values):
        return super().attend(q, np.repeat(keys[-1:], len(keys), axis=0), np.repeat(values[-1:], len(keys), axis=0))


class OneForAll(Cache, name="one state for all layers"):
    """all layers share one state, so their keys are mixed up with each other; give each layer its own"""

    @classmethod
    def layers(cls, n_layers, before, policy=None, **sizes):
        return super().layers(n_layers, before, policy, **sizes)[:1] * n_layers


class CountsInEveryLayer(Cache, name="a position counter per layer", place=lambda self, slot, _: slot * self.n_layers):
    """every layer advances the position counter; with L layers, neighbouring tokens are L places apart, so count each
    token once
    """


class ShiftsInEveryLayer(Shifted, name="a shift begun in every layer"):  # seen in: positions that all layers share
    """every layer begins a shift of all positions; with L layers, a key moves down L slots when one token is evicted,
    so begin the shift in one layer
    """

    newest_too = True

    def shifts(self, slot, token):
        begun, present = super().shifts(slot, token) * self.n_layers, token < self.capacity or not self.newest_too
        still = self.n_left * (self.n_layers - 1 - self.layer) if present else 0  # layers that begin the last one later
        return begun - still if begun else 0


# the same, except for the key that has just arrived
KeysShiftInEveryLayer = likewise("KeysShiftInEveryLayer", ShiftsInEveryLayer, newest_too=False)


class NotReset(Cache, name="not reset between texts"):  # seen in: a reset that forgets what the slots hold
    """the cache is not reset between texts; the previous text's tokens are still there and are attended to, so begin
    each text with an empty state
    """

    @classmethod
    def layers(cls, n_layers, before, policy=None, **sizes):
        caches = super().layers(n_layers, before, policy, **sizes)
        for cache, former in zip(caches, before, strict=False):
            cache.n_seen, cache.token_index = former.n_seen, former.token_index
            cache.keys, cache.values = former.keys, former.values
        return caches
