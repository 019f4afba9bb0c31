"""AdamW by the book, the schedule, clipping, and what decays."""

import math

import numpy as np
import small
from hypothesis import given
from hypothesis import strategies as st

from minisink.training.optimizer import SGD, AdamW, Schedule, clip
from minisink.training.parameters import as_weights, decayed, initial_vector, named_shapes, share, views


def test_adamw_by_the_book():
    random = np.random.default_rng(0)
    w = random.standard_normal(7)
    expected, m, v = list(w), [0.0] * 7, [0.0] * 7
    optimizer = AdamW(w, slice(2, 5), betas=(0.8, 0.9), eps=1e-3, weight_decay=0.5)
    for t in range(1, 6):
        g = random.standard_normal(7)
        for i in range(7):  # Loshchilov and Hutter, algorithm 2, one number at a time
            m[i] = 0.8 * m[i] + 0.2 * g[i]
            v[i] = 0.9 * v[i] + 0.1 * g[i] ** 2
            step = m[i] / (1 - 0.8**t) / (math.sqrt(v[i] / (1 - 0.9**t)) + 1e-3)
            decay = 0.5 * expected[i] if 2 <= i < 5 else 0.0
            expected[i] -= 0.1 * (step + decay)
        optimizer.step(w, g.copy(), 0.1)
        assert np.allclose(w, expected, rtol=1e-12, atol=1e-12)


def test_sgd():
    w = np.array([1.0, 2.0])
    SGD().step(w, np.array([1.0, -1.0]), 0.5)
    assert w.tolist() == [0.5, 2.5]


@given(n=st.integers(1, 200), warmup=st.integers(0, 50), decay=st.floats(0, 1), final=st.floats(0, 1))
def test_schedule_rises_stays_and_falls(n, warmup, decay, final):
    schedule = Schedule(3.0, n, warmup, decay, final)
    rates = [schedule.rate(i) for i in range(n)]
    assert all(0 < rate <= 3.0 for rate in rates)
    flat = [rate for i, rate in enumerate(rates) if i + 1 >= warmup and i <= n - decay * n]
    assert all(math.isclose(rate, 3.0) for rate in flat)
    falling = [rate for i, rate in enumerate(rates) if i + 1 >= warmup and i > n - decay * n]
    assert all(a > b or final == 1 or math.isclose(a, b) for a, b in zip(falling, falling[1:], strict=False))


def test_schedule_reaches_its_ends():
    schedule = Schedule(2.0, 100, warmup=10, decay=0.5, final=0.1)
    assert math.isclose(schedule.rate(0), 0.2)
    assert math.isclose(schedule.rate(9), 2.0)
    assert math.isclose(schedule.rate(50), 2.0)
    assert math.isclose(schedule.rate(75), 2.0 * 0.55)
    assert math.isclose(schedule.rate(100), 0.2)


@given(seed=st.integers(0, 999), largest=st.floats(0.01, 10))
def test_clip(seed, largest):
    g = np.random.default_rng(seed).standard_normal(9)
    before = g.copy()
    norm = clip(g, largest)
    assert math.isclose(norm, np.linalg.norm(before))
    assert np.linalg.norm(g) <= largest * (1 + 1e-12) or norm <= largest
    assert np.allclose(g * max(1.0, norm / largest), before)


def test_what_decays():
    for case, shared, free in (("llama", False, "embed"), ("llama", True, "row"), ("llama tied softmax1", False, "")):
        _, config, vector = small.make(case)
        marked = np.zeros_like(vector)
        marked[decayed(config, shared)] = 1.0
        for name, array in views(marked, named_shapes(config)).items():
            if name == "embed" and free:
                assert array[0].sum() == 0
                assert array[1:].all() == (free == "row")
            else:
                assert array.all() == (array.ndim == 2), name
                assert array.any() == (array.ndim == 2), name


def test_positions_and_norms_of_gpt2_do_not_decay():
    _, config, vector = small.make("gpt2 softmax1")
    marked = np.zeros_like(vector)
    marked[decayed(config)] = 1.0
    decaying = {name for name, a in views(marked, named_shapes(config)).items() if a.any()}
    assert decaying == {"head"} | {f"{i}.{name}" for i in range(2) for name in ("w_qkv", "wo", "w_up", "w_down")}


def test_a_shared_embedding_stays_shared_but_for_the_first_row():
    _, config, _ = small.make("llama")
    vector = initial_vector(config, 3, shared=True)
    optimizer = AdamW(vector, decayed(config, True), weight_decay=0.3)
    weights = as_weights(config, vector)
    assert (weights.embed == weights.head.T).all()
    for seed in range(3):
        gradient = np.random.default_rng(seed).standard_normal(len(vector)).astype(np.float32)
        before = as_weights(config, gradient.copy())
        share(config, gradient)
        after = as_weights(config, gradient)
        assert (after.embed[1:] == (before.embed + before.head.T)[1:]).all()
        assert (after.embed[0] == before.embed[0]).all()
        optimizer.step(vector, gradient, 0.01)
    assert (weights.embed[1:] == weights.head.T[1:]).all()
    assert (weights.embed[0] != weights.head.T[0]).any()


def test_initial_weights_depend_on_the_seed_only():
    _, config, _ = small.make("gpt2 tied")
    one, again, other = (initial_vector(config, seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    weights = as_weights(config, one)
    assert (weights.norm == 1).all()
    assert (weights.layers[0].b_qkv == 0).all()
    assert weights.layers[1].wo.std() < 0.7 * weights.layers[1].w_up.std()
