"""Attention against its loops, and the identities that make the four methods comparable."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from minisink import by_the_book as book
from minisink import ops
from minisink.attention import attend, banded_mask, causal_mask, normaliser
from minisink.cache import KVCache
from minisink.methods import Dense, Streaming
from minisink.paths import cached_attention, causal_attention
from minisink.positions import rope_frequencies, rotate, unrotated

T, S, H, K, D = 3, 7, 4, 2, 6
TURNS = rope_frequencies(D, 50.0)
TURN = partial(rotate, frequencies=TURNS)
kv_heads = st.sampled_from([2, 1, 4])


def shifting_scores(q, k, n_sinks, window, turns, dtype=np.float64):
    """Keys are stored rotated; each eviction turns those behind the gap by -1. Scores (H, S) of the last query."""
    keys = np.zeros((0, *k.shape[1:]), dtype)
    for t in range(len(q)):
        slot = min(len(keys), n_sinks + window - 1)
        if slot < len(keys):  # full: the oldest that is not a sink leaves, and the rest moves up by one
            moved = moved_to(keys[n_sinks + 1 :], -1, turns).astype(dtype)
            keys = np.concatenate((keys[:n_sinks], moved))
        keys = np.concatenate((keys, moved_to(k[t : t + 1], slot, turns).astype(dtype)))
    queries = moved_to(q[-1:], len(keys) - 1, turns)[0]  # (H, D)
    groups = q.shape[1] // k.shape[1]
    scores = [[book.dot(queries[h], key[h // groups]) for key in keys] for h in range(q.shape[1])]
    return np.array(scores) / math.sqrt(q.shape[2])


def moved_to(x, position, turns):
    """`rotate` for every vector of (S, K, D) at once."""
    a, b = np.split(x.astype(float), 2, axis=-1)
    cos, sin = np.cos(position * np.array(turns)), np.sin(position * np.array(turns))
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


lengths = st.tuples(st.integers(1, 5), st.integers(0, 6)).map(lambda n: (n[0], n[0] + n[1]))  # T <= S


def qkv(seed, n_queries=T, n_keys=S, n_kv_heads=K):
    """q (T, H, D), k and v (S, K, D)."""
    q, k, v = (3, n_queries, H, D), (5, n_keys, n_kv_heads, D), (7, n_keys, n_kv_heads, D)
    return [tiny.arrays(*shape, seed=seed + add) for add, *shape in (q, k, v)]


def close(got, want, atol=1e-12):
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=atol)


@given(lengths, st.integers(1, 12))
def test_masks_are_their_definitions(lengths, window):
    """A query sees its own key and the window - 1 before it; causal is banded with a window wide enough."""
    assert (banded_mask(*lengths, window) == book.visible(*lengths, window)).all()
    assert (causal_mask(*lengths) == book.visible(*lengths, lengths[1])).all()
    assert (causal_mask(*lengths) == banded_mask(*lengths, lengths[1] + window)).all()


@given(tiny.seeds, kv_heads, st.data())
def test_attend_is_its_equation(seed, n_kv_heads, data):
    """softmax(q k / sqrt(D) + mask) v, head by head with shared keys, under any mask, with any normaliser."""
    q, k, v = qkv(seed, n_kv_heads=n_kv_heads)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=T * S, max_size=T * S))).reshape(T, S)
    logits = tiny.arrays(H, seed=seed)
    for normalise, sinks in (
        (normaliser("softmax"), None),
        (normaliser("softmax1"), np.zeros(H)),
        (normaliser("softmax", logits), logits),
    ):
        trace = {}
        mixed, pattern = book.attend(q, k, v, mask, sinks)
        close(attend(q, k, v, mask, normalise=normalise, trace=trace), mixed)
        close(trace["pattern"], pattern)
        assert (trace["scores"][:, ~mask] == -np.inf).all()


@given(tiny.seeds)
def test_without_a_mask_a_query_looks_everywhere(seed):
    """No mask is a mask that is all True."""
    close(attend(*qkv(seed)), attend(*qkv(seed), np.ones((T, S), bool)))


@given(tiny.seeds, kv_heads)
def test_grouped_heads_are_repeated_keys(seed, n_kv_heads):
    """Sharing a key/value head among H / K neighbouring query heads is repeating it H / K times."""
    q, k, v = qkv(seed, n_kv_heads=n_kv_heads)
    repeat = H // n_kv_heads
    close(attend(q, k, v), attend(q, k.repeat(repeat, axis=1), v.repeat(repeat, axis=1)))


@given(tiny.seeds)
def test_softmax1_is_one_more_key_and_value_of_zeros(seed):
    """The zero sink of StreamingLLM: softmax1 = softmax with a key and a value of zeros = a sink logit of 0."""
    q, k, v = qkv(seed)
    zero = np.zeros((1, K, D))
    got = attend(q, k, v, normalise=ops.softmax1)
    close(got, attend(q, np.concatenate((zero, k)), np.concatenate((zero, v))))
    close(got, attend(q, k, v, normalise=normaliser("softmax", np.zeros(H))))
    close(attend(q, k, v), attend(q, k, v, normalise=normaliser("softmax", np.full(H, -1e4))))


def test_attention_over_no_keys_is_refused():
    """Without a key there is nothing to look at, and that is said."""
    with pytest.raises(ValueError, match="cache is empty"):
        attend(*qkv(0, n_keys=0))


@given(tiny.seeds, st.integers(1, S))
def test_what_cannot_be_seen_does_not_matter(seed, window):
    """Keys and values outside a query's band may be anything: the query takes home the same bits."""
    q, k, v = qkv(seed)
    before = attend(q, k, v, banded_mask(T, S, window))
    hidden = np.arange(S) < S - window
    k[hidden], v[hidden] = 1e3, -1e3
    assert (attend(q, k, v, banded_mask(T, S, window))[-1] == before[-1]).all()


