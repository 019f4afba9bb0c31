"""The trigger task, the six ways from scores to weights, and the head that learns it."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import examples

from minisink import ops
from minisink.training.trigger import task, weights
from minisink.training.trigger.toy import ENOUGH, Toy

SEEDS = st.integers(0, 2**32 - 1)
B, T, D = 2, 5, 3


def slope(f, x, direction, step):
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


@examples(20)
@given(seed=SEEDS, length=st.integers(3, 9))
def test_the_answer_is_the_mean_at_the_trigger_and_nothing_elsewhere(seed, length):
    x, target, trigger = task.draw(np.random.default_rng(seed), 6, length, np.float64)
    for text, answers, j in zip(x, target, trigger, strict=True):
        assert 2 <= j < length
        assert text[0].tolist() == [1.0] + [0.0] * 15
        assert text[:, task.TRIGGER].tolist() == [float(i == j) for i in range(length)]
        assert text[:, task.ORDINARY].tolist() == [float(i not in (0, j)) for i in range(length)]
        assert text[1:, task.BOS].tolist() == [0.0] * (length - 1)
        assert 0 < np.abs(text[1:, 2:15]).max() <= 1
        for i in range(length):
            mean = [sum(text[t][c] for t in range(1, j + 1)) / j for c in range(16)]
            np.testing.assert_allclose(answers[i], mean if i == j else np.zeros(16), atol=1e-12)


def by_the_book(scores, kind, sink):
    """Weights of one query on the keys that it sees: lists of floats."""
    if kind == "relu":
        return [max(s, 0.0) / max(len(scores) - 1, 1) for s in scores]
    if kind == "softpick":
        total = sum(abs(math.exp(s) - 1) for s in scores) + weights.EPS
        return [max(math.exp(s) - 1, 0.0) / total for s in scores]
    extra = {"softmax1": 1.0, "logit": math.exp(sink)}.get(kind, 0.0)
    return [math.exp(s) / (extra + sum(map(math.exp, scores))) for s in scores]


@pytest.mark.parametrize("kind", weights.KINDS)
@examples(15)
@given(seed=SEEDS)
def test_weights_are_their_equation_and_nothing_later_is_seen(kind, seed):
    random = np.random.default_rng(seed)
    scores, sink = 2 * random.standard_normal((B, T, T)), random.standard_normal()
    pattern = weights.weigh(scores, np.tri(T, dtype=bool), kind, sink)
    for b in range(B):
        for t in range(T):
            expected = by_the_book(scores[b, t, : t + 1].tolist(), kind, sink)
            np.testing.assert_allclose(pattern[b, t], expected + [0.0] * (T - t - 1), rtol=1e-9)


def test_the_names_are_those_of_ops():
    """Where the lesson has the same function, it says the same."""
    scores, mask = np.random.default_rng(0).standard_normal((B, T, T)), np.ones((T, T), bool)
    np.testing.assert_allclose(weights.weigh(scores, mask, "softmax"), ops.softmax(scores))
    np.testing.assert_allclose(weights.weigh(scores, mask, "softmax1"), ops.softmax1(scores))
    np.testing.assert_allclose(weights.weigh(scores, mask, "logit", 0.7), ops.softmax_with_sink(scores, 0.7))
    np.testing.assert_allclose(weights.weigh(scores, mask, "relu"), ops.relu(scores) / (T - 1))


@pytest.mark.parametrize("kind", weights.KINDS)
@pytest.mark.parametrize("size", [-1e3, 0.0, 1e3])
def test_no_score_overflows(kind, size):
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        pattern = weights.weigh(np.full((1, T, T), size, np.float32), np.tri(T, dtype=bool), kind)
    assert np.isfinite(pattern).all()


@pytest.mark.parametrize("kind", weights.KINDS)
@examples(15)
@given(seed=SEEDS)
def test_gradient_of_the_scores(kind, seed):
    random = np.random.default_rng(seed)
    scores, g, direction = random.standard_normal((3, B, T, T))
    mask = np.tri(T, dtype=bool)
    assume(np.abs(scores).min() > 1e-4)  # no corner of ReLU near by
    pattern = weights.weigh(scores, mask, kind, 0.3)
    dscores, dsink = weights.weigh_backward(g, pattern, scores, mask, kind)
    expected = slope(lambda s: (weights.weigh(s, mask, kind, 0.3) * g).sum(), scores, direction, 1e-6)
    assert np.isclose((dscores * direction).sum(), expected, rtol=1e-5, atol=1e-7)
    if kind == "logit":
        expected = slope(lambda z: (weights.weigh(scores, mask, kind, z) * g).sum(), 0.3, 1.0, 1e-6)
        assert np.isclose(dsink, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", weights.KINDS)
@examples(5)
@given(seed=st.integers(0, 999))
def test_gradient_of_every_parameter(kind, seed):
    """Along a random direction of each matrix, in float64."""
    toy = Toy(kind, length=T, head_dim=D, seed=seed, dtype=np.float64)
    random = np.random.default_rng(seed)
    toy.vector[:] = random.standard_normal(len(toy.vector)) * 0.5
    x, target, _ = task.draw(random, B, T, np.float64)
    loss, gradient = toy.gradient(x, target)
    assert np.isclose(loss, ((toy.forward(x)[0] - target) ** 2).mean())
    vector, start = toy.vector.copy(), 0

    def f(changed):
        toy.vector[:] = changed
        return ((toy.forward(x)[0] - target) ** 2).mean()

    for name, shape in toy.shapes.items():
        part = slice(start, start + math.prod(shape))
        direction = np.zeros_like(vector)
        direction[part] = random.standard_normal(math.prod(shape))
        start, step = part.stop, 1e-6
        if kind in ("relu", "softpick"):
            sides = [(f(vector + s * step * direction) - f(vector)) / (s * step) for s in (1, -1)]
            if not np.isclose(*sides, rtol=1e-3, atol=1e-6):
                continue  # a corner
        assert np.isclose(gradient @ direction, slope(f, vector, direction, step), rtol=1e-4, atol=1e-8), name
    assert start == len(vector)


def test_what_is_seen_by_the_book():
    toy = Toy("softmax", length=T, head_dim=D, seed=1)
    toy.vector[:] = np.random.default_rng(0).standard_normal(len(toy.vector))
    x, target, trigger = toy.watched
    y, saved = toy.forward(x)
    seen = toy.look()
    idle = [saved["pattern"][b, t, 0] for b in range(len(x)) for t in range(1, T) if t != trigger[b]]
    busy = [saved["pattern"][b, trigger[b], 0] for b in range(len(x))]
    size = np.linalg.norm(saved["v"], axis=-1)
    expected = {"error": np.abs(y - target).max(), "loss": np.square(y - target).mean()}
    expected |= {"idle": np.mean(idle), "busy": np.mean(busy), "value": size[:, 0].mean() / size[:, 1:].mean()}
    assert seen == pytest.approx(expected, rel=1e-5)


def test_relu_solves_it_without_a_sink():
    """Some 800 steps; the same seed, the same numbers."""
    toy = Toy("relu", length=6)
    n_steps = toy.train(3000)
    seen = toy.look()
    assert n_steps < 3000 and seen["error"] < ENOUGH and seen["idle"] < 0.01
    again = Toy("relu", length=6)
    assert again.train(n_steps) == n_steps
    np.testing.assert_array_equal(again.vector, toy.vector)
    first, other = (Toy("relu", seed=seed) for seed in (0, 1))
    assert first.random.random() != other.random.random() and (first.watched[0] != other.watched[0]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "soft"}, "kind is 'soft'"), ({"length": 2}, "length is 2"), ({"head_dim": 0}, "width of a head is 0")],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Toy(**{"kind": "softmax"} | options)


def test_a_rate_too_high_says_at_which_step():
    toy = Toy("softmax", length=4)
    toy.vector[:] = np.nan
    with pytest.raises(ValueError, match="step 1: the loss is nan"):
        toy.train(5)
