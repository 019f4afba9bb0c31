"""Wrong turns of positions: where the tokens that stay stand."""

import numpy as np

from ...attention import attend
from .right import Cache


class TextPositions(Cache):
    """positions are those of the text, or sinks were shifted with the window: number the slots instead, position :=
    slot, for the query too, and leave the sinks where they are
    """

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


class SinksFar(Cache):
    """sinks stand one place too far: the query that meets them has position n_sinks + window - 1, the last slot"""

    name = "sinks one place too far"

    @property
    def positions(self):
        far = int(self.n_seen > self.capacity)
        return [slot - far if slot < self.n_sinks else slot for slot in range(len(self.token_index))]


class QueryTooFar(Cache):
    """the query's position is one more than its own key's: it is the newest slot, and not the number of slots"""

    name = "query one place too far"

    @property
    def own(self):
        return len(self.token_index)


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


class RingOrderLast(RingOrder):
    """keys are numbered in the order of the ring's memory, the query as the last of them: number both by age"""

    name = "keys in ring order"

    @property
    def own(self):
        return len(self.token_index) - 1


class ShiftedEarly(Cache):
    """stored keys are shifted as soon as the cache is full, one token before any leaves, as in transformers' SinkCache:
    it grows while n + 1 <= n_sinks + window, not <
    """

    name = "shifted a token too early"

    @property
    def positions(self):
        first = range(self.n_sinks, self.capacity - 1) if self.n_seen >= self.capacity else ()  # held when it got full
        return [slot - (token in first) for slot, token in enumerate(self.token_index)]


class WrongWay(Cache):
    """stored keys are shifted the wrong way: when a token leaves, those behind it must move one slot down, not up"""

    name = "shifted the wrong way"

    @property
    def positions(self):
        last = self.capacity - 1
        came = [min(token, last) for token in self.token_index]  # the slot it came in at
        shifts = [self.n_seen - 1 - max(token, last) if token >= self.n_sinks else 0 for token in self.token_index]
        return [place + max(0, shift) for place, shift in zip(came, shifts, strict=True)]


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
