"""The fast paths of retrieval against the readable one: the same logits, whatever came before."""

import device_array
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from test_retrieval import policies, stream
from tiny import public

import minisink
from minisink import Retrieval, gpt2, llama, new_cache
from minisink.fast.decoder import Decoder
from minisink.retrieval import blocks as blocks_file
from minisink.retrieval.blocks import RetrievalBlocks
from minisink.retrieval.ring import RetrievalRing
from minisink.retrieval.store import EvictedStore, evicted_range

many = examples(600)
pytestmark = pytest.mark.filterwarnings("ignore:a block of")  # longer than the window, as some are drawn
some = examples(60)


def close(got, want, tolerance=1e-9):
    """Equal to `tolerance` of the scale of what is wanted."""
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))


@many
@given(tiny.all_models(), tiny.chunked_texts(40), policies)
def test_blocks_are_one_token_at_a_time(model, text, policy):
    """However many tokens a forward pass takes."""
    (ids, chunks), model = text, public(model)
    got = stream(model, ids, policy, chunks, RetrievalBlocks(model.config.n_layers, policy))
    close(got, stream(model, ids, policy))


@many
@given(tiny.all_models(), tiny.chunked_texts(40), policies)
def test_a_ring_is_a_cache(model, text, policy):
    """Chunk by chunk, in blocks or alone, over a ring that is half full, full or gone round."""
    (ids, chunks), model = text, public(model)
    decoder, stops = Decoder(model, policy), np.cumsum(chunks)
    got = [decoder(ids[t - n : t]) for n, t in zip(chunks, stops, strict=True)]
    close(got, stream(model, ids, policy)[stops - 1])


@some
@given(tiny.all_models(n_layers=2), tiny.chunked_texts(40), policies)
def test_a_search_in_parts_is_a_search(model, text, policy):
    """A few queries at a time, when the text is long: here one."""
    (ids, chunks), model = text, public(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_file, "MAX_SCORES", 1)
        got = stream(model, ids, policy, chunks, RetrievalBlocks(2, policy))
    close(got, stream(model, ids, policy))


@pytest.mark.sampled
@pytest.mark.parametrize("arch", [llama, gpt2])
@pytest.mark.parametrize("select", ["best", "bound"])
@pytest.mark.parametrize("store", [None, 50])
def test_buffers_double_and_are_let_go_of(arch, select, store):
    """Hundreds of tokens, in one turn and then alone; what is kept is bounded where it is to be."""
    model, ids = public(tiny.make(arch, n_layers=2)), tiny.ids(700)
    policy = Retrieval(2, 5, "slot", n_blocks=2, block=3, select=select, store=store)
    want = stream(model, ids, policy, [700])
    decoder, blocks = Decoder(model, policy), RetrievalBlocks(2, policy)
    close(np.array([decoder(ids[:600]), *(decoder.step(token) for token in ids[600:].tolist())]), want[599:])
    close(stream(model, ids, policy, [400, 300], blocks), want)
    stored = decoder.cache.stores[0]
    n_stored = stored.keys[0, :, :, 0].size  # tokens
    assert n_stored >= 698 if store is None else n_stored <= 2 * (256 + 5 + 50 + 3)
    ring = decoder.cache.keys.nbytes * 2
    assert decoder.cache.nbytes == ring + 2 * stored.nbytes > ring
    assert "RetrievalRing of 2 layers: 7 of 7 slots, 700 tokens seen" in repr(decoder.cache)
    assert "RetrievalBlocks of 2 layers: 700 tokens seen" in repr(blocks)


@pytest.mark.parametrize("select", ["best", "bound"])
@pytest.mark.parametrize("block", [70, 10**6])
def test_memory_grows_with_what_was_evicted(tmp_path, block, select):
    """However long a block may be, and however many may be fetched; a state goes on to the same bits."""
    model, ids = public(tiny.make(n_layers=2)), tiny.ids(300)
    policy = Retrieval(2, 5, n_blocks=10**6, block=block, select=select)
    readable, decoder, blocks = new_cache(model, policy), Decoder(model, policy), RetrievalBlocks(2, policy)
    want = stream(model, ids, policy, cache=readable)
    close(stream(model, ids, policy, [200, 100], blocks), want)
    close(np.array([decoder(ids[:20]), *(decoder.step(token) for token in ids[20:270].tolist())]), want[19:270])
    minisink.save_cache(decoder.cache, tmp_path / "cache")
    again = Decoder(model, policy, cache=minisink.load_cache(tmp_path / "cache"))
    for token in ids[270:].tolist():
        assert again.step(token).tobytes() == decoder.step(token).tobytes()
    a_token = 2 * model.config.n_kv_heads * model.config.head_dim * 8  # bytes
    for stores in (readable.stores, decoder.cache.stores, blocks.stores):
        assert all(store.keys.nbytes + store.values.nbytes <= 4 * 300 * a_token for store in stores)


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_single_precision(arch):
    """In float32 no sum is wider than in the readable path, and the answer differs by rounding only."""
    model, ids = public(tiny.make(arch, dtype=np.float32)), tiny.ids(60)
    policy = Retrieval(1, 6, n_blocks=20, block=3)  # all of them: a choice could hang on the last digit
    got = Decoder(model, policy)
    logits = np.array([got(ids[:20]), *(got.step(token) for token in ids[20:].tolist())])
    assert logits.dtype == got.cache.stores[0].keys.dtype == np.float32
    close(logits, stream(model, ids, policy)[19:], 1e-4)
    nll = minisink.token_nll(model, ids, policy)
    assert nll.dtype == np.float32


