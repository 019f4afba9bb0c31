"""The reference is the book; cases are what a task may be asked, small ones first; a tolerance is relative."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minisink
from minisink import by_the_book, cache, ops, positions
from minisink.teaching import reference
from minisink.teaching.compare import TOLERANCE, equal
from minisink.teaching.tasks import LOOPS, TASKS, as_plain, cases_of, in_style, same, simpler, template
from minisink.teaching.words import show

SEEDS = st.integers(0, 10_000)


def cases(name, seed=0):
    return cases_of(TASKS[name], seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reference_is_the_book(seed):
    """Every task that the book has, on every case that is drawn."""
    for name, extra in (("softmax", 0.0), ("softmax1", 1.0)):
        for case in cases(name, seed):
            expected = by_the_book.softmax(case["x"].tolist(), extra)
            np.testing.assert_allclose(TASKS[name].expected(case), expected, rtol=1e-12)
    for case in cases("attend", seed):
        q, k, v = (case[x][:, None] for x in "qkv")
        expected, _ = by_the_book.attend(q, k, v, case["visible"])
        np.testing.assert_allclose(TASKS["attend"].expected(case), expected[:, 0], atol=1e-12)
    for case in cases("rotate", seed):
        rates = by_the_book.frequencies(case["x"].shape[1], case["theta"])
        expected = [by_the_book.rotate(x, p, rates) for x, p in zip(case["x"], case["positions"], strict=True)]
        np.testing.assert_allclose(TASKS["rotate"].expected(case), expected, atol=1e-12)
    for case in cases("token_nll", seed):
        np.testing.assert_allclose(TASKS["token_nll"].expected(case), by_the_book.losses(**case), atol=1e-9)


def test_what_stays_and_where_is_the_policy_and_the_book():
    """Slots that stay by the book, which evicts token by token; positions of the package's own policy."""
    for case in cases("survivors"):
        kept, leave = [], by_the_book.evict(case["n_sinks"], case["window"])
        for slot in range(case["n_slots"]):
            kept.append(slot)
            leave(kept)
        assert TASKS["survivors"].expected(case).tolist() == kept
    for case in cases("positions_of"):
        policy = cache.Policy(case["n_sinks"], case["window"])
        expected = policy.positions_of(case["token_index"])
        assert TASKS["positions_of"].expected(case).tolist() == expected.tolist()


def test_a_step_is_the_package_s_streaming_cache():
    """Out of a `LayerCache`, at its positions, through the package's attention."""
    for case in cases("step"):
        D, rates = case["q"].shape[1], positions.rope_frequencies(case["q"].shape[1], case["theta"])
        policy = cache.Policy(case["n_sinks"], case["window"])
        layer = cache.LayerCache(np.zeros((0, 1, D)), np.zeros((0, 1, D)), policy)
        for t, expected in enumerate(TASKS["step"].expected(case)):
            layer.append(case["k"][t][None, None], case["v"][t][None, None])
            keys = positions.rotate(layer.keys, layer.positions, rates)
            query = positions.rotate(case["q"][t][None, None], layer.positions[-1:], rates)
            found = minisink.attention.attend(query, keys, layer.values)[0, 0]
            np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_is_retrieved_is_what_the_package_fetches():
    """The book's rule: best key of a block, stored keys `window` places back."""
    for case in [case for seed in range(3) for case in cases("retrieve", seed)]:
        q, keys, block = case["q"], case["keys"], case["block"]
        rates = by_the_book.frequencies(len(q), case["theta"])
        query = by_the_book.rotate(q, 10 + case["window"], rates)
        far = [by_the_book.dot(query, by_the_book.rotate(key, 10, rates)) for key in keys]
        worth = [max(far[start : start + block]) for start in range(0, len(far), block)]
        best = sorted(range(len(worth)), key=lambda b: worth[b], reverse=True)[: case["k"]]
        assert set(TASKS["retrieve"].expected(case).astype(int).tolist()) == set(best)
        apart = sorted(worth, reverse=True)[case["k"] - 1 : case["k"] + 1]
        assert apart[0] - apart[-1] > 0.05 or len(apart) == 1  # no rounding decides


