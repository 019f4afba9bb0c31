"""The fast store: keys and values of every token that is not a sink, in blocks, in the order of the text.

The readable path moves a token to its store when it is evicted. Here a token is stored when it arrives and never
moves, and the evicted tokens are a range of the stored ones. Two sinks, a window of three, blocks of two, and
``store=4``, for the newest four evicted tokens; the query is token 11::

    token_index    0  1   2  3   4  5   6  7   8  9  10 11
    stored index          0  1   2  3   4  5   6  7   8  9     token_index - n_sinks
    block number           0      1      2      3      4       stored index // block
    row                           0      1      2      3       block number - first_block: block 0 is dropped
    evicted                         x   x  x   x               stored indices from 3 up to 7

A search reads the rows that the range touches, here 0, 1 and 2: a `StoreView`. Within a view everything is
counted from its start: blocks 0, 1 and 2, and tokens 0 to 5, of which 1 to 4 are evicted (``start`` 1, ``stop`` 5).

Keys are stored rotated the way the search needs them. All of them count as `window` tokens back, so it is the query
that is rotated, once. (With ``positions="original"`` the keys are rotated to their token_index.)
"""

from typing import Any, NamedTuple

import numpy as np

from ..positions import bias_of
from .cache import widened

FIRST_BUFFER = 64  # tokens in the first buffers
BUFFERS = ("keys", "values", "channel_min", "channel_max")


def stored_index(policy, token_index):
    """Return where a token that is not a sink is stored, counted from the start of the text."""
    return token_index - policy.n_sinks


def evicted_range(policy, token_index):  # (T,) -> 2 x (T,)
    """Return the range (start, stop) of stored indices that are evicted, and may be fetched, when a token is newest."""
    stop = np.maximum(0, stored_index(policy, token_index + 1 - policy.window))
    return (stop * 0 if policy.store is None else np.maximum(0, stop - policy.store)), stop


