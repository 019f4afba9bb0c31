"""The difference of two losses and its standard error: three of them are what a lesson may assert."""

import numpy as np
import pytest

from minisink.evaluation.difference import Difference, paired
from minisink.experiments.effects import effect


def drawn(seed, n=1000, alike=1):
    """Differences of mean 0; `alike` neighbours at a time are equal."""
    return np.repeat(np.random.default_rng(seed).normal(size=-(-n // alike)), alike)[:n]


@pytest.mark.parametrize("alike", [1, 10])
def test_three_errors_hold_the_truth(alike):
    """Of 300 texts that differ by nothing hardly one is called better, even if neighbours are alike."""
    found = [paired(drawn(seed, alike=alike), np.zeros(1000)) for seed in range(300)]
    assert sum(x.above(0) or x.below(0) for x in found) <= 300 * 0.02
    alone = sum(abs(d.mean()) > 3 * d.std() / np.sqrt(1000) for d in (drawn(seed, alike=alike) for seed in range(300)))
    assert alone <= 5 if alike == 1 else alone > 60


def test_what_both_find_hard_cancels():
    """Losses of mean 4 that spread by 3, and one is 0.1 above the other."""
    hard = 4 + 3 * drawn(0)
    found = paired(hard + 0.1 + drawn(1) / 50, hard)
    assert found.above(0.09) and found.below(0.11) and not found.within(0.1) and found.within(0.11)


def test_the_error_is_what_effect_draws():
    """A 95 % interval is two errors to either side."""
    values = drawn(2, 5000, alike=10)
    interval, found = effect("", values, above=0), paired(values, 0 * values)
    assert found.error == pytest.approx((interval.high - interval.low) / 4, rel=0.1)


@pytest.mark.parametrize("mean", [0.0, float("nan")])
def test_nothing_is_neither_above_nor_below(mean):
    same = Difference(mean, mean)
    assert not same.above(0) and not same.below(0)
    assert same.within(0.1) == (mean == 0)


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1]), ([1], [1]), ([[1, 2]], [[1, 2]]), (1.0, 2.0)])
def test_other_tokens_are_refused(a, b):
    with pytest.raises(ValueError, match="the same tokens"):
        paired(a, b)
