"""Whole caches that take one known wrong turn each, seen in public code and reports.

`Cache` is right: one layer, one token at a time, tokens in a list. Every other class overrides what it gets wrong, and
its docstring is what `checking.check` says of a cache that answers as it does.
"""

from __future__ import annotations

import numpy as np

from ..attention import attend, mix, score
from ..ops import softmax
from ..positions import interleaved_to_split_half, rope_frequencies, rotate


class Cache:
    """StreamingLLM, as `minisink.cache` has it: append, evict, number, rotate, attend.

    Parameters
    ----------
    n_sinks, window : int
    theta : float or None
        Base of the rotary angles; None where nothing is rotated.

    Attributes
    ----------
    token_index : list of int
        Tokens held, in slot order; `keys` and `values` beside them, (K, D) each, un-rotated.
    n_seen : int
        Tokens taken in.
    """

    name = "right"

    def __init__(self, *, n_sinks: int, window: int, theta: float | None):
        self.n_sinks, self.window, self.theta = n_sinks, window, theta
        self.capacity, self.n_seen = n_sinks + window, 0
        self.token_index, self.keys, self.values = [], [], []

    def step(self, q, k, v):  # (H, D), 2 x (K, D) -> (H, D)
        """What the newest token takes home."""
        self.token_index, self.keys, self.values = [*self.token_index, self.n_seen], [*self.keys, k], [*self.values, v]
        self.n_seen += 1
        stay = self.survivors(len(self.token_index))
        self.token_index = [self.token_index[slot] for slot in stay]
        self.keys, self.values = [self.keys[slot] for slot in stay], [self.values[slot] for slot in stay]
        if not stay:
            return np.zeros_like(q)
        return self.attend(q, np.array(self.keys), np.array(self.values))

    def survivors(self, n):
        """Slots that stay, of n."""
        return list(range(n)) if n <= self.capacity else [*range(self.n_sinks), *range(n - self.window, n)]

    @property
    def positions(self):
        """Position of each slot: the slot."""
        return list(range(len(self.token_index)))

    @property
    def own(self):
        """Position of the query."""
        return self.positions[-1]

    def attend(self, q, keys, values):  # (H, D), 2 x (S, K, D) -> (H, D)
        """Rotated query and keys, softmax, mix."""
        return attend(self.rotated(q[None], [self.own]), self.rotated(keys, self.positions), values)[0]

    def rotated(self, x, positions):  # (T, H, D), (T,) -> (T, H, D)
        """What attention meets."""
        return x if self.theta is None else rotate(x, np.array(positions), rope_frequencies(x.shape[-1], self.theta))


# Which tokens stay ----------------------------------------------------------------------------------


class OneMore(Cache):
    """a query sees one key too many: the current token is not counted, or the cache is trimmed after attention; the
    authors' (start, recent) is n_sinks=start, window=recent + 1
    """

    name = "one key too many"

    def survivors(self, n):
        return list(range(n)) if n <= self.capacity + 1 else [*range(self.n_sinks), *range(n - self.window - 1, n)]


class OneLess(Cache):
    """a query sees one key too few: evict when there are more than n_sinks + window, not when there are as many; the
    current token is one of the window
    """

    name = "one key too few"

    def survivors(self, n):
        return list(range(n)) if n < self.capacity else [*range(self.n_sinks), *range(n - self.window + 1, n)]


class NothingLeaves(Cache):
    """nothing is ever evicted: this is dense attention, and an unchanged perplexity would not be a success"""

    name = "nothing evicted"

    def survivors(self, n):
        return list(range(n))


class NoSinks(Cache):
    """the first tokens are evicted like any other: this is window attention, keep the first n_sinks for good"""

    name = "no sinks"

    def survivors(self, n):
        return list(range(max(0, n - self.capacity), n))


class MinusZero(Cache):
    """`keys[-0:]` is everything: with a window of 1 the slice `[-(window - 1):]` of what came before evicts nothing"""

    name = "keys[-0:]"

    def survivors(self, n):
        if n <= self.capacity:
            return list(range(n))
        past = list(range(n - 1))
        return [*past[: self.n_sinks], *past[self.n_sinks :][-(self.window - 1) :], n - 1]


class ZeroSlot(Cache):
    """there is a slot of zeros before the first token, and it is attended to: begin with no slot, or mask the empty
    ones
    """

    name = "a slot of zeros"

    def step(self, q, k, v):
        if self.n_seen == 0:
            self.token_index, self.keys, self.values = [-1], [np.zeros_like(k)], [np.zeros_like(v)]
        return super().step(q, k, v)


class NotItself(Cache):
    """a query does not see its own key: append first, then attend"""

    name = "attends before it appends"

    def attend(self, q, keys, values):
        if len(keys) == 1:
            return np.zeros_like(q)
        return attend(self.rotated(q[None], [self.own]), self.rotated(keys, self.positions)[:-1], values[:-1])[0]


