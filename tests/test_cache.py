"""The cache against a plain list of tokens: which tokens stay, in which slot, at which position."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from profiles import examples
from safetensors.numpy import save_file

from minisink.cache import KVCache, blocks
from minisink.methods import Dense, Streaming, Window
from minisink.snapshot import load_cache, save_cache

L, K, D = 2, 3, 4


def kv(layer, tokens):
    """Keys and values (T, K, D) that tell layer, token, head and channel apart."""
    tokens = np.array(tokens, float).reshape(-1, 1, 1)
    keys = 100 * tokens + 10 * np.arange(K)[:, None] + np.arange(D) + layer / 2
    return keys, -keys


def expected(n_seen, policy):
    """The tokens a policy keeps of `n_seen`, by its definition."""
    if policy.window is None:
        return list(range(n_seen))
    return [t for t in range(n_seen) if t < policy.n_sinks or t >= n_seen - policy.window]


def check(cache, n_seen, policy, positions):
    """The cache holds what `expected` says: indices, positions, keys and values of every layer."""
    tokens = expected(n_seen, policy)
    assert cache.policy == replace(policy, positions=positions)
    assert cache.token_index.tolist() == tokens
    assert (len(cache), cache.n_seen) == (len(tokens), n_seen)
    assert cache.capacity is None or len(cache) <= cache.capacity
    for i, layer in enumerate(cache.layers):
        assert layer.token_index.tolist() == tokens
        assert layer.positions.tolist() == (list(range(len(tokens))) if positions == "slot" else tokens)
        np.testing.assert_array_equal((layer.keys, layer.values), kv(i, tokens))
    assert cache.nbytes == 2 * L * len(tokens) * K * D * 8


def feed(cache, n_new):
    """Append `n_new` tokens to every layer, in the runs that `blocks` allows; the positions they entered at."""
    first, entered = cache.n_seen, []
    for i, layer in enumerate(cache.layers):
        for run in blocks(layer, n_new):
            tokens = range(first + run.start, first + run.stop)
            layer.append(*kv(i, tokens))
            assert layer.token_index[-len(tokens) :].tolist() == list(tokens)  # nobody in a run evicts another
            if i == 0:
                entered += layer.positions[-len(tokens) :].tolist()
    return entered


def new(policy, positions="slot"):
    return KVCache(L, K, D, replace(policy, positions=positions), like=np.empty(0, np.float64))


@given(tiny.policies | st.just(Dense()), tiny.positions, st.lists(st.integers(1, 9), max_size=6))
def test_slots_are_the_first_sinks_and_the_last_window_at_every_step(policy, positions, runs):
    """After any runs of tokens, the slots hold exactly the first n_sinks and the last window tokens, in order."""
    cache = new(policy, positions)
    check(cache, 0, policy, positions)
    for i, n_new in enumerate(runs):
        feed(cache, n_new)
        check(cache, sum(runs[: i + 1]), policy, positions)


@pytest.mark.parametrize("past", [-1, 0, 1, 2])
@pytest.mark.parametrize("n_sinks", [0, 1, 4])
@pytest.mark.parametrize("window", [1, 3])
def test_the_boundary(n_sinks, window, past):
    """One token below capacity, at it, one and two above: up to there all stay, then one leaves for each that comes."""
    n_tokens = n_sinks + window + past
    cache = new(Streaming(n_sinks, window))
    feed(cache, n_tokens)
    evicted = range(n_sinks, n_sinks + max(0, past))
    assert cache.token_index.tolist() == [t for t in range(n_tokens) if t not in evicted]


def test_a_window_of_one_keeps_one_token_and_not_all():
    """The smallest window: -0 as the start of a slice would keep everything, or nothing."""
    assert [Window(1).survivors(np.arange(n)).tolist() for n in range(4)] == [[], [0], [1], [2]]
    held = [Streaming(2, 1).survivors(np.arange(n)).tolist() for n in (2, 3, 4, 9)]
    assert held == [[0, 1], [0, 1, 2], [0, 1, 3], [0, 1, 8]]


@given(tiny.policies | st.just(Dense()), tiny.positions, st.lists(st.integers(1, 9), max_size=6))
def test_next_positions_are_where_the_tokens_come_in(policy, positions, runs):
    """`next_positions` says beforehand at which position each token is encoded when it is the newest."""
    cache = new(policy, positions)
    for n_new in runs:
        foreseen = cache.next_positions(n_new).tolist()
        assert foreseen == feed(cache, n_new)


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_blocks_are_bounded(n_tokens, n_before):
    """However long the text, a run never exceeds the block length: the scores stay bounded."""
    layer = new(Dense()).layers[0]
    layer.append(*kv(0, range(n_before)))
    runs = list(blocks(layer, n_tokens))
    assert [run.start for run in runs] == list(range(0, n_tokens, 512))
    assert runs[-1].stop == n_tokens


@given(tiny.policies)
def test_capacity_is_sinks_and_window_together(policy):
    """capacity = n_sinks + window, the current token counted in; without a window there is no limit."""
    assert new(policy).capacity == policy.n_sinks + policy.window
    assert Dense().capacity is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Streaming(-1, 4), "n_sinks is -1"),
        (lambda: Window(0), "window is 0"),
        (lambda: Streaming(4, -2), "window is -2"),
        (lambda: new(Dense(), "rotary"), "positions is 'rotary'"),
    ],
)
def test_impossible_caches_are_refused(make, message):
    """A policy or numbering that makes no sense is an error that names the value."""
    with pytest.raises(ValueError, match=message):
        make()


def test_an_interrupted_cache_is_refused():
    """When one layer took in a token and another did not, the cache says so instead of going on."""
    cache = new(Window(4))
    feed(cache, 3)
    cache.layers[0].append(*kv(0, [3]))
    with pytest.raises(ValueError, match="interrupted"):
        cache.next_positions(1)


def test_the_cache_takes_the_dtype_it_is_given():
    """float32 unless `like` says otherwise."""
    assert KVCache(L, K, D, Dense()).layers[0].keys.dtype == np.float32
    assert new(Dense()).layers[0].values.dtype == np.float64


@pytest.mark.parametrize("content", [None, b"", b"not a cache", "no metadata", "not a cache's", "no policy"])
def test_only_a_saved_cache_is_restored(tmp_path, content):
    """A file that is missing, cut short or something else is refused by name."""
    path = tmp_path / "stream.cache"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        metadata = {"no metadata": None, "not a cache's": {"format": "np"}, "no policy": {"minisink_cache": "[]"}}
        save_file({"keys.0": np.zeros((1, K, D))}, path, metadata=metadata[content])
    with pytest.raises(ValueError, match="stream.cache: not a saved minisink cache"):
        load_cache(path)


def test_an_interrupted_cache_is_not_saved(tmp_path):
    """What cannot be gone on with is not written to a file, where nobody would see that it cannot."""
    cache = new(Window(4))
    cache.layers[0].append(*kv(0, [0]))
    with pytest.raises(ValueError, match="interrupted"):
        save_cache(cache, tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


class Caches(RuleBasedStateMachine):
    """Caches that grow, are saved and restored in any order, each beside the number of tokens it has seen."""

    caches = Bundle("caches")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.all = []  # [cache, tokens seen, policy, positions]

    def teardown(self):
        self.folder.cleanup()

    @rule(target=caches, policy=tiny.policies | st.just(Dense()), positions=tiny.positions)
    def start(self, policy, positions):
        self.all.append([new(policy, positions), 0, policy, positions])
        return self.all[-1]

    @rule(entry=caches, n_new=st.integers(1, 9))
    def grow(self, entry, n_new):
        feed(entry[0], n_new)
        entry[1] += n_new

    @rule(target=caches, entry=caches)
    def save_and_restore(self, entry):
        path = Path(self.folder.name) / "cache.safetensors"
        save_cache(entry[0], path)
        self.all.append([load_cache(path), *entry[1:]])
        assert list(path.parent.iterdir()) == [path]
        return self.all[-1]

    @invariant()
    def every_cache_is_as_if_it_were_alone(self):
        for entry in self.all:
            check(*entry)


TestCaches = Caches.TestCase
TestCaches.settings = examples(40, stateful_step_count=20)
