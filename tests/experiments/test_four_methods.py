"""The demo's experiment: rows are what was measured, and the sentence says nothing else."""

import re

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import Dense, Recompute, Retrieval, Streaming, Window, gpt2, llama
from minisink.experiments.four_methods import brought_back, finding, four, induction, run

CACHE = 16


def row(method, nll):
    """A row as `run` makes it."""
    before, after = (minisink.perplexity(part) for part in (nll[:CACHE], nll[CACHE:]))
    return {"method": method, "nll": nll, "before": before, "after": after}


def rows(window, streaming, recompute):
    return [row("window", window), row("streaming", streaming), row("recompute", recompute)]


def noise(n, seed):
    return np.random.default_rng(seed).normal(4.0, 1.0, CACHE + n).astype(np.float32)


@given(tiny.seeds, st.sampled_from([0.3, 1.0, -0.3]))
def test_a_gap_is_stated_with_its_direction_and_size(seed, gap):
    """Whichever of the two is better, by as much as their perplexities differ."""
    streaming = noise(200, seed)
    window = streaming + gap + noise(200, seed + 1) / 50
    said = finding(rows(window, streaming, streaming), CACHE)
    a, b = (minisink.perplexity(nll[CACHE:]) for nll in (window, streaming))
    assert (
        f"perplexity is {a:.2f}, {abs(a / b - 1):.1%} {'above' if gap > 0 else 'below'} the {b:.2f} with sinks" in said
    )
    assert "Over the 200 tokens after the first eviction" in said and "no gap" not in said


@given(tiny.seeds)
def test_equal_losses_are_no_gap(seed):
    """The same numbers twice, to the last bit."""
    nll = noise(100, seed)
    said = finding(rows(nll, nll.copy(), nll + 1), CACHE)
    assert "no gap was measured" in said
    assert "above" not in said and "below" not in said


def test_noise_is_seldom_a_gap():
    """Losses that differ by chance only are called a gap about once in 400, as three standard errors promise."""
    gaps = sum(
        "no gap" not in finding(rows(noise(100, 2 * s), noise(100, 2 * s + 1), noise(100, 0)), CACHE)
        for s in range(200)
    )
    assert gaps <= 5


def test_what_happens_before_the_eviction_does_not_count():
    """Only the tokens after it are compared."""
    nll = noise(100, 3)
    other = nll.copy()
    other[:CACHE] += 9.0
    assert "no gap was measured" in finding(rows(nll, other, nll), CACHE)


@pytest.mark.parametrize("n", [0, 1, 15, 16])
def test_no_eviction_no_comparison(n):
    """A text that does not fill the cache says so."""
    nll = noise(100, 0)[:n]
    assert finding(rows(nll, nll + 1, nll), CACHE).startswith(
        "Nothing was evicted: the text does not fill a cache of 16"
    )


@pytest.mark.parametrize("nll", [noise(1, 0), np.full(40, np.nan, np.float32)], ids=["one token", "nan"])
def test_too_little_to_compare_is_said_so(nll):
    """One token has no spread, and NaN no size: neither a gap nor the absence of one."""
    said = finding(rows(nll + 1, nll, nll), CACHE)
    assert "nothing to compare" in said
    assert not re.search("no gap|above|below|Nothing was evicted", said)


