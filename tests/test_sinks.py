"""How strong a sink is: each measure as the literal sum it stands for, and two real models that differ in it."""

import math

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import minisink
from minisink import sinks
from minisink.hf.shipped import sample_text


@st.composite
def patterns(draw, max_heads=3):
    """A causal attention pattern (H, T, T), every row of which sums to one."""
    H, T = draw(st.integers(1, max_heads)), draw(st.integers(1, 8))
    random, sharpness = np.random.default_rng(draw(tiny.seeds)), draw(st.sampled_from([0.0, 1.0, 10.0]))
    weights = np.tril(np.exp(sharpness * random.normal(size=(H, T, T))))
    return weights / weights.sum(axis=-1, keepdims=True)


def alpha(pattern, head, key):
    """Gu et al., section 3.2: the mean weight on a key over the queries from it onwards."""
    T = pattern.shape[-1]
    total = 0.0
    for query in range(key, T):
        total += pattern[head, query, key]
    return total / (T - key)


@given(patterns())
def test_importance_is_its_definition(pattern):
    """For every head and key."""
    H, T, _ = pattern.shape
    got = sinks.importance(pattern)
    assert got.shape == (H, T)
    np.testing.assert_allclose(got, [[alpha(pattern, h, k) for k in range(T)] for h in range(H)], atol=1e-12)


@given(patterns())
def test_the_first_token_never_gets_less_than_its_share(pattern):
    """The first query has nobody else to look at, so alpha of the first key is at least 1 / T."""
    assert (sinks.importance(pattern)[:, 0] >= 1.0 / pattern.shape[-1] - 1e-12).all()


@given(patterns(max_heads=1))
def test_a_share_of_one_over_t_is_reached(pattern):
    """By a head that looks at the first token only where it must."""
    T = pattern.shape[-1]
    assert sinks.importance(np.eye(T)[None])[0].tolist() == pytest.approx([1.0 / (T - k) for k in range(T)])


@given(st.lists(patterns(), min_size=1, max_size=3), st.sampled_from([0.1, 0.3, 0.5]))
def test_the_sink_rate_counts_heads(layers, eps):
    """The share of all heads of all layers whose alpha of the first key is above the threshold."""
    counts = [alpha(p, h, 0) > eps for p in layers for h in range(len(p))]
    if len({len(p) for p in layers}) == 1:  # the layers of a model have one number of heads
        assert sinks.sink_rate(layers, eps=eps) == pytest.approx(sum(counts) / len(counts))


@given(patterns(), st.data())
def test_the_sink_rate_of_any_key(pattern, data):
    """The key can be chosen; the threshold itself does not count."""
    key = data.draw(st.integers(0, pattern.shape[-1] - 1))
    values = [alpha(pattern, h, key) for h in range(len(pattern))]
    assert sinks.sink_rate([pattern], key=key, eps=0.25) == sum(v > 0.25 for v in values) / len(values)
    half = np.array([[[1.0, 0.0], [0.5, 0.5]]])
    assert (sinks.sink_rate([half], key=1, eps=0.5), sinks.sink_rate([half], key=1, eps=0.49)) == (0.0, 1.0)


@given(patterns().filter(lambda p: p.shape[-1] > 1), st.data())
def test_weight_on_first_is_a_mean_over_later_queries(pattern, data):
    """The weight on the first n together, by every query after them."""
    H, T, _ = pattern.shape
    n = data.draw(st.integers(1, T - 1))
    expected = []
    for h in range(H):
        total = 0.0
        for query in range(n, T):
            for key in range(n):
                total += pattern[h, query, key]
        expected.append(total / (T - n))
    np.testing.assert_allclose(sinks.weight_on_first(pattern, n), expected, atol=1e-12)


@pytest.mark.parametrize("n_first", [0, -1, 4, 5])
def test_weight_on_all_or_none_is_refused(n_first):
    """Somebody must come after the first."""
    with pytest.raises(ValueError, match=f"the first {n_first} of 4 tokens"):
        sinks.weight_on_first(np.eye(4)[None], n_first)


def length(vector):
    return math.sqrt(sum(float(x) ** 2 for x in vector))


