"""Wrong turns of eviction: which tokens stay, and whether a query sees them."""

import numpy as np

from ..attention import mix, score
from ..ops import softmax
from .right import Cache, likewise


class OneMore(Cache, name="one key too many", number=1, sizes=lambda self: (self.n_sinks, self.window + 1)):
    """the query sees one key too many: eviction comes after attention, or before the new key is in; the authors'
    (start, recent) means n_sinks=start, window=recent + 1
    """  # seen in: the authors' code; does 128 include the query?


class OneLess(Cache, name="one key too few", number=12, sizes=lambda self: (self.n_sinks, self.window - 1)):
    """the query sees one key too few: eviction comes too early; evict when more than n_sinks + window are held, not
    when exactly that many are, because the current token counts toward the window
    """  # seen in: caches that evict before the new token is in


# seen in: a report that took unchanged perplexity for success
class NothingLeaves(Cache, name="nothing evicted", number=19, survivors=lambda self, n: list(range(n))):
    """nothing is evicted; this is dense attention, so an unchanged perplexity is not a success"""


class Crops(Cache, name="attention cropped, memory not", number=18):  # seen in: ports
    """attention is cropped, but memory is not; what is evicted must leave the state, not just be masked"""

    def append(self, k, v):
        self.all = [*getattr(self, "all", []), (k, v)]
        super().append(k, v)


class NoSinks(Cache, name="no sinks", sizes=lambda self: (0, self.capacity)):
    """no sinks: only the last n_sinks + window stay; this is window attention, so keep the first n_sinks for good (a
    ring that is written at t % (n_sinks + window) overwrites them)
    """


class WindowAlone(Cache, name="no sinks beside the window", sizes=lambda self: (0, self.window)):
    """no sinks: only the window stays; keep the first n_sinks as well, for good"""


class OneMoreSink(Cache, name="one sink too many", sizes=lambda self: (self.n_sinks + 1, self.window)):
    """one sink too many: slot <= n_sinks; the sinks are slots 0 to n_sinks - 1, and a token that begins the text counts
    as one of them
    """  # seen in: n_keep + 1 in engines that count a text's first token separately


class OneMoreSinkInside(OneMoreSink):
    """The same, but in a cache of the same size: the window is one smaller."""

    @property
    def sizes(self):
        n_sinks = min(self.n_sinks + 1, self.capacity - 1)
        return n_sinks, self.capacity - n_sinks


class SinksWithin(Cache, name="sinks within the window"):
    """the sinks are counted as part of the window; what other code calls window_length, max_size or n_ctx is n_sinks +
    window
    """

    least = 1

    @property
    def sizes(self):
        return self.n_sinks, max(self.least, self.window - self.n_sinks)


# if the sinks fill the window, nothing else stays
SinksFillTheWindow = likewise("SinksFillTheWindow", SinksWithin, least=0)


