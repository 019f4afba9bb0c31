"""A right cache, small enough to go wrong in one place at a time: one layer, its tokens in lists.

Every other cache in this gallery is this one with one method changed, in the class body or the class line, or a variant
of a wrong one ("The same, but ..."), whose name it shares. The docstring is the diagnosis: what is wrong and, after the
semicolon, why, or what to do.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ..attention import attend
from ..positions import Rotary, bias_of, rope_frequencies, unrotated


def plain(theta, head_dim):
    """Return the encoding that `theta` stands for: rotary over the whole head, or none."""
    return unrotated if theta is None else Rotary(rope_frequencies(head_dim, theta))


def first_and_last(n, first, last):
    """Return the first and the last of n slots, or all of them if there are no others.

    >>> first_and_last(7, 2, 3)
    [0, 1, 4, 5, 6]
    """
    return list(range(n)) if n <= first + last else [*range(first), *range(n - last, n)]


class Cache:
    """StreamingLLM, as `minisink.cache` has it: append, evict, number, rotate, attend."""

    name = "right"
    number: int | None = None  # in the list in docs/check.md
    layer, n_layers = 0, 1  # which layer this is, of how many
    policy: Any = None  # the policy it is meant to have, if that is not StreamingLLM
    place: Any = None  # a token's position, from its slot and its token_index, if that is wrong
    other: dict[str, Any] = {}  # fields of its encoding, as functions of the right field and head_dim

    def __init_subclass__(cls, **changed: Any):
        """Change attributes and methods of the class, and fields of its encoding; without a name it is a variant."""
        for field, change in changed.items():
            if hasattr(cls, field):
                setattr(cls, field, property(change) if isinstance(getattr(cls, field), property) else change)
            else:
                cls.other = cls.other | {field: change}

    def __init__(self, *, n_sinks: int, window: int, theta: float | None, encoding: Any = None):
        self.n_sinks, self.window, self.capacity = n_sinks, window, n_sinks + window
        self.theta, self.given_encoding = theta, encoding  # one of them says how keys are rotated: see `positions`
        self.rotates = theta is not None or isinstance(encoding, Rotary)
        self.n_seen, self.token_index = 0, []  # tokens taken in; tokens held, in slot order
        self.keys, self.values = [], []  # in the same order, (K, D) each, un-rotated

    @classmethod
    def diagnosis(cls):
        """Return what is wrong and what to do, in one line: the docstring of the class that has the name."""
        return " ".join(next(str(each.__doc__) for each in cls.__mro__ if "name" in vars(each)).split())

    @classmethod
    def layers(cls, n_layers, before, policy=None, **sizes):
        """Return a cache for each layer; `before` has those of the previous text, [] if this is the first."""
        caches, policies = [cls(**sizes) for _ in range(n_layers)], getattr(policy, "policies", (policy,) * n_layers)
        for layer, cache in enumerate(caches):
            cache.layer, cache.n_layers, cache.policy = layer, n_layers, policies[layer]
        return caches

    def step(self, q, k, v):  # (H, D), 2 x (K, D) -> (H, D)
        """Take in one token, in one layer, and return the output for its query."""
        self.append(k, v)
        self.keep(self.survivors(len(self.token_index)))
        return self.attend(q, np.array(self.keys), np.array(self.values))

    def steps(self, q, k, v):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Take in a chunk, one token at a time."""
        return np.array([self.step(*token) for token in zip(q, k, v, strict=True)])

    def show(self):
        """Return what is held, for `conformance.check` to compare."""
        return {"token_index": self.token_index, "positions": self.positions}

    def append(self, k, v):
        """Add the newest token."""
        self.token_index, self.keys, self.values = [*self.token_index, self.n_seen], [*self.keys, k], [*self.values, v]
        self.n_seen += 1

    @property
    def sizes(self):
        """How many sinks stay, and how many recent tokens."""
        return self.n_sinks, self.window

    def survivors(self, n):
        """Return the slots that stay, out of n."""
        (first, last), policy = self.sizes, self.policy
        if policy is None:
            return first_and_last(n, first, last)
        policy = policy if policy.window is None else replace(policy, n_sinks=first, window=max(1, last))
        return policy.survivors(np.array([*self.token_index, self.n_seen][:n])).tolist()

    def keep(self, slots):
        """Evict all slots except these."""
        self.token_index, self.keys, self.values = (
            [column[slot] for slot in slots] for column in (self.token_index, self.keys, self.values)
        )

    @property
    def positions(self):
        """Position of each slot: the slot, or what the policy says."""
        if self.place:
            return [self.place(slot, token) for slot, token in enumerate(self.token_index)]
        n = len(self.token_index)
        return list(range(n)) if self.policy is None else self.policy.positions_of(np.array(self.token_index)).tolist()

    @property
    def own(self):
        """Position of the query: the same as its own key's, the newest."""
        return self.positions[-1]

    def attend(self, q, keys, values):  # (H, D), 2 x (S, K, D) -> (H, D)
        """Rotate the query and the keys to their positions, and mix."""
        if len(keys) == 0:
            return np.zeros_like(q)
        return self.mix(self.rotated(q[None], [self.own]), self.rotated(keys, self.positions), values)[0]

    def rotated(self, x, positions):  # (T, H, D), (T,) -> (T, H, D)
        """Return queries or keys as attention sees them."""
        return self.encoding(x.shape[-1])(x, np.array(positions))

    def encoding(self, head_dim):
        """Return the encoding that gives queries and keys their positions."""
        right = plain(self.theta, head_dim) if self.given_encoding is None else self.given_encoding
        other = {name: of(getattr(right, name), head_dim) for name, of in self.other.items() if hasattr(right, name)}
        return right._replace(**other) if other else right

    def bias(self, queries, keys):  # (T,), (S,) -> (H, T, S), or 0
        """Return what is added to the scores of queries and keys at these positions (ALiBi)."""
        bias = bias_of(self.encoding(self.keys[-1].shape[-1]), np.array(queries), np.array(keys), like=np.empty(0))
        return 0.0 if bias is None else bias

    def mix(self, query, keys, values):  # (T, H, D), 2 x (S, K, D) -> (T, H, D)
        """Mix the values by the pattern of rotated query and keys; extra keys get the next positions."""
        positions = [*self.positions, *range(len(self.positions), len(keys))][: len(keys)]
        return attend(query, keys, values, bias=self.bias([self.own], positions))


def likewise(variant, wrong, **changed):
    """Return a variant of a wrong cache: a separate class with the same name in reports and the same diagnosis."""
    return type(wrong)(variant, (wrong,), {"__module__": wrong.__module__}, **changed)