@given(seed=SEEDS, name=st.sampled_from(sorted(TASKS)))
def test_cases_are_fair_and_come_from_the_seed(seed, name):
    """Valid, finite in the answer, the same again from the same seed."""
    task = TASKS[name]
    drawn = cases_of(task, seed)
    assert all(task.valid(case) and np.isfinite(task.expected(case)).all() for case in drawn)
    assert all(same(a, b) for a, b in zip(drawn, cases_of(task, seed), strict=True))
    for case in drawn[:: max(1, len(drawn) // 5)]:
        for each in simpler(task, case):
            if task.valid(each) and not same(each, case):
                assert np.isfinite(task.expected(each)).all()
                assert sum(map(np.size, each.values())) <= sum(map(np.size, case.values()))


def test_another_seed_draws_other_cases():
    for name, task in TASKS.items():
        pairs = zip(cases_of(task, 0), cases_of(task, 1), strict=True)
        assert any(set(a) == set(b) and as_plain(a) != as_plain(b) for a, b in pairs), name


@given(scale=st.floats(1e-6, 1e6), wrong=st.sampled_from([1.001, 0.999, 2.0, -1.0]))
def test_the_tolerance_is_relative(scale, wrong):
    """A wrong factor is seen however small the numbers are; float32's rounding is not."""
    x = np.array([[0.3, -1.0, 0.001], [0.7, 0.2, 0.5]]) * scale
    assert not equal(x * wrong, x)
    assert equal(x.astype(np.float32).astype(np.float64), x) and equal(x * (1 + TOLERANCE / 10), x)


def test_small_rows_are_held_as_strictly_as_large_ones():
    """One row of thousands does not excuse another of tenths."""
    right = np.array([[1000.0, 2000.0], [0.1, 0.2]])
    assert not equal(right + [[0.0, 0.0], [0.01, 0.0]], right)
    assert not equal(np.array([np.nan, 1.0]), np.array([0.5, 1.0]))
    assert not equal(np.zeros(3), np.zeros(4)) and not equal(np.full(2, 1e-6), np.zeros(2))


def test_a_case_comes_in_arrays_lists_and_heads():
    case = next(case for case in cases("attend") if case["q"].shape[0] == 2)
    shapes = {}
    for style in TASKS["attend"].styles:
        args = in_style(TASKS["attend"], case, style)
        shapes[style] = [np.shape(arg) for arg in args]
    (T, D), S = case["q"].shape, len(case["k"])
    assert shapes["arrays"] == shapes["lists"] == [(T, D), (S, D), (S, D), (T, S)]
    assert shapes["a head"] == [(T, 1, D), (S, 1, D), (S, 1, D), (T, S)]
    assert shapes["heads first"] == [(1, T, D), (1, S, D), (1, S, D), (T, S)]


def test_the_template_has_all_tasks():
    """Each under its own signature, in their order."""
    assert list(LOOPS) == list(TASKS)
    assert re.findall(r"^def (.*):$", template(), re.M) == [task.signature for task in TASKS.values()]


def test_what_the_template_shows_is_so():
    """Its example, and its calls: rows in and rows out, as the tasks are specified."""
    (call, answer), *_ = re.findall(r"(survivors\(.*?\)) is (\[.*?\])", LOOPS["survivors"])
    assert str(eval(call, vars(reference))) == answer
    x = np.array([1.0, 2.0, 3.0, 4.0])

    def rotate(x, positions, theta):
        assert np.ndim(x) == 2 and np.shape(positions) == (len(x),)
        return reference.rotate(x, positions, theta)

    for name, names, expected in (("step", {"S": 6}, [5]), ("retrieve", {"window": 5}, 5)):
        (line,) = re.findall(r"query = (rotate.*?)  ", LOOPS[name])
        found = eval(line, {"rotate": rotate, "q": x, "theta": 100.0} | names)
        np.testing.assert_array_equal(found, reference.rotate(x[None] if name == "step" else x, expected, 100.0))


def test_numbers_are_shown_short():
    assert show(np.array([-0.0, 1 / 3, np.inf])) == "[0, 0.3333, inf]" and show([1] * 12).endswith("1, ...]")


def test_the_reference_takes_vectors_rows_and_heads():
    """A student calls the checker's parts as loosely as their own."""
    x, D = np.random.default_rng(0).normal(size=(3, 2, 4)), 4
    rates = positions.rope_frequencies(D, 100.0)
    heads = reference.rotate(x, [5, 0, 7], 100.0)
    np.testing.assert_allclose(heads, positions.rotate(x, np.array([5, 0, 7]), rates), atol=1e-12)
    np.testing.assert_allclose(reference.rotate(x[0, 0], 5, 100.0), heads[0, 0], atol=1e-12)
    np.testing.assert_allclose(reference.softmax(x), ops.softmax(x), atol=1e-12)
    everything = reference.attend(x, x, x)
    np.testing.assert_allclose(
        everything[:, 1], reference.attend(x[:, 1], x[:, 1], x[:, 1], np.ones((3, 3))), atol=1e-12
    )
