"""Wrong turns with a prompt that arrives in chunks; fed one token at a time, each of these caches is right."""

import numpy as np

from ..attention import attend, banded_mask, causal_mask
from .right import Cache


class AtOnce(Cache):
    """Take a chunk in one go: make room for its first token, append it all, attend, evict."""

    def step(self, q, k, v):
        return self.steps(q[None], k[None], v[None])[0]

    def steps(self, q, k, v):
        n = len(self.token_index)
        self.keep([slot for slot in self.survivors(n + 1) if slot < n])
        for token in zip(k, v, strict=True):
            self.append(*token)
        n = len(self.token_index)
        out = self.output(q, range(n - len(q), n), range(n), self.visible(len(q), n))
        self.trim(n)
        return out

    def output(self, q, places, positions, visible):  # (T, H, D), (T,), (S,), (T, S) -> (T, H, D)
        keys, bias = self.rotated(np.array(self.keys), positions), self.bias(places, positions)
        return attend(self.rotated(q, places), keys, np.array(self.values), visible, bias=bias)

    def trim(self, n):
        self.keep(self.survivors(n))

    def visible(self, n_queries, n_keys):  # -> (T, S)
        return causal_mask(n_queries, n_keys)


class SeesAhead(AtOnce, name="a chunk sees ahead", visible=lambda self, T, S: np.ones((T, S), bool)):
    """a chunk sees its own future; mask the keys that come after a query's own"""


class Overshoots(AtOnce, name="a chunk overshoots the window"):
    """nothing is evicted within a chunk, so its later tokens see more than n_sinks + window keys; take chunks while
    there is room, then one token at a time
    """


# seen in: prompts longer than the window
class OneLeaves(AtOnce, name="one leaves for a chunk", number=15, trim=lambda self, n: None):
    """a chunk overshoots the window: only one token is evicted; evict as many tokens as there are too many"""

    def survivors(self, n):
        return [slot for slot in range(n) if n <= self.capacity or slot != self.n_sinks]


class NumberedOnce(AtOnce, name="a chunk numbered once"):
    """a chunk is numbered once for all of its tokens, which see the right keys but have the sinks too far away; for
    each token, rotate the sinks, or rotate the query once more for them
    """

    def visible(self, n_queries, n_keys):
        sinks = np.arange(n_keys) < self.n_sinks
        return causal_mask(n_queries, n_keys) & (sinks | banded_mask(n_queries, n_keys, self.window))


class EvictsFirst(AtOnce, name="a chunk evicts first"):
    """a chunk evicts before all its tokens have attended; the earlier ones miss keys that are still in their window"""

    def steps(self, q, k, v):
        for token in zip(k, v, strict=True):
            self.append(*token)
        self.keep(self.survivors(len(self.token_index)))
        return np.concatenate([self.one(query, t) for t, query in enumerate(q[:, None], self.n_seen - len(q))])

    def one(self, q, t):  # (1, H, D) -> (1, H, D)
        visible = self.seen_by(t)
        place, positions = self.meets(t, visible)
        return self.output(q, [place], positions, visible[None])

    def seen_by(self, t):  # -> (S,)
        return np.array(self.token_index) <= t

    def meets(self, t, visible):
        return visible.sum() - 1, self.positions


class LongerThanTheRing(EvictsFirst, name="a prompt longer than the ring"):
    """a prompt longer than the ring is written modulo its length and masked by slots; an early token finds a later one
    in its slot, so take the prompt in chunks that fit, then one token at a time
    """  # seen in: engines that write the whole prompt at index modulo capacity

    def seen_by(self, t):
        return np.arange(len(self.token_index)) < min(t + 1, self.capacity)


class LongerThanTheRingInPlace(LongerThanTheRing):
    """The same, but a token keeps its slot, and its key keeps its position in the text."""

    def seen_by(self, t):
        n = self.n_sinks
        slots = [token if token < n else n + (token - n) % self.window for token in self.token_index]
        return np.array(slots) < min(t + 1, self.capacity)

    def meets(self, t, visible):
        far = max(0, t + 1 - self.capacity)  # the query scores the sinks from the last slot
        return t, [token + far * (token < self.n_sinks) for token in self.token_index]
