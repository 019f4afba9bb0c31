"""Losses of a text that comes in pieces, and of queries taken in groups: the same as of the whole text at once."""

import gc
import weakref

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink.fast import blocks as streaming
from minisink.hf.shipped import sample_text
from minisink.loss import cache_of, nll_of

some = examples(60)
thousand = examples(1000)
methods = st.sampled_from(["dense", "window", "streaming"])


def whole(blocks):
    """(T-1,) nats of an iterator of blocks."""
    return np.concatenate([np.empty(0), *blocks])


@some
@given(tiny.models(), tiny.chunked_texts(40), methods, tiny.positions, st.integers(1, 50), st.data())
def test_pieces_are_the_text(model, text, method, positions, block, data):
    """Wherever the pieces end, empty ones included, and whatever the block: the losses of the whole text."""
    (ids, chunks), model = text, public(model)
    method = tiny.method(method, data.draw(st.integers(0, 3)), data.draw(st.integers(1, 6)), positions)
    pieces = [p.tolist() for p in np.split(np.array(ids), np.cumsum(chunks)[:-1])]
    pieces.insert(data.draw(st.integers(0, len(pieces))), [])
    blocks = list(minisink.nll_stream(model, iter(pieces), method, chunk=block))
    assert [len(b) for b in blocks[:-1]] == [block] * (len(blocks) - 1)
    np.testing.assert_allclose(whole(blocks), minisink.token_nll(model, ids, method), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cut", [1, 99, 100, 257, 700])
def test_chunks_lie_where_those_of_the_whole_text_do(cut):
    """Not a bit differs, though the trained length is no multiple of a chunk."""
    model, method = public(tiny.make(dtype=np.float32, max_positions=100)), minisink.Streaming(2, 30)
    ids = tiny.ids(900)
    pieces = whole(minisink.nll_stream(model, [ids[:cut], ids[cut:]], method))
    np.testing.assert_array_equal(pieces, minisink.token_nll(model, ids, method))


@thousand
@given(tiny.all_models(), tiny.chunked_texts(60), tiny.policies, st.integers(1, 7))
def test_queries_of_a_block_in_groups(model, text, policy, queries):
    """However many queries of a block are taken at once, its logits are those of a cache, token by token."""
    ids, chunks = text
    fast, stops = streaming.Banded(model.config.n_layers, policy), np.cumsum(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "QUERIES", queries)
        got = [public(model).forward(ids[t - n : t], cache=fast) for n, t in zip(chunks, stops, strict=True)]
    np.testing.assert_allclose(np.concatenate(got), model.stream(ids, policy, policy.positions), rtol=1e-10, atol=1e-10)


def test_a_stream_holds_one_block_and_the_cache():
    """An endless text is taken as it comes: after each block, no more than a block and a piece has been asked for."""
    model, taken = public(tiny.make()), [0]

    def endless():
        while True:
            taken[0] += 5
            yield tiny.ids(5)

    blocks = minisink.nll_stream(model, endless(), minisink.Streaming(1, 4), chunk=8)
    for n in range(1, 20):
        assert len(next(blocks)) == 8
        assert taken[0] <= 8 * n + 1 + 5


def test_what_was_computed_before_a_failure_is_kept():
    """Pieces that fail halfway: every token before the failure has its loss, then the failure comes through."""
    model, ids = public(tiny.make()), tiny.ids(21)

    def broken():
        yield ids[:13]
        yield ids[13:]
        raise OSError("the disk is gone")

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        for block in minisink.nll_stream(model, broken(), chunk=8):
            got.append(block)
    np.testing.assert_allclose(whole(got), minisink.token_nll(model, ids), rtol=1e-10)


@pytest.mark.parametrize("block", [3, 8, 256])
def test_the_last_token_is_predicted_and_not_taken_in(block):
    """Of 9 ids the cache has seen 8: a stream that goes on begins with the ninth."""
    model = public(tiny.make())
    for cache in (minisink.new_cache(model, minisink.Streaming(1, 4)), streaming.Banded(3, minisink.Streaming(1, 4))):
        blocks = minisink.nll_stream(model, [tiny.ids(9)], chunk=block, cache=cache)
        assert len(whole(blocks)) == 8 and cache.n_seen == 8


def test_a_stream_that_ended_lets_its_cache_go():
    """At once, not when the garbage collector comes by: a stream anew for each of many texts takes the room of one."""
    model = public(tiny.make())
    gc.disable()
    try:
        cache = cache_of(model, minisink.Window(5))
        list(minisink.nll_stream(model, [tiny.ids(20)], cache=cache))
        held = weakref.ref(cache)
        del cache
        assert held() is None
    finally:
        gc.enable()


def test_a_stream_refuses_what_it_cannot_do():
    """A block of nothing, a method that reads twice, options out of range, and ids that do not exist."""
    model = public(tiny.make())
    for options, message in [
        ({"chunk": 0}, "chunk is 0"),
        ({"method": minisink.Recompute()}, "more than once"),
    ]:
        with pytest.raises(ValueError, match=message):
            minisink.nll_stream(model, [[1, 2]], **options)
    with pytest.raises(ValueError, match="id 17 at index 1"):
        list(minisink.nll_stream(model, [[1, 2], [3, 17]]))
    assert list(minisink.nll_stream(model, [])) == [] and list(minisink.nll_stream(model, [[5]])) == []


def test_an_interrupted_block_is_noticed():
    """A forward pass that fails between two layers leaves a cache that refuses to go on."""
    model, ids = public(tiny.make()), tiny.ids(9)
    cache = streaming.Banded(model.config.n_layers, minisink.Streaming(1, 4))
    model.forward(ids, cache=cache)
    wo, model.weights.layers[1].wo = model.weights.layers[1].wo, None
    with pytest.raises((TypeError, ValueError, AttributeError)):
        model.forward(ids, cache=cache)
    model.weights.layers[1].wo = wo
    with pytest.raises(ValueError, match="left half-way by an interrupted forward pass"):
        model.forward(ids, cache=cache)


@pytest.mark.parametrize("positions", ["slot", "original"])
def test_blocks_after_the_cache_is_full(positions):
    """Where every query of a block stands at the last slot, and where it stands at its place in the text."""
    model, ids, policy = tiny.make(), tiny.ids(24), minisink.Streaming(2, 3, positions)
    cache = streaming.Banded(model.config.n_layers, policy)
    got = [public(model).forward(block, cache=cache) for block in ids.reshape(6, 4)]
    np.testing.assert_allclose(np.concatenate(got), model.stream(ids, policy, positions), rtol=1e-10, atol=1e-10)


@pytest.mark.sampled
@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize(("n_sinks", "window"), [(4, 60), (0, 33), (1, 127)])
def test_blocks_of_a_real_model(n_sinks, window, positions):
    """The shipped `novels` in float32: within 1e-4 nats of its readable path, one token at a time."""
    model = minisink.load("novels")
    ids = model.encode(sample_text().read_text(encoding="utf-8"))[:400]
    cache = minisink.new_cache(model, minisink.Streaming(n_sinks, window, positions))
    logits = np.concatenate([model.forward([token], cache=cache) for token in ids[:-1]])
    got = minisink.token_nll(model, ids, minisink.Streaming(n_sinks, window, positions))
    np.testing.assert_allclose(got, nll_of(logits, ids[1:]), rtol=0, atol=1e-4)
