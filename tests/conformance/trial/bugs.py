"""Eighteen bugs that are known from public code and reports, each planted in one place of one of the three caches.

Where the cache must first differ follows from its sizes: from what it is, and not from a run.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from kernels import rope
from paged import BLOCK, Paged
from shift_in_place import ShiftInPlace
from static_ring import StaticRing

# In the static ring -------------------------------------------------------------------------------


class SinksOverwritten(StaticRing):
    def slots(self, t):
        return t % self.size


class PromptLongerThanTheRing(StaticRing):
    def fitting(self, n_tokens):
        return n_tokens


class QueryPlusOne(StaticRing):
    def place_to_sinks(self, t):
        return super().place_to_sinks(t) + 1

    def place_to_window(self, t):
        return super().place_to_window(t) + 1


class MaskLongerThanFilled(StaticRing):
    def mask(self, t):
        return super().mask(t + 1)


class StaticMask(StaticRing):
    def mask(self, t):  # made once, for a full cache
        return np.ones((len(t), self.size), bool)


class ResetForgets(StaticRing):
    def reset(self):  # only the first time
        self.n_seen = getattr(self, "n_seen", 0)


class PositionsWithHoles(StaticRing):
    def place_to_window(self, t):
        return self.place_to_sinks(t)


# In the paged cache -------------------------------------------------------------------------------


class BlockEarly(Paged):
    def oldest(self, t):  # rounded up, but for the block that is written
        return min(-(-(t - self.window + 1) // BLOCK), t // BLOCK)


class BlockLeaked(Paged):
    def release(self, block):
        pass


# In the cache that is shifted in place --------------------------------------------------------------


class OneKeptTooMany(ShiftInPlace):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.n_keep = min(self.n_keep + 1, self.n_ctx - 1)  # the token that begins the text, counted apart


class ShiftedTheWrongWay(ShiftInPlace):
    def shift(self, layer, moved, by):
        super().shift(layer, moved, -by)


class ShiftedTwice(ShiftInPlace):
    def shift(self, layer, moved, by):
        super().shift(layer, moved, 2 * by)


class SinksShifted(ShiftInPlace):
    def moved(self, age, by):
        return np.concatenate((age[: self.n_keep], super().moved(age, by)))


class PastNotReduced(ShiftInPlace):
    def reduce(self, by):
        pass


class CounterPerLayer(ShiftInPlace):
    def steps(self, q, k, v, layer):
        self.n_past += len(q) * (layer > 0)  # in the first layer the plan does
        return super().steps(q, k, v, layer)


class ShiftInEveryLayer(ShiftInPlace):
    def shift(self, layer, moved, by):
        for each in range(len(self.keys)):
            super().shift(each, moved, by)


class OnlyLayerZero(ShiftInPlace):
    def shift(self, layer, moved, by):
        if layer == 0:
            super().shift(layer, moved, by)


class ShiftedInHalf(ShiftInPlace):
    def shift(self, layer, moved, by):
        keys = self.keys[layer]
        if self.theta is not None:
            keys[moved] = rope(keys[moved].astype(np.float16), np.full(len(moved), -by), self.theta)


# All of them --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """What a trace is made of, as far as it decides where a bug shows."""

    n_sinks: int
    window: int
    rotates: bool
    n_layers: int

    @property
    def full(self):
        """The first token that comes to a full cache, or makes another leave."""
        return self.n_sinks + self.window

    @property
    def sink_blocks(self):
        return -(-self.n_sinks // BLOCK)


@dataclass(frozen=True)
class Bug:
    cache: Any
    looks_like: str | None  # what a report calls it
    token: Callable[[Size], int | None]  # at which the cache first differs; None: in this size it does not
    chunks: tuple[int, ...] | None = None  # in which it has to be asked
    layer: int = 0  # in which it first differs

    @property
    def name(self):
        """Its name as one reads it, `QueryPlusOne`: query plus one."""
        return re.sub("(?<!^)([A-Z])", r" \1", self.cache.__name__).lower()

    @property
    def options(self):
        return asked(self.cache) | ({"chunks": self.chunks} if self.chunks else {})


def asked(cache):
    """How each of the three is checked: the policy that it has, and whether one object is there for all layers."""
    if issubclass(cache, ShiftInPlace):
        return {"policy": "half", "shared": True}
    return {"policy": "blocks:16"} if issubclass(cache, Paged) else {}


def when(condition, token):
    return token if condition else None


RIGHT = (StaticRing, Paged, ShiftInPlace)
BUGS = (
    Bug(SinksOverwritten, "no sinks", lambda at: when(at.n_sinks, at.full)),
    Bug(
        PromptLongerThanTheRing,
        "a prompt longer than the ring",
        lambda at: when(at.full < 9, at.n_sinks),  # whose slot is the first to be written again
        chunks=(9, 1),
    ),
    Bug(QueryPlusOne, "query one place too far", lambda at: when(at.rotates and at.full > 1, 1)),
    Bug(MaskLongerThanFilled, "empty slots attended to", lambda at: when(at.full > 1, 0)),
    Bug(StaticMask, "empty slots attended to", lambda at: when(at.full > 1, 0)),
    Bug(ResetForgets, "not reset between texts", lambda at: when(at.full > 1, 0)),  # of the second text
    Bug(PositionsWithHoles, "keys never shifted", lambda at: when(at.rotates and at.full > 1, at.full)),
    # the first block without a sink: when its first token is out of the window, but not while it is written
    Bug(
        BlockEarly,
        "a block leaves early",
        lambda at: when(at.window > 1, at.sink_blocks * BLOCK + max(at.window, BLOCK)),
    ),
    # and when its last one is
    Bug(BlockLeaked, "attention cropped, memory not", lambda at: at.sink_blocks * BLOCK + at.window + BLOCK - 1),
    Bug(OneKeptTooMany, "one sink too many", lambda at: when(at.window > 1, at.full)),
    Bug(ShiftedTheWrongWay, "shifted the wrong way", lambda at: when(at.rotates and at.window > 1, at.full)),
    Bug(ShiftedTwice, "shifted twice", lambda at: when(at.rotates and at.window > 1, at.full)),
    Bug(SinksShifted, "original positions", lambda at: when(at.rotates and at.n_sinks, at.full)),
    Bug(PastNotReduced, "newest not shifted", lambda at: when(at.rotates and at.full > 1, at.full)),
    Bug(
        CounterPerLayer,
        "a position counter per layer",
        lambda at: when(at.rotates and at.full > 1 and at.n_layers > 1, 1),
    ),
    Bug(
        ShiftInEveryLayer,
        "a shift begun in every layer",
        lambda at: when(at.rotates and at.window > 1 and at.n_layers > 1, at.full),
        layer=1,  # for layer 0 the next one shifts too late
    ),
    Bug(
        OnlyLayerZero,
        "all recent keys at one place",
        lambda at: when(at.rotates and at.window > 1 and at.n_layers > 1, at.full),
        layer=1,
    ),
    Bug(ShiftedInHalf, "drift", lambda at: when(at.rotates and at.window > 1, at.full)),
)
