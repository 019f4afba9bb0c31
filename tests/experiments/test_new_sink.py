"""What makes a token a sink: the altered path by its properties, the rows by the book."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import gpt2
from minisink.experiments import new_sink
from minisink.experiments.inside import look_inside
from minisink.experiments.new_sink import Altered
from minisink.ops import softmax

TEXT = "the middle of a text is no place for a sink, unless"


def public(tiny_model):
    """A `minisink.Model` of a tiny one, whose tokens are letters."""
    tokenizer = SimpleNamespace(encode=lambda text, **_: SimpleNamespace(ids=[ord(c) % 17 for c in text]))
    return minisink.Model(tiny_model.config, tiny_model.weights, tokenizer, name="tiny")


@given(tiny.models() | tiny.families(), tiny.texts(1, 12))
@examples(20)
def test_unaltered_it_is_dense(model, ids):
    model = public(model)
    np.testing.assert_allclose(model.forward(ids, cache=Altered(np.arange(len(ids)))), model.forward(ids))


@given(tiny.models(), tiny.texts(4, 12), st.data())
@examples(20)
def test_a_token_that_sees_only_itself_is_one_that_was_read_alone(model, ids, data):
    """In each layer its residual stream is that of a text of one token, and those before it do not notice."""
    model, T = public(model), len(ids)
    where = np.array(data.draw(st.permutations(range(T))))
    m = data.draw(st.integers(1, T - 1))
    trace, alone = look_inside(model, ids, Altered(where, m)), look_inside(model, ids[m : m + 1], Altered(where[[m]]))
    as_it_was = look_inside(model, ids, Altered(where))
    for layer, own, was in zip(trace["layers"], alone["layers"], as_it_was["layers"], strict=True):
        np.testing.assert_allclose(layer["x"][m], own["x"][0], atol=1e-9)
        np.testing.assert_allclose(layer["x"][:m], was["x"][:m], atol=1e-9)


@given(tiny.llamas(), tiny.texts(1, 12), st.integers(1, 9))
@examples(20)
def test_a_llama_knows_differences_of_positions_only(model, ids, shift):
    model, where = public(model), np.arange(len(ids))
    np.testing.assert_allclose(model.forward(ids, cache=Altered(where + shift)), model.forward(ids), atol=1e-8)


def test_each_condition_is_what_it_says():
    ids = np.array([5, 6, 7, 8, 9])
    found = {
        name: (seen.tolist(), path.where.tolist(), path.alone, token)
        for name, (seen, path, token) in new_sink.conditions(ids, 2).items()
    }
    whole, where, traded = [5, 6, 7, 8, 9], [0, 1, 2, 3, 4], [2, 1, 0, 3, 4]
    assert found == {
        "first": (whole, where, None, 0),
        "middle": (whole, where, None, 2),
        "middle, sees only itself": (whole, where, 2, 2),
        "middle, at position 0": (whole, traded, None, 2),
        "middle, both": (whole, traded, 2, 2),
        "middle, the first's word": ([5, 6, 5, 8, 9], where, None, 2),
        "first, another word": ([7, 6, 7, 8, 9], where, None, 0),
        "first, another position": (whole, traded, None, 0),
        "second, first left out": ([6, 7, 8, 9], [0, 1, 2, 3], None, 0),
    }
    assert ids.tolist() == whole


@pytest.mark.parametrize("model", [public(tiny.make(bos=1)), public(tiny.make(gpt2))])
def test_a_row_is_read_off_the_patterns(model):
    """Two texts of 9 tokens, the queries 6, 7 and 8; each by loops over the scores."""
    rows = list(new_sink.run({"tiny": model}, TEXT, length=9, n_texts=2, seed=4))
    lead = [] if model.config.bos is None else [model.config.bos]
    letters = [ord(c) % 17 for c in TEXT]
    step = 9 - len(lead)
    cut = [np.array(lead + letters[i : i + step]) for i in range(0, len(letters) - step + 1, step)]
    chosen = [cut[i] for i in np.random.default_rng(4).permutation(len(cut))[:2]]
    assert len(rows) == 9 and {row["model"] for row in rows} == {"tiny"}
    for row in rows:
        weights, values, residuals, losses = [], [], [], []
        for text in chosen:
            ids, path, token = new_sink.conditions(text, 4)[row["token"]]
            trace, T = {}, len(ids)
            logits = model.forward(ids, cache=path, trace=trace)
            others = [t for t in range(T) if t != token]
            streams = [layer["x"] for layer in trace["layers"][1:]] + [trace["x"]]
            for layer, x in zip(trace["layers"], streams, strict=True):
                pattern = softmax(layer["scores"])
                weights.append([np.mean([head[t, token] for t in (T - 3, T - 2, T - 1)]) for head in pattern])
                size = np.sqrt((layer["v"] ** 2).sum(axis=-1))  # (T, K)
                values.append([head[token] / np.median(head[others]) for head in size.T])
                stream = np.sqrt((x**2).sum(axis=-1))
                residuals.append(stream[token] / np.median(stream[others]))
            for t in (T - 3, T - 2):
                losses.append(-np.log(softmax(logits[t])[ids[t + 1]]))
        weights = np.reshape(weights, (2, 3, 4))  # texts, layers, heads
        want = {
            "weight": weights.mean(),
            "largest": weights.mean(axis=(0, 2)).max(),
            "sinks": (weights > 0.3).mean(),
            "value": np.mean(values),
            "residual": np.reshape(residuals, (2, 3)).mean(axis=0).max(),
            "nll": np.mean(losses),
        }
        assert {key: row[key] for key in want} == pytest.approx(want)
        np.testing.assert_allclose(row["rates"], [(text > 0.3).mean() for text in weights])


def test_the_verdict_is_about_each_model():
    rows = [
        {"model": model, "token": name, "rates": np.array(rates)}
        for model, first in (("a", [0.5, 0.7]), ("b", [0.0, 0.0]))
        for name, rates in (("first", first), ("middle", [0.0, 0.1]), ("middle, sees only itself", [0.2, 0.2]))
    ]
    assert [(found.what[0], round(found.size, 3), found.shown) for found in new_sink.effects(rows)] == [
        ("a", 0.55, True),
        ("a", 0.15, True),
        ("b", -0.05, False),
        ("b", 0.15, True),
    ]


@pytest.mark.parametrize(
    ("model", "length", "message"),
    [
        (tiny.make(), 7, "length is 7; it must be a whole number of 8 or more, so that a text has a middle"),
        (tiny.make(gpt2, max_positions=9), 10, "length is 10; small has only 9 positions"),
        (tiny.make(), 99, "the text has 51 tokens; a piece takes 99"),
    ],
)
def test_what_cannot_be_is_said(model, length, message):
    with pytest.raises(ValueError, match=message):
        list(new_sink.run({"small": public(model)}, TEXT, length=length))