@given(tiny.seeds, kv_heads, st.integers(1, 9))
def test_causal_attention_is_its_equation(seed, n_kv_heads, n_tokens):
    """Token t stands at position t and attends to tokens 0 to t."""
    q, k, v = qkv(seed, n_tokens, n_tokens, n_kv_heads)
    turned = [np.array([[book.rotate(h, t, TURNS) for h in x[t]] for t in range(n_tokens)]) for x in (q, k)]
    mixed, pattern = book.attend(*turned, v, book.visible(n_tokens, n_tokens, n_tokens))
    trace = {}
    close(causal_attention(q, k, v, TURN, trace=trace), mixed)
    close(trace["pattern"], pattern)


@given(tiny.seeds, st.integers(1, 9))
def test_without_positions_equal_tokens_share_the_weight_equally(seed, n_tokens):
    """One repeated token without rotation: query t puts exactly 1 / (t + 1) on each key it sees."""
    trace = {}
    q, k, v = [np.broadcast_to(x[:1], (n_tokens, *x.shape[1:])) for x in qkv(seed)]
    close(causal_attention(q, k, v, unrotated, trace=trace), v.repeat(H // K, axis=1))
    visible = causal_mask(n_tokens, n_tokens)
    close(trace["pattern"], np.broadcast_to(visible / visible.sum(axis=-1, keepdims=True), (H, n_tokens, n_tokens)))


@given(tiny.seeds, st.integers(1, 9), st.integers(1, 4))
def test_query_blocks_change_nothing(seed, n_tokens, block):
    """However many queries are taken at once, the result and the trace are the same."""
    q, k, v = qkv(seed, n_tokens, n_tokens)
    seen, traces = {}, []
    whole = causal_attention(q, k, v, TURN, trace=seen)
    close(causal_attention(q, k, v, TURN, block=block), whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minisink.cache.BLOCK", block)
        close(cached(q, k, v, Dense(), [n_tokens], traces=traces), whole)
    close(traces[0]["scores"], seen["scores"])
    close(traces[0]["pattern"], seen["pattern"])


def layer_cache(policy, positions="slot", n_kv_heads=K, dtype=np.float64):
    return KVCache(1, n_kv_heads, D, replace(policy, positions=positions), like=np.empty(0, dtype)).layers[0]


def cached(q, k, v, policy, chunks, positions="slot", traces=None):
    """`cached_attention` chunk by chunk; `traces` collects a trace each."""
    layer, out, start = layer_cache(policy, positions, k.shape[1]), [], 0
    for n in chunks:
        new, trace = slice(start, start + n), None if traces is None else {}
        out.append(cached_attention(q[new], k[new], v[new], layer, TURN, trace=trace))
        start += n
        if traces is not None:
            traces.append(trace)
    return np.concatenate(out)


@given(tiny.seeds, st.integers(1, 12).flatmap(tiny.chunks), st.integers(0, 3), st.integers(1, 6))
def test_rotating_by_slot_is_shifting_rotated_keys_on_eviction(seed, chunks, n_sinks, window):
    """Un-rotated keys turned to their slots score like rotated keys turned back by one at every eviction."""
    n_tokens, traces = sum(chunks), []
    q, k, v = qkv(seed, n_tokens, n_tokens)
    cached(q, k, v, Streaming(n_sinks, window), chunks, traces=traces)
    want = shifting_scores(q, k, n_sinks, window, TURNS)
    got = traces[-1]["scores"][:, -1]
    close(got[:, : want.shape[1]], want, atol=1e-10)
    assert (got[:, want.shape[1] :] == -np.inf).all()  # an earlier query of the chunk cannot have seen more


@given(tiny.seeds, tiny.positions, st.integers(1, 12).flatmap(tiny.chunks), tiny.policies, kv_heads)
def test_a_trace_shows_what_was_mixed(seed, positions, chunks, policy, n_kv_heads):
    """Looking inside changes nothing; each row of the pattern sums to one over at most `capacity` slots."""
    n_tokens, traces = sum(chunks), []
    q, k, v = qkv(seed, n_tokens, n_tokens, n_kv_heads)
    looked = cached(q, k, v, policy, chunks, positions, traces)
    assert (looked == cached(q, k, v, policy, chunks, positions)).all()
    seen = 0
    for trace, n in zip(traces, chunks, strict=True):
        assert trace["scores"].shape == trace["pattern"].shape == (H, n, min(seen + n, policy.capacity))
        close(trace["pattern"].sum(axis=-1), np.ones((H, n)))
        close(ops.softmax(trace["scores"]), trace["pattern"])
        for row in range(n):
            seen += 1
            assert (np.isfinite(trace["scores"][:, row]).sum(axis=-1) == min(seen, policy.capacity)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_stored_keys_do_not_drift(seed):
    """After a thousand evictions in half precision, scores are as exact as half precision allows."""
    n_tokens, window, trace = 1300, 1100, {}
    q, k, v = [x.astype(np.float16) for x in qkv(seed, n_tokens, n_tokens)]
    layer = layer_cache(Streaming(1, window), dtype=np.float16)
    layer.append(k[:window], v[:window])
    for token in range(window, n_tokens - 1):
        layer.append(k[token : token + 1], v[token : token + 1])
    cached_attention(q[-1:], k[-1:], v[-1:], layer, TURN, trace=trace)
    want = shifting_scores(q, k, 1, window, TURNS)
    close(trace["scores"][:, 0], want, atol=0.01)