@settings(max_examples=20)
@given(tiny.models(), tiny.texts(min_size=2, max_size=7))
def test_norms_are_lengths(model, ids):
    """Of the stream after each layer, and of keys and values before any rotation."""
    trace = sinks.look_inside(minisink.Model(model.config, model.weights, name="tiny"), ids)
    got = sinks.norms(trace)
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


@settings(max_examples=20)
@given(tiny.models(), tiny.texts(min_size=3, max_size=7), st.integers(1, 2))
def test_the_summary_is_made_of_these(model, ids, n_first):
    """A row a head, beside the norms of the key/value head it shares; a sink rate."""
    public = minisink.Model(model.config, model.weights, name="tiny")
    got = sinks.summary(sinks.look_inside(public, ids), n_first=n_first)
    trace = sinks.look_inside(public, ids)
    norms, group = sinks.norms(trace), model.config.n_heads // model.config.n_kv_heads
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


def vectors(n_tokens, seed=0):
    """(T, H, D), all sizes apart."""
    return tiny.arrays(n_tokens, 4, 6, seed=seed)


@given(st.integers(2, 9), st.data(), st.floats(0.01, 100))
def test_a_ratio_to_the_others_is_its_definition_and_has_no_unit(n_tokens, data, unit):
    """The norm of one over the median of all others, each layer by itself."""
    key = data.draw(st.integers(0, n_tokens - 1))
    norm = abs(tiny.arrays(3, n_tokens, seed=data.draw(tiny.seeds))) + 0.1
    got = sinks.to_others(norm, key)
    wanted = [row[key] / np.median([x for i, x in enumerate(row) if i != key]) for row in norm]
    np.testing.assert_allclose(got, wanted)
    np.testing.assert_allclose(sinks.to_others(unit * norm, key), got)
    assert sinks.to_others(np.full((3, n_tokens), unit), key).tolist() == pytest.approx([1.0] * 3)


@settings(max_examples=20)
@given(tiny.models(), tiny.texts(min_size=3, max_size=7), st.data())
def test_value_and_residual_ratios_are_those_of_the_norms(model, ids, data):
    """One a layer, the values as a mean over the heads."""
    key = data.draw(st.integers(0, len(ids) - 1))
    trace = sinks.look_inside(minisink.Model(model.config, model.weights), ids)
    norm, others = sinks.norms(trace), [i for i in range(len(ids)) if i != key]
    for i in range(model.config.n_layers):
        value, residual = norm["value"][i].mean(axis=-1), norm["residual"][i]
        assert sinks.value_ratio(trace, key)[i] == pytest.approx(value[key] / np.median(value[others]))
        assert sinks.residual_ratio(trace, key)[i] == pytest.approx(residual[key] / np.median(residual[others]))


@given(st.integers(1, 9), tiny.seeds, st.floats(0.01, 100))
def test_the_stable_rank_lies_between_one_and_the_rank(n_tokens, seed, unit):
    """Of each head by itself; it has no unit, and turning the space does not change it."""
    mixed = vectors(n_tokens, seed)
    ranks = sinks.stable_rank(mixed)
    assert ranks.shape == (4,)
    assert (ranks >= 1 - 1e-9).all() and (ranks <= min(n_tokens, 6) + 1e-9).all()
    np.testing.assert_allclose(sinks.stable_rank(unit * mixed), ranks)
    turn, _ = np.linalg.qr(tiny.arrays(6, 6, seed=seed))
    np.testing.assert_allclose(sinks.stable_rank(mixed @ turn), ranks)
    for head in range(4):
        a = mixed[:, head]
        largest = np.linalg.eigvalsh(a.T @ a)[-1]  # |A|_2^2
        assert ranks[head] == pytest.approx((a**2).sum() / largest)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_stable_rank_of_equal_directions_is_their_number(rank):
    """Reached: as many tokens that bring home one direction each. Of one vector for all it is 1, of nothing 0."""
    mixed = np.zeros((5, 4, 6))
    for t in range(5):
        mixed[t, :, t % rank] = 1.0
    expected = 5 / max(np.bincount(np.arange(5) % rank))
    np.testing.assert_allclose(sinks.stable_rank(mixed), expected)
    assert sinks.stable_rank(np.zeros((5, 4, 6))).tolist() == [0.0] * 4


