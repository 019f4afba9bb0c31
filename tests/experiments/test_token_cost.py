"""Figure 10 in small: rows of the bench with every repeat by itself, and what their ratio must do."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

from minisink import gpt2
from minisink.commands.reproduce_report import plain
from minisink.experiments import speed, token_cost


def test_a_row_a_cache_with_all_its_repeats(monkeypatch):
    """The smallest first; times are the medians of the repeats, the ratio is theirs."""
    timed = speed.timed
    monkeypatch.setattr(speed, "timed", lambda functions, *, repeats: timed(functions, repeats=repeats, seconds=0))
    model = public(tiny.make(dtype=np.float32))
    rows = list(token_cost.run(model, caches=(9, 6, 9), n_sinks=2, repeats=3))
    assert [row["cache"] for row in rows] == [6, 9]
    for row in rows:
        assert row["times"].shape == (3, 2) and (row["times"] > 0).all()
        assert np.median(row["times"], axis=0).tolist() == pytest.approx([row["streaming_ms"], row["recompute_ms"]])
        assert row["ratio"] == pytest.approx(row["recompute_ms"] / row["streaming_ms"])
    for effect in token_cost.effects(rows):
        assert np.isfinite([effect.size, effect.low, effect.high]).all()
    assert token_cost.effects(rows).__next__().size == pytest.approx(rows[-1]["ratio"])


@examples(6)
@given(st.floats(0.0, 2.0), st.floats(0.01, 9.0), tiny.seeds)
def test_the_power_of_the_growth_is_found(power, factor, seed):
    """Whatever unit the times have; far from 1, growth is not about linear, and a ratio below 1 not faster."""
    noise = np.random.default_rng(seed).uniform(0.99, 1.01, (4, 7, 1))
    rows = [
        {"cache": cache, "times": wobble * np.array([[2.0, 2.0 * factor * (cache / 64) ** power]])}
        for cache, wobble in zip((8, 16, 32, 64), noise, strict=True)
    ]
    faster, grows = token_cost.effects(rows)
    assert (faster.size, grows.size) == (pytest.approx(factor), pytest.approx(power))
    assert faster.shown == (faster.size > 1 and faster.low > 1) and grows.shown == (
        grows.low > 0.5 and grows.high < 1.5
    )
    assert len(list(token_cost.effects(rows[:1]))) == 1


def test_the_table_names_the_papers_ratio_where_there_is_one():
    rows = [
        {
            "cache": cache,
            "streaming_ms": 0.5,
            "recompute_ms": 20.0,
            "ratio": 40.0,
            "paper_ratio": paper,
            "streaming_bytes": 1024,
            "recompute_bytes": 2048,
        }
        for cache, paper in ((64, float("nan")), (256, 2.03))
    ]
    cells = [line.split() for line in plain(rows).splitlines()[2:]]
    assert [line[0] for line in cells] == ["64", "256"] and [line[4] for line in cells] == ["-", "2.03"]


@pytest.mark.parametrize(
    ("caches", "options", "message"),
    [
        ((4, 9), {}, "a cache of 4 tokens cannot hold 4 sinks"),
        ((8, 9), {"n_sinks": -1}, "-1 sinks"),
        ((8, 9), {"repeats": 0}, "--repeats is 0"),
        ((6, 9), {}, "tiny has learned 8 positions, and a cache of 9 needs more"),
    ],
)
def test_what_cannot_be_timed_is_refused(caches, options, message):
    with pytest.raises(ValueError, match=message):
        list(token_cost.run(public(tiny.make(gpt2, max_positions=8)), caches=caches, **options))