def rows_for(n_tokens, block):
    """Return how many rows these tokens need, and how long they are: a block, or less if there is only one.

    >>> rows_for(64, 16), rows_for(65, 16), rows_for(64, 1000)
    ((4, 16), (5, 16), (1, 64))
    """
    return -(-n_tokens // block), min(n_tokens, block)


class StoreView(NamedTuple):
    """N adjacent blocks of a store, sharing its memory."""

    keys: Any  # (K, N, B, D)
    values: Any  # (K, N, B, D)
    channel_min: Any  # (K, N, D); up to date for full blocks; N = 0 unless select="bound"
    channel_max: Any
    origin: int  # stored index of the first token


class EvictedStore:
    """Keys and values of one layer in buffers that double; with a limit they hold little more than may be fetched.

    As long as everything fits in one block, the row is only as long as needed: B is less than a block.
    """

    def __init__(self, policy, like, n_kv_heads, head_dim):
        self.policy, self.block = policy, policy.block
        self.first_block = 0  # block number of row 0
        n_rows, row = rows_for(FIRST_BUFFER, policy.block)
        shape = (n_kv_heads, n_rows, row, head_dim)
        self.keys, self.values = np.zeros_like(like, shape=shape), np.zeros_like(like, shape=shape)  # (K, rows, B, D)
        ranges = (n_kv_heads, n_rows if policy.select == "bound" else 0, head_dim)
        self.channel_min, self.channel_max = np.zeros_like(like, shape=ranges), np.zeros_like(like, shape=ranges)

    @property
    def nbytes(self):
        """Bytes of the buffers, full or not."""
        return sum(getattr(self, name).nbytes for name in BUFFERS)

    def view(self, start, stop):
        """Return the blocks that hold stored indices `start` to `stop`; a single block is cut off there."""
        first, end = start // self.block, -(-stop // self.block)  # block numbers
        rows = slice(first - self.first_block, end - self.first_block)
        tokens = slice(stop - first * self.block if end - first == 1 else None)
        keys, values = self.keys[:, rows, tokens], self.values[:, rows, tokens]
        return StoreView(keys, values, self.channel_min[:, rows], self.channel_max[:, rows], first * self.block)

    def bias(self, view, encoding, queries, like):  # (t,) token indices -> (H, t, N, B) or None
        """Return what the encoding adds to the scores of the tokens of a view."""
        N, B = view.keys.shape[1:3]
        if self.policy.positions == "original":
            bias = bias_of(encoding, queries, self.policy.n_sinks + view.origin + np.arange(N * B), like)
            return None if bias is None else bias.reshape(-1, len(queries), N, B)
        bias = bias_of(encoding, np.array([self.policy.window]), np.array([0]), like)  # all are `window` back
        return None if bias is None else np.broadcast_to(bias[..., None], (len(bias), len(queries), N, B))

    def put(self, token_index, keys, values):  # int, 2 x (T, K, D)
        """Store a run of tokens that begins with `token_index`; skip the sinks among them."""
        n_passed = max(0, -stored_index(self.policy, token_index))
        start = stored_index(self.policy, token_index + n_passed)
        stop = start + len(keys) - n_passed
        if start >= stop:
            return
        self.make_room(start, stop)
        origin = self.first_block * self.block
        tokens = slice(start - origin, stop - origin)
        by_token(self.keys)[:, tokens] = keys[n_passed:].swapaxes(0, 1)  # (T, K, D) -> (K, T, D)
        by_token(self.values)[:, tokens] = values[n_passed:].swapaxes(0, 1)
        self._note_ranges(start, stop)

    def put_one(self, index, key, value):  # int, 2 x (K, D)
        """Store the token with this stored index; there must be room for it."""
        number, offset = divmod(index, self.block)
        self.keys[:, number - self.first_block, offset] = key
        self.values[:, number - self.first_block, offset] = value
        if offset == self.block - 1:
            self._note_ranges(index, index + 1)

    def make_room(self, start, stop):
        """Make room for stored indices `start` to `stop`, and drop blocks that no later token can fetch."""
        K, n_rows, B, D = self.keys.shape
        if stop <= self.first_block * self.block + n_rows * B:
            return
        oldest = int(evicted_range(self.policy, start + self.policy.n_sinks)[0])
        first_block, end = max(oldest // self.block, self.first_block), -(-start // self.block)  # blocks that stay
        needed = 2 * (stop - first_block * self.block)  # double, so that copies are rare
        n_rows, B = rows_for(max(needed, n_rows * B), self.block)
        for name in BUFFERS:
            old = getattr(self, name)
            if old.size:
                kept = old[:, first_block - self.first_block : end - self.first_block]
                setattr(self, name, widened(kept, (K, n_rows, B, D) if old.ndim == 4 else (K, n_rows, D)))
        self.first_block = first_block

    def _note_ranges(self, start, stop):
        """Compute the channel ranges of the blocks filled by stored indices `start` to `stop`."""
        first, end = start // self.block - self.first_block, stop // self.block - self.first_block  # rows
        if first < end and self.channel_min.size:
            full = self.keys[:, first:end]  # (K, N, B, D)
            self.channel_min[:, first:end], self.channel_max[:, first:end] = full.min(axis=2), full.max(axis=2)


class WithStores:
    """Mixin: save and restore a fast cache that has an `EvictedStore` for each layer."""

    policy: Any
    n_seen: int
    stores: list

    def state(self):
        """Return everything needed to resume: arrays by name, and JSON-able metadata."""
        base: Any = super()
        arrays, about = base.state()
        stores = self.stores if self.policy.n_blocks and self.n_seen else []
        for i, store in enumerate(stores):
            stored = slice(0, max(0, stored_index(self.policy, self.n_seen) - store.first_block * store.block))
            for name in ("keys", "values"):
                arrays[f"stored_{name}.{i}"] = by_token(getattr(store, name))[:, stored].swapaxes(0, 1)  # (T, K, D)
        return arrays, about | {"first_blocks": [store.first_block for store in stores]}

    @classmethod
    def from_state(cls, policy, arrays, about):
        """Rebuild the cache whose `state` this is."""
        base: Any = super()
        cache = base.from_state(policy, arrays, about)
        for i, first_block in enumerate(about["first_blocks"]):
            keys, values = arrays[f"stored_keys.{i}"], arrays[f"stored_values.{i}"]
            cache.stores[i] = store = EvictedStore(policy, keys, *keys.shape[1:])
            store.first_block = first_block
            store.put(policy.n_sinks + first_block * policy.block, keys, values)
        return cache


def by_token(buffer):  # (K, rows, B, D) -> (K, rows B, D)
    """Return a view of the same memory without the division into blocks."""
    return buffer.reshape(len(buffer), -1, buffer.shape[-1])
