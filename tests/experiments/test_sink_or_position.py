"""The 2 x 2: each cell against the loss it stands for, within the trained length and beyond it."""

import numpy as np
import pytest
import tiny
from tiny import public

import minisink
from minisink import Streaming, gpt2
from minisink.experiments import sink_or_position


@pytest.mark.filterwarnings("ignore:a cache of")
@pytest.mark.parametrize(("n_tokens", "trained"), [(23, 13), (23, 64), (23, 4)])
def test_each_cell_is_its_loss(n_tokens, trained):
    """Tokens after the first eviction, cut where the trained length ends; NaN where there are none."""
    model, ids = public(tiny.make(max_positions=trained)), tiny.ids(n_tokens)
    rows = list(sink_or_position.run(model, ids, cache=5, n_sinks=2))
    assert [(row["sinks"], row["positions"]) for row in rows] == [
        (2, "slot"),
        (2, "original"),
        (0, "slot"),
        (0, "original"),
    ]
    for row in rows:
        nll = minisink.token_nll(model, ids, Streaming(row["sinks"], 5 - row["sinks"], row["positions"]))
        within = [nll[t] for t in range(5, n_tokens - 1) if t < trained]
        beyond = [nll[t] for t in range(5, n_tokens - 1) if t >= trained]
        assert row["split"] == len(within)
        np.testing.assert_allclose(row["nll"], [*within, *beyond])
        for name, part in (("within", within), ("beyond", beyond)):
            np.testing.assert_allclose(row[name], np.exp(np.mean(part)) if part else np.nan)


def row(sinks, positions, nll, split):
    return {"sinks": sinks, "positions": positions, "nll": np.array(nll, float), "split": split}


def test_what_the_cells_say():
    """The sink with positions in the cache; the positions with the sink, within and beyond, each if it is there."""
    cells = [row(1, "slot", [1, 1, 1, 1], 2), row(1, "original", [1, 1, 3, 3], 2)]
    cells += [row(0, "slot", [2, 2, 4, 4], 2), row(0, "original", [9, 9, 9, 9], 2)]
    found = list(sink_or_position.effects(cells))
    assert [(effect.size, effect.shown) for effect in found] == [(2.0, True), (0.0, True), (2.0, True)]
    for split, name in ((4, "within"), (0, "beyond")):
        only = [one | {"split": split} for one in cells]
        assert [effect.what.rpartition(" ")[2] for effect in sink_or_position.effects(only)][1:] == [name]


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="tiny learned its positions"):
        next(sink_or_position.run(public(tiny.make(gpt2)), tiny.ids(20), cache=5))
    with pytest.raises(ValueError, match="nothing is evicted"):
        next(sink_or_position.run(public(tiny.make()), tiny.ids(6), cache=5))
