"""One token changed: each number from streams that are decoded token by token, and the bound that holds exactly."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

from minisink import Streaming, gpt2, llama
from minisink.experiments import echo
from minisink.methods import new_cache


def readable(model, ids, n_sinks, window):
    """Streams (L, T - 1, C) and losses (T - 1,), a token at a time through `KVCache`."""
    cache, streams, nll = new_cache(model, Streaming(n_sinks, window)), [], []
    for token, following in zip(ids[:-1], ids[1:], strict=True):
        trace = {}
        logits = model.forward([token], cache, trace=trace)[0]
        streams.append([x[0] for x in [layer["x"] for layer in trace["layers"][1:]] + [trace["x"]]])
        nll.append(np.log(np.exp(logits - logits.max()).sum()) - (logits - logits.max())[following])
    return np.array(streams).swapaxes(0, 1), np.array(nll)


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_rows_by_the_book(arch):
    """Two changes, a window of 4 apart, in 3 layers; a sink and none."""
    model, window, changed, bound = public(tiny.make(arch)), 4, 5, 9
    ids = tiny.ids(24)
    rows = list(echo.run(model, ids, window=window, n_sinks=2, changed=changed, n_changes=2, seed=1))
    assert [(row["sinks"], row["what"]) for row in rows] == [
        (n, what) for n in (2, 0) for what in ("layer 0", "layer 1", "layer 2", "loss, nats")
    ]
    steps = np.random.default_rng(1).integers(1, 17, 2)
    for n in (2, 0):
        x, nll = readable(model, ids, n, window)
        wanted = []
        for place, step in zip((5, 9), steps, strict=True):
            text = ids.copy()
            text[place] = (text[place] + step) % 17
            y, other = readable(model, text, n, window)
            lines = [
                [np.sqrt(((y[i, t] - x[i, t]) ** 2).sum() / (x[i, t] ** 2).sum()) for t in range(place, place + 13)]
                for i in range(3)
            ]
            wanted.append([*lines, [abs(other[t] - nll[t]) for t in range(place, place + 13)]])
        for i, row in enumerate(row for row in rows if row["sinks"] == n):
            change = np.array(wanted)[:, i]
            np.testing.assert_allclose(row["change"], change, atol=1e-9)
            assert row["bound"] == min(3 * (i + 1), bound)
            assert row["within"] == pytest.approx(change[:, 1:4].mean())
            assert (
                np.isnan(row["beyond"])
                if i == 0
                else row["beyond"] == pytest.approx(change[:, 4 : row["bound"] + 1].mean())
            )


@examples(20)
@given(tiny.models(n_layers=2), st.integers(2, 5), st.integers(1, 3), st.integers(0, 4), tiny.seeds)
def test_a_change_reaches_the_bound_and_no_further(model, window, n_sinks, more, seed):
    """After each layer to the last token that can feel it, and past it not a bit."""
    ids = tiny.ids(40, seed)
    for row in echo.run(public(model), ids, window=window, n_sinks=n_sinks, changed=n_sinks + more, n_changes=2):
        assert row["furthest"] == row["bound"] <= 2 * (window - 1)
        assert row["past"] == 0.0


def made(kept, gone, past=0.0):
    """Rows of one layer and a loss, window 3, bound 4, four changes."""
    little = 1 + 0.01 * np.arange(4)[:, None]
    return [
        {"sinks": n, "what": what, "window": 3, "bound": 4, "past": past, "change": little * np.array(change)}
        for n, changes in ((1, kept), (0, gone))
        for what, change in zip(("layer 0", "loss, nats"), changes, strict=True)
    ]


def test_each_part_of_the_claim_can_fail():
    small, large = [9.0, 0.3, 0.2, 0.1, 0.1, 0.0], [0.0, 0.6, 0.5, 0.4, 0.3, 0.0]
    assert [found.shown for found in echo.effects(made([small, small], [large, large]))] == [True] * 3
    beyond, past, more = echo.effects(made([large, [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]], [small, small], past=0.01))
    assert (beyond.size, beyond.shown, past.shown, more.shown) == (0.0, False, False, False)
    assert more.size == pytest.approx(1.015 * (0.7 - 1.8) / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "window is 1; it must be a whole number of 2 or more"),
        ({"n_sinks": 0}, "n_sinks is 0"),
        ({"n_changes": 0}, "n_changes is 0"),
        ({"changed": 1, "n_sinks": 2}, "changed is 1; it must be a whole number of 2 or more: sinks"),
        ({"changed": 8}, "the text has 24 tokens; 2 changes are felt over 26"),
    ],
)
def test_what_would_show_nothing_is_refused(options, message):
    options = {"window": 4, "n_sinks": 1, "changed": 7, "n_changes": 2} | options
    with pytest.raises(ValueError, match=message):
        list(echo.run(public(tiny.make()), tiny.ids(24), **options))
