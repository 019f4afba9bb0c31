"""Every gradient against central differences, in float64."""

import numpy as np
import pytest
import small
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import examples

from minisink.attention import additive, causal_mask
from minisink.positions import Rotary
from minisink.training import attention, backward, passes
from minisink.training.gradients import batch_gradient, batch_loss
from minisink.training.parameters import as_weights, named_shapes, views

SEEDS = st.integers(0, 2**32 - 1)
N, C, F = 5, 6, 7


def slope(f, x, direction, step=1e-5):
    """Derivative of the scalar f along a direction, by central differences."""
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


def bends(f, x, direction, step=1e-7):
    """Whether ReLU has a corner so near that the slopes to both sides differ: there is no gradient to compare then."""
    here = f(x)
    right, left = (f(x + step * direction) - here) / step, (here - f(x - step * direction)) / step
    return not np.isclose(right, left, rtol=1e-5, atol=1e-5)


def check(f, x, gradient, random, corners=False):
    """`gradient` tells the slope of f at x along a random direction."""
    direction = random.standard_normal(x.shape)
    if corners:
        assume(not bends(f, x, direction))
    step, rtol, atol = (1e-7, 1e-4, 1e-5) if corners else (1e-5, 1e-5, 1e-8)
    assert np.isclose((gradient * direction).sum(), slope(f, x, direction, step), rtol=rtol, atol=atol)


@pytest.mark.sampled
@pytest.mark.parametrize("case", small.CASES)
@examples(6)
@given(seed=SEEDS)
def test_gradient_of_every_parameter(case, seed):
    _, config, vector = small.make(case, seed)
    kinked = config.softmax == "relu"
    inputs, targets = small.batch(seed)
    _, gradient = batch_gradient(config, vector, inputs, targets, piece=2)
    random = np.random.default_rng(seed)

    def loss(changed):
        return batch_loss(config, changed, inputs, targets)[0]

    shapes = named_shapes(config)
    for name in shapes:  # along a direction that moves this array only
        direction = np.zeros_like(vector)
        views(direction, shapes)[name][...] = random.standard_normal(shapes[name])
        if kinked and bends(loss, vector, direction):
            continue
        step, atol = (1e-7, 1e-5) if kinked else (1e-5, 1e-7)
        assert np.isclose(gradient @ direction, slope(loss, vector, direction, step), rtol=1e-4, atol=atol), name


@pytest.mark.parametrize("case", ["llama", "gpt2 tied"])
def test_gradient_of_every_number(case):
    _, config, vector = small.make(case)
    inputs, targets = small.batch(0)
    _, gradient = batch_gradient(config, vector, inputs[:1, :3], targets[:1, :3])
    for i in np.random.default_rng(0).permutation(len(vector))[:300]:
        one = np.zeros_like(vector)
        one[i] = 1.0
        expected = slope(lambda w: batch_loss(config, w, inputs[:1, :3], targets[:1, :3])[0], vector, one)
        assert np.isclose(gradient[i], expected, rtol=1e-4, atol=1e-8), i


@given(seed=SEEDS)
def test_linear(seed):
    r = np.random.default_rng(seed)
    x, w, b, dy = (r.standard_normal(s) for s in ((N, C), (C, F), (F,), (N, F)))
    dw, db = np.empty_like(w), np.empty_like(b)
    dx = backward.linear(x, w, b)[1](dy, dw, db)
    check(lambda x: ((x @ w + b) * dy).sum(), x, dx, r)
    check(lambda w: ((x @ w + b) * dy).sum(), w, dw, r)
    check(lambda b: ((x @ w + b) * dy).sum(), b, db, r)


@given(seed=SEEDS)
def test_embedding_adds_what_repeated_tokens_bring(seed):
    r = np.random.default_rng(seed)
    embed, dy, ids = r.standard_normal((4, C)), r.standard_normal((9, C)), r.integers(0, 4, 9)
    into = np.zeros_like(embed)
    backward.embedding_backward(dy, ids, into)
    check(lambda e: (e[ids] * dy).sum(), embed, into, r)


@given(seed=SEEDS)
def test_norms(seed):
    r = np.random.default_rng(seed)
    x, dy, w, b = (r.standard_normal(s) for s in ((N, C), (N, C), (C,), (C,)))
    dw, db = np.empty_like(w), np.empty_like(b)
    dx = backward.rms_norm(x, w, 1e-5)[1](dy, dw)
    check(lambda x: (backward.rms_norm(x, w, 1e-5)[0] * dy).sum(), x, dx, r)
    check(lambda w: (backward.rms_norm(x, w, 1e-5)[0] * dy).sum(), w, dw, r)
    dx = backward.layer_norm(x, w, b, 1e-5)[1](dy, dw, db)
    check(lambda x: (backward.layer_norm(x, w, b, 1e-5)[0] * dy).sum(), x, dx, r)
    check(lambda w: (backward.layer_norm(x, w, b, 1e-5)[0] * dy).sum(), w, dw, r)
    check(lambda b: (backward.layer_norm(x, w, b, 1e-5)[0] * dy).sum(), b, db, r)


