"""Any of the three caches to a file and back: to the same bits, or refused by name."""

import json
import os

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from safetensors import safe_open
from safetensors.numpy import save_file

import minisink
from minisink.cache import Policy
from minisink.fast.blocks import Banded
from minisink.fast.decoder import Decoder
from minisink.fast.ring import RingCache
from minisink.methods import ByLayer, Dense, Streaming, Window
from minisink.snapshot import load_cache, save_cache

MODEL = minisink.Model(tiny.make().config, tiny.make().weights, name="tiny")


def empty(kind, policy):
    """A cache of a kind, and what takes a token into it and gives logits."""
    if kind == "ring":
        decoder = Decoder(MODEL, policy)
        return decoder.cache, decoder.step
    cache = minisink.new_cache(MODEL, policy) if kind == "slots" else Banded(3, policy)
    return cache, lambda token: MODEL.forward([token], cache=cache)[0]


def going_on(cache, policy):
    """The same for a cache that was loaded."""
    if isinstance(cache, RingCache):
        return Decoder(MODEL, policy, cache=cache).step
    return lambda token: MODEL.forward([token], cache=cache)[0]


@examples(100)
@given(st.sampled_from(["slots", "blocks", "ring"]), tiny.policies, tiny.texts(max_size=12), tiny.texts(max_size=6))
def test_a_stream_goes_on_to_the_same_bits(tmp_path_factory, kind, policy, before, after):
    """Stopped anywhere, before the first token too."""
    path = tmp_path_factory.mktemp("state") / "cache.safetensors"
    for cut in (0, len(before)):
        cache, step = empty(kind, policy)
        for token in before[:cut]:
            step(token)
        save_cache(cache, path)
        again = load_cache(path)
        assert type(again) is type(cache) and (again.policy, again.n_seen) == (policy, cut)
        step_again = going_on(again, policy)
        for token in after:
            assert step_again(token).tobytes() == step(token).tobytes()


@pytest.mark.parametrize("policy", [Policy(2, 5), Policy(0, 3), Policy()])
def test_an_empty_ring_comes_back(tmp_path, policy):
    """With all its room, and nothing in it."""
    cache = Decoder(MODEL, policy).cache
    save_cache(cache, tmp_path / "ring")
    again = load_cache(tmp_path / "ring")
    assert (len(again), again.n_seen, again.nbytes, again.policy) == (0, 0, cache.nbytes, policy)


@pytest.mark.parametrize("cut", [0, 3, 9])
def test_a_cache_whose_layers_differ_comes_back(tmp_path, cut):
    """Each layer with its own policy and its own tokens, and on to the same bits."""
    method, ids = ByLayer([Streaming(1, 3), Dense(), Window(2)]), tiny.ids(14).tolist()
    cache = minisink.new_cache(MODEL, method)
    for token in ids[:cut]:
        MODEL.forward([token], cache=cache)
    save_cache(cache, tmp_path / "cache")
    again = load_cache(tmp_path / "cache")
    assert (again.policy, again.n_seen) == (method, cut)
    for mine, its in zip(again.layers, cache.layers, strict=True):
        assert mine.policy == its.policy and mine.token_index.tolist() == its.token_index.tolist()
    for token in ids[cut:]:
        assert MODEL.forward([token], cache=again).tobytes() == MODEL.forward([token], cache=cache).tobytes()


CHANGES = {
    "tokens more": lambda about, arrays: about.update(n_seen=about["n_seen"] + 1),
    "tokens as text": lambda about, arrays: about.update(n_seen="9"),
    "a window of 2**31": lambda about, arrays: about["method"].update(window=2**31),
    "sinks for window": lambda about, arrays: about["method"].update(n_sinks=3, window=3),
    "another kind": lambda about, arrays: about.update(kind="bag"),
    "nothing known": lambda about, arrays: about.clear(),
    "whole numbers": lambda about, arrays: arrays.update({n: a.astype(np.int32) for n, a in arrays.items()}),
    "one number": lambda about, arrays: next(iter(arrays.values())).reshape(-1).__setitem__(0, 7),
    "a slot less": lambda about, arrays: arrays.update({n: a[..., 1:, :, :] for n, a in arrays.items() if a.ndim > 1}),
    "one name": lambda about, arrays: arrays.update(other=arrays.popitem()[1]),
    "all lost": lambda about, arrays: arrays.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", ["slots", "blocks", "ring"])
def test_a_file_that_was_changed_is_refused(tmp_path, kind, change):
    """Never another stream's numbers, never a traceback, never memory for what the file does not hold."""
    cache, step = empty(kind, Policy(2, 4))
    for token in tiny.ids(9).tolist():
        step(token)
    path = tmp_path / "cache.safetensors"
    save_cache(cache, path)
    with safe_open(path, framework="numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    about = json.loads(metadata["minisink_cache"])
    change(about, arrays)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, path, metadata=metadata | {"minisink_cache": json.dumps(about)})
    with pytest.raises(ValueError, match="cache.safetensors: not a saved minisink cache .it was changed or damaged"):
        load_cache(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    """A folder, a pipe, a dangling link, nothing, half a file, metadata nested too deep: a line each, no waiting."""
    path, good = tmp_path / "cache.safetensors", tmp_path / "good"
    save_cache(minisink.new_cache(MODEL, Policy(1, 3)), good)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    path.write_bytes(good.read_bytes()[:-3])
    for name in ("folder", "pipe", "link", "nowhere", "cache.safetensors"):
        with pytest.raises(ValueError, match=f"{name}: not a saved minisink cache"):
            load_cache(tmp_path / name)
    save_file({}, path, metadata={"minisink_cache": "[" * 100_000, "digest": "0"})
    with pytest.raises(ValueError, match="not a saved minisink cache"):
        load_cache(path)


def test_a_numpy_integer_is_a_whole_number(tmp_path):
    """Sizes that come out of an array can be saved."""
    cache = minisink.new_cache(MODEL, Policy(np.int64(1), np.int32(3)))
    save_cache(cache, tmp_path / "cache")
    assert load_cache(tmp_path / "cache").policy == Policy(1, 3)


@pytest.mark.parametrize("value", [12.5, "64", True, 0, -3])
def test_sizes_that_are_no_whole_numbers_are_refused(value):
    """By name and value, wherever they are given."""
    for make in (
        lambda: Policy(1, value),
        lambda: Streaming(4, value),
        lambda: Window(value),
    ):
        with pytest.raises(ValueError, match=f"window is {value!r}; it must be a whole number of 1 or more"):
            make()
