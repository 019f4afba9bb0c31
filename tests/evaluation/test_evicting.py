"""Blocks of tokens, and half of the window at once: what is held after every token, transcribed word for word."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink.cache import KVCache
from minisink.evaluation.policies import Blockwise, HalfAtOnce

some = examples(100, least=20)
sinks, windows = st.integers(0, 9), st.integers(1, 12)


def held_after(policy, n_tokens):
    """The tokens that a cache holds after each of n tokens, and their positions."""
    cache, token = KVCache(1, 1, 2, policy), np.zeros((1, 1, 2))
    for _ in range(n_tokens):
        cache.layers[0].append(token, token)
        yield cache.token_index.tolist(), cache.positions.tolist()


@some
@given(sinks, windows, st.integers(1, 9), st.integers(1, 60))
def test_a_block_stays_while_any_of_its_tokens_does(n_sinks, window, block, n_tokens):
    """And no cache ever holds more than it says; of a long text it does hold as many."""
    policy, most = Blockwise(n_sinks, window, block=block), 0
    for t, (held, places) in enumerate(held_after(policy, n_tokens)):
        blocks = [[token for token in range(t + 1) if token // block == b] for b in range(t // block + 1)]
        stays = [any(token < n_sinks or token > t - window for token in each) for each in blocks]
        assert held == [token for each, stay in zip(blocks, stays, strict=True) if stay for token in each]
        assert places == list(range(len(held)))
        most = max(most, len(held))
    assert most <= policy.capacity
    if n_tokens >= policy.capacity + block:
        assert most == policy.capacity


@some
@given(sinks, windows, st.integers(1, 60))
def test_half_of_the_window_leaves_when_there_is_no_room(n_sinks, window, n_tokens):
    """As llama.cpp has it: n_past tokens in n_ctx places, of which n_keep stay; half of the others are discarded."""
    n_ctx, n_keep, kept = n_sinks + window, n_sinks, []
    for t, (held, places) in enumerate(held_after(HalfAtOnce(n_sinks, window), n_tokens)):
        if len(kept) == n_ctx:
            n_discard = max(1, (len(kept) - n_keep) // 2)
            kept = kept[:n_keep] + kept[n_keep + n_discard :]
        kept.append(t)
        assert (held, places) == (kept, list(range(len(kept))))


@some
@given(sinks, windows, st.integers(1, 60))
def test_blocks_of_one_token_are_streaming_llm(n_sinks, window, n_tokens):
    assert list(held_after(Blockwise(n_sinks, window, block=1), n_tokens)) == list(
        held_after(minisink.Streaming(n_sinks, window), n_tokens)
    )


@some
@given(sinks, windows, st.integers(1, 60))
def test_tokens_that_come_at_once_leave_room_for_the_last(n_sinks, window, n_tokens):
    """Asked once for a whole text, half at once still keeps no more than there is room for."""
    stay = HalfAtOnce(n_sinks, window).survivors(np.arange(n_tokens)).tolist()
    assert len(stay) <= n_sinks + window and stay[-1] == n_tokens - 1


@pytest.mark.parametrize("policy", [Blockwise(2, 5, block=4), HalfAtOnce(2, 5), HalfAtOnce(2, 5, "original")])
def test_a_model_reads_under_them(policy):
    """Losses of the readable path, token by token; GPT-2 is embedded where its token comes in."""
    for model in (tiny.public(tiny.make()), tiny.public(tiny.make(minisink.gpt2))):
        ids = tiny.ids(20)
        alone = minisink.token_nll(model, ids, policy)
        stream = minisink.nll_stream(model, [ids[:7], ids[7:]], policy, chunk=5)
        np.testing.assert_allclose(np.concatenate(list(stream)), alone, rtol=1e-9)
        assert np.abs(alone - minisink.token_nll(model, ids, minisink.Streaming(2, 5)))[7:].max() > 1e-6


@pytest.mark.parametrize(("sizes", "message"), [({"block": 0}, "block is 0"), ({"window": None}, "window is None")])
def test_sizes_that_are_none_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Blockwise(**{"n_sinks": 1, "window": 4, **sizes})
