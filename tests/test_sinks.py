"""How strong a sink is: each measure as the literal sum it stands for."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from minisink import sinks


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


def vectors(n_tokens, seed=0):
    """(T, H, D), all sizes apart."""
    return tiny.arrays(n_tokens, 4, 6, seed=seed)


@given(st.integers(2, 9), st.data(), st.floats(0.01, 100))
def test_a_ratio_to_the_others_is_its_definition_and_has_no_unit(n_tokens, data, unit):
    """The norm of one over the median of all others, each layer by itself."""
    key = data.draw(st.integers(0, n_tokens - 1))
    norm = abs(tiny.arrays(3, n_tokens, seed=data.draw(tiny.seeds))) + 0.1
    got = sinks.ratio_to_median(norm, key)
    wanted = [row[key] / np.median([x for i, x in enumerate(row) if i != key]) for row in norm]
    np.testing.assert_allclose(got, wanted)
    np.testing.assert_allclose(sinks.ratio_to_median(unit * norm, key), got)
    assert sinks.ratio_to_median(np.full((3, n_tokens), unit), key).tolist() == pytest.approx([1.0] * 3)


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
