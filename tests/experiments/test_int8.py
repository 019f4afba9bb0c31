"""Activations in few bits: the rounding by the book, the model that rounds, and the rows."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

from minisink import gpt2
from minisink.experiments import int8
from minisink.experiments.int8 import WAYS, Rounding, round_tokens, rounding


def by_the_book(x, bits, way):
    """One number at a time."""
    spared = {"outliers in float": 0, "first token in float": 0, "middle token in float": len(x) // 2}.get(way)
    found = np.empty_like(x)
    for t, row in enumerate(x):
        for c, number in enumerate(row):
            seen = [row] if way == "a step a token" else [y for i, y in enumerate(x) if i != spared]
            limit = max(abs(value) for y in seen for value in y)
            step = limit / (2 ** (bits - 1) - 1)
            keep = t == spared and (way != "outliers in float" or abs(number) > limit)
            found[t, c] = number if keep else round(number / step) * step
    return found


@given(st.sampled_from(WAYS), st.integers(2, 9), st.integers(2, 7), tiny.seeds)
def test_it_is_rounded_as_the_book_says(way, bits, T, seed):
    """The first token's numbers are larger than the others', as a sink's are."""
    x = tiny.arrays(T, 3, seed=seed) * ([[9.0]] + [[1.0]] * (T - 1))
    before = x.copy()
    np.testing.assert_allclose(round_tokens(x, bits, way), by_the_book(x, bits, way))
    np.testing.assert_array_equal(x, before)


@given(st.integers(2, 9), tiny.seeds)
def test_no_number_is_moved_by_more_than_half_a_step_and_none_needs_more_bits(bits, seed):
    x = tiny.arrays(5, 3, seed=seed)
    step = abs(x).max() / (2 ** (bits - 1) - 1)
    found = round_tokens(x, bits, "a step a tensor")
    assert abs(found - x).max() <= step / 2 * (1 + 1e-9)
    assert len(np.unique(np.round(found / step))) <= 2**bits - 1
    np.testing.assert_allclose(round_tokens(found, bits, "a step a tensor"), found)


def test_zeros_stay():
    for way in WAYS:
        assert not round_tokens(np.zeros((4, 3)), 8, way).any()


@pytest.mark.parametrize("model", [public(tiny.make(qkv_bias=True, sink_logit=True)), public(tiny.make(gpt2))])
def test_every_matrix_of_every_layer_rounds_what_it_is_given(model):
    """And nothing else is changed; in many bits it is the same model."""
    other = rounding(model, 8, "a step a tensor")
    for layer, was in zip(other.weights.layers, model.weights.layers, strict=True):
        for name, w in vars(was).items():
            now = getattr(layer, name)
            if name.startswith("w"):
                assert isinstance(now, Rounding) and now.w is w
                x = tiny.arrays(3, len(w))
                np.testing.assert_array_equal(x @ now, round_tokens(x, 8, "a step a tensor") @ w)
            else:
                assert now is w
    ids, exact = tiny.ids(11), model.forward(tiny.ids(11))
    assert abs(other.forward(ids) - exact).max() > 1e-3
    for way in WAYS:
        np.testing.assert_allclose(rounding(model, 50, way).forward(ids), exact, atol=1e-8)


@given(tiny.models(), tiny.texts(5, 9))
@examples(10)
def test_with_a_step_of_its_own_a_token_does_not_know_what_follows(model, ids):
    other = rounding(public(model), 5, "a step a token")
    np.testing.assert_allclose(other.forward(ids)[:3], other.forward(ids[:3]))


@pytest.mark.parametrize("bos", [None, int(tiny.ids(1)[0])])
def test_the_rows_are_the_losses_of_the_pieces(bos):
    """Cut anew by hand: each begins as the text does, where that is with the begin-of-text token."""
    model, ids = public(tiny.make(bos=bos)), tiny.ids(18).tolist()
    rows = list(int8.run(model, ids, bits=(8, 3), length=6))
    texts = [ids[0:6], ids[6:12], ids[12:18]] if bos is None else [[bos, *ids[i : i + 5]] for i in (1, 6, 11)]
    assert [(row["bits"], row["rounding"]) for row in rows] == [(32, "none"), *((n, w) for n in (8, 3) for w in WAYS)]
    for row in rows:
        other = model if row["bits"] == 32 else rounding(model, row["bits"], row["rounding"])
        nll = []
        for text in texts:
            logits = other.forward(text)
            nll += [np.log(np.exp(logits[t]).sum()) - logits[t, text[t + 1]] for t in range(5)]
        np.testing.assert_allclose(row["nll"], nll)
        assert row["perplexity"] == pytest.approx(np.exp(np.mean(nll)))
        assert row["added"] == pytest.approx(np.mean(nll) - np.mean(rows[0]["nll"]))


def test_the_verdict_takes_the_most_bits():
    nll = dict(zip(WAYS, (0.7, 0.2, 0.1, 0.68, 0.03), strict=True))
    rows = [{"bits": 32, "rounding": "none", "nll": np.zeros(9)}]
    rows += [{"bits": n, "rounding": way, "nll": np.full(9, x * 9 / n)} for n in (4, 9) for way, x in nll.items()]
    found = [(round(effect.size, 3), effect.shown) for effect in int8.effects(rows)]
    assert found == [(0.7, True), (0.5, True), (0.1, False), (0.03, True), (0.02, True)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 3}, "length is 3"),
        ({"length": 65}, "length is 65; tiny knows 64"),
        ({"bits": (8, 1), "length": 9}, "bits is 1"),
        ({"length": 12}, "the text has 11 tokens; a piece takes 12"),
    ],
)
def test_what_cannot_be_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        list(int8.run(public(tiny.make(gpt2)), tiny.ids(11), **options))
