"""Table 6 in small: each row against the loss it stands for, what each step must do, and what is refused."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from profiles import examples
from tiny import public

import minisink
from minisink import Streaming, gpt2
from minisink.commands.parser import main
from minisink.experiments import cache_size


@examples(15)
@given(tiny.models())
def test_every_cache_is_judged_by_the_same_tokens(small):
    """Those after the first eviction from the largest, whatever the order in which sizes are named."""
    model, ids = public(small), tiny.ids(40)
    rows = list(cache_size.run(model, ids, caches=(13, 5, 8, 5), n_sinks=2))
    assert [(row["cache"], row["n_sinks"], row["window"]) for row in rows] == [(5, 2, 3), (8, 2, 6), (13, 2, 11)]
    for row in rows:
        nll = minisink.token_nll(model, ids, Streaming(2, row["window"]))[13:]
        np.testing.assert_array_equal(row["nll"], nll)
        np.testing.assert_allclose(row["perplexity"], np.exp(nll.mean()), rtol=1e-6)
        assert row["trained"] == model.config.max_positions


def test_steps_up_to_the_trained_length_and_beyond_it():
    """All but the last within must gain, that one and any beyond must lose."""
    nll = np.random.default_rng(0).normal(3.0, 1.0, 300)
    levels = {64: 0.5, 128: 0.25, 256: 0.375, 512: 0.875}
    rows = [{"cache": cache, "trained": 300, "nll": nll + level} for cache, level in levels.items()]
    first, last, beyond = cache_size.effects(rows)
    np.testing.assert_allclose([first.size, last.size, beyond.size], [0.25, -0.125, -0.5])
    assert [(x.above, x.below, x.shown) for x in (first, last, beyond)] == [
        (0, None, True),
        (None, 0, True),
        (None, 0, True),
    ]
    assert ["beyond the trained length" in x.what for x in (first, last, beyond)] == [False, False, True]
    rows = [row | {"trained": 9} for row in rows]
    assert [x.below for x in cache_size.effects(rows)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("caches", "n_sinks", "message"),
    [
        ((5, 30), 2, "the text has 30 tokens and the cache holds 30: nothing is evicted"),
        ((4, 9), 4, "a cache of 4 tokens cannot hold 4 sinks"),
        ((4, 9), -1, "-1 sinks"),
        ((4, 8, 9), 1, "tiny has learned 8 positions, and a cache of 9 needs more"),
    ],
)
def test_what_cannot_be_is_refused(caches, n_sinks, message):
    with pytest.raises(ValueError, match=message):
        list(cache_size.run(public(tiny.make(gpt2, max_positions=8)), tiny.ids(30), caches=caches, n_sinks=n_sinks))


def test_a_cache_beyond_the_trained_length_is_warned_of(capsys):
    """In a line, and measured all the same."""
    assert main(["reproduce", "cache-size", "--tokens", "300", "--caches", "16", "260", "--csv"]) == 0
    out, err = capsys.readouterr()
    assert "a cache of 260 tokens is longer than the 256 positions novels was trained on" in err
    assert [line.split(",")[0] for line in out.splitlines()] == ["cache", "16", "260"]