class MaskedAfter(NothingLeaves):
    """evicted tokens are masked after the softmax and keep their share of it: mask before, so that the rest sums to
    one
    """

    name = "masked after the softmax"

    def attend(self, q, keys, values):
        pattern = softmax(score(self.rotated(q[None], [self.own]), self.rotated(keys, self.positions)))
        stay = np.zeros(len(keys), bool)
        stay[Cache.survivors(self, len(keys))] = True
        return mix(np.where(stay, pattern, 0.0), values)[0]


# Which position they get ----------------------------------------------------------------------------


class TextPositions(Cache):
    """positions are those of the text: number the slots instead, position := slot, for the query too"""

    name = "original positions"

    @property
    def positions(self):
        return self.token_index


class HoledKeys(TextPositions):
    """keys stay rotated to their place in the text while the query stands at its slot: keep them un-rotated and rotate
    them to their slot at every step, or rotate the query to the text too, and to its slot for the sinks
    """

    name = "keys never shifted"

    @property
    def own(self):
        return len(self.token_index) - 1


class LateQuery(Cache):
    """keys stand at their slots and the query at its place in the text: rotate the query to the last slot"""

    name = "query not shifted"

    @property
    def own(self):
        return self.n_seen - 1


class LateKey(LateQuery):
    """the newest key and query stand at their place in the text, the others at their slots: number the newest too"""

    name = "newest not shifted"

    @property
    def positions(self):
        return [*range(len(self.token_index) - 1), self.own]


class OnePlace(Cache):
    """every key keeps the slot it came in at, so all recent keys stand at one place: they move down when a token
    leaves
    """

    name = "all recent keys at one place"

    @property
    def positions(self):
        return [min(token, self.capacity - 1) for token in self.token_index]


class RingOrder(Cache):
    """positions follow the ring's memory and not the age of the tokens: the oldest of the window comes right after the
    sinks
    """

    name = "positions in ring order"

    @property
    def positions(self):
        n_sinks = self.n_sinks
        return [t if t < n_sinks else n_sinks + (t - n_sinks) % self.window for t in self.token_index]


class RotatedTwice(Cache):
    """keys that were stored rotated are rotated again: store them as they come, and rotate once, when they are used"""

    name = "keys rotated twice"

    def attend(self, q, keys, values):
        keys = self.rotated(keys, [min(token, self.capacity - 1) for token in self.token_index])
        return super().attend(q, keys, values)


class Drift(Cache):
    """keys are stored rotated, and rotated back one position in half precision whenever a token leaves: they drift, so
    store them un-rotated
    """

    name = "drift"

    def step(self, q, k, v):
        if self.theta is not None:
            if len(self.keys) == self.capacity:
                recent = np.array(self.keys[self.n_sinks :], np.float16)
                self.keys[self.n_sinks :] = self.rotated(recent, [-1] * self.window).astype(k.dtype)
            k = self.rotated(k[None], [min(self.n_seen, self.capacity - 1)])[0]
        return super().step(q, k, v)

    def attend(self, q, keys, values):
        return attend(self.rotated(q[None], [self.own]), keys, values)[0]


# Rotation and heads ---------------------------------------------------------------------------------


class Neighbours(Cache):
    """channels 2j and 2j + 1 are rotated together, as in Meta's files: here, as in Hugging Face's, a pair is j and j +
    D/2
    """

    name = "neighbouring channels paired"

    def rotated(self, x, positions):
        return super().rotated(interleaved_to_split_half(x), positions)  # scores do not mind the order of channels


class RotatesGPT2(Cache):
    """keys are rotated where nothing rotates: with theta=None positions are in the embedding already, and cannot be
    moved
    """

    name = "learned positions rotated"

    def __init__(self, *, n_sinks, window, theta):
        super().__init__(n_sinks=n_sinks, window=window, theta=10000.0 if theta is None else theta)


class WrongGroup(Cache):
    """query head h reads key head h % K: neighbours share one, h // (H / K), so repeat each key head, not the whole
    row of them
    """

    name = "wrong key head"

    def attend(self, q, keys, values):
        H, K = len(q), keys.shape[1]
        own = np.arange(H) % K
        return super().attend(q, keys[:, own], values[:, own])


class Unscaled(Cache):
    """scores are not divided by sqrt(D)"""

    name = "scores not scaled"

    def attend(self, q, keys, values):
        return super().attend(q * q.shape[-1] ** 0.5, keys, values)


WRONG_TURNS: tuple[type[Cache], ...] = (
    OneMore,
    OneLess,
    NothingLeaves,
    NoSinks,
    MinusZero,
    ZeroSlot,
    NotItself,
    MaskedAfter,
    TextPositions,
    HoledKeys,
    LateQuery,
    LateKey,
    OnePlace,
    RingOrder,
    RotatedTwice,
    Drift,
    Neighbours,
    RotatesGPT2,
    WrongGroup,
    Unscaled,
)
