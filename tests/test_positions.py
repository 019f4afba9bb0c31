"""Rotary positions against the loops, and the properties StreamingLLM leans on."""

import math

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from minisink import by_the_book as book
from minisink import positions

T, H, K, D = 3, 4, 2, 6
places = st.lists(st.integers(0, 2**20), min_size=T, max_size=T).map(np.array)
thetas = st.sampled_from([10000.0, 500000.0, 10.0])
factors = st.floats(1.0, 64.0)
scalings = st.one_of(
    st.none(),
    st.just({"rope_type": "default"}),
    st.fixed_dictionaries({"rope_type": st.just("linear"), "factor": factors}),
    st.fixed_dictionaries(
        {
            "rope_type": st.just("llama3"),
            "factor": factors,
            "low_freq_factor": st.floats(0.5, 2.0),
            "high_freq_factor": st.floats(2.5, 8.0),
            "original_max_position_embeddings": st.integers(4, 10000),
        }
    ),
)


def rotate_interleaved(vector, position, turns):
    """Channel 2j with channel 2j + 1."""
    out = np.zeros(len(vector))
    for j in range(len(vector) // 2):
        cos, sin = math.cos(position * turns[j]), math.sin(position * turns[j])
        out[2 * j] = vector[2 * j] * cos - vector[2 * j + 1] * sin
        out[2 * j + 1] = vector[2 * j + 1] * cos + vector[2 * j] * sin
    return out


@given(st.sampled_from([2, 6, 128]), thetas, scalings)
def test_frequencies_are_their_equation(head_dim, theta, scaling):
    """theta ** (-2j / D), and the linear and llama3 rules case by case in wavelengths."""
    got = positions.rope_frequencies(head_dim, theta, scaling)
    np.testing.assert_allclose(got, book.frequencies(head_dim, theta, scaling), rtol=1e-12)


@pytest.mark.parametrize("frequencies", [positions.rope_frequencies, book.frequencies])
def test_llama3_blends_from_slow_to_fast(frequencies):
    """Llama 3.1's own numbers: all of a pair's frequency from 4 full turns on, an eighth up to 1, linear between."""
    rule = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled = np.array(frequencies(128, 500000.0, rule | {"original_max_position_embeddings": 8192}))
    plain = 500000.0 ** (-np.arange(64) / 64)
    turns = 8192 * plain / (2 * np.pi)  # within the trained length
    assert ((turns > 1) & (turns < 4)).sum() == 6
    share = (8 * scaled / plain - 1) / 7  # 0: divided by 8, 1: as it was
    np.testing.assert_allclose(share, np.clip((turns - 1) / 3, 0, 1), atol=1e-12)


def test_an_unknown_rule_is_refused_by_name():
    """A scaling rule that is not known is an error that names it."""
    with pytest.raises(ValueError, match="'yarn' is not supported"):
        positions.rope_frequencies(D, scaling={"rope_type": "yarn", "factor": 2.0})


@given(tiny.seeds, places, thetas)
def test_rotate_is_its_equation(seed, place, theta):
    """Each head of each token is turned to the token's position, channel j with channel j + D/2."""
    x, turns = tiny.arrays(T, H, D, seed=seed), positions.rope_frequencies(D, theta)
    want = [[book.rotate(x[t, h], place[t], turns) for h in range(H)] for t in range(T)]
    np.testing.assert_allclose(positions.rotate(x, place, turns), want, atol=1e-8)


@given(tiny.seeds, st.integers(0, 1000))
def test_one_position_may_serve_all_tokens(seed, place):
    """An int stands for the same position everywhere, and position 0 changes nothing."""
    x, turns = tiny.arrays(T, H, D, seed=seed), positions.rope_frequencies(D)
    assert (positions.rotate(x, place, turns) == positions.rotate(x, np.full(T, place), turns)).all()
    assert (positions.rotate(x, 0, turns) == x).all()


def scores(q, k, q_places, k_places, turns, rotate=positions.rotate):
    """(H, T, S) of un-rotated queries (T, H, D) and keys (S, H, D)."""
    q, k = rotate(q, q_places, turns), rotate(k, k_places, turns)
    return q.swapaxes(0, 1) @ k.transpose(1, 2, 0)


@given(tiny.seeds, st.integers(0, 2**22) | st.just(4_000_000), thetas)
def test_scores_depend_on_differences_only(seed, shift, theta):
    """Moving queries and keys by the same number of positions leaves every score, also at index 4,000,000."""
    q, k = tiny.arrays(T, H, D, seed=seed), tiny.arrays(7, H, D, seed=seed + 1)
    turns = positions.rope_frequencies(D, theta)
    q_places, k_places = np.arange(4, 7), np.arange(7)
    near = scores(q, k, q_places, k_places, turns)
    far = scores(q, k, q_places + shift, k_places + shift, turns)
    np.testing.assert_allclose(far, near, atol=1e-7)


@given(tiny.seeds, st.integers(0, 100))
def test_angles_are_float64_even_for_float32_vectors(seed, place):
    """At index 4,000,000 a float32 vector is turned as exactly as a float32 can tell, and stays a float32."""
    x, turns = tiny.arrays(T, H, D, seed=seed).astype(np.float32), positions.rope_frequencies(D)
    place = np.arange(T) + 4_000_000 + place
    got = positions.rotate(x, place, turns)
    want = [[book.rotate(x[t, h], place[t], turns) for h in range(H)] for t in range(T)]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=2e-6)


@given(tiny.seeds, places, thetas)
def test_both_pairings_give_the_same_scores(seed, place, theta):
    """Reordered to split halves, Meta's neighbouring pairs turn alike, and queries and keys score the same."""
    q, k = tiny.arrays(T, H, D, seed=seed), tiny.arrays(T, H, D, seed=seed + 1)
    turns = positions.rope_frequencies(D, theta)
    reorder = positions.interleaved_to_split_half

    def rotate_neighbours(x, places, turns):
        return np.array([[rotate_interleaved(x[t, h], places[t], turns) for h in range(H)] for t in range(T)])

    turned = rotate_neighbours(q, place, turns)
    np.testing.assert_allclose(positions.rotate(reorder(q), place, turns), reorder(turned), atol=1e-8)
    np.testing.assert_allclose(
        scores(reorder(q), reorder(k), place, place[::-1], turns),
        scores(q, k, place, place[::-1], turns, rotate_neighbours),
        atol=1e-8,
    )


def test_unrotated_leaves_vectors_alone():
    """GPT-2's stand-in for rotation gives back what it was given."""
    x = tiny.arrays(T, H, D)
    assert positions.unrotated(x, np.arange(T)) is x
