"""What else a cache could keep: answers of at most thirty lines each, for you to copy and change.

All hold the same number of keys, including the newest, at their slots; they differ in which token they evict. A
`Policy` sees which tokens are held. An `Evicting` sees more: it is a path that rates what each token is worth.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from ..attention import attend
from ..methods import Streaming, Window
from ..positions import bias_of
from . import clinic
from .inside import look_inside

SPARED = 1e30  # the worth of a token that must stay; the newest is worth more


class Evicting:
    """A path in which each key/value head keeps `n_keys` tokens; then a new one evicts the token of least `worth`.

    A layer has ``keys`` and ``values`` (S, K, D), not rotated, one column per head; ``index`` (S, K), the token_index
    of each; and ``memory`` (S, K, N), numbers about each. Heads may have unequal `rooms`: slots are counted back from
    the newest, and in a head with less room the first slots are empty, with an index of -1.
    """

    n_numbers = 0  # N, how many are remembered for each token and head

    def __init__(self, model, n_keys, n_sinks=1):
        config, self.n_keys, self.n_sinks, self.n_seen = model.config, n_keys, n_sinks, 0
        self.most = n_keys  # in any head
        widths = {"keys": config.head_dim, "values": config.head_dim, "memory": self.n_numbers}
        empty = {name: np.zeros((0, config.n_kv_heads, width), model.dtype) for name, width in widths.items()}
        empty["index"] = np.zeros((0, config.n_kv_heads), int)
        self.layers = [SimpleNamespace(number=i, **empty) for i in range(config.n_layers)]

    def worth(self, layer):  # -> (S, K); ties evict the newest
        raise NotImplementedError

    def rooms(self, layer):  # -> (K,), how many keys each head may hold now
        return np.full(layer.index.shape[1], self.n_keys)

    def remember(self, memory, weight):  # (S, K, N), and the weights of each head's newest queries (S, K) -> (S, K, N)
        return memory

    def newest_half(self, layer, worth):  # (S, K) -> (S, K), the newest half spared
        return np.where(layer.index > layer.index[-1] - self.n_keys // 2, SPARED, worth)

    def positions(self, n_tokens):  # -> (T,), the newest token's slot in the widest heads
        return np.minimum(np.arange(self.n_seen, self.n_seen + n_tokens), self.most - 1)

    def mix(self, i, q, k, v, rotate, *, normalise, trace=None):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        mixed, layer = np.empty_like(q), self.layers[i]
        for t in range(len(q)):
            self.take_in(layer, k[t], v[t], self.n_seen + t)
            (S, K, _), seen = layer.keys.shape, {}
            slots, there = np.arange(S), np.repeat(layer.index.T[:, None] >= 0, q.shape[1] // K, axis=0)  # (H, 1, S)
            query, keys = rotate(q[t : t + 1], slots[-1:]), rotate(layer.keys, slots)
            bias = bias_of(rotate, slots[-1:], slots, like=q)
            mixed[t] = attend(query, keys, layer.values, there, bias=bias, normalise=normalise, trace=seen)[0]
            layer.memory = self.remember(layer.memory, seen["pattern"].reshape(K, -1, S).sum(axis=1).T)
        self.n_seen += len(q) * (layer is self.layers[-1])
        return mixed

    def take_in(self, layer, k, v, t):  # (K, D), (K, D): append token t; each head keeps the best, in order
        K = len(k)
        new = {"keys": k, "values": v, "index": np.full(K, t), "memory": np.zeros((K, self.n_numbers), k.dtype)}
        for name, row in new.items():
            setattr(layer, name, np.concatenate((getattr(layer, name), row[None])))
        rooms, heads = self.rooms(layer), np.arange(K)
        if len(layer.keys) > min(rooms):
            worth = np.where(layer.index < 0, -np.inf, self.worth(layer))  # (S, K)
            worth[-1] = np.inf
            best, stays = np.argsort(-worth, axis=0, kind="stable"), np.empty(worth.shape, bool)
            stays[best, heads] = np.arange(len(worth))[:, None] < rooms
            order = np.argsort(stays, axis=0, kind="stable")[-stays.sum(axis=0).max() :]  # evicted tokens first
            layer.index = np.where(stays, layer.index, -1)
            for name in new:
                setattr(layer, name, getattr(layer, name)[order, heads])

    @property
    def nbytes(self):  # of the keys and values held, and of what is remembered
        width = 2 * self.layers[0].keys.itemsize * self.layers[0].keys.shape[-1]
        return int(sum((layer.index >= 0).sum() * width + layer.memory.nbytes for layer in self.layers))


class H2O(Evicting):
    """The newest half, and the tokens that have received the most weight so far (Zhang et al., arXiv:2306.14048)."""

    n_numbers = 1

    def remember(self, memory, weight):
        return memory + weight[..., None]  # summed over the queries that share a key head

    def worth(self, layer):
        return self.newest_half(layer, layer.memory[..., 0])


class TOVA(Evicting):
    """All heads evict the token the last query attended to least, whichever it is (Oren et al., arXiv:2401.06104)."""

    n_numbers = 1

    def remember(self, memory, weight):
        return np.broadcast_to(weight.mean(axis=1)[:, None, None], memory.shape)

    def worth(self, layer):
        return layer.memory[..., 0]


class SnapKVLike(Evicting):
    """Keep what the last eight queries vote for, with two slots on either side (Li et al., arXiv:2404.14469).

    The paper compresses a prompt once, at its end, and keeps all generated tokens; here every token evicts another.
    """

    n_numbers = 8  # queries that vote; their own tokens stay

    def remember(self, memory, weight):
        return np.concatenate((memory[..., 1:], weight[..., None]), axis=-1)

    def worth(self, layer):
        votes = np.pad(layer.memory.sum(axis=-1), ((2, 2), (0, 0)))
        votes = np.lib.stride_tricks.sliding_window_view(votes, 5, axis=0).max(axis=-1)  # (S, K)
        return np.where(layer.index > layer.index[-1] - self.n_numbers, SPARED, votes)


class KeyDiff(Evicting):
    """The newest half, and of the rest the keys least like the mean of all (Park et al., arXiv:2504.15364).

    The paper reads blocks of text and compares rotated keys; here tokens come one at a time, and keys are as stored.
    """

    def worth(self, layer):
        keys = layer.keys / (np.linalg.norm(layer.keys, axis=-1, keepdims=True) + 1e-12)  # (S, K, D)
        return self.newest_half(layer, -(keys * keys.mean(axis=0)).sum(axis=-1))


class Random(Evicting):
    """A control: keep the sinks and the newest half, evict any other token at random; chunking makes no difference."""

    def worth(self, layer):
        drawn = np.random.default_rng((layer.number, layer.index[-1, 0])).random(layer.index.shape)
        return np.where(layer.index < self.n_sinks, SPARED, self.newest_half(layer, drawn))


class PerHead(Evicting):
    """A quarter of the heads keep everything while the rest can spare room, down to sinks and a quarter of the keys.

    Averaged over heads, it holds as much as any entry here. DuoAttention (Xiao et al., arXiv:2410.10819) learns which
    heads retrieve, and lets them keep everything; here they are the best copiers in each layer (`clinic.retrieval`).
    """

    def __init__(self, model, n_keys, n_sinks=1):
        super().__init__(model, n_keys, n_sinks)
        K, bos = model.config.n_kv_heads, model.config.bos
        if K < 2:
            raise ValueError(f"{model.name} has one key/value head, and per-head needs two: leave it out (--entries)")
        texts = clinic.segments(model, () if bos is None else (bos,), 3, seed=0)
        copies = np.mean([clinic.retrieval(look_inside(model, text)) for text in texts], axis=0)  # (L, H)
        best = copies.reshape(len(copies), K, -1).max(axis=-1)  # (L, K)
        self.rank = np.argsort(np.argsort(-best, axis=1, kind="stable"), axis=1)  # (L, K), 0 for the best
        self.n_wide, least = max(1, K // 4), max(n_sinks + 1, n_keys // 4)
        self.most = min((K * n_keys - (K - self.n_wide) * least) // self.n_wide, model.config.max_positions)

    def rooms(self, layer):  # wide heads hold all tokens, or `most`; the others share the rest
        rank, wide = self.rank[layer.number], max(self.n_keys, min(layer.index[-1, 0] + 1, self.most))
        K, left = len(rank), len(rank) * self.n_keys - self.n_wide * wide
        return np.where(rank < self.n_wide, wide, (left + K - 1 - rank) // (K - self.n_wide))

    def worth(self, layer):
        return np.where(layer.index < self.n_sinks, SPARED, layer.index)


@dataclass(frozen=True)
class EveryFourth(Streaming):
    """Sinks, a window, and every fourth older token, of which the newest `old` stay.

    >>> EveryFourth(1, 2, old=2).survivors(np.array([0, 4, 8, 11, 12, 13])).tolist()
    [0, 1, 2, 4, 5]
    """

    old: int = 31

    def survivors(self, token_index):  # evict the oldest token that is not a fourth, or else the oldest
        S = len(token_index)
        if S <= self.capacity:
            return np.arange(S)
        others = np.flatnonzero(token_index[self.n_sinks : S - self.window] % 4)
        return np.delete(np.arange(S), self.n_sinks + (others[0] if len(others) else 0))

    capacity = property(lambda self: self.n_sinks + self.window + self.old)


ENTRIES = {  # each makes a method or a path from (model, n_keys, n_sinks)
    "streaming": lambda model, n_keys, n_sinks: Streaming(n_sinks, n_keys - n_sinks),
    "window": lambda model, n_keys, n_sinks: Window(n_keys),
    "H2O": H2O,
    "TOVA": TOVA,
    "SnapKV-like": SnapKVLike,
    "KeyDiff": KeyDiff,
    "per-head": PerHead,
    "every fourth": lambda _, n_keys, n_sinks: EveryFourth(n_sinks, n_keys // 2, old=(n_keys + 1) // 2 - n_sinks),
    "random": Random,
}
