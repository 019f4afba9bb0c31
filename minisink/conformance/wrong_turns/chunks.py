"""Wrong turns of a prompt that comes in chunks; one token at a time each of these is right."""

import numpy as np

from ...attention import attend, banded_mask, causal_mask
from .right import Cache


class AtOnce(Cache):
    """A chunk in one go: make room for its first token, append all, attend, evict."""

    def step(self, q, k, v):
        return self.steps(q[None], k[None], v[None])[0]

    def steps(self, q, k, v):
        self.keep(self.room(len(self.token_index)))
        self.append(k, v)
        n = len(self.token_index)
        query, keys = self.rotated(q, range(n - len(q), n)), self.rotated(np.array(self.keys), range(n))
        out = attend(query, keys, np.array(self.values), self.visible(len(q), n))
        self.keep(self.survivors(n))
        return out

    def append(self, k, v):
        """Keys and values of a chunk, (T, K, D)."""
        self.token_index = [*self.token_index, *range(self.n_seen, self.n_seen + len(k))]
        self.keys, self.values, self.n_seen = [*self.keys, *k], [*self.values, *v], self.n_seen + len(k)

    def keep(self, slots):
        """Evict all others."""
        self.token_index = [self.token_index[slot] for slot in slots]
        self.keys, self.values = [self.keys[slot] for slot in slots], [self.values[slot] for slot in slots]

    def room(self, n):
        """Slots, of n, that stay when one more comes."""
        return [slot for slot in Cache.survivors(self, n + 1) if slot < n]

    def visible(self, n_queries, n_keys):  # -> (T, S)
        """Which keys each query sees."""
        raise NotImplementedError


class SeesAhead(AtOnce):
    """a chunk sees its own future: mask the keys that come after a query's own"""

    name = "a chunk sees ahead"

    def visible(self, n_queries, n_keys):
        return np.ones((n_queries, n_keys), bool)


class Overshoots(AtOnce):
    """nothing is evicted within a chunk, and its later tokens see more than n_sinks + window keys: take a chunk while
    there is room, and then token by token
    """

    name = "a chunk overshoots the window"

    def visible(self, n_queries, n_keys):
        return causal_mask(n_queries, n_keys)


class OneLeaves(Overshoots):
    """one token leaves for a whole chunk: as many must leave as are too many"""

    name = "one leaves for a chunk"

    def survivors(self, n):
        return list(range(n))

    def room(self, n):
        return [slot for slot in range(n) if n < self.capacity or slot != self.n_sinks]


class NumberedOnce(AtOnce):
    """a chunk is numbered once for all of its tokens, which see the right keys, but the sinks too far away: rotate the
    sinks, or the query that meets them, for each token
    """

    name = "a chunk numbered once"

    def visible(self, n_queries, n_keys):
        sinks = np.arange(n_keys) < self.n_sinks
        return causal_mask(n_queries, n_keys) & (sinks | banded_mask(n_queries, n_keys, self.window))


class EvictsFirst(AtOnce):
    """a chunk evicts before all of it has attended: its earlier tokens miss keys that are in their window still"""

    name = "a chunk evicts first"

    def steps(self, q, k, v):
        self.append(k, v)
        self.keep(self.survivors(len(self.token_index)))
        own = np.arange(self.n_seen - len(q), self.n_seen)
        visible = np.array(self.token_index) <= own[:, None]  # (T, S)
        some, place, out = visible.any(axis=1), visible.sum(axis=1) - 1, np.zeros_like(q)
        keys, values = self.rotated(np.array(self.keys), self.positions), np.array(self.values)
        out[some] = attend(self.rotated(q[some], place[some]), keys, values, visible[some])
        return out
