"""Wrong turns of positions: where the tokens that stay stand."""

import numpy as np

from .right import Cache

SLOT = """What is the position of a token once one before it has left?
    Look at what you number: places in the text, or what is held?
    position := slot: what is held is numbered 0, 1, 2, ... without gaps, at every step."""
SHIFT = """Where does a key stand after an eviction?
    Look at the positions of all keys behind the one that left.
    One slot down, once. Easiest: number what is held 0, 1, 2, ... at every step, and store keys un-rotated."""
NEWEST = """Where does the newest token stand?
    Look at the position that you rotate the query to.
    In the last slot that is filled: len(held) - 1, once the new key is in and the old one out."""
RING = """Which token comes right behind the sinks?
    Look at the remainder, %: it gives a place in memory.
    Number by age, query and keys alike: behind the sinks the oldest of the window, and the newest last."""
AGAIN = """How often has the oldest key been rotated?
    Look at what you store: the key as it came, or a rotated one?
    Store it as it came, un-rotated, and rotate a copy at every step."""


class TextPositions(Cache):
    """original positions instead of slots; position := slot, for the query too (sinks that were shifted with the window
    look like this as well: leave them where they are)
    """

    name, number = "original positions", 14  # seen in: ports that blame numerics beyond the trained length
    hints = SLOT

    @property
    def positions(self):
        return self.token_index


class HoledKeys(TextPositions):
    """keys stay rotated to their place in the text, the query has a slot; keep them un-rotated and rotate them to their
    slot at every step, or rotate the query to the text too, and to its slot for the sinks
    """

    name, number, hints = "keys never shifted", 3, SHIFT  # seen in: ports that cache rotated keys

    @property
    def own(self):
        return len(self.token_index) - 1


class SinksFar(Cache):
    """the window is shifted one place too little; it stands one place too far from the sinks: the query that meets them
    has position n_sinks + window - 1, the last slot
    """

    name = "sinks one place too far"
    hints = """How far from the first sink does the newest token stand in a full cache?
    Look at the position of the first slot of the window.
    Right behind the sinks, at n_sinks: then the newest, and the query, have n_sinks + window - 1."""

    @property
    def positions(self):
        far = int(self.n_seen > self.capacity)
        return [slot + far * (slot >= self.n_sinks) for slot in range(len(self.token_index))]


class QueryTooFar(Cache):
    """the query's position is one more than its own key's; it is the newest slot, and not the number of slots"""

    name, hints = "query one place too far", NEWEST

    @property
    def own(self):
        return len(self.token_index)


class QueryTooNear(Cache):
    """the query's position is one less than its own key's; it is the newest slot, not the one before"""

    name, hints = "query one place too near", NEWEST

    @property
    def own(self):
        return len(self.token_index) - 2


class QueryAtTheEnd(Cache):
    """the query stands in the last slot of a full cache before it is full; it is the newest slot that is filled"""

    name, hints = "query at the end of an unfilled cache", NEWEST

    @property
    def own(self):
        return self.capacity - 1


class QueryBeforeEviction(Cache):
    """the query stands at the length that the cache had before the eviction; take its position when the old one is out:
    once the cache is full it is n_sinks + window - 1
    """

    name, hints = "query at the length before eviction", NEWEST  # seen in: ports that ask for the length first

    @property
    def own(self):
        return min(self.n_seen - 1, self.capacity)


class LateQuery(Cache):
    """the query stands at its place in the text, the keys at their slots; rotate the query to the last slot"""

    name, number, hints = "query not shifted", 3, NEWEST  # seen in: ports that shift stored keys only

    @property
    def own(self):
        return self.n_seen - 1


class LateKey(LateQuery):
    """the newest key and query stand at their place in the text, not at their slot; number the newest too"""

    name = "newest not shifted"
    hints = """Where does the newest token stand once others have left?
    Look at the last of the positions: is it a place in the text?
    In the last slot that is filled, len(held) - 1, and the query with it."""

    @property
    def positions(self):
        return [*range(len(self.token_index) - 1), self.own]


class Shifted(Cache):
    """A right cache that keeps the position of each key, and moves it by `pace` when a token before it leaves."""

    hints, pace = SHIFT, -1

    @property
    def last(self):
        """The position that a key comes in at, once the cache is full."""
        return self.capacity - 1

    def shifts(self, token):
        """Count how many have left since this token came in; none for a sink."""
        return max(0, self.n_seen - 1 - max(token, self.capacity - 1)) if token >= self.n_sinks else 0

    @property
    def positions(self):
        return [min(token, self.last) + self.pace * self.shifts(token) for token in self.token_index]


class OnePlace(Shifted):
    """every new key is rotated to the cache's length and never shifted; all recent keys stand at one place, but they
    move down when a token leaves
    """

    name, number, pace = "all recent keys at one place", 11, 0  # seen in: two replications, one a live visualiser
    hints = """At which positions do two tokens come in, one after the other, once the cache is full?
    Look at what is held already: does an eviction move it?
    All behind it move one slot down. Easiest: number what is held 0, 1, 2, ... at every step, keys un-rotated."""


class OnePlaceBehind(OnePlace):
    """Likewise, by the length before the eviction."""

    @property
    def last(self):
        return self.capacity


class OnePlaceBehindTheQuery(OnePlaceBehind):
    """Likewise, but for the query."""

    @property
    def own(self):
        return min(self.n_seen, self.capacity) - 1


