"""Wrong turns of positions: which position each surviving token gets."""

import numpy as np

from .heads import KeysNotRotated
from .right import Cache, likewise
from .tokens import NoSinks


class TextPositions(Cache, name="original positions", number=14, place=lambda self, slot, token: token):
    """original positions instead of slots; position := slot, for the query too (sinks that were shifted along with the
    window look the same: leave them where they are)
    """  # seen in: ports that blame numerics beyond the trained length


class HoledKeys(TextPositions, name="keys never shifted", number=3, own=lambda self: len(self.token_index) - 1):
    """keys stay rotated to their place in the text, but the query has a slot; keep them un-rotated and rotate them to
    their slots at every step, or rotate the query to its place in the text too, and to its slot for the sinks
    """  # seen in: ports that cache rotated keys


class SinksFar(Cache, name="sinks one place too far"):
    """the window is shifted one place too little; it is one place too far from the sinks, so for the sinks rotate the
    query to position n_sinks + window - 1, the last slot
    """

    def place(self, slot, token):
        return slot + (slot >= self.n_sinks and self.n_seen > self.capacity)


class QueryTooFar(Cache, name="query one place too far", own=lambda self: len(self.token_index)):
    """the query's position is one more than its own key's; it should be the newest slot, not the number of slots"""


class QueryTooNear(Cache, name="query one place too near", own=lambda self: len(self.token_index) - 2):
    """the query's position is one less than its own key's; it should be the newest slot, not the previous one"""


class QueryAtTheEnd(Cache, name="query at the end of an unfilled cache", own=lambda self: self.capacity - 1):
    """the query is placed in the last slot of a full cache before the cache is full; it belongs in the newest filled
    slot
    """


class QueryBeforeEviction(Cache, name="query at the length before eviction"):  # seen in: ports that take it first
    """the query's position is the cache's length before the eviction; take it after the eviction: once the cache is
    full, it is n_sinks + window - 1
    """

    @property
    def own(self):
        return min(self.n_seen - 1, self.capacity)


# seen in: ports that shift stored keys only
class LateQuery(Cache, name="query not shifted", number=3, own=lambda self: self.n_seen - 1):
    """the query is at its place in the text, but the keys are at their slots; rotate the query to the last slot"""


class LateKey(LateQuery, name="newest not shifted"):
    """the newest key and query are at their place in the text, not at their slot; number the newest token by its slot
    too (llama.cpp's n_past goes down when tokens are evicted)
    """

    def place(self, slot, token):
        return self.own if token == self.token_index[-1] else slot


class Shifted(Cache):
    """A right cache that keeps the position of each key, and moves it by `pace` when an earlier token is evicted."""

    pace, n_left = -1, 0  # n_left: tokens that were just evicted
    came_in: dict[int, int] = {}  # the slot of each token when it came in

    def keep(self, slots):
        self.n_left, newest = len(self.token_index) - len(slots), self.token_index[-1]
        self.came_in = self.came_in | {newest: len(slots) - 1}
        super().keep(slots)

    def begins(self, token):
        """Return the position at which a token came in: its slot."""
        return self.came_in.get(token, min(token, self.capacity - 1))

    def shifts(self, slot, token):
        """Count the evictions before the token in this slot since it came in."""
        return Shifted.begins(self, token) - slot

    def place(self, slot, token):
        return self.begins(token) + self.pace * self.shifts(slot, token)


class OnePlace(Shifted, name="all recent keys at one place", number=11, pace=0):
    """every new key is rotated to the cache's length and never shifted; all recent keys end up at one place, but they
    should move down when a token is evicted
    """  # seen in: two replications, one a live visualiser


# numbered by the length before the eviction; the second, except for the query
OnePlaceBehind = likewise("OnePlaceBehind", OnePlace, begins=lambda self, token: min(token, self.capacity))
OnePlaceBehindTheQuery = likewise(
    "OnePlaceBehindTheQuery", OnePlaceBehind, own=lambda self: min(self.n_seen, self.capacity) - 1
)


class WrongWay(Shifted, name="shifted the wrong way", pace=1):
    """stored keys are shifted the wrong way; when a token is evicted, those behind it must move down a slot, not up"""


