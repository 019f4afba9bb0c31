"""Decoding over the ring against the readable path: the same logits, token by token, whatever came before."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import gpt2, llama
from minisink.cache import Policy
from minisink.fast.decoder import Decoder
from minisink.fast.ring import RingCache

some, many = examples(100), examples(1500)
any_policy = tiny.policies | st.just(Policy())


def close(got, want, tolerance=1e-10):
    """Equal to `tolerance` of the scale of what is wanted."""
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))


def fast(decoder, ids, n_prompt):
    """Logits (T - n_prompt + 1, V) after the prompt and after each token of the rest."""
    return np.array([decoder(ids[:n_prompt]), *(decoder([token]) for token in ids[n_prompt:])])


@many
@given(tiny.all_models(), tiny.texts(max_size=24), any_policy, tiny.positions, st.data())
def test_a_ring_is_a_cache(model, ids, policy, positions, data):
    """A prompt in blocks, then token by token: each logit is that of a KVCache that rotates every key by its slot."""
    n_prompt = data.draw(st.integers(1, len(ids)))
    got = fast(Decoder(public(model), replace(policy, positions=positions)), ids, n_prompt)
    close(got, model.stream(ids, policy, positions)[n_prompt - 1 :])


@many
@given(tiny.all_models(), tiny.chunked_texts(40), any_policy, tiny.positions)
def test_any_chunk_goes_in_blocks(model, text, policy, positions):
    """Whatever the ring holds, half full, full or gone round: chunk by chunk the logits of token by token."""
    ids, chunks = text
    decoder, stops = Decoder(public(model), replace(policy, positions=positions)), np.cumsum(chunks)
    got = [decoder(ids[t - n : t]) for n, t in zip(chunks, stops, strict=True)]
    close(got, model.stream(ids, policy, positions)[stops - 1])
    held = decoder.cache.token_index.tolist()
    assert [decoder.cache.slot(t) for t in held] == list(range(len(held)))


@pytest.mark.parametrize("policy", [Policy(2, 5), Policy(0, 300), Policy(1, 40), Policy()])
def test_a_long_turn_after_a_long_prompt(policy):
    """More than the 256 tokens taken at once, into a ring that has gone round, and steps after it."""
    model, ids = tiny.make(n_layers=2), tiny.ids(1500)
    decoder = Decoder(public(model), policy)
    got = [decoder(ids[:700]), decoder(ids[700:1300]), *(decoder.step(token) for token in ids[1300:1320].tolist())]
    close(got, model.stream(ids, policy, chunks=[1500])[[699, 1299, *range(1300, 1320)]])


def test_an_interrupted_turn_is_taken_again(monkeypatch):
    """The ring stays as it was until the whole turn is in."""
    model, ids, policy = tiny.make(), tiny.ids(20), Policy(2, 5)
    decoder = Decoder(public(model), policy)
    decoder(ids[:12])
    before = decoder.cache.keys.copy()
    with monkeypatch.context() as patch:
        patch.setattr(minisink.Model, "forward", lambda *a, **o: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder(ids[12:])
    assert (decoder.cache.keys == before).all() and decoder.cache.n_seen == 12
    close(decoder(ids[12:]), model.stream(ids, policy)[-1])


@examples(40)
@given(tiny.all_models(n_layers=1), st.integers(0, 3), st.integers(1, 9), tiny.seeds, st.integers(300, 700))
def test_a_prompt_longer_than_a_block(model, n_sinks, window, seed, n_tokens):
    """Prompts of more than the 256 tokens taken at once leave the same cache behind."""
    ids, policy = tiny.ids(n_tokens, seed), Policy(n_sinks, window)
    got = fast(Decoder(public(model), policy), ids, n_tokens - 3)
    close(got, model.stream(ids, policy)[-4:])


@pytest.mark.parametrize(("arch", "changes"), [(llama, {"qkv_bias": True, "n_kv_heads": 2}), (gpt2, {})])
@pytest.mark.parametrize(
    "policy", [Policy(2, 5), *(pytest.param(p, marks=pytest.mark.slow) for p in (Policy(0, 3), Policy(3, 1)))]
)
def test_thousands_of_tokens_past_the_capacity(arch, changes, policy):
    """The ring goes round hundreds of times and stays where the readable path is."""
    model, ids = tiny.make(arch, **changes, n_layers=2), tiny.ids(3000)
    close(fast(Decoder(public(model), policy), ids, 4), model.stream(ids, policy)[3:])


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_dense_outgrows_its_buffers(arch):
    """A cache without a limit doubles its buffers and forgets nothing."""
    model, ids = tiny.make(arch, max_positions=300), tiny.ids(300)
    decoder = Decoder(public(model), Policy())
    close(fast(decoder, ids, 70), model.forward(ids)[69:])
    assert (len(decoder.cache), decoder.cache.keys.shape[2]) == (300, 512)


@pytest.mark.parametrize("arch", [llama, gpt2])
@pytest.mark.parametrize("positions", ["slot", "original"])
def test_single_precision(arch, positions):
    """In float32 the two paths differ by rounding only, also far into a text."""
    model, ids = tiny.make(arch, dtype=np.float32, **({"max_positions": 400} if arch is gpt2 else {})), tiny.ids(400)
    decoder = Decoder(public(model), Policy(2, 5, positions))
    got = fast(decoder, ids, 9)
    assert (got.dtype, decoder.cache.keys.dtype) == (np.float32, np.float32)
    close(got, model.stream(ids, cache=float32_cache(model, Policy(2, 5, positions)))[8:], 1e-4)


@pytest.mark.parametrize("sink", [{}, {"softmax": "softmax1"}, {"sink_logit": True}])
def test_scores_beyond_the_range_of_exp(sink):
    """Scores of thousands, in heads thousands apart, neither overflow nor vanish."""
    model, ids = tiny.make(n_layers=2, **sink), tiny.ids(30)
    for layer in model.weights.layers:
        layer.wq[:] *= 1000.0 * (-1.0) ** np.arange(4).repeat(6)
    with np.errstate(all="raise", under="ignore"):
        close(fast(Decoder(public(model), Policy(2, 5)), ids, 3), model.stream(ids, Policy(2, 5))[2:], 1e-8)


def float32_cache(model, policy):
    """A KVCache in float32."""
    config = model.config
    return minisink.KVCache(config.n_layers, config.n_kv_heads, config.head_dim, policy)


def test_positions_of_millions_keep_their_precision():
    """At token 4,000,000 scores still depend on distances only: the logits are those at token 4,000."""
    model, ids = tiny.make(n_layers=2), tiny.ids(40)
    logits = []
    for t in (4_000, 4_000_000):  # the same slots: both are multiples of the window
        cache = RingCache(2, 2, 6, Policy(0, 5), dtype=np.float64)
        cache.n_seen = t
        decoder = Decoder(public(model), cache.policy, cache=cache)
        logits.append([decoder.step(token) for token in ids][-5:])  # the window was refilled several times
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-6)


@some
@given(tiny.all_models(n_layers=2), tiny.texts(min_size=8, max_size=30), any_policy, tiny.positions, st.data())
def test_a_saved_ring_goes_on_to_the_same_bits(tmp_path_factory, model, ids, policy, positions, data):
    """Saved in the middle and restored, a stream continues with the very numbers it would have had."""
    path = tmp_path_factory.mktemp("ring") / "stream.safetensors"
    policy = replace(policy, positions=positions)
    decoder, cut = Decoder(public(model), policy), data.draw(st.integers(1, 7))
    decoder(ids[:cut])
    minisink.save_cache(decoder.cache, path)
    want = np.array([decoder.step(token) for token in ids[cut:]])
    again = Decoder(public(model), policy, cache=minisink.load_cache(path))
    assert np.array([again.step(token) for token in ids[cut:]]).tobytes() == want.tobytes()


@some
@given(st.integers(0, 40), any_policy)
def test_slots_hold_what_the_policy_keeps(n_seen, policy):
    """The ring holds the sinks and the last of the text, each token where `slot` says."""
    cache = RingCache(1, 1, 2, policy)
    cache.n_seen = n_seen
    held = cache.token_index
    assert sorted(held) == policy.survivors(np.arange(n_seen)).tolist()
    assert [cache.slot(t) for t in held.tolist()] == list(range(len(cache)))


def test_what_left_cannot_be_seen():
    """NaN in every slot not yet filled, and in the one about to be overwritten, changes nothing."""
    model, ids, policy = tiny.make(), tiny.ids(30), Policy(2, 5)
    decoder, want = Decoder(public(model), policy), model.stream(ids, policy)
    decoder.cache.keys[:], decoder.cache.values[:] = np.nan, np.nan
    for t, token in enumerate(ids):
        leaving = decoder.cache.slot(t)
        decoder.cache.keys[:, :, leaving], decoder.cache.values[:, :, leaving] = np.nan, np.nan
        close(decoder.step(token), want[t])


def test_an_interrupted_step_is_taken_again(monkeypatch):
    """An exception between two layers leaves a cache that goes on as if nothing had happened."""
    model, ids, policy = tiny.make(), tiny.ids(20), Policy(2, 5)
    decoder = Decoder(public(model), policy)
    decoder(ids[:15])
    layers = decoder.weights.layers
    decoder.weights.layers = [layers[0], dataclasses.replace(layers[1], wo=None), layers[2]]
    with pytest.raises((TypeError, ValueError, AttributeError)):
        decoder.step(16)
    decoder.weights.layers = layers
    close([decoder.step(token) for token in ids[15:]], model.stream(ids, policy)[15:])


def test_nothing_grows():
    """After the cache is full, a step allocates no buffers and holds the same number of bytes."""
    decoder = Decoder(public(tiny.make()), Policy(2, 5))
    decoder(tiny.ids(20))
    keys, values, nbytes = decoder.cache.keys, decoder.cache.values, decoder.cache.nbytes
    decoder(tiny.ids(50))
    assert decoder.cache.keys is keys and decoder.cache.values is values and decoder.cache.nbytes == nbytes
    assert nbytes == 2 * 3 * 2 * 6 * 7 * 8  # keys and values, layers, heads, channels, slots, bytes


def test_a_large_ring_grows_with_the_text():
    """A window that no text fills costs what the text does; and it is never larger than what it keeps."""
    model, ids = tiny.make(), tiny.ids(500)
    for policy, slots in ((Policy(4, 10**9), 512), (Policy(2, 300), 302)):
        decoder = Decoder(public(model), policy)
        close(fast(decoder, ids, 100), model.stream(ids, policy)[99:])
        assert decoder.cache.keys.shape[2] == slots


def test_gpt2_is_refused_a_position_it_has_not_learned():
    """Beyond the learned positions the ring says what the readable path says, in a prompt and in a step."""
    model, ids = public(tiny.make(gpt2, max_positions=12)), tiny.ids(20)
    for policy in (Policy(), Policy(2, 5, "original"), Policy(2, 12)):
        decoder = Decoder(model, policy)
        decoder(ids[:12])
        with pytest.raises(ValueError, match="position 12 is beyond the 12 learned positions"):
            decoder.step(3)
        with pytest.raises(ValueError, match="is beyond the 12 learned positions"):
            Decoder(model, policy)(ids)


def test_a_cache_of_another_model_is_refused():
    """Shape, dtype, policy and positions have to fit."""
    model, policy = public(tiny.make()), Policy(2, 5)
    for cache in (RingCache(2, 2, 6, policy), RingCache(3, 4, 6, policy), RingCache(3, 2, 6, policy)):
        with pytest.raises(ValueError, match="this cache has . layers of . heads of 6 channels in float32; tiny has 3"):
            Decoder(model, policy, cache=cache)
    for other in (RingCache(3, 2, 6, Policy(2, 4)), RingCache(3, 2, 6, Policy(2, 5, "original"))):
        with pytest.raises(ValueError, match="this cache has Policy"):
            Decoder(model, policy, cache=other)


@some
@given(tiny.all_models(), tiny.texts(max_size=20), st.sampled_from(["dense", "window", "streaming"]), tiny.positions)
def test_generate_says_what_the_readable_path_says(model, ids, method, positions):
    """Greedy text over the ring is the likeliest text of a KVCache, token by token."""
    model = public(model)
    method = tiny.method(method, positions=positions)
    text = list(minisink.generate(model, ids, method, max_new_tokens=12))
    cache = minisink.new_cache(model, method)
    logits = [model.forward(ids, cache=cache)[-1], *(model.forward([t], cache=cache)[-1] for t in text[:-1])]
    for token, row in zip(text, logits, strict=True):
        close(row[token], row.max())