class WrongWay(Shifted):
    """stored keys are shifted the wrong way; when a token leaves, those behind it must move one slot down, not up"""

    name, pace = "shifted the wrong way", 1


class ShiftedTwice(Shifted):
    """stored keys are shifted twice when a token leaves; those behind it must move one slot down, not two"""

    name, pace = "shifted twice", -2  # seen in: a cache and a model that both shift


class ShiftedEarly(Cache):
    """stored keys are shifted as soon as the cache is full, one token before any leaves, as in transformers' SinkCache;
    it grows while n + 1 <= n_sinks + window, not <
    """

    name = "shifted a token too early"  # seen in: transformers' SinkCache
    hints = """Does a token leave when the cache has just become full?
    Look at the comparison that begins the shift.
    Shift when a token leaves, at the first that comes after n_sinks + window, and not before."""

    @property
    def positions(self):
        first = range(self.n_sinks, self.capacity - 1) if self.n_seen >= self.capacity else ()  # held when it got full
        return [slot - (token in first) for slot, token in enumerate(self.token_index)]


class RingOrder(Cache):
    """the place in a ring, not the order; positions follow the ring's memory and not the age of the tokens: the oldest
    of the window comes right after the sinks
    """

    name, hints = "positions in ring order", RING

    @property
    def positions(self):
        return [t if t < self.n_sinks else self.n_sinks + (t - self.n_sinks) % self.window for t in self.token_index]


class RingOrderLast(RingOrder):
    """the place in a ring, not the order; keys are numbered so, the query as the last of them: number both by age"""

    name = "keys in ring order"

    @property
    def own(self):
        return len(self.token_index) - 1


class TwiceTheRing(Cache):
    """the place in a ring twice the window; it keeps the distances only until the window spans the place where the ring
    begins again, and the sinks move away: number by age
    """

    name, hints = "positions modulo twice the window", RING  # seen in: ExecuTorch 1.5.1

    @property
    def positions(self):
        ring = 2 * self.window
        return [t if t < self.n_sinks else self.n_sinks + (t - self.n_sinks) % ring for t in self.token_index]


class WindowFromZero(Cache):
    """the window is numbered from zero again; it stands behind the sinks: number all that is held, 0, 1, 2, ..."""

    name = "window numbered from zero"
    hints = """Where does the first token of the window stand, behind two sinks?
    Look at where you begin to number the window.
    Behind the sinks, at n_sinks: number all that is held together, 0, 1, 2, ..."""

    @property
    def positions(self):
        return [slot if slot < self.n_sinks else slot - self.n_sinks for slot in range(len(self.token_index))]


class RotatedTwice(Cache):
    """rotated keys are rotated again; store them as they come, and rotate once, when they are used"""

    name, number, hints = "keys rotated twice", 16, AGAIN  # seen in: ports

    def rotated_to(self, token):
        """Return the position that a key was rotated to before it was stored."""
        return min(token, self.capacity - 1)

    def attend(self, q, keys, values):
        keys = self.rotated(keys, [self.rotated_to(token) for token in self.token_index])
        return super().attend(q, keys, values)


class RotatedOnEntryToo(RotatedTwice):
    """Likewise, by the length before the eviction."""

    def rotated_to(self, token):
        return min(token, self.capacity)


class RotatedAtEveryStep(RotatedTwice):
    """Likewise: what was rotated at one step is stored, and rotated at the next."""

    def attend(self, q, keys, values):
        self.keys = list(self.rotated(keys, self.positions))
        return self.mix(self.rotated(q[None], [self.own]), np.array(self.keys), values)[0]


class Drift(Cache):
    """stored keys are shifted again and again in half precision; they drift: store them un-rotated"""

    name, number = "drift", 7  # seen in: 15 % after 1,000 shifts, lesson 3
    hints = """What happens to a rounding error that is made again at every step?
    Look at the dtype in which stored keys are shifted.
    Rotate the stored, un-rotated key afresh, in float32 or float64, instead of shifting the last result."""

    def append(self, k, v):
        super().append(self.rotated(k[None], [min(self.n_seen, self.capacity - 1)])[0], v)

    def keep(self, slots):
        evicts = len(slots) < len(self.keys)
        super().keep(slots)
        behind = slice(self.n_sinks, len(slots) - 1)  # all that move: the newest came in at its slot
        if evicts and self.theta is not None and self.window > 1:
            self.keys[behind] = self.in_half(np.array(self.keys[behind], np.float16), -1)

    def in_half(self, keys, position):
        """Rotate by sines and cosines of half precision, and store as much."""
        unit = np.zeros_like(keys, np.float16)
        unit[..., : keys.shape[-1] // 2] = 1.0
        (cos, sin), (a, b) = (np.split(x, 2, axis=-1) for x in (self.rotated(unit, [position]), keys))
        return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1).astype(np.float16)

    def attend(self, q, keys, values):
        return self.mix(self.rotated(q[None], [self.own]), keys, values)[0]


class DriftFromEntry(Drift):
    """Likewise, in half precision when it comes in, one slot too far, and shifted back with the others."""

    def append(self, k, v):
        place = min(self.n_seen, self.capacity)
        Cache.append(self, k if self.theta is None else self.in_half(k[None], place)[0], v)

    def keep(self, slots):
        evicts = len(slots) < len(self.keys)
        Cache.keep(self, slots)
        if evicts and self.theta is not None:
            self.keys[self.n_sinks :] = self.in_half(np.array(self.keys[self.n_sinks :]), -1)