@some
@given(tiny.all_models(n_layers=3), tiny.texts(2, 20), tiny.texts(max_size=6), policies, st.booleans())
def test_a_saved_stream_goes_on_to_the_same_bits(tmp_path_factory, model, before, after, policy, ring):
    """Ring or blocks, stopped anywhere, before the first token too."""
    model, path = public(model), tmp_path_factory.mktemp("state") / "cache"

    def going_on(cache):
        if isinstance(cache, RetrievalRing):
            return Decoder(model, policy, cache=cache).step
        return lambda token: model.forward([token], cache=cache)[0]

    for cut in (0, len(before)):
        cache = Decoder(model, policy).cache if ring else RetrievalBlocks(3, policy)
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


@some
@given(tiny.seeds, st.integers(0, 2), st.integers(1, 4), st.none() | st.integers(1, 9), tiny.chunked_texts(150))
def test_a_store_has_every_token_in_its_block(seed, n_sinks, block, limit, text):
    """Token t is in block ``(t - n_sinks) // block`` with its key and value, and full blocks know their ranges."""
    n_tokens, K, D = len(text[0]) + 150, 2, 6
    policy = Retrieval(n_sinks, 4, n_blocks=1, block=block, select="bound", store=limit)
    keys, values = tiny.arrays(2, n_tokens, K, D, seed=seed)
    store, t = EvictedStore(policy, keys, K, D), 0
    for n in [*text[1], *[1] * 150]:  # runs, then one at a time
        if n > 1 or t < n_sinks:
            store.put(t, keys[t : t + n], values[t : t + n])
        else:
            store.make_room(t - n_sinks, t - n_sinks + 1)
            store.put_one(t - n_sinks, keys[t], values[t])
        t += n
    start, stop = (int(index) for index in evicted_range(policy, t - 1))
    oldest = n_sinks if limit is None else max(n_sinks, t - 4 - limit)
    assert (start, stop) == (oldest - n_sinks, t - 4 - n_sinks)
    view = store.view(start, stop)
    assert view.origin <= start < stop <= view.origin + view.keys[0, :, :, 0].size
    assert limit is None or store.first_block > 0  # some have been let go
    for number in range(view.keys.shape[1]):
        first = n_sinks + view.origin + number * block  # token_index
        n = min(block, t - first)  # tokens in this block
        held = min(n, view.keys.shape[2])  # one block alone is seen as far as it is evicted
        assert (view.keys[:, number, :held] == keys[first : first + held].swapaxes(0, 1)).all()
        assert (view.values[:, number, :held] == values[first : first + held].swapaxes(0, 1)).all()
        if n == block:
            assert (view.channel_min[:, number] == keys[first : first + n].min(axis=0)).all()
            assert (view.channel_max[:, number] == keys[first : first + n].max(axis=0)).all()


@pytest.mark.sampled
@pytest.mark.parametrize("cut", [0, 3, 20])
@pytest.mark.parametrize("select", ["best", "bound"])
@pytest.mark.parametrize("kind", ["readable", "blocks", "ring"])
def test_a_cache_comes_back_to_its_device_and_dtype(tmp_path, kind, select, cut):
    """Keys and values go where `like` is, whether anything was evicted or not; what counts tokens stays on the host."""
    tiny_model, policy, ids = (
        tiny.make(dtype=np.float32),
        Retrieval(1, 4, n_blocks=2, block=3, select=select),
        tiny.ids(26),
    )
    device = minisink.Model(tiny_model.config, device_array.on_device(tiny_model.weights))
    cache = {"readable": lambda: new_cache(device, policy), "blocks": lambda: RetrievalBlocks(3, policy)}
    cache = Decoder(device, policy).cache if kind == "ring" else cache[kind]()

    def step(cache, token):
        if kind == "ring":
            return Decoder(device, policy, cache=cache).step(token)
        return device.forward([token], cache=cache)[0]

    for token in ids[:cut].tolist():
        step(cache, token)
    minisink.save_cache(cache, tmp_path / "cache")
    again = minisink.load_cache(tmp_path / "cache", like=device.weights.embed)
    if kind == "readable":
        for store in [*again.layers, *again.stores]:
            assert isinstance(store.keys, device_array.DeviceArray) and store.keys.dtype == np.float32
            assert isinstance(store.token_index, np.ndarray) and store.token_index.dtype.kind == "i"
    for token in ids[cut:].tolist():
        got, want = step(again, token), step(cache, token)
        assert got.dtype == np.float32 and (got.get() == want.get()).all()
