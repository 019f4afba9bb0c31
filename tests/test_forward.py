"""Whole models in float64: caches of every kind against the book, and what a query can and cannot see."""

import numpy as np
import pytest
import tiny
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import examples

from minisink import by_the_book as book
from minisink import gpt2, llama
from minisink.methods import Dense, Streaming, Window
from minisink.paths import Cached

both = pytest.mark.parametrize("arch", [llama, gpt2])
some = examples(60)
few = examples(30)  # the book is slow


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def differ(got, want):
    """Not the same logits, by far more than rounding."""
    assert np.abs(got - want).max() > 1e-3


def patterns(model, ids, cache=None):
    """The pattern (H, T, S) of every layer."""
    trace = {}
    model.forward(ids, cache, trace=trace)
    return [layer["pattern"] for layer in trace["layers"]]


# Against the book --------------------------------------------------------------------------------


@few
@given(tiny.models(), tiny.texts(max_size=8))
def test_dense_is_the_book(model, ids):
    """The forward pass without a cache is the architecture read token by token, layer by layer."""
    close(model.forward(ids), book.decode(ids, model.weights, model.config))


@few
@given(tiny.models(), tiny.chunked_texts(12), st.integers(0, 2), st.integers(1, 4), tiny.positions)
def test_streaming_is_the_book(model, text, n_sinks, window, positions):
    """A cache in chunks is StreamingLLM taken literally: a list, the oldest leaves, keys are turned to their slots."""
    ids, chunks = text
    want = book.decode(
        ids, model.weights, model.config, book.evict(n_sinks, window), positions=positions, capacity=n_sinks + window
    )
    close(model.stream(ids, Streaming(n_sinks, window), positions, chunks), want)


@few
@given(tiny.llamas(), tiny.texts(max_size=12), st.integers(0, 2), st.integers(0, 3))
def test_the_authors_eviction_is_a_window_one_wider(model, ids, start, recent):
    """Trimming to (start, recent) after the forward pass shows a query start + recent + 1 keys: window = recent + 1."""
    want = book.decode(ids, model.weights, model.config, after=book.evict(start, recent))
    close(model.stream(ids, Streaming(start, recent + 1)), want)


# Chunks and caches -------------------------------------------------------------------------------


@some
@given(tiny.models(), tiny.chunked_texts())
def test_cached_is_uncached(model, text):
    """With nothing evicted, a cache fed in any chunks gives the logits of one dense pass."""
    ids, chunks = text
    close(model.stream(ids, Dense(), chunks=chunks), model.forward(ids))


@some
@given(tiny.models(), tiny.chunked_texts(), tiny.policies, tiny.positions)
def test_chunks_are_one_token_at_a_time(model, text, policy, positions):
    """Chunks of any length, also across evictions, give what one token at a time gives, and leave the same cache."""
    ids, chunks = text
    one, many = model.cache(policy, positions), model.cache(policy, positions)
    close(model.stream(ids, cache=many, chunks=chunks), model.stream(ids, cache=one))
    assert many.token_index.tolist() == one.token_index.tolist()
    for a, b in zip(many.layers, one.layers, strict=True):
        close(a.keys, b.keys)
        close(a.values, b.values)


@some
@given(tiny.models(), tiny.chunked_texts(), tiny.positions, st.integers(0, 3), st.integers(0, 5))
def test_a_cache_wide_enough_is_dense(model, text, positions, n_sinks, spare):
    """While capacity >= T nothing is evicted: window = streaming = dense, in either numbering."""
    ids, chunks = text
    dense, window = model.forward(ids), max(1, len(ids) - n_sinks) + spare
    close(model.stream(ids, Streaming(n_sinks, window), positions, chunks), dense)
    close(model.stream(ids, Window(len(ids) + spare), positions, chunks), dense)