@given(seed=SEEDS)
def test_mlps(seed):
    r = np.random.default_rng(seed)
    gate, up, dy = (r.standard_normal((N, F)) * 2 for _ in range(3))
    dgate, dup = backward.swiglu(gate, up)[1](dy)
    check(lambda g: (backward.swiglu(g, up)[0] * dy).sum(), gate, dgate, r)
    check(lambda u: (backward.swiglu(gate, u)[0] * dy).sum(), up, dup, r)
    for gelu in (backward.gelu, backward.gelu_erf):
        check(lambda x, f=gelu: (f(x)[0] * dy).sum(), up, gelu(up)[1](dy), r)


@given(seed=SEEDS)
def test_cross_entropy(seed):
    r = np.random.default_rng(seed)
    logits, targets = r.standard_normal((N, F)) * 3, r.integers(0, F, N)
    loss, gradient = backward.cross_entropy(logits.copy(), targets, 1.0)
    by_hand = sum(np.log(np.exp(row).sum()) - row[t] for row, t in zip(logits, targets, strict=True))
    assert np.isclose(loss, by_hand)
    check(lambda x: backward.cross_entropy(x.copy(), targets, 1.0)[0], logits, gradient, r)


def test_cross_entropy_of_a_certain_token():
    """Logits beyond the range of exp are no infinity."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        loss, gradient = backward.cross_entropy(np.float32([[0, 2000], [2000, 0]]), np.array([1, 1]), 1.0)
    assert (loss, gradient.tolist()) == (2000, [[0, 0], [1, -1]])


@given(seed=SEEDS)
def test_rotation_backward_is_the_opposite_turn(seed):
    r = np.random.default_rng(seed)
    x, dy = r.standard_normal((2, 5, 3, 6)), r.standard_normal((2, 5, 3, 6))
    rotate, places = Rotary(r.random(3)), np.arange(5)
    check(lambda x: (rotate(x, places) * dy).sum(), x, rotate(dy, -places), r)


KINDS = [("softmax", False), ("softmax1", False), ("softmax", True), ("relu", False)]


@pytest.mark.parametrize("kind, with_sinks", KINDS)
@examples(15)
@given(seed=SEEDS)
def test_attention(kind, with_sinks, seed):
    r = np.random.default_rng(seed)
    q, k, v, dy = (r.standard_normal(s) for s in ((2, 5, 4, 6), (2, 5, 2, 6), (2, 5, 2, 6), (2, 5, 4, 6)))
    sinks = r.standard_normal(4) if with_sinks else None
    into = np.empty(4) if with_sinks else None
    bias = additive(causal_mask(5, 5, like=q), q.dtype)
    dq, dk, dv = attention.attention(q, k, v, bias, kind, sinks)[2](dy, into)

    def f(q, k, v, sinks):
        return (attention.attention(q, k, v, bias, kind, sinks)[0] * dy).sum()

    check(lambda x: f(x, k, v, sinks), q, dq, r, corners=kind == "relu")
    check(lambda x: f(q, x, v, sinks), k, dk, r, corners=kind == "relu")
    check(lambda x: f(q, k, x, sinks), v, dv, r)
    if with_sinks:
        check(lambda x: f(q, k, v, x), sinks, into, r)


@pytest.mark.parametrize("case", small.CASES)
def test_forward_equals_inference(case):
    inference, config, vector = small.make(case, dtype=np.float32)
    weights = as_weights(config, vector)
    inputs, _ = small.batch(1)
    logits, layers, _ = passes.forward(inputs, weights, config)
    for b, text in enumerate(inputs):
        trace = {}
        expected = inference.forward(text, weights, config, trace=trace)
        assert np.allclose(logits.reshape(small.B, small.T, small.V)[b], expected, rtol=0, atol=1e-5)
        for kept, inside in zip(layers, trace["layers"], strict=True):
            assert np.allclose(kept["pattern"][b], inside["pattern"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["llama", "gpt2 softmax1"])
def test_pieces_and_workers_do_not_matter(case):
    _, config, vector = small.make(case)
    inputs, targets = small.batch(2)
    whole = batch_gradient(config, vector, inputs, targets, piece=3)
    for piece in (1, 2):
        loss, gradient = batch_gradient(config, vector, inputs, targets, piece=piece)
        assert np.isclose(loss, whole[0])
        assert np.allclose(gradient, whole[1])
        loss2, gradient2 = batch_gradient(config, vector, inputs, targets, piece=piece, workers=2)
        assert loss2 == loss
        assert (gradient2 == gradient).all()


def test_sink_strength_is_the_weight_on_the_first_token():
    inference, config, vector = small.make("llama")
    inputs, targets = small.batch(3)
    loss, sinks = batch_loss(config, vector, inputs, targets, piece=2)
    first = np.zeros(config.n_layers)
    for text in inputs:
        trace = {}
        inference.forward(text, as_weights(config, vector), config, trace=trace)
        for i, layer in enumerate(trace["layers"]):
            first[i] += layer["pattern"][:, small.T // 2 :, 0].mean() / small.B
    assert np.allclose(sinks, first)
