"""The functions of `ops`, each against its equation written as a loop."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minisink import by_the_book as book
from minisink import ops

numbers = st.floats(-30, 30, allow_subnormal=False)
rows = st.integers(1, 7).flatmap(lambda n: arrays(float, (3, n), elements=numbers))
logits = st.floats(-30, 30)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@given(rows, arrays(bool, (3, 7)))
def test_softmax_is_its_equation_and_masked_keys_get_nothing(x, hidden):
    """Softmax over the keys that are not masked, row by row; a masked key, or a row of them, gets exactly zero."""
    x = np.where(hidden[:, : x.shape[1]], -np.inf, x)
    weights = ops.softmax(x)
    close(weights, [book.softmax(row) for row in x])
    assert (weights[x == -np.inf] == 0).all()
    close(weights.sum(axis=-1), (x > -np.inf).any(axis=-1))


@given(rows, numbers)
def test_softmax_does_not_depend_on_a_common_shift(x, shift):
    """Adding one number to every score of a row leaves the weights, and the log-probabilities, as they are."""
    close(ops.softmax(x + shift), ops.softmax(x))
    close(ops.log_softmax(x + shift), ops.log_softmax(x))


@given(rows, st.sampled_from([1e4, -1e4]))
def test_large_scores_do_not_overflow(x, size):
    """Scores of ten thousand give what the same scores near zero give: weights, not infinities."""
    close(ops.softmax(x + size), [book.softmax(row) for row in x])
    close(ops.softmax1(x - 1e4), np.zeros_like(x))
    close(ops.softmax1(x + 1e4), [book.softmax(row) for row in x])
    close(ops.softmax_with_sink(x + size, size), ops.softmax1(x))
    close(ops.log_softmax(x + size), [book.log_softmax(row) for row in x])


@given(rows, logits)
def test_a_sink_logit_is_one_more_term_in_the_denominator(x, sink):
    """softmax_with_sink is softmax over one more score, whose weight is then dropped."""
    longer = np.concatenate((x, np.full((3, 1), sink)), axis=-1)
    close(ops.softmax_with_sink(x, sink), ops.softmax(longer)[:, :-1])
    close(ops.softmax_with_sink(x, sink), [book.softmax(row, np.exp(sink)) for row in x])


@given(rows)
def test_softmax1_is_a_sink_logit_of_zero(x):
    """softmax1 = softmax with a sink logit of 0 = softmax with one more score of 0."""
    close(ops.softmax1(x), ops.softmax_with_sink(x, 0.0))
    close(ops.softmax1(x), [book.softmax(row, 1.0) for row in x])


@given(rows)
def test_a_sink_logit_that_goes_to_minus_infinity_vanishes(x):
    """With a sink of minus infinity, or just very low, softmax_with_sink is softmax."""
    close(ops.softmax_with_sink(x, -1e4), ops.softmax(x))
    close(ops.softmax_with_sink(x, -np.inf), ops.softmax(x))


@pytest.mark.parametrize("normalise", [ops.softmax1, lambda x: ops.softmax_with_sink(x, -3.0)])
def test_with_a_sink_a_masked_row_takes_nothing_home(normalise):
    """Where every key is masked the sink wins all the weight, and the row is zeros."""
    assert normalise(np.full((2, 5), -np.inf)).tolist() == np.zeros((2, 5)).tolist()


@given(rows)
def test_log_softmax_is_the_logarithm_of_softmax(x):
    """Each row is its equation, and its exponentials are the weights of softmax."""
    close(ops.log_softmax(x), [book.log_softmax(row) for row in x])
    close(np.exp(ops.log_softmax(x)), ops.softmax(x))


@given(rows, st.floats(1e-8, 1.0), tiny.seeds)
def test_norms_are_their_equations(x, eps, seed):
    """rms_norm and layer_norm are their equations, row by row, with weight, bias and eps."""
    weight, bias = tiny.arrays(2, x.shape[1], seed=seed)
    close(ops.rms_norm(x, weight, eps), [book.rms_norm(row, weight, eps) for row in x])
    np.testing.assert_allclose(
        ops.layer_norm(x, weight, bias, eps),
        [book.layer_norm(row, weight, bias, eps) for row in x],
        rtol=1e-9,
        atol=1e-9,  # rows of almost equal numbers lose digits in x - mean(x)
    )


@given(arrays(float, (3, 7), elements=st.floats(-1000, 1000)))
def test_activations_are_their_equations(x):
    """silu and gelu are their equations, number by number, also where an exponential would overflow."""
    close(ops.silu(x), [[book.silu(v) for v in row] for row in x])
    close(ops.gelu(x), [[book.gelu(v) for v in row] for row in x])
    close(ops.gelu_erf(x), [[book.gelu_erf(v) for v in row] for row in x])


@given(tiny.seeds, st.booleans())
def test_linear_is_its_equation(seed, biased):
    """linear is a dot product a column, plus a bias if there is one, whatever stands before the last axis."""
    x, w, b = tiny.arrays(2, 3, 5, seed=seed), tiny.arrays(5, 7, seed=seed + 1), tiny.arrays(7, seed=seed + 2)
    b = b if biased else None
    close(ops.linear(x, w, b), [[book.linear(row, w, b) for row in block] for block in x])


def test_norms_of_half_precision_do_not_overflow():
    """Squares beyond 256 ** 2 have no float16; their mean and root have."""
    x = np.array([[300.0, -400.0, 1000.0, 2.0]], np.float16)
    ones, zeros = np.ones(4, np.float16), np.zeros(4, np.float16)
    for ours, wide in (
        (ops.rms_norm(x, ones), ops.rms_norm(x.astype(np.float64), ones)),
        (ops.layer_norm(x, ones, zeros), ops.layer_norm(x.astype(np.float64), ones, zeros)),
    ):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours, wide, rtol=2e-3)


def test_the_epsilons_of_the_norms():
    """Stated: a vector whose mean square is 1e-5 is halved in square, whatever the norm."""
    x = np.array([1.0, -1.0]) * np.sqrt(1e-5)
    for norm in (ops.rms_norm(x, np.ones(2)), ops.layer_norm(x, np.ones(2), np.zeros(2))):
        close(norm, np.array([1.0, -1.0]) / np.sqrt(2.0))


def test_the_book_refuses_lengths_that_differ():
    """A row and a weight or bias of other lengths are an error, not the shorter of the two."""
    row, matrix, short = np.ones(3), np.ones((3, 4)), np.ones(2)
    for refused in (
        lambda: book.dot(row, short),
        lambda: book.linear(row, matrix, row),
        lambda: book.rms_norm(row, short, 0.0),
        lambda: book.layer_norm(row, row, short, 1.0),
    ):
        with pytest.raises(ValueError, match="zip"):
            refused()