def test_equal_weights_have_known_figures():
    """Uniform attention: alpha of the first of T tokens is the mean of 1, 1/2, ..., 1/T, and no head has a sink."""
    T = 64
    pattern = np.tril(np.ones((3, T, T))) / np.arange(1, T + 1)[:, None]
    harmonic = sum(1 / t for t in range(1, T + 1)) / T
    assert sinks.importance(pattern)[:, 0] == pytest.approx([harmonic] * 3)
    assert sinks.weight_on_first(pattern) == pytest.approx([(T * harmonic - 1) / (T - 1)] * 3)
    assert [sinks.sink_rate([pattern], eps=eps) for eps in (0.05, 0.1, 0.3)] == [1.0, 0.0, 0.0]


@settings(max_examples=20)
@given(tiny.seeds, st.integers(0, 16), st.integers(3, 12))
def test_a_repeated_token_is_looked_at_by_distance_alone(seed, token, n_tokens):
    """Under RoPE, nothing in front of it: the odds of two copies follow from how far back they are, not which they are.

    All have the same stream and values, so the first is no sink (Gu et al., section 3): its weight is the share of the
    farthest of t copies, (the largest odds there are) / t at most. Equal weights take scores that know no distance.
    """
    made = tiny.make(seed=seed)
    trace = sinks.look_inside(minisink.Model(made.config, made.weights), [token] * n_tokens)
    assert sinks.value_ratio(trace) == pytest.approx([1.0] * 3)
    assert sinks.residual_ratio(trace) == pytest.approx([1.0] * 3)
    for layer in trace["layers"]:
        odds = np.exp(layer["scores"] - layer["scores"][:, :1, :1])  # beside a look at oneself
        for query in range(n_tokens):
            np.testing.assert_allclose(odds[:, query, query::-1], odds[:, -1, ::-1][:, : query + 1], rtol=1e-6)
            most = odds[:, -1].max(axis=-1) / odds[:, -1].min(axis=-1)
            assert (layer["pattern"][:, query, 0] <= most / (query + 1) + 1e-9).all()


def pieces_of(ids, bos, length, n_texts=9):
    model = minisink.Model(tiny.make(bos=bos).config, None)
    return sinks.pieces(model, ids, length, n_texts)


def test_pieces_begin_as_the_text_does():
    """A begin-of-text token is put in front of each, if it is there; what is left over is left out."""
    assert pieces_of([0, 1, 2, 3, 4, 5], 0, 3) == [[0, 1, 2], [0, 3, 4]]
    assert pieces_of([1, 2, 3, 4, 5], 0, 2) == [[1, 2], [3, 4]]
    assert pieces_of(np.array([0, 1, 2, 3, 4]), None, 2, n_texts=1) == [[0, 1]]
    with pytest.raises(ValueError, match="the text has 2 tokens; a piece takes 3"):
        pieces_of([0, 1, 2], 0, 4)
    with pytest.raises(ValueError, match="0 pieces of a text"):
        pieces_of([0, 1, 2], 0, 2, n_texts=0)
    with pytest.raises(ValueError, match="a piece of 1 tokens has no room"):
        pieces_of([0, 1, 2], 0, 1)


def rate(folder, text):
    """Sink rate over pieces of 64 tokens, as Gu et al. measure it, begin-of-text token first."""
    model = minisink.load(folder)
    ids = model.encode(text, bos=False)
    pieces = [np.concatenate(([model.config.bos], ids[i : i + 63])) for i in range(0, 63 * 12, 63)]
    return np.mean([sinks.summary(sinks.look_inside(model, piece))["sink_rate"] for piece in pieces])


def test_the_shipped_model_has_a_sink(novels_folder):
    """Many of its heads give the first token of any text more than 0.3 of their weight, and its values are small."""
    text = sample_text().read_text(encoding="utf-8")
    assert rate(novels_folder, text) > 0.4
    model = minisink.load(novels_folder)
    layers = sinks.summary(sinks.look_inside(model, model.encode(text[:400])))["layers"]
    heaviest = max((head for layer in layers for head in layer["heads"]), key=lambda head: head["weight_on_first"])
    assert heaviest["weight_on_first"] > 0.5
    assert heaviest["value_first"] < 0.2 * heaviest["value_median"]


def test_a_model_made_elsewhere_has_none(stories_folder):
    """Not every model has a sink, and the measure can tell."""
    assert rate(stories_folder, sample_text().read_text(encoding="utf-8")) < 0.05
