"""The four methods, and newlines for sinks: each row against the loss and the text it stands for; what is refused."""

import types

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import Dense, Recompute, Streaming, Window, gpt2
from minisink.experiments import methods_compared
from minisink.experiments.last_words import repeated

NEWLINE = 5
ALL = ("dense", "window", "recompute", "streaming", "newlines")


class Letters:
    """A tokenizer of 17 letters; a newline takes so many of them, or is a byte that stands for itself."""

    def __init__(self, newline=(NEWLINE,), byte=None):
        self.newline, self.byte = newline, byte

    def encode(self, text, add_special_tokens=False):
        return types.SimpleNamespace(ids=list(self.newline) if text == "\n" else [ord(c) - 97 for c in text])

    def decode(self, ids):
        return "".join(chr(97 + i) for i in ids)

    def token_to_id(self, token):
        return self.byte if token == "<0x0A>" else None


def public(small, **tokenizer):
    return minisink.Model(small.config, small.weights, Letters(**tokenizer), name="tiny")


@examples(15)
@given(tiny.models(), st.integers(6, 12), st.integers(0, 3), st.integers(14, 30))
def test_a_row_is_the_loss_and_the_text_of_its_method(small, cache, n_sinks, n_tokens):
    """With as many keys in sight for each; newlines are streaming, the first tokens replaced."""
    model, ids = public(small), tiny.ids(n_tokens)
    rows = list(methods_compared.run(model, ids, cache=cache, n_sinks=n_sinks, write=9, seed=3))
    assert [row["method"] for row in rows] == list(ALL)
    methods = [Dense(), Window(cache), Recompute(cache), *[Streaming(n_sinks, cache - n_sinks)] * 2]
    for row, method in zip(rows, methods, strict=True):
        text = [*[NEWLINE] * n_sinks, *ids[n_sinks:]] if row["method"] == "newlines" else ids
        nll = minisink.token_nll(model, text, method)
        np.testing.assert_allclose(row["nll"], nll, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(row["after"], np.exp(nll[cache:].mean()), rtol=1e-6)
        written = list(minisink.generate(model, text, method, max_new_tokens=9, temperature=0.8, seed=3))
        assert (row["text"], row["repeated"]) == (model.decode(written), repeated(written))
        assert (row["evicted"], row["trained"]) == (cache, model.config.max_positions)


@pytest.mark.parametrize("tokenizer", [{}, {"newline": (3, 7), "byte": NEWLINE}])
def test_a_newline_is_a_token_or_a_byte(tokenizer):
    """As many as there were sinks; the text keeps its length, so that losses are of the same tokens."""
    ids = tiny.ids(9)
    replaced = methods_compared.with_newlines(public(tiny.make(), **tokenizer), ids, 2)
    assert replaced.tolist() == [NEWLINE, NEWLINE, *ids[2:].tolist()]


def test_effects_are_differences_of_the_same_tokens():
    """After the first eviction; dense beyond the trained length only, as far as it gets."""
    base = np.random.default_rng(0).normal(3.0, 1.0, 400)
    above = {"dense": 0.5, "window": 0.25, "recompute": -0.25, "streaming": 0.0, "newlines": 0.125}
    rows = []
    for method, x in above.items():
        nll = base + x
        nll[:32] += 9.0 * (method == "window")  # before the first eviction nothing counts
        nll[:200] -= 7.0 * (method == "dense")
        rows.append({"method": method, "nll": nll, "evicted": 32, "trained": 200})
    rows[0]["nll"] = rows[0]["nll"][:300]
    found = [(effect.size, effect.shown) for effect in methods_compared.effects(rows)]
    sizes, shown = zip(*found, strict=True)
    np.testing.assert_allclose(sizes, [0.25, 0.25, 0.5, 0.125, 0.125])
    assert shown == (True, False, True, False, True)
    rows[0]["nll"] = rows[0]["nll"][:200]
    assert len(list(methods_compared.effects(rows))) == 4
    assert [effect.what for effect in methods_compared.effects(rows[3:4])] == []


def test_a_dense_gpt2_writes_as_far_as_its_positions_go():
    """20 learned: it reads 15 tokens and writes 6; 30 it cannot read, and writes nothing."""
    model = public(tiny.make(gpt2, max_positions=20))
    (row,) = methods_compared.run(model, tiny.ids(15), cache=6, n_sinks=1, methods=["dense"], write=9)
    assert len(row["text"]) == 6
    (row,) = methods_compared.run(model, tiny.ids(30), cache=6, n_sinks=1, methods=["dense"], write=9)
    assert (len(row["nll"]), row["text"]) == (20, "") and np.isnan(row["repeated"])


@pytest.mark.parametrize(
    ("options", "tokenizer", "message"),
    [
        ({"cache": 20}, {}, "the text has 20 tokens and the cache holds 20"),
        ({"cache": 4}, {}, "a cache of 4 tokens cannot hold 4 sinks"),
        ({"write": -1}, {}, "--write is -1"),
        ({"methods": ["sliding"]}, {}, "--methods has sliding; choose from dense, window"),
        (
            {},
            {"newline": (3, 7)},
            "tiny has no token for a newline: leave it out, --methods dense window recompute streaming",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, tokenizer, message):
    model = public(tiny.make(), **tokenizer)
    with pytest.raises(ValueError, match=message):
        list(methods_compared.run(model, tiny.ids(20), **({"cache": 9} | options)))


def test_without_newlines_no_token_is_needed_for_them():
    model = public(tiny.make(), newline=(3, 7))
    assert len(list(methods_compared.run(model, tiny.ids(20), cache=9, methods=ALL[:4], write=0))) == 4