@both
@pytest.mark.parametrize("policy", [Window(4), Streaming(1, 3)])
def test_methods_part_at_the_first_eviction_and_not_before(arch, policy):
    """Up to capacity every method is dense; from the first eviction on, none is."""
    model, ids = tiny.make(arch), tiny.ids(9)
    dense, got = model.forward(ids), model.stream(ids, policy)
    close(got[:4], dense[:4])
    for row in range(4, 9):
        differ(got[row], dense[row])


@some
@given(tiny.models(), tiny.chunked_texts(), st.integers(1, 6), tiny.positions)
def test_streaming_without_sinks_is_window_attention(model, text, window, positions):
    """n_sinks = 0 leaves the window alone."""
    ids, chunks = text
    got = model.stream(ids, Streaming(0, window), positions, chunks)
    assert (got == model.stream(ids, Window(window), positions, chunks)).all()


@some
@given(tiny.models(), tiny.texts(min_size=1), tiny.texts(min_size=1), tiny.policies, tiny.positions)
def test_two_caches_never_interact(model, ids, other, policy, positions):
    """Two texts decoded in turns, each with a cache of its own, give the bits that each gives alone."""
    mine, theirs = model.cache(policy, positions), model.cache(policy, positions)
    got = []
    for t in range(max(len(ids), len(other))):
        if t < len(ids):
            got.append(model.forward(ids[t : t + 1], mine))
        if t < len(other):
            model.forward(other[t : t + 1], theirs)
    assert (np.concatenate(got) == model.stream(ids, policy, positions)).all()


@some
@given(tiny.models(), tiny.texts(), st.data())
def test_rows_are_rows(model, ids, data):
    """Asking for some rows gives those rows of all."""
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=3))
    close(model.forward(ids, rows=np.array(rows)), model.forward(ids)[rows])
    close(model.forward(ids, rows=slice(-1, None)), model.forward(ids)[-1:])


@both
def test_an_interrupted_pass_is_refused(arch):
    """A cache that some layers have gone ahead with is not gone on with."""

    class Interrupted(Cached):
        def mix(self, layer, *args, **options):
            if layer == 1:
                raise KeyboardInterrupt
            return super().mix(layer, *args, **options)

    model = tiny.make(arch)
    cache = model.cache()
    model.forward([1, 2], cache)
    with pytest.raises(KeyboardInterrupt):
        arch.forward(np.array([3]), model.weights, model.config, path=Interrupted(cache))
    with pytest.raises(ValueError, match="interrupted"):
        model.forward([3], cache)


# What a query sees -------------------------------------------------------------------------------


@some
@given(tiny.models(), tiny.chunked_texts(), tiny.policies, tiny.positions)
def test_a_query_sees_at_most_capacity_keys(model, text, policy, positions):
    """Query t looks at exactly min(t + 1, capacity) keys, in every layer and head, whatever the chunks."""
    ids, chunks = text
    cache, start = model.cache(policy, positions), 0
    for n in chunks:
        for pattern in patterns(model, ids[start : start + n], cache):
            want = np.minimum(np.arange(start, start + n) + 1, policy.capacity)
            assert ((pattern > 0).sum(axis=-1) == want).all()
        start += n


@some
@given(tiny.models(), tiny.texts(min_size=2), tiny.policies | st.just(Dense()), st.data())
def test_no_token_sees_its_future(model, ids, policy, data):
    """Changing a token changes no logits before it, whether the text comes in one chunk, in two, or without a cache."""
    changed = data.draw(st.integers(1, len(ids) - 1))
    other = [*ids[:changed], (ids[changed] + 1) % model.config.vocab_size, *ids[changed + 1 :]]
    for see in (model.forward, lambda ids: model.stream(ids, policy, chunks=[len(ids)])):
        assert (see(other)[:changed] == see(ids)[:changed]).all()


@some
@given(tiny.models(n_layers=1), tiny.texts(min_size=2), st.integers(0, 3), st.integers(1, 4), st.data())
def test_an_evicted_token_is_forgotten(model, ids, n_sinks, window, data):
    """In one layer, a changed token changes nothing once it is out of the cache, not even a bit."""
    assume(len(ids) > n_sinks + window)
    changed = data.draw(st.integers(n_sinks, len(ids) - window - 1))
    other = [*ids[:changed], (ids[changed] + 1) % model.config.vocab_size, *ids[changed + 1 :]]
    before, after = [model.stream(text, Streaming(n_sinks, window)) for text in (ids, other)]
    assert (before[changed + window :] == after[changed + window :]).all()
    differ(before[changed], after[changed])


