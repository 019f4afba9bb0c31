"""What was evicted comes back at memory speed: blocks of a given text, and token after token over a ring.

The readable path moves a token to its store when it is evicted. Here every token but the sinks is *kept* where it
comes in, in the order of the text, and what a query may fetch is a range of them: token t sees those up to
``t - window``. Nothing moves, and keys are not rotated for it: as all of them stand `window` tokens back, the query is
rotated there once, ``far = rotate(q, window) . keys``. (With ``positions="original"`` they are kept as rotated to their
token_index, and the query is what it is for the window.)

`Fetching` does it for whole blocks of tokens over `blocks.Banded`, `FetchingAttention` for the newest token over a
`ring.RingCache`; both choose for all heads at once. ``select="bound"`` reads two numbers a channel of each block, and
only the keys of those it fetched.
"""

import numpy as np

from ..attention import additive, mix, score
from ..cache import refuse_own
from ..fast.blocks import PARTS, Banded
from ..fast.fused import side_by_side
from ..fast.ring import RingAttention, RingCache
from .cache import STEP, room_for

FIRST_BUFFER = 64  # tokens that are kept in the first buffers
ROOM = 1 << 22  # scores of a group of queries: bounds the memory of a search through a long text


def chosen(worth, n_blocks):  # (..., N) -> (..., n)
    """The blocks worth most, in no order; of equal ones the newer, as `retrieval.best_of` has it.

    >>> chosen(np.array([[3.00001, 1.0, 3.0, 2.0]]), 1).tolist()
    [[2]]
    """
    N = worth.shape[-1]
    n = min(n_blocks, N)
    codes = np.rint(worth.astype(np.float64) / STEP) * 2.0**22 + np.arange(N, like=worth)  # whole, below 2**53
    return np.argpartition(codes, N - n, axis=-1)[..., N - n :]


def highest(scores):  # (K, N, B, G) -> (K, N, G)
    """The best score of a block, in halves: three times as fast as ``scores.max(axis=2)``, which goes G by G."""
    while scores.shape[2] > 1:
        half = scores.shape[2] // 2
        best = np.maximum(scores[:, :, :half], scores[:, :, half : 2 * half])
        if scores.shape[2] % 2:
            best[:, :, 0] = np.maximum(best[:, :, 0], scores[:, :, -1])
        scores = best
    return scores[:, :, 0]


