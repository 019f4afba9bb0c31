"""The key/value cache: which tokens it keeps, and which position each of them is given.

This file is StreamingLLM (Xiao et al., arXiv:2309.17453, section 3.2). It comes down to two decisions:

1. *Which tokens stay.* The first ``n_sinks`` and the last ``window``; everything between is evicted. The
   current token counts, so a query never sees more than ``capacity = n_sinks + window`` keys.
2. *Which position they get.* Their place in the cache, not in the text: with tokens [0, 1, 2, 3, 6, 7, 8]
   cached, token 9 is decoded at positions [0, 1, 2, 3, 4, 5, 6, 7]. For that, keys are stored **un-rotated**
   and rotated to their slot when they are used.

Why the first tokens? Every later query has seen them, so that is where heads learn to put the weight they must spend
(`ops.softmax`). With only the window, that weight falls on tokens whose values are not small: see docs/why.md.

Words: a *token_index* is a place in the text, a *slot* a place in the cache, a *position* the number given to
the encoding. StreamingLLM is ``position := slot``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

BLOCK = 512  # tokens processed at once while nothing is evicted: bounds the (H, T, S) scores


@dataclass(frozen=True)
class Policy:
    """The two decisions. `methods` has the usual policies by name; your own policy may override either decision."""

    n_sinks: int = 0  # first tokens, never evicted
    window: int | None = None  # newest tokens kept, the current one included; None keeps everything
    positions: str = "slot"  # "slot": place in the cache (StreamingLLM); "original": place in the text (the ablation)

    def survivors(self, token_index):  # (S,) -> (at most S,)
        """Decision 1: the slots that stay, in order, given the `token_index` of each token held, newest last.

        >>> Policy(2, 3).survivors(np.arange(7)).tolist()
        [0, 1, 4, 5, 6]
        """
        S = len(token_index)
        if self.window is None or S <= self.n_sinks + self.window:
            return np.arange(S)
        return np.concatenate((np.arange(self.n_sinks), np.arange(S - self.window, S)))

    def positions_of(self, token_index):  # (S,) -> (S,)
        """Decision 2: the position of each token held.

        >>> Policy(2, 3).positions_of(np.array([0, 1, 4, 5, 6])).tolist()
        [0, 1, 2, 3, 4]
        """
        return np.arange(len(token_index)) if self.positions == "slot" else token_index

    @property
    def capacity(self) -> int | None:
        """The most keys that a query can see, or None if there is no limit."""
        return None if self.window is None else self.n_sinks + self.window

    def __post_init__(self):
        if self.window is not None or self.instead:
            check_whole("window", self.window, 1, self.instead or ", because the current token counts")
        check_whole("n_sinks", self.n_sinks, 0)
        if self.positions not in ("slot", "original"):
            raise ValueError(f"positions is {self.positions!r}; it must be 'slot' or 'original'")
        numbers_to_int(self)

    @property
    def is_plain(self) -> bool:
        """Whether the three fields define it, because neither decision is overridden; the fast paths rely on that."""
        return type(self).survivors is Policy.survivors and type(self).positions_of is Policy.positions_of

    name = property(lambda self: type(self).__name__.lower())  # in tables and pictures: "streaming"
    instead: ClassVar[str] = ""  # a class that needs a window names one that does not
    kv_cache: ClassVar[Any] = None  # a method that keeps more has its own version of KVCache,
    block_cache: ClassVar[Any] = None  # fast.blocks.Banded
    ring_cache: ClassVar[Any] = None  # and fast.ring.RingCache: see retrieval


class LayerCache:
    """Keys (un-rotated) and values of one layer, (S, K, D) in slot order, and the `token_index` (S,) of each slot."""

    def __init__(self, keys, values, policy):
        self.keys = keys
        self.values = values
        self.policy = policy
        self.token_index = np.arange(len(keys))
        self.n_seen = len(keys)  # tokens appended since the start, evicted ones included

    def append(self, keys, values):  # (T, K, D), (T, K, D)
        """Add a run of tokens from `blocks`, keys un-rotated, and evict what the policy does not keep."""
        n_new = len(keys)
        keys = np.concatenate((self.keys, keys))  # (S, K, D), (T, K, D) -> (S + T, K, D)
        values = np.concatenate((self.values, values))
        index = np.concatenate((self.token_index, np.arange(self.n_seen, self.n_seen + n_new)))
        stay = _survivors(self.policy, index)
        if len(stay) < len(keys):  # evict
            keys, values, index = keys[stay], values[stay], index[stay]
        self.keys, self.values, self.token_index = keys, values, index
        self.n_seen += n_new

    @property
    def positions(self):  # (S,)
        """The current position of each slot."""
        return self.policy.positions_of(self.token_index)


class KVCache:
    """A `LayerCache` for every layer, all under `policy`; the only thing in the readable path that changes.

    The paper's example, with 4 sinks and a window of 4, before and after token 9:

    >>> cache = KVCache(1, 1, 2, Policy(4, 4))
    >>> for token in np.zeros((9, 1, 1, 2), np.float32):
    ...     cache.layers[0].append(token, token)
    >>> cache.token_index.tolist()
    [0, 1, 2, 3, 5, 6, 7, 8]
    >>> cache.layers[0].append(token, token)
    >>> cache.token_index.tolist(), cache.positions.tolist()
    ([0, 1, 2, 3, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7])
    """

    def __init__(self, n_layers: int, n_kv_heads: int, head_dim: int, policy: Any, *, like=None):  # L, K, D
        like = np.empty(0, np.float32) if like is None else like  # gives dtype and device
        empty = np.zeros_like(like, shape=(0, n_kv_heads, head_dim))
        self.policy = policy
        self.layers = [LayerCache(empty, empty, each) for each in by_layer(policy, n_layers)]

    def __len__(self) -> int:
        """Slots filled, in the last layer."""
        return len(self.layers[-1].keys)

    @property
    def token_index(self) -> np.ndarray:
        """ndarray of shape (S,): place in the text of the token in each slot, in the last layer."""
        return self.layers[-1].token_index

    @property
    def positions(self) -> np.ndarray:
        """ndarray of shape (S,): the current position of each slot, in the last layer."""
        return self.layers[-1].positions

    @property
    def n_seen(self) -> int:
        """Tokens taken in since the start, evicted ones included."""
        return self.layers[-1].n_seen

    # Checks, and saving to a file: see `snapshot` -------------------------------------------------

    path: ClassVar[Any] = None  # other kinds of cache name theirs here, instead of `paths.Cached`
    kind: ClassVar[str] = "slots"

    @property
    def capacity(self) -> int | None:
        """The most keys that a query can see, or None if there is no limit."""
        return self.policy.capacity

    def __repr__(self):
        return f"<KVCache of {len(self.layers)} layers: {len(self)} slots of {self.n_seen} tokens seen, {self.policy}>"

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values held."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def next_positions(self, n_tokens: int) -> np.ndarray:
        """Return the positions (T,) of the next `n_tokens`, each at the moment when it is newest."""
        if any(layer.n_seen != self.n_seen for layer in self.layers):
            raise ValueError("this cache was left half-way by an interrupted forward pass; start a new one")
        index, policy = np.arange(self.n_seen, self.n_seen + n_tokens), self.layers[-1].policy
        if policy.is_plain:
            return newest_position(policy, index)
        token_index, positions = self.token_index, np.empty_like(index)
        for i, t in enumerate(index):  # what `append` will do, on token_index alone
            token_index = np.append(token_index, t)
            token_index = token_index[_survivors(policy, token_index)]
            positions[i] = policy.positions_of(token_index)[-1]
        return positions

    def state(self) -> tuple[dict, dict]:
        """Return everything needed to resume: arrays by name, and JSON-able metadata."""
        self.next_positions(0)  # raises after an interrupted pass, which cannot be resumed
        arrays = {}
        for i, layer in enumerate(self.layers):
            arrays |= {f"keys.{i}": layer.keys, f"values.{i}": layer.values, f"token_index.{i}": layer.token_index}
        return arrays, {"n_seen": self.n_seen}

    @classmethod
    def from_state(cls, policy: Any, arrays: dict, about: dict) -> "KVCache":
        """Rebuild a cache from its `state`."""
        _, K, D = arrays["keys.0"].shape
        n_layers = sum(name.startswith("keys.") for name in arrays)
        cache = cls(n_layers, K, D, policy, like=arrays["keys.0"])
        for i, layer in enumerate(cache.layers):
            layer.keys, layer.values = arrays[f"keys.{i}"], arrays[f"values.{i}"]
            layer.token_index, layer.n_seen = arrays[f"token_index.{i}"], about["n_seen"]
        return cache


def newest_position(policy, token_index):
    """Return the position of a token when it is the newest under a plain policy: ``min(t, capacity - 1)``.

    >>> newest_position(Policy(2, 3), np.array([3, 4, 5, 6])).tolist()
    [3, 4, 4, 4]
    """
    if policy.positions == "original" or policy.window is None:
        return token_index
    return np.minimum(token_index, policy.n_sinks + policy.window - 1)


def blocks(layer: LayerCache, n_tokens: int) -> Iterator[slice]:
    """Cut `n_tokens` new tokens into runs that may share one set of slots; yield slices of the new tokens.

    While the cache is filling up nothing is evicted, so a run of tokens can be appended at once and masked
    causally. After that, each token evicts another and shifts the slots, so it is a run of its own.
    """
    policy, start = layer.policy, 0
    while start < n_tokens:
        room = n_tokens if policy.capacity is None else policy.capacity - len(layer.keys)
        room = room if policy.is_plain else 1  # only the policy knows
        stop = min(n_tokens, start + max(1, min(room, BLOCK)))
        yield slice(start, stop)
        start = stop


def by_layer(policy, n_layers):
    """Return the policy of each layer: the same one for all, or those of a `methods.ByLayer`."""
    policies = getattr(policy, "policies", (policy,) * n_layers)
    if len(policies) != n_layers:
        raise ValueError(f"{policy!r} has {len(policies)} policies, but the model has {n_layers} layers")
    return policies


def _survivors(policy, token_index):
    """Return the slots that stay. Your own policy must name existing slots, in order, including the newest."""
    stay, newest = policy.survivors(token_index), len(token_index) - 1
    if policy.is_plain:
        return stay
    if len(stay) == 0 or stay[-1] != newest or stay[0] < 0 or (np.diff(stay) < 1).any():
        raise ValueError(f"{policy}: survivors are {stay}; they must ascend and end with {newest}, the newest")
    return stay


def refuse_own(policy: Policy) -> None:
    """Raise ValueError for a policy that overrides a decision; the fast paths would ignore it."""
    if not policy.is_plain:
        raise ValueError(f"{policy}: the fast paths handle only sinks and a window; use readable=True or a KVCache")


def numbers_to_int(method) -> None:
    """Replace NumPy integers in the fields of a frozen method with Python ones, which `deque` and `repr` need."""
    for f in fields(method):
        if isinstance(number := getattr(method, f.name), np.integer):
            object.__setattr__(method, f.name, int(number))


def check_whole(name, value, least, why=""):
    """Raise ValueError unless `value` is an integer, at least `least`, that NumPy can count slots with."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of {least} or more{why}")
    if value > 2**61:
        raise ValueError(f"{name} is {value!r}; no cache holds more than 2**61")