@some
@given(tiny.models(), st.integers(0, 2), st.integers(1, 3), tiny.seeds)
def test_an_evicted_token_echoes_for_layers_times_window(model, n_sinks, window, seed):
    """Those who saw it carry it on, a window further in each layer: to layers x (window - 1) tokens, and no further."""
    reach, changed = model.config.n_layers * (window - 1), n_sinks + 1
    ids = tiny.ids(changed + reach + 4, seed).tolist()
    other = [*ids[:changed], (ids[changed] + 1) % model.config.vocab_size, *ids[changed + 1 :]]
    before, after = [model.stream(text, Streaming(n_sinks, window)) for text in (ids, other)]
    assert (before[changed + reach + 1 :] == after[changed + reach + 1 :]).all()
    assert (before[changed : changed + reach + 1] != after[changed : changed + reach + 1]).any(axis=1).all()


@some
@given(tiny.models(), tiny.policies, tiny.positions, tiny.texts())
def test_nan_in_what_is_evicted_changes_nothing(model, policy, positions, more):
    """Before each token the slot that it evicts is filled with NaN: never looked at again, it changes not a bit."""
    ids = tiny.ids(policy.capacity)
    clean, dirty = model.cache(policy, positions), model.cache(policy, positions)
    for cache in (clean, dirty):
        model.forward(ids, cache)
    for token in more:
        for layer in dirty.layers:
            layer.keys[policy.n_sinks], layer.values[policy.n_sinks] = np.nan, np.nan
        assert (model.forward([token], dirty) == model.forward([token], clean)).all()


@some
@given(tiny.seeds, st.integers(0, 16), st.integers(2, 12), tiny.policies, tiny.positions)
def test_under_rope_no_copy_of_a_repeated_token_is_special(seed, token, n_tokens, policy, positions):
    """Every copy has the same residual stream and logits, and scores depend on distance alone: nothing to sink into."""
    model, ids, trace = tiny.make(llama, seed), [token] * n_tokens, {}
    logits = model.forward(ids, trace=trace)
    close(logits, np.broadcast_to(logits[0], logits.shape))
    close(model.stream(ids, policy, positions), logits)
    for layer in trace["layers"]:
        close(layer["x"], np.broadcast_to(layer["x"][0], layer["x"].shape))
        close(layer["scores"][:, 1:, 1:], layer["scores"][:, :-1, :-1])


def test_in_gpt2_the_first_copy_of_a_repeated_token_is_special():
    """Learned positions tell the copies apart, so a sink may form on the first."""
    logits = tiny.make(gpt2).forward([5, 5])
    differ(logits[0], logits[1])


# The four methods differ where they must ---------------------------------------------------------


@few
@given(tiny.llamas(n_layers=1), tiny.texts(), st.integers(1, 5), tiny.positions)
def test_one_layer_window_attention_is_recomputation(model, ids, window, positions):
    """With one layer, cached keys and values never saw an evicted token: reusing them is rebuilding them."""
    want = book.recompute(ids, model.weights, model.config, window)
    close(model.stream(ids, Window(window), positions), want)


@both
@pytest.mark.parametrize("n_layers", [2, 3])
@pytest.mark.parametrize("policy", [Window(4), Streaming(1, 3)])
def test_with_more_layers_no_cache_is_recomputation(arch, n_layers, policy):
    """From layer 2 on, cached keys and values remember evicted tokens: window and streaming differ from recomputing."""
    model, ids = tiny.make(arch, n_layers=n_layers), tiny.ids(9)
    got, want = model.stream(ids, policy), book.recompute(ids, model.weights, model.config, 4)
    close(got[:4], want[:4])
    for row in range(4, 9):
        differ(got[row], want[row])