class HalfAtOnce(Cache, name="half the window at once"):  # seen in: llama.cpp's context shift
    """half of the window is evicted at once when the cache is full, as in llama.cpp's context shift; in StreamingLLM
    each new token evicts only one
    """

    def survivors(self, n):
        leave = max(1, self.window // 2)
        return list(range(n)) if n <= self.capacity else [*range(self.n_sinks), *range(self.n_sinks + leave, n)]


class BlockLeavesEarly(Cache, name="a block leaves early"):  # seen in: caches of pages: evicted by ceil, read by floor
    """a block of tokens is evicted as soon as its first token has left the window; the rest are still in it, so evict
    single tokens, or a block only once all of it has left
    """

    block = 2

    def survivors(self, n):
        starts = [token - (token - self.n_sinks) % self.block for token in self.token_index[:n]]  # of their blocks
        recent = self.token_index[n - 1] - self.window
        return [slot for slot, start in enumerate(starts) if slot < self.n_sinks or start > recent or slot == n - 1]


BlockOf4LeavesEarly = likewise("BlockOf4LeavesEarly", BlockLeavesEarly, block=4)
BlockOf16LeavesEarly = likewise("BlockOf16LeavesEarly", BlockLeavesEarly, block=16)


class PageLeavesEarly(BlockLeavesEarly):
    """The same, but never a block with a sink or the newest token; blocks are counted from the start of the text."""

    def survivors(self, n):
        block, newest = getattr(self.policy, "block", 16), self.token_index[n - 1]
        starts = [token - token % block for token in self.token_index[:n]]
        recent = newest - max(self.window, block)
        return [slot for slot, start in enumerate(starts) if start < self.n_sinks or start > recent]


class MinusZero(Cache, name="keys[-0:]", number=5):  # seen in: slices with a computed length
    """[-0:] keeps everything; with a window of 1, the slice `[-(window - 1):]` of the earlier tokens evicts nothing"""

    after = True

    def survivors(self, n):
        if n <= self.capacity:
            return list(range(n))
        past = list(range(n - 1))
        return [*past[: self.n_sinks], *past[self.n_sinks * self.after :][-(self.window - 1) :], n - 1]


# "everything" then includes the sinks a second time
MinusZeroFromTheStart = likewise("MinusZeroFromTheStart", MinusZero, after=False)


class Overlapping(Cache, name="sinks kept twice"):
    """sinks are kept twice until the cache is full; at first the sinks and the window overlap"""

    def survivors(self, n):
        return [*range(min(n, self.n_sinks)), *range(max(0, n - self.window), n)]


class NothingNew(Cache, name="nothing new comes in", survivors=lambda self, n: list(range(min(n, self.capacity)))):
    """the newest token is evicted, so nothing new gets in; a full cache evicts neither a sink nor the newest token"""


class StartsOver(Cache, name="only the newest token held", survivors=lambda self, n: [n - 1]):
    """every step starts over, so only the newest token is held; return a state that contains the earlier tokens too"""


class Unequal(Cache, name="keys and values evicted unequally", number=13):  # seen in: a layer 0 that was never trimmed
    """keys and values are evicted unequally; keep them in pairs, or cut both at the same places"""

    first = True  # the values that arrived first are kept

    def keep(self, slots):
        n, values = len(slots), self.values
        super().keep(slots)
        self.values = values[:n] if self.first else values[-n:]


# keys are evicted after the sinks, values from the front
ValuesWithoutSinks = likewise("ValuesWithoutSinks", Unequal, first=False)


class ZeroSlot(Cache, name="a slot of zeros", number=2):  # seen in: a decode loop that started a slot late
    """one extra slot, of zeros; it is there before the first token and is attended to, so begin without slots, or mask
    empty ones
    """

    def append(self, k, v):
        if self.n_seen == 0:
            self.token_index, self.keys, self.values = [-1], [np.zeros_like(k)], [np.zeros_like(v)]
        super().append(k, v)


class ZeroSlotForGood(ZeroSlot, append=Cache.append):
    """The same, but in a slot that can never be evicted."""

    def mix(self, query, keys, values):
        return super().mix(query, *(np.pad(x, ((1, 0), (0, 0), (0, 0))) for x in (keys, values)))


class EmptySlots(Cache, name="empty slots attended to", number=2):  # seen in: buffers of a fixed size
    """slots of zeros, not yet filled, are attended to; mask them, or slice off the filled ones"""

    most: int | None = None  # such slots; None means all

    def mix(self, query, keys, values):
        n_empty = len(range(len(keys), self.capacity)[: self.most])
        return super().mix(query, *(np.pad(x, ((0, n_empty), (0, 0), (0, 0))) for x in (keys, values)))


OneEmptySlot = likewise("OneEmptySlot", EmptySlots, most=1)  # by a mask that is one too long


class NotItself(Cache, name="attends before it appends"):
    """the query does not see its own key; append first, then attend"""

    def mix(self, query, keys, values):
        return super().mix(query, keys[:-1], values[:-1]) if len(keys) > 1 else np.zeros_like(query)


class AttendsFirst(NotItself, own=lambda self: len(self.token_index), mix=Cache.mix):
    """The same, literally: attend over what is held before the token arrives, up to the full capacity."""

    def step(self, q, k, v):
        out = self.attend(q, np.array(self.keys), np.array(self.values))
        self.append(k, v)
        self.keep(self.survivors(len(self.token_index)))
        return out


class MaskedAfter(NothingLeaves, name="masked after the softmax", number=20):  # seen in: teaching notebooks
    """masked after the softmax, not renormalised: evicted tokens keep their share; mask before the softmax, so that the
    rest sums to one
    """

    def mix(self, query, keys, values):
        stay = np.isin(np.arange(len(keys)), Cache.survivors(self, len(keys)))
        scores = score(query, keys) + self.bias([self.own], self.positions)
        return mix(np.where(stay, softmax(scores), 0.0), values)


class HalfPrecision(Cache, name="state in half precision"):
    """the state is kept in half precision; the rounding shows in every output, so store float32"""

    def append(self, k, v):
        super().append(*(x.astype(np.float16).astype(x.dtype) for x in (k, v)))
