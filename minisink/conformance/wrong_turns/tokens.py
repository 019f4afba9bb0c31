"""Wrong turns of eviction: which tokens stay, and whether a query meets them."""

import numpy as np

from ...attention import attend, mix, score
from ...ops import softmax
from .right import Cache


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


class WindowAlone(Cache):
    """the window alone is kept, and no first token beside it: the first n_sinks stay as well, for good"""

    name = "no sinks beside the window"

    def survivors(self, n):
        return list(range(max(0, n - self.window), n))


class SinksWithin(Cache):
    """sinks are counted within the window: what others call window_length, max_size or n_ctx is n_sinks + window"""

    name = "sinks within the window"

    def survivors(self, n):
        recent = max(1, self.window - self.n_sinks)
        return list(range(n)) if n <= self.n_sinks + recent else [*range(self.n_sinks), *range(n - recent, n)]


class HalfAtOnce(Cache):
    """half of the window leaves at once when the cache is full, as in llama.cpp's context shift: StreamingLLM lets one
    leave for each that comes
    """

    name = "half the window at once"

    def survivors(self, n):
        leave = max(1, self.window // 2)
        return list(range(n)) if n <= self.capacity else [*range(self.n_sinks), *range(self.n_sinks + leave, n)]


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


class EmptySlots(Cache):
    """slots that no token has filled yet are attended to, and zeros get weight: mask them, or slice what is filled"""

    name = "empty slots attended to"

    def attend(self, q, keys, values):
        keys, values = self.rotated(keys, self.positions), np.array(values)
        empty = np.zeros((self.capacity - len(keys), *keys.shape[1:]))
        keys, values = np.concatenate((keys, empty)), np.concatenate((values, empty))
        return attend(self.rotated(q[None], [self.own]), keys, values)[0]


class NoCopy(Cache):
    """every slot holds the newest token: it came in a buffer that is used again, so keep a copy, not a view"""

    name = "no copy kept"

    def attend(self, q, keys, values):
        return super().attend(q, np.repeat(keys[-1:], len(keys), axis=0), np.repeat(values[-1:], len(keys), axis=0))


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
