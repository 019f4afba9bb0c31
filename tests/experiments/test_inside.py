"""The signs of a sink in a whole model: read off a trace by hand, and two real models that differ in them."""

import math

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import sinks
from minisink.experiments import inside
from minisink.hf.shipped import sample_text


def length(vector):
    return math.sqrt(sum(float(x) ** 2 for x in vector))


@examples(20)
@given(tiny.models(), tiny.texts(min_size=2, max_size=7))
def test_norms_are_lengths(model, ids):
    """Of the stream after each layer, and of keys and values before any rotation."""
    trace = inside.look_inside(minisink.Model(model.config, model.weights, name="tiny"), ids)
    got = inside.norms(trace)
    L, K, T = model.config.n_layers, model.config.n_kv_heads, len(ids)
    assert {name: norm.shape for name, norm in got.items()} == {
        "residual": (L, T),
        "key": (L, T, K),
        "value": (L, T, K),
    }
    for i in range(L):
        after = trace["layers"][i + 1]["x"] if i + 1 < L else trace["x"]
        for t in range(T):
            assert got["residual"][i, t] == pytest.approx(length(after[t]))
            for k in range(K):
                assert got["key"][i, t, k] == pytest.approx(length(trace["layers"][i]["k"][t, k]))
                assert got["value"][i, t, k] == pytest.approx(length(trace["layers"][i]["v"][t, k]))