@examples(20)
@given(tiny.models(), st.integers(2, 30), st.integers(2, 12), st.integers(0, 3))
def test_rows_are_what_token_nll_gives(model, n_tokens, cache, n_sinks):
    """Each method with the same number of keys in sight; a rebuilt window has no lead without a begin-of-text token."""
    model, ids = public(model), tiny.ids(n_tokens)
    n_sinks = min(n_sinks, cache - 1)
    methods = [Dense(), Window(cache), Recompute(cache), Streaming(n_sinks, cache - n_sinks)]
    assert four(model, ids, cache, n_sinks) == methods
    counted = dict.fromkeys(methods, 0)

    def on_progress(method, n):
        counted[method] += n

    measured = list(run(model, ids, methods, cache=cache, on_progress=on_progress))
    assert [row["method"] for row in measured] == ["dense", "window", "recompute", "streaming"]
    for row, method in zip(measured, methods, strict=True):
        nll = minisink.token_nll(model, ids, method)
        np.testing.assert_allclose(row["nll"], nll, rtol=1e-9, atol=1e-9)
        for part, key in ((nll[:cache], "before"), (nll[cache:], "after")):
            np.testing.assert_allclose(row[key], np.exp(part.mean()) if len(part) else np.nan, rtol=1e-6)
        assert counted[method] == len(nll)
        assert row["keys"] == (len(nll) if row["method"] == "dense" else min(cache, len(nll)))
        assert row["note"] == ""
        held = minisink.new_cache(model, methods[-1])
        model.forward(ids[:-1], cache=held)
        if row["method"] == "streaming":
            assert row["cache_bytes"] == held.nbytes


def test_a_rebuilt_window_begins_as_the_text_does():
    """Where the text begins with the begin-of-text token, so does every window."""
    model = public(tiny.make(bos=3))
    ids = np.concatenate(([3], tiny.ids(20)))
    again = four(model, ids, 6, 1)[2]
    (row,) = run(model, ids, [again], cache=6)
    led = minisink.token_nll(model, ids, Recompute(6, lead=(3,)))
    np.testing.assert_allclose(row["nll"], led, rtol=1e-9)
    bare = minisink.token_nll(model, ids, Recompute(6))
    assert abs(bare - led).max() > 1e-3


def test_dense_attention_ends_with_the_positions_of_a_gpt2():
    """64 learned positions: 64 losses and a note; the others see the whole text."""
    model, ids = public(tiny.make(gpt2)), tiny.ids(100)
    measured = list(run(model, ids, four(model, ids, 8, 1), cache=8))
    assert [len(row["nll"]) for row in measured] == [64, 99, 99, 99]
    assert ["learned positions" in row["note"] for row in measured] == [True, False, False, False]


@pytest.mark.parametrize(("n_sinks", "cache"), [(4, 4), (5, 4), (-1, 4), (0, 0), (0, -3)])
def test_a_cache_without_a_window_is_refused(n_sinks, cache):
    with pytest.raises(ValueError, match=f"a cache of {cache} tokens cannot hold {n_sinks} sinks"):
        four(public(tiny.make(llama)), [1, 2], cache, n_sinks)


@pytest.mark.parametrize("n_positions", [6, 300])
def test_a_dense_gpt2_gets_as_far_as_its_positions_go(n_positions):
    """Every learned position predicts a token, whatever the size of a block."""
    model = public(tiny.make(gpt2, max_positions=n_positions))
    ids = np.arange(n_positions + 20) % model.config.vocab_size
    (dense,) = run(model, ids, [Dense()], cache=4)
    assert len(dense["nll"]) == n_positions
    assert "learned positions" in dense["note"]


def test_what_can_be_copied_is_measured():
    """Nothing in the models that ship: their context is all they know. Every layer of noise is worth nothing either."""
    for name in ("novels", "novels-gpt2"):
        assert abs(induction(minisink.load(name))) < 0.5
    assert induction(public(tiny.make(max_positions=9))) < 1.0


def test_retrieval_is_a_fifth_row():
    """Beside the same sinks and window it has as many tokens again, and holds all of them."""
    model, ids = public(tiny.make()), tiny.ids(40)
    streaming, retrieval = run(model, ids, [Streaming(1, 6), brought_back(7, 1)], cache=7)
    want = minisink.token_nll(model, ids, Retrieval(1, 6, n_blocks=2, block=3))
    np.testing.assert_allclose(retrieval["nll"], want, rtol=1e-12)
    assert (streaming["keys"], retrieval["keys"]) == (7, 39)
    assert brought_back(2, 1) == Retrieval(1, 1, n_blocks=1, block=1)