class ShiftedTwice(Shifted, name="shifted twice", pace=-2):  # seen in: a cache and a model that both shift
    """stored keys are shifted twice when a token is evicted; those behind it must move down one slot, not two"""


class LateEntry(Shifted, LateKey, begins=lambda self, token: token):
    """The same, but the key is stored that way, and shifted from there with the rest."""


class ShiftedEarly(Cache, name="shifted a token too early"):  # seen in: transformers' SinkCache
    """stored keys are shifted as soon as the cache is full, one token before any is evicted, as in transformers'
    SinkCache; the cache still grows while n + 1 <= n_sinks + window, not <
    """

    def place(self, slot, token):
        held_when_full = self.n_sinks <= token < self.capacity - 1
        return slot - (held_when_full and self.n_seen >= self.capacity)


class RingOrder(Cache, name="positions in ring order"):
    """the place in a ring, not the order; positions follow the ring's memory instead of the tokens' age, but the oldest
    token in the window must come right after the sinks
    """

    rings = 1

    def place(self, slot, token):
        n = self.n_sinks
        return token if token < n else n + (token - n) % (self.rings * self.window)


class RingOrderLast(RingOrder, name="keys in ring order", own=lambda self: len(self.token_index) - 1):
    """the place in a ring, not the order; the keys are numbered this way, but the query has the last slot: number both
    by age
    """


class RingOverTheSinks(NoSinks, own=lambda self: self.n_seen - 1):
    """The same, but keys keep their position in the text, and the query scores the first slots from the last."""

    def place(self, slot, token):
        return token + max(0, self.n_seen - self.capacity) * (token % self.capacity < self.n_sinks)


class TwiceTheRing(RingOrder, name="positions modulo twice the window", rings=2):  # seen in: ExecuTorch 1.5.1
    """the place in a ring of twice the window; it keeps the distances only until the window spans the point where the
    ring begins again, and the sinks drift away, so number by age
    """


class WindowFromZero(Cache, name="window numbered from zero"):
    """the window is numbered from zero again; it comes after the sinks, so number everything held 0, 1, 2, ..."""

    def place(self, slot, token):
        return slot if slot < self.n_sinks else slot - self.n_sinks


class RotatedTwice(Cache, name="keys rotated twice", number=16):  # seen in: ports
    """rotated keys are rotated again; store keys as they arrive, and rotate them once, when they are used"""

    before = 1  # an arriving key was rotated to its token_index, but at most to the capacity minus this

    def attend(self, q, keys, values):
        stored = self.rotated(keys, [min(token, self.capacity - self.before) for token in self.token_index])
        return super().attend(q, stored, values)


RotatedOnEntryToo = likewise("RotatedOnEntryToo", RotatedTwice, before=0)  # to the length before the eviction


class RotatedAtEveryStep(RotatedTwice):
    """The same: what was rotated at one step is stored, and rotated again at the next."""

    def attend(self, q, keys, values):
        self.keys = list(self.rotated(keys, self.positions))
        return self.mix(self.rotated(q[None], [self.own]), np.array(self.keys), values)[0]


# seen in: 15 % after 1,000 shifts, lesson 3
class Drift(Cache, name="drift", number=7, attend=KeysNotRotated.attend):
    """stored keys are shifted again and again in half precision; they drift, so store them un-rotated"""

    def append(self, k, v):
        place = len(self.survivors(len(self.token_index) + 1)) - 1
        super().append(self.rotated(k[None], [place])[0], v)

    def keep(self, slots):
        n_left = len(self.keys) - len(slots)
        super().keep(slots)
        behind = self.behind(len(slots))
        if n_left and self.rotates and len(self.keys[behind]):
            self.keys[behind] = self.in_half(np.array(self.keys[behind]), -n_left)

    def behind(self, n):  # all keys that move; the newest arrived at its slot
        return slice(self.n_sinks, n - 1)

    def in_half(self, keys, position):
        """Rotate with half-precision sines and cosines, and store the result in half precision too."""
        return self.rotated(keys.astype(np.float16), [position])


class DriftFromEntry(Drift, behind=lambda self, n: slice(self.n_sinks, n)):
    """The same, but a key is in half precision from the start, one slot too far, and shifted back with the rest."""

    def append(self, k, v):
        Cache.append(self, k if not self.rotates else self.in_half(k[None], len(self.keys))[0], v)