class Kept:
    """Keys and values of every token but the sinks, in buffers that double; with a limit, of the newest only.

    Attributes
    ----------
    keys, values : list of ndarray of shape (K, S, D)
        Of each layer, from token ``n_sinks + first`` on; as the far queries meet them.
    lowest, highest : list of ndarray of shape (K, S / block, D)
        Of each block that is whole, for the bound.
    """

    def __init__(self, n_layers, n_kv_heads, head_dim, policy, like):
        refuse_own(policy)
        self.policy = policy
        size = -(-FIRST_BUFFER // policy.block)  # blocks
        shape = (n_kv_heads, size * policy.block, head_dim)
        self.keys = [np.zeros_like(like, shape=shape) for _ in range(n_layers)]
        self.values = [np.zeros_like(like, shape=shape) for _ in range(n_layers)]
        extremes = (n_kv_heads, size if policy.select == "bound" else 0, head_dim)
        self.lowest = [np.zeros_like(like, shape=extremes) for _ in range(n_layers)]
        self.highest = [np.zeros_like(like, shape=extremes) for _ in range(n_layers)]
        self.first = [0] * n_layers  # how many tokens were let go of; whole blocks

    @property
    def nbytes(self):
        """Bytes of all buffers, full or not."""
        return sum(a.nbytes for part in (self.keys, self.values, self.lowest, self.highest) for a in part)

    def range_of(self, t):
        """Which of the kept tokens token t may fetch, counted from the first that is no sink: from, to."""
        stop = t + 1 - self.policy.window - self.policy.n_sinks
        start = 0 if self.policy.store is None else np.maximum(0, stop - self.policy.store)
        return start, stop

    def put(self, layer, t, keys, values):  # (T, K, D) twice
        """Take in tokens t, t + 1, ...; the sinks among them are passed over."""
        policy = self.policy
        skip = max(0, policy.n_sinks - t)
        keys, values, at = keys[skip:], values[skip:], max(0, t - policy.n_sinks)
        n = len(keys)
        if n == 0:
            return
        self.make_room(layer, at, n)
        here = slice(at - self.first[layer], at - self.first[layer] + n)
        self.keys[layer][:, here] = keys.swapaxes(0, 1)  # (T, K, D) -> (K, T, D)
        self.values[layer][:, here] = values.swapaxes(0, 1)
        self.note_extremes(layer, at, n)

    def make_room(self, layer, at, n):
        """Room for `n` more after the first `at`, where what no query will see again is let go of."""
        B, first, room = self.policy.block, self.first[layer], self.keys[layer].shape[1]
        if at + n - first <= room:
            return
        start = 0 if self.policy.store is None else max(0, at + 1 - self.policy.window - self.policy.store)
        start = max(first, start // B * B)
        size = max(room, -(-2 * (at + n - start) // B) * B)  # twice what is needed, so that copies are few
        for buffers, unit in ((self.keys, 1), (self.values, 1), (self.lowest, B), (self.highest, B)):
            old = buffers[layer]
            if old.shape[1]:
                new = room_for(old, (old.shape[0], size // unit, old.shape[2]))
                held = old[:, (start - first) // unit : -(-(at - first) // unit)]
                new[:, : held.shape[1]] = held
                buffers[layer] = new
        self.first[layer] = start

    def note_extremes(self, layer, at, n):
        """The lowest and highest numbers of the blocks that became whole with tokens `at` to ``at + n``."""
        B, first = self.policy.block, self.first[layer]
        a, b = (at - first) // B, (at + n - first) // B
        if a < b and self.lowest[layer].shape[1]:
            whole = self.keys[layer][:, a * B : b * B]
            whole = whole.reshape(len(whole), b - a, B, whole.shape[-1])  # (K, N B, D) -> (K, N, B, D)
            self.lowest[layer][:, a:b], self.highest[layer][:, a:b] = whole.min(axis=2), whole.max(axis=2)

    def extremes_at(self, layer, block, start, stop):  # (t,), (t,), (t,) -> 2 x (K, t, D)
        """Lowest and highest of the tokens from `start` to `stop` of a block, for each query its own."""
        B, keys = self.policy.block, self.keys[layer]
        token = block[:, None] * B + np.arange(B)  # (t, B)
        there = np.asarray((token >= start[:, None]) & (token < stop[:, None]), like=keys)[None, :, :, None]
        own = keys[:, token - self.first[layer]]  # (K, t, B, D)
        return np.where(there, own, np.inf).min(axis=2), np.where(there, own, -np.inf).max(axis=2)

    def state(self, n_seen):
        """Arrays by name, and what JSON can hold."""
        n, arrays = max(0, n_seen - self.policy.n_sinks), {}
        for i, first in enumerate(self.first):
            held = slice(0, n - first)
            arrays |= {f"kept_keys.{i}": self.keys[i][:, held], f"kept_values.{i}": self.values[i][:, held]}
        return arrays, {"first": self.first}

    def restore(self, arrays, about):
        """Be what another was when its `state` was taken."""
        self.first = list(about["first"])
        for i, first in enumerate(self.first):
            keys, values = (arrays[f"kept_{part}.{i}"].swapaxes(0, 1) for part in ("keys", "values"))
            self.put(i, self.policy.n_sinks + first, keys, values)


class Fetching(Banded):
    """Blocks of tokens as `Banded`, and what each token fetches: equal to `retrieval.Retrieved`.

    Parameters
    ----------
    n_layers : int
        L.
    policy : retrieval.Retrieval
    kept : Kept, optional
        To go on with.
    paired : bool
        Whether its channels lie in pairs, as a decoder's do.
    """

    kind = "fetching blocks"

    def __init__(self, n_layers, policy, kept=None, *, paired=False):
        super().__init__(n_layers, policy.in_slots)
        self.policy = policy
        self.kept = kept  # made when the first keys show their sizes
        self._order = side_by_side if paired else lambda x: x

    def __repr__(self):
        return f"<Fetching of {len(self.layers)} layers: {self.n_seen} tokens seen, {self.policy}>"

    def mix(self, layer, q, k, v, rotate, **options):
        """As `Banded.mix`, over what is fetched too."""
        t, policy = self._n_seen[layer], self.policy
        tokens = np.arange(t, t + len(q))
        original = policy.positions == "original"
        if self.kept is None:
            self.kept = Kept(len(self.layers), k.shape[1], k.shape[2], policy, k)
        if policy.n_blocks:
            self.kept.put(layer, t, self._order(rotate(k, tokens) if original else k), v)
            self._far = self._order(rotate(q, tokens if original else np.array([policy.window])))
        return super().mix(layer, q, k, v, rotate, **options)

    def _attend(self, layer, queries, scores, values, normalise):
        """One softmax over what the band shows and what each query fetches."""
        tokens = np.arange(self._n_seen[layer] + queries.start, self._n_seen[layer] + queries.stop)
        if not self.policy.n_blocks or self.kept.range_of(tokens[-1])[1] <= 0:
            return super()._attend(layer, queries, scores, values, normalise)
        at_once = max(1, ROOM // (len(scores) * self.kept.keys[layer].shape[1]))
        parts, far = [], self._far[queries]
        for i in range(0, len(tokens), at_once):
            part = slice(i, i + at_once)
            found, own = self._fetched(layer, far[part], tokens[part])  # (H, t, F), (H, t, F, D)
            near = scores[:, part]
            pattern = normalise(np.concatenate((near, found), axis=-1))
            S = near.shape[-1]
            taken = pattern[:, :, None, S:] @ own  # (H, t, 1, F) @ (H, t, F, D) -> (H, t, 1, D)
            parts.append(mix(pattern[..., :S], values) + taken[:, :, 0].swapaxes(0, 1))
        return np.concatenate(parts)

    def _fetched(self, layer, q, tokens):  # (t, H, D), (t,) -> (H, t, F), (H, t, F, D)
        """Scores and values of the best blocks of every query."""
        kept, B, (t, H, D) = self.kept, self.policy.block, q.shape
        K, first = kept.keys[layer].shape[0], kept.first[layer]
        start, stop = (np.broadcast_to(x, t) for x in kept.range_of(tokens))
        a, b = start[0] // B, max(-(-stop[-1] // B), 1)  # blocks that one of them may fetch
        here = slice(a * B - first, b * B - first)
        keys, values = (x[layer][:, here].reshape(K, b - a, B, D) for x in (kept.keys, kept.values))
        head, row = np.arange(H)[:, None, None], np.arange(t)[None, :, None]
        group = head // (H // K)
        token = np.arange(a * B, b * B)
        there = ((token >= start[:, None]) & (token < stop[:, None])).reshape(t, b - a, B)
        if self.policy.select == "bound":
            worth = self._bounds(layer, q, a, b, start, stop)
            blocks = chosen(worth, self.policy.n_blocks)  # (H, t, n)
            rows = q.swapaxes(0, 1)[:, :, None, :, None] * (D**-0.5)  # (H, t, 1, D, 1)
            far = (keys[group, blocks] @ rows)[..., 0]  # (H, t, n, B, D) @ (H, t, 1, D, 1) -> (H, t, n, B)
            there = np.asarray(there, like=q)[row, blocks]
            far += np.where(there, 0.0, -np.inf).astype(far.dtype)
        else:
            scores = score(q, keys.reshape(K, -1, D).swapaxes(0, 1)).reshape(H, t, b - a, B)
            for edge in (slice(0, start[-1] // B + 1 - a), slice(max(0, stop[0] // B - a), b - a)):  # the rest is there
                scores[:, :, edge] += additive(np.asarray(there[:, edge], like=q), scores.dtype)
            blocks = chosen(scores.max(axis=-1), self.policy.n_blocks)
            far = scores[head, row, blocks]  # (H, t, n, B)
        return far.reshape(H, t, -1), values[group, blocks].reshape(H, t, -1, D)

    def _bounds(self, layer, q, a, b, start, stop):  # (t, H, D) -> (H, t, b - a)
        """`retrieval.bound` of every block; of those that only some of their tokens count in, for each query anew."""
        kept, B, first = self.kept, self.policy.block, self.kept.first[layer]
        here = slice(a - first // B, b - first // B)
        positive, negative = np.maximum(q, 0.0), np.minimum(q, 0.0)
        low, high = (x[layer][:, here].swapaxes(0, 1) for x in (kept.lowest, kept.highest))  # (N, K, D)
        worth = score(positive, high) + score(negative, low)  # (H, t, N)
        number, row = np.arange(a, b), np.arange(len(q))
        out = (number[None] * B >= stop[:, None]) | ((number[None] + 1) * B <= start[:, None])  # (t, N)
        worth += additive(~np.asarray(out, like=q), worth.dtype)
        H, (K, D) = q.shape[1], low.shape[1:]
        for block in ((stop - 1) // B, start // B):
            some = np.flatnonzero(stop > start)
            if len(some) == 0:
                continue
            low, high = kept.extremes_at(layer, block[some], start[some], stop[some])  # (K, t, D)
            of = [x[some].reshape(len(some), K, H // K, D).transpose(1, 2, 0, 3) for x in (positive, negative)]
            own = (of[0] * high[:, None] + of[1] * low[:, None]).sum(axis=-1) * (D**-0.5)  # (K, H/K, t)
            worth[:, row[some], block[some] - a] = own.reshape(H, len(some))
        return worth

    def state(self):
        """Return everything needed to resume: arrays by name, and what JSON can hold."""
        arrays, about = super().state()
        if self.kept is None:
            return arrays, about
        kept, more = self.kept.state(self.n_seen)
        return arrays | kept, about | more

    @classmethod
    def from_state(cls, policy, arrays, about, *, kept=None, paired=False):
        """Rebuild the cache whose `state` this is; with `kept`, over what is kept there."""
        L, n_seen = about["n_layers"], about["n_seen"]
        cache = cls(L, policy, kept, paired=paired)
        if n_seen:
            cache.layers = [tuple(arrays[f"{part}.{i}"] for part in PARTS) for i in range(L)]
        if kept is None and "first" in about:
            K, _, D = arrays["kept_keys.0"].shape
            cache.kept = Kept(L, K, D, policy, arrays["kept_keys.0"])
            cache.kept.restore(arrays, about)
        cache.n_seen, cache._n_seen = n_seen, [n_seen] * L
        return cache


class FetchingRing(RingCache):
    """A `RingCache`, and beside it what was kept."""

    kind = "fetching ring"

    def __init__(self, n_layers, n_kv_heads, head_dim, policy, *, dtype=np.float32, like=None):
        super().__init__(n_layers, n_kv_heads, head_dim, policy.in_slots, dtype=dtype, like=like)
        self.policy = policy
        self.kept = Kept(n_layers, n_kv_heads, head_dim, policy, self.keys)

    def __repr__(self):
        return super().__repr__().replace("RingCache", "FetchingRing", 1)

    @property
    def nbytes(self):
        """Bytes of the buffers, full or not, and of what is kept."""
        return super().nbytes + self.kept.nbytes

    def state(self):
        """Return everything needed to resume: arrays by name, and what JSON can hold."""
        arrays, about = super().state()
        kept, more = self.kept.state(self.n_seen if self.policy.n_blocks else 0)
        return arrays | kept, about | more

    @classmethod
    def from_state(cls, policy, arrays, about):
        """Rebuild the cache whose `state` this is."""
        cache = super().from_state(policy, arrays, about)
        cache.kept.restore(arrays, about)
        return cache

    def attention(self, n_heads, frequencies, *, folded):
        """Return the attention of one token over this ring and what it fetches."""
        return FetchingAttention(self, n_heads, frequencies, folded=folded)

    def banded(self, policy, arrays, about, *, paired):
        """Return these keys and values as blocks, which go on with what is kept."""
        return Fetching.from_state(policy, arrays, about, kept=self.kept, paired=paired)


class FetchingAttention(RingAttention):
    """Attention of the newest token over a ring and what it fetches: a search before the softmax."""

    def __init__(self, cache, n_heads, frequencies=None, *, folded=True):
        super().__init__(cache, n_heads, frequencies, folded=folded)
        K, G, D = self.sums.shape
        self.original = cache.policy.positions == "original"
        self.group = np.asarray(np.arange(n_heads)[:, None] // G, like=cache.keys)
        self.member = np.asarray(np.arange(n_heads)[:, None] % G, like=cache.keys)
        if self.rates is None or self.original:
            self.far_queries = self.queries[0]
        else:
            self.far_pairs = self.pairs[0, :n_heads]
            phase = np.exp(cache.policy.window * self.rates)  # (1, D/2)
            self.far_phase = np.asarray(phase, self.pairs.dtype, like=cache.keys)
            far = np.empty_like(self.qkv, shape=(n_heads, D))
            self.far_rotated = far.view(self.pairs.dtype)
            self.far_queries = far.reshape(K, G, D).swapaxes(1, 2)  # (K, D, G)

    def begin(self, t):
        """As in `RingAttention`, and which of the kept tokens there are to fetch."""
        super().begin(t)
        self.t = t
        start, self.stop = (int(x) for x in self.cache.kept.range_of(t))
        self.start = start
        if self.cache.policy.n_blocks and t >= self.cache.policy.n_sinks:
            for layer in range(len(self.cache.keys)):  # before anything is written
                self.cache.kept.make_room(layer, t - self.cache.policy.n_sinks, 1)

    def mix(self, layer, out, sink=None):
        """As in `RingAttention`, over what is fetched too."""
        kept, policy, at = self.cache.kept, self.cache.policy, self.t - self.cache.policy.n_sinks
        if not policy.n_blocks:
            return super().mix(layer, out, sink)
        self.prepare(layer)
        if at >= 0:
            place = at - kept.first[layer]
            kept.keys[layer][:, place] = self.new_keys if self.original else self.unrotated_keys
            kept.values[layer][:, place] = self.new_values
            kept.note_extremes(layer, at, 1)
        if self.stop <= 0:
            return self.finish(layer, out, sink)
        if self.far_queries is not self.queries[0]:
            np.multiply(self.far_pairs, self.far_phase, self.far_rotated)
        far, values = self._fetched(layer)  # (H, F), (H, F, D)
        scores = np.concatenate((self.scores, far), axis=1)  # (H, S + F)
        largest = scores.max(axis=1, keepdims=True)
        if sink is not None:
            largest = np.maximum(largest, sink)
        scores -= largest
        np.exp(scores, scores)
        total = scores.sum(axis=1, keepdims=True)  # (H, 1)
        if sink is not None:
            total += np.exp(sink - largest)
        (K, G, _), S = self.sums.shape, self.scores.shape[1]
        np.matmul(scores[:, :S].reshape(K, G, S), self.live[layer][2], self.sums)  # (K, G, S) @ (K, S, D)
        self.sums_of_heads += (scores[:, None, S:] @ values)[:, 0]  # (H, 1, F) @ (H, F, D)
        np.divide(self.sums_of_heads, total, out)
        return None

    def _fetched(self, layer):  # -> (H, F), (H, F, D)
        """Scores and values of the best blocks of every head."""
        kept, policy = self.cache.kept, self.cache.policy
        B, first, (K, G, D) = policy.block, kept.first[layer], self.sums.shape
        a, b = self.start // B, -(-self.stop // B)
        here = slice(a * B - first, b * B - first)
        keys, values = kept.keys[layer][:, here], kept.values[layer][:, here].reshape(K, b - a, B, D)
        low, high = self.start - a * B, self.stop - a * B  # what is there of those blocks
        if policy.select == "bound":
            blocks = chosen(self._bounds(layer, a, b), policy.n_blocks)  # (H, n)
            queries = self.far_queries.swapaxes(1, 2).reshape(K * G, 1, D, 1)
            far = (keys.reshape(K, b - a, B, D)[self.group, blocks] @ queries)[..., 0]  # (H, n, B)
            token = blocks[:, :, None] * B + np.arange(B, like=far)
            far = np.where((token >= low) & (token < high), far, -np.inf)
        else:
            scores = keys @ np.ascontiguousarray(self.far_queries, like=keys)  # (K, N B, D) @ (K, D, G) -> (K, N B, G)
            scores[:, :low], scores[:, high:] = -np.inf, -np.inf
            scores = scores.reshape(K, b - a, B, G)
            blocks = chosen(highest(scores).swapaxes(1, 2).reshape(K * G, b - a), policy.n_blocks)
            far = scores[self.group, blocks, :, self.member]  # (H, n, B)
        return far.reshape(K * G, -1), values[self.group, blocks].reshape(K * G, -1, D)

    def _bounds(self, layer, a, b):  # -> (H, N)
        """`retrieval.bound` of every block; of the first and the last, which may be part there, anew."""
        kept, B, (K, G, _) = self.cache.kept, self.cache.policy.block, self.sums.shape
        here = slice(a - kept.first[layer] // B, b - kept.first[layer] // B)
        low, high = kept.lowest[layer][:, here].copy(), kept.highest[layer][:, here].copy()  # (K, N, D)
        for block in {a, b - 1}:
            one, own = np.array([block]), (np.array([self.start]), np.array([self.stop]))
            lowest, highest = kept.extremes_at(layer, one, *own)
            low[:, block - a], high[:, block - a] = lowest[:, 0], highest[:, 0]
        q = self.far_queries
        bounds = high @ np.maximum(q, 0.0) + low @ np.minimum(q, 0.0)  # (K, N, D) @ (K, D, G) -> (K, N, G)
        return bounds.swapaxes(1, 2).reshape(K * G, b - a)