@examples(20)
@given(tiny.models(), tiny.texts(min_size=3, max_size=7), st.integers(1, 2))
def test_the_summary_is_made_of_these(model, ids, n_first):
    """A row a head, beside the norms of the key/value head it shares; a sink rate."""
    public = minisink.Model(model.config, model.weights, name="tiny")
    got = inside.summary(inside.look_inside(public, ids), n_first=n_first)
    trace = inside.look_inside(public, ids)
    norms, group = inside.norms(trace), model.config.n_heads // model.config.n_kv_heads
    assert len(got["layers"]) == model.config.n_layers
    for i, layer in enumerate(got["layers"]):
        residual = norms["residual"][i]
        assert (layer["residual_first"], layer["residual_median"]) == (residual[0], np.median(residual[1:]))
        pattern = trace["layers"][i]["pattern"]
        assert [head["weight_on_first"] for head in layer["heads"]] == sinks.weight_on_first(pattern, n_first).tolist()
        for h, head in enumerate(layer["heads"]):
            for name in ("key", "value"):
                norm = norms[name][i, :, h // group]
                assert (head[f"{name}_first"], head[f"{name}_median"]) == (norm[0], np.median(norm[1:]))
    assert got["sink_rate"] == sinks.sink_rate([layer["pattern"] for layer in trace["layers"]])


@examples(20)
@given(tiny.models(), tiny.texts(min_size=3, max_size=7), st.data())
def test_value_and_residual_ratios_are_those_of_the_norms(model, ids, data):
    """One a layer, the values as a mean over the heads."""
    key = data.draw(st.integers(0, len(ids) - 1))
    trace = inside.look_inside(minisink.Model(model.config, model.weights), ids)
    norm, others = inside.norms(trace), [i for i in range(len(ids)) if i != key]
    for i in range(model.config.n_layers):
        value, residual = norm["value"][i].mean(axis=-1), norm["residual"][i]
        assert inside.value_ratio(trace, key)[i] == pytest.approx(value[key] / np.median(value[others]))
        assert inside.residual_ratio(trace, key)[i] == pytest.approx(residual[key] / np.median(residual[others]))


@examples(20)
@given(tiny.models(), tiny.texts(min_size=1, max_size=7))
def test_massive_is_the_largest_entry_over_the_median_one(model, ids):
    """One number for each layer, over all tokens and channels of the stream after it, whatever their signs."""
    trace = inside.look_inside(minisink.Model(model.config, model.weights), ids)
    after = [layer["x"] for layer in trace["layers"][1:]] + [trace["x"]]
    sizes = [sorted(abs(float(number)) for number in x.flat) for x in after]  # an even number of them
    want = [size[-1] / ((size[len(size) // 2 - 1] + size[len(size) // 2]) / 2) for size in sizes]
    assert inside.massive(trace).tolist() == pytest.approx(want)


@examples(20)
@given(tiny.seeds, st.integers(0, 16), st.integers(3, 12))
def test_a_repeated_token_is_looked_at_by_distance_alone(seed, token, n_tokens):
    """Under RoPE, nothing in front of it: the odds of two copies follow from how far back they are, not which they are.

    All have the same stream and values, so the first is no sink (Gu et al., section 3): its weight is the share of the
    farthest of t copies, (the largest odds there are) / t at most. Equal weights take scores that know no distance.
    """
    made = tiny.make(seed=seed)
    trace = inside.look_inside(minisink.Model(made.config, made.weights), [token] * n_tokens)
    assert inside.value_ratio(trace) == pytest.approx([1.0] * 3)
    assert inside.residual_ratio(trace) == pytest.approx([1.0] * 3)
    for layer in trace["layers"]:
        odds = np.exp(layer["scores"] - layer["scores"][:, :1, :1])  # beside a look at oneself
        for query in range(n_tokens):
            np.testing.assert_allclose(odds[:, query, query::-1], odds[:, -1, ::-1][:, : query + 1], rtol=1e-6)
            most = odds[:, -1].max(axis=-1) / odds[:, -1].min(axis=-1)
            assert (layer["pattern"][:, query, 0] <= most / (query + 1) + 1e-9).all()


def pieces_of(ids, bos, length, n_texts=9):
    model = minisink.Model(tiny.make(bos=bos).config, None)
    return inside.pieces(model, ids, length, n_texts)


def test_pieces_begin_as_the_text_does():
    """A begin-of-text token is put in front of each, if it is there; what is left over is left out."""
    assert pieces_of([0, 1, 2, 3, 4, 5], 0, 3) == [[0, 1, 2], [0, 3, 4]]
    assert pieces_of([1, 2, 3, 4, 5], 0, 2) == [[1, 2], [3, 4]]
    assert pieces_of(np.array([0, 1, 2, 3, 4]), None, 2, n_texts=1) == [[0, 1]]
    with pytest.raises(ValueError, match="the text has 2 tokens; a piece takes 3"):
        pieces_of([0, 1, 2], 0, 4)
    with pytest.raises(ValueError, match="n_texts is 0"):
        pieces_of([0, 1, 2], 0, 2, n_texts=0)
    with pytest.raises(ValueError, match="length is 1"):
        pieces_of([0, 1, 2], 0, 1)


def rate(folder, text):
    """Sink rate over pieces of 64 tokens, as Gu et al. measure it, begin-of-text token first."""
    model = minisink.load(folder)
    ids = model.encode(text, bos=False)
    pieces = [np.concatenate(([model.config.bos], ids[i : i + 63])) for i in range(0, 63 * 12, 63)]
    return np.mean([inside.summary(inside.look_inside(model, piece))["sink_rate"] for piece in pieces])


def test_the_shipped_model_has_a_sink(novels_folder):
    """Many of its heads give the first token of any text more than 0.3 of their weight, and its values are small."""
    text = sample_text().read_text(encoding="utf-8")
    assert rate(novels_folder, text) > 0.4
    model = minisink.load(novels_folder)
    layers = inside.summary(inside.look_inside(model, model.encode(text[:400])))["layers"]
    heaviest = max((head for layer in layers for head in layer["heads"]), key=lambda head: head["weight_on_first"])
    assert heaviest["weight_on_first"] > 0.5
    assert heaviest["value_first"] < 0.2 * heaviest["value_median"]


def test_a_model_made_elsewhere_has_none(stories_folder):
    """Not every model has a sink, and the measure can tell."""
    assert rate(stories_folder, sample_text().read_text(encoding="utf-8")) < 0.05
