"""Figure 5 in small: each tenth of a stream against the whole of it at once, memory, and what is refused."""

import mmap
import types

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink.commands.reproduce_report import plain
from minisink.experiments import length

LETTERS = "abcdefghijklmnopq"  # one a token of the tiny models


class Tokenizer:
    """A letter a token."""

    def encode(self, text, add_special_tokens=False):
        return types.SimpleNamespace(ids=[ord(c) - 97 for c in text])


def public(small):
    return minisink.Model(small.config, small.weights, Tokenizer(), name="tiny")


def text_of(ids):
    return "".join(LETTERS[i] for i in ids)


@examples(12)
@given(tiny.models(), st.integers(70, 110), st.integers(0, 2), st.integers(0, 11), st.sampled_from([None, 16]))
def test_tenths_are_those_of_one_stream(small, n_tokens, n_sinks, seed, bos):
    """Which begins in a tenth of the text, goes on from its start, and has the begin-of-text token only once."""
    model, ids, cache = public(small), tiny.ids(37, 1), 6
    model.config = type(model.config)(**(vars(model.config) | {"bos": bos}))
    rows = list(length.run(model, text_of(ids), tokens=n_tokens, cache=cache, n_sinks=n_sinks, seed=seed))
    start = seed * 37 // 10
    stream = ([] if bos is None else [bos]) + [int(ids[(start + i) % 37]) for i in range(n_tokens)]
    stream = stream[:n_tokens]
    assert len(rows) == 10 and rows[-1]["tokens"] == n_tokens
    assert rows[-1]["readings"] == pytest.approx((n_tokens - (bos is not None)) / 37)
    method = minisink.Streaming(n_sinks, cache - n_sinks)
    np.testing.assert_allclose(
        np.concatenate([row["nll"] for row in rows]), minisink.token_nll(model, stream, method), rtol=1e-7, atol=1e-9
    )
    first = 0
    for row in rows:  # a reader with sinks and a window before the tenth, which is the first one's whole past
        last = row["tokens"] - 1
        assert len(row["nll"]) == len(row["nll_here"]) == last - first
        known = [i for i in range(last + 1) if i < n_sinks or i >= first - method.window]
        here = minisink.token_nll(model, [stream[i] for i in known], method)[first - last :]
        np.testing.assert_allclose(row["nll_here"], here, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(row["perplexity"], np.exp(row["nll"].mean()), rtol=1e-6)
        np.testing.assert_allclose(row["begun_here"], np.exp(here.mean()), rtol=1e-6)
        held = n_sinks + method.window - 1  # the next token brings its own
        assert row["cache_bytes"] == held * minisink.methods.cache_bytes_per_token(model)
        assert row["dense_bytes"] == last * minisink.methods.cache_bytes_per_token(model)
        first = last


def test_process_bytes_are_those_of_this_process(monkeypatch):
    """About as many more as are written to, none for room that is only reserved; NaN where the system does not say."""
    before = length.process_bytes()
    if np.isnan(before):
        pytest.skip("this system does not say")
    reserved = np.empty(40_000_000)
    assert length.process_bytes() - before < reserved.nbytes / 10
    block = np.frombuffer(mmap.mmap(-1, 32_000_000), np.uint8)  # pages that nothing has held before
    block[:] = 1
    assert 0.9 * block.nbytes < length.process_bytes() - before < 2 * block.nbytes
    monkeypatch.setattr(length.Path, "read_text", lambda self: open("/nowhere/at/all"))
    assert np.isnan(length.process_bytes())


def test_a_stream_that_drifts_or_grows_is_not_flat():
    """By a tenth of a nat from first to last token, up or down; or by a byte."""
    nll = np.random.default_rng(0).normal(3.0, 1.0, 1000)
    for drift in (0.0, 0.1, -0.1):
        parts = np.split(np.stack((nll, nll - np.linspace(0, drift, 1000))), 10, axis=1)
        rows = [{"nll": a, "nll_here": b, "cache_bytes": 100} for a, b in parts]
        flat, full = length.effects(rows)
        assert flat.size == pytest.approx(drift) and flat.shown == (drift == 0.0) and full.shown
    rows[-1]["cache_bytes"] += 1
    assert not list(length.effects(rows))[1].shown


def test_a_text_read_twice_is_said_so():
    rows = list(length.run(public(tiny.make()), text_of(tiny.ids(40)), tokens=80, cache=6, n_sinks=1))
    said = plain(rows).splitlines()
    assert said[0].split()[:2] == ["tokens", "readings"] and said[-1].split()[:2] == ["80", "2"]
    rows[0]["process_bytes"] = float("nan")
    assert " - " in plain(rows)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the text is empty"),
        ("abc", {"tokens": 69, "cache": 6}, "a tenth of 69 tokens fits in a cache of 6: use --tokens 70 or more"),
        ("abc", {"cache": 4, "n_sinks": 4}, "a cache of 4 tokens cannot hold 4 sinks"),
        ("abc", {"n_sinks": -1}, "-1 sinks"),
    ],
)
def test_what_cannot_be_is_refused(text, options, message):
    with pytest.raises(ValueError, match=message):
        list(length.run(public(tiny.make()), text, **({"tokens": 100, "cache": 6} | options)))
