"""The key/value cache: which tokens it keeps, and which position each of them is given.

This file is StreamingLLM (Xiao et al., arXiv:2309.17453, section 3.2). Two decisions make it:

1. *Which tokens stay.* The first ``n_sinks`` and the last ``window``; everything between is evicted. The
   current token counts, so a query never sees more than ``capacity = n_sinks + window`` keys.
2. *Which position they get.* Their place in the cache, not in the text: with tokens [0, 1, 2, 3, 6, 7, 8]
   cached, token 9 is decoded at positions [0, 1, 2, 3, 4, 5, 6, 7]. For that, keys are stored **un-rotated**
   and rotated to their slot when they are used.

Why the first tokens? Every later query has seen them, so it is there that heads learn to put the weight they must spend
(`ops.softmax`). With the window alone that weight falls on tokens whose values are not small: see docs/design.md.

Words: a *token_index* is a place in the text, a *slot* a place in the cache, a *position* the number given to
the encoding. StreamingLLM is ``position := slot``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

BLOCK = 512  # tokens taken at once while nothing is evicted: bounds the (H, T, S) scores


@dataclass(frozen=True)
class Policy:
    """The two decisions: the first `n_sinks` and the last `window` tokens stay, numbered as `positions` says.

    For a policy of your own override `survivors`, `positions_of` or both: see docs/your-own-cache.md.

    Parameters
    ----------
    n_sinks : int
        First tokens that are never evicted, 0 or more.
    window : int or None
        Most recent tokens kept, the current one included, 1 or more; None keeps everything.
    positions : {"slot", "original"}
        "slot" encodes a token at its place in the cache (StreamingLLM), "original" at its place in the
        text (the ablation).

    Raises
    ------
    ValueError
        For ``n_sinks < 0``, ``window < 1``, a number that is not whole, or unknown `positions`.
    """

    n_sinks: int = 0
    window: int | None = None
    positions: str = "slot"

    def __post_init__(self):
        check_whole("n_sinks", self.n_sinks, 0)
        if self.window is not None:
            check_whole("window", self.window, 1, ", for the current token counts")
        if self.positions not in ("slot", "original"):
            raise ValueError(f"positions is {self.positions!r}; it must be 'slot' or 'original'")

    @property
    def capacity(self) -> int | None:
        """Keys a query sees at most, or None without a limit."""
        return None if self.window is None else self.n_sinks + self.window

    def survivors(self, token_index):  # (S,) -> (at most S,)
        """Decision 1: the slots that stay, in order, when the tokens `token_index` are held, the newest last.

        >>> keep_sinks(2, 3).survivors(np.arange(7)).tolist()
        [0, 1, 4, 5, 6]
        """
        S = len(token_index)
        if self.window is None or S <= self.n_sinks + self.window:
            return np.arange(S)
        return np.concatenate((np.arange(self.n_sinks), np.arange(S - self.window, S)))

    def positions_of(self, token_index):  # (S,) -> (S,)
        """Decision 2: the position of each of the tokens that are held.

        >>> keep_sinks(2, 3).positions_of(np.array([0, 1, 4, 5, 6])).tolist()
        [0, 1, 2, 3, 4]
        """
        return np.arange(len(token_index)) if self.positions == "slot" else token_index

    def position(self, token_index):
        """The last of `positions_of`, the newest token's own, when that is `token_index`: ``min(t, capacity - 1)``."""
        if self.positions == "original" or self.window is None:
            return token_index
        return np.minimum(token_index, self.n_sinks + self.window - 1)

    @property
    def is_plain(self) -> bool:
        """Whether `n_sinks`, `window` and `positions` say it all; the fast paths count on that."""
        own = type(self)
        return own.survivors is Policy.survivors and own.positions_of is Policy.positions_of


def keep_all(positions: str = "slot") -> Policy:
    """Dense attention: nothing is ever evicted."""
    return Policy(positions=positions)


def keep_window(window: int, positions: str = "slot") -> Policy:
    """Window attention: only the last `window` tokens stay."""
    return Policy(0, window, positions)


def keep_sinks(n_sinks: int, window: int, positions: str = "slot") -> Policy:
    """StreamingLLM: the first `n_sinks` tokens and the last `window` stay."""
    return Policy(n_sinks, window, positions)


class LayerCache:
    """Keys and values of one layer, in slot order.

    Attributes
    ----------
    keys : ndarray of shape (S, K, D)
        Un-rotated.
    values : ndarray of shape (S, K, D)
    token_index : ndarray of shape (S,), int64
        Place in the text of the token in each slot.
    n_seen : int
        Tokens appended since the start, evicted ones included.
    """

    def __init__(self, keys, values, policy):
        self.keys = keys
        self.values = values
        self.policy = policy
        self.token_index = np.arange(len(keys))
        self.n_seen = len(keys)

    def blocks(self, n_tokens: int) -> Iterator[slice]:
        """Cut `n_tokens` new tokens into runs that may share one set of slots, slices into the new tokens.

        While the cache fills up nothing leaves, so a run of tokens can be appended at once and masked
        causally. From then on each token evicts one and moves the slots, and goes alone.
        """
        policy, start = self.policy, 0
        while start < n_tokens:
            room = n_tokens if policy.capacity is None else policy.capacity - len(self.keys)
            room = room if policy.is_plain else 1  # only the policy itself knows
            stop = min(n_tokens, start + max(1, min(room, BLOCK)))
            yield slice(start, stop)
            start = stop

    def append(self, keys, values):  # (T, K, D), (T, K, D)
        """Add a run from `blocks`, keys un-rotated, and evict what the policy lets go."""
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
        """The position each slot is encoded at now."""
        return self.policy.positions_of(self.token_index)


