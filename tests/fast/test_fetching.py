"""The fast paths of retrieval against the readable one: the same logits, whatever came before."""

from dataclasses import replace

import numpy as np
import pytest
import test_retrieval
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from minisink.fast.retrieval import Fetching, FetchingRing
from test_retrieval import public, stream

import minisink
from minisink import gpt2, llama
from minisink.fast import retrieval
from minisink.fast.decoder import Decoder
from minisink.retrieval import Retrieval

many = settings(max_examples=600)
some = settings(max_examples=60)
policies = test_retrieval.policies.map(lambda p: replace(p, select="bound" if p.is_control else p.select))


def close(got, want, tolerance=1e-9):
    """Equal to `tolerance` of the scale of what is wanted."""
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))


@many
@given(tiny.models(), tiny.chunked_texts(40), policies)
def test_blocks_are_one_token_at_a_time(model, text, policy):
    """However many tokens a forward pass takes."""
    (ids, chunks), model = text, public(model)
    got = stream(model, ids, policy, chunks, Fetching(model.config.n_layers, policy))
    close(got, stream(model, ids, policy))


@many
@given(tiny.models(), tiny.chunked_texts(40), policies)
def test_a_ring_is_a_cache(model, text, policy):
    """Chunk by chunk, in blocks or alone, over a ring that is half full, full or gone round."""
    (ids, chunks), model = text, public(model)
    decoder, stops = Decoder(model, policy), np.cumsum(chunks)
    got = [decoder(ids[t - n : t]) for n, t in zip(chunks, stops, strict=True)]
    close(got, stream(model, ids, policy)[stops - 1])


@some
@given(tiny.models(n_layers=2), tiny.chunked_texts(40), policies)
def test_a_search_in_parts_is_a_search(model, text, policy):
    """A few queries at a time, when the text is long: here one."""
    (ids, chunks), model = text, public(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "ROOM", 1)
        got = stream(model, ids, policy, chunks, Fetching(2, policy))
    close(got, stream(model, ids, policy))


@pytest.mark.parametrize("arch", [llama, gpt2])
@pytest.mark.parametrize("select", ["best", "bound"])
@pytest.mark.parametrize("store", [None, 50])
def test_buffers_double_and_are_let_go_of(arch, select, store):
    """Hundreds of tokens, in one turn and then alone; what is kept is bounded where it is to be."""
    model, ids = public(tiny.make(arch, n_layers=2)), tiny.ids(700)
    policy = Retrieval(2, 5, "slot", n_blocks=2, block=3, select=select, store=store)
    want = stream(model, ids, policy, [700])
    decoder, blocks = Decoder(model, policy), Fetching(2, policy)
    close(np.array([decoder(ids[:600]), *(decoder.step(token) for token in ids[600:].tolist())]), want[599:])
    close(stream(model, ids, policy, [400, 300], blocks), want)
    n_kept = decoder.cache.kept.keys[0].shape[1]
    assert n_kept >= 698 if store is None else n_kept <= 2 * (256 + 5 + 50 + 3)
    ring = decoder.cache.keys.nbytes * 2
    assert decoder.cache.nbytes == ring + decoder.cache.kept.nbytes > ring
    assert "FetchingRing of 2 layers: 7 of 7 slots, 700 tokens seen" in repr(decoder.cache)
    assert "Fetching of 2 layers: 700 tokens seen" in repr(blocks)


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_single_precision(arch):
    """In float32 no sum is wider than in the readable path, and the answer differs by rounding only."""
    model, ids = public(tiny.make(arch, dtype=np.float32)), tiny.ids(60)
    policy = Retrieval(1, 6, n_blocks=20, block=3)  # all of them: a choice could hang on the last digit
    got = Decoder(model, policy)
    logits = np.array([got(ids[:20]), *(got.step(token) for token in ids[20:].tolist())])
    assert logits.dtype == got.cache.kept.keys[0].dtype == np.float32
    close(logits, stream(model, ids, policy)[19:], 1e-4)
    nll = minisink.token_nll(model, ids, method="retrieval", n_sinks=1, window=6, n_blocks=20, block=3)
    assert nll.dtype == np.float32


@some
@given(st.sampled_from([llama, gpt2]), tiny.texts(2, 20), tiny.texts(max_size=6), policies, st.booleans())
def test_a_saved_stream_goes_on_to_the_same_bits(tmp_path_factory, arch, before, after, policy, ring):
    """Ring or blocks, stopped anywhere, before the first token too."""
    model, path = public(tiny.make(arch)), tmp_path_factory.mktemp("state") / "cache"

    def going_on(cache):
        if isinstance(cache, FetchingRing):
            return Decoder(model, policy, cache=cache).step
        return lambda token: model.forward([token], cache=cache)[0]

    for cut in (0, len(before)):
        cache = Decoder(model, policy).cache if ring else Fetching(3, policy)
        step = going_on(cache)
        for token in before[:cut]:
            step(token)
        minisink.save_cache(cache, path)
        again = minisink.load_cache(path)
        assert (type(again), again.policy, again.n_seen) == (type(cache), policy, cut)
        step_again = going_on(again)
        for token in after:
            assert step_again(token).tobytes() == step(token).tobytes()


def test_an_interrupted_turn_is_taken_again(monkeypatch):
    """What was kept of it is written over."""
    model, ids, policy = public(tiny.make()), tiny.ids(30), Retrieval(2, 5, n_blocks=2, block=2, select="bound")
    decoder = Decoder(model, policy)
    decoder(ids[:12])
    wo, model.weights.layers[1].wo = model.weights.layers[1].wo, None
    with pytest.raises((TypeError, ValueError, AttributeError)):
        decoder([9, 8, 7, 6, 5, 4])
    model.weights.layers[1].wo = wo
    close(decoder(ids[12:]), stream(model, ids, policy)[-1])


def test_the_controls_take_the_readable_path():
    """By themselves in the public functions; a decoder that is asked for one says so."""
    model, ids = public(tiny.make()), tiny.ids(20)
    options = {"method": "retrieval", "n_sinks": 1, "window": 3, "n_blocks": 1, "block": 2}
    for select in ("mean", "random"):
        policy = Retrieval(1, 3, n_blocks=1, block=2, select=select)
        nll = minisink.token_nll(model, ids, select=select, **options)
        assert (nll == minisink.token_nll(model, ids, select=select, readable=True, **options)).all()
        text = list(minisink.generate(model, ids, max_new_tokens=2, select=select, **options))
        assert text[0] == stream(model, ids, policy)[-1].argmax()
        with pytest.raises(ValueError, match=f"select is '{select}', a control"):
            Decoder(model, policy)