def test_sinks_and_numbering_both_matter():
    """{sinks, none} x {slot, original}: once tokens leave, sinks tell the numberings apart; a window does not."""
    model, ids = tiny.make(llama), tiny.ids(12)
    sinks = [model.stream(ids, Streaming(2, 3), positions)[-1] for positions in ("slot", "original")]
    none = [model.stream(ids, Window(5), positions)[-1] for positions in ("slot", "original")]
    differ(sinks[0], sinks[1])
    close(none[0], none[1])
    differ(sinks[0], none[0])


# GPT-2, told honestly ----------------------------------------------------------------------------


@some
@given(tiny.gpt2s(), tiny.policies, st.integers(1, 6))
def test_gpt2_bakes_a_position_into_keys_for_good(model, policy, n_more):
    """A GPT-2 key is what it was when it came in: no eviction and no later slot changes a bit of it."""
    ids = tiny.ids(policy.capacity + n_more)
    cache, entered = model.cache(policy), {}
    for t, token in enumerate(ids):
        model.forward([token], cache)
        entered[t] = cache.layers[-1].keys[-1]
    for t, key in zip(cache.token_index, cache.layers[-1].keys, strict=True):
        assert (key == entered[t]).all()


@some
@given(tiny.gpt2s(), tiny.policies, st.integers(1, 4))
def test_gpt2_refuses_positions_it_has_not_learned(model, policy, too_many):
    """Text positions beyond n_positions are refused; numbering by slot goes on for ever."""
    P = model.config.max_positions
    ids = tiny.ids(P + too_many)
    cache = model.cache(policy, "original")
    model.forward(ids[:P], cache)
    with pytest.raises(ValueError, match=f"beyond the {P} learned positions"):
        model.forward(ids[P:], cache)
    with pytest.raises(ValueError, match=f"beyond the {P} learned positions"):
        model.forward(ids)
    assert model.stream(ids, policy, chunks=[len(ids)]).shape == (len(ids), model.config.vocab_size)


def test_a_trace_shows_every_layer():
    """A trace has the documented arrays in the documented shapes, and the head reads its last residual stream."""
    model, T = tiny.make(llama), 5
    c, trace = model.config, {}
    logits = model.forward(tiny.ids(T), trace=trace)
    shapes = {"x": (T, c.d_model), "scores": (c.n_heads, T, T), "pattern": (c.n_heads, T, T)}
    shapes |= {name: (T, c.n_heads, c.head_dim) for name in ("q", "mixed")}
    shapes |= {name: (T, c.n_kv_heads, c.head_dim) for name in ("k", "v")}
    assert [{name: array.shape for name, array in layer.items()} for layer in trace["layers"]] == [shapes] * c.n_layers
    normed = [book.rms_norm(x, model.weights.norm, c.norm_eps) for x in trace["x"]]
    close(np.array(normed) @ model.weights.head, logits)


def test_a_trace_of_gpt2_has_the_same_arrays():
    """By name and shape, "mixed" among them."""
    model, T, trace = tiny.make(gpt2), 5, {}
    model.forward(tiny.ids(T), trace=trace)
    c = model.config
    shapes = {"x": (T, c.d_model), "scores": (c.n_heads, T, T), "pattern": (c.n_heads, T, T)}
    shapes |= {name: (T, c.n_heads, c.head_dim) for name in ("q", "k", "v", "mixed")}
    assert [{name: array.shape for name, array in layer.items()} for layer in trace["layers"]] == [shapes] * c.n_layers


def test_a_trace_of_a_long_text_is_one_pattern():
    """Queries are taken in blocks of 512, but not from whoever looks inside."""
    model, T, trace = tiny.make(n_layers=1), 600, {}
    model.forward(tiny.ids(T), trace=trace)
    assert trace["layers"][0]["pattern"].shape == (model.config.n_heads, T, T)
    close(trace["layers"][0]["pattern"].sum(axis=-1), np.ones((model.config.n_heads, T)))