class KVCache:
    """Keys and values of every layer; the only thing in the readable path that changes.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim : int
        L, K and D of the model.
    policy : Policy
        From `keep_all`, `keep_window` or `keep_sinks`, or one of your own.
    like : ndarray, optional
        Array whose dtype and device the cache takes; float32 on the host by default.

    Attributes
    ----------
    layers : list of LayerCache
        One a layer.

    Examples
    --------
    The example of the paper, with 4 sinks and a window of 4, before and after token 9:

    >>> cache = KVCache(1, 1, 2, keep_sinks(4, 4))
    >>> for token in np.zeros((9, 1, 1, 2), np.float32):
    ...     cache.layers[0].append(token, token)
    >>> cache.token_index.tolist()
    [0, 1, 2, 3, 5, 6, 7, 8]
    >>> cache.layers[0].append(token, token)
    >>> cache.token_index.tolist(), cache.positions.tolist()
    ([0, 1, 2, 3, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7])
    """

    def __init__(self, n_layers: int, n_kv_heads: int, head_dim: int, policy: Policy, *, like=None):
        like = np.empty(0, np.float32) if like is None else like
        empty = np.zeros_like(like, shape=(0, n_kv_heads, head_dim))
        self.policy = policy
        self.layers = [LayerCache(empty, empty, policy) for _ in range(n_layers)]

    def __len__(self) -> int:
        """Slots filled."""
        return len(self.layers[-1].keys)

    def __repr__(self):
        return f"<KVCache of {len(self.layers)} layers: {len(self)} slots of {self.n_seen} tokens seen, {self.policy}>"

    @property
    def capacity(self) -> int | None:
        """Keys a query sees at most, or None without a limit."""
        return self.policy.capacity

    @property
    def token_index(self) -> np.ndarray:
        """ndarray of shape (S,): place in the text of the token in each slot."""
        return self.layers[-1].token_index

    @property
    def positions(self) -> np.ndarray:
        """ndarray of shape (S,): the position each slot is encoded at now."""
        return self.layers[-1].positions

    @property
    def n_seen(self) -> int:
        """Tokens taken in since the start, evicted ones included."""
        return self.layers[-1].n_seen

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values held."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def next_positions(self, n_tokens: int) -> np.ndarray:
        """The positions (T,) that the next `n_tokens` are encoded at, each when it is the newest.

        Raises
        ------
        ValueError
            When an interrupted forward pass left the layers at different tokens.
        """
        if any(layer.n_seen != self.n_seen for layer in self.layers):
            raise ValueError("this cache was left half-way by an interrupted forward pass; start a new one")
        index, policy = np.arange(self.n_seen, self.n_seen + n_tokens), self.layers[-1].policy
        if policy.is_plain:
            return policy.position(index)
        held, positions = self.token_index, np.empty_like(index)
        for i, t in enumerate(index):  # what `append` will do, on token_index alone
            held = np.append(held, t)
            held = held[_survivors(policy, held)]
            positions[i] = policy.positions_of(held)[-1]
        return positions

    # To a file and back: see `snapshot` ---------------------------------------------------------

    kind = "slots"

    def state(self) -> tuple[dict, dict]:
        """All there is to go on from: arrays by name, and what JSON can hold."""
        self.next_positions(0)  # raises after an interrupted pass: there would be nothing to go on from
        arrays = {"token_index": self.token_index}
        for i, layer in enumerate(self.layers):
            arrays |= {f"keys.{i}": layer.keys, f"values.{i}": layer.values}
        return arrays, {"n_seen": self.n_seen, "policy": asdict(self.policy)}

    @classmethod
    def from_state(cls, arrays: dict, about: dict) -> KVCache:
        """The inverse of `state`."""
        (_, K, D), n_layers = arrays["keys.0"].shape, len(arrays) // 2
        cache = KVCache(n_layers, K, D, Policy(**about["policy"]), like=arrays["keys.0"])
        for i, layer in enumerate(cache.layers):
            layer.keys, layer.values = arrays[f"keys.{i}"], arrays[f"values.{i}"]
            layer.token_index, layer.n_seen = arrays["token_index"], about["n_seen"]
        return cache


def _survivors(policy, token_index):
    """Slots that stay. A policy of one's own is held to slots that are there, in order, the newest among them."""
    stay, newest = policy.survivors(token_index), len(token_index) - 1
    if policy.is_plain:
        return stay
    if len(stay) == 0 or stay[-1] != newest or stay[0] < 0 or (np.diff(stay) < 1).any():
        raise ValueError(f"{policy}: survivors are {stay}; they must ascend and end with {newest}, the newest")
    return stay


def refuse_own(policy: Policy) -> None:
    """What a fast path says to a policy of one's own, instead of passing over its `survivors` in silence."""
    if not policy.is_plain:
        raise ValueError(
            f"{policy}: a policy of its own, and the fast paths know sinks and a window only; the readable path asks "
            "it: a minisink.KVCache, passed as cache= to token_nll, generate or Model.forward"
        )


def check_whole(name, value, least, why=""):
    """Refuse what is no whole number, too small a one, or one whose slots no integer of NumPy counts."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of {least} or more{why}")
    if value > 2**61:
        raise ValueError(f"{name} is {value!r}; no cache holds as many: 2**61 is the most")
