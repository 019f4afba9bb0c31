"""The atlas of position rules: each row against the loss it stands for, and what a GPT-2 has no vector for."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiny import public

import minisink
from minisink import gpt2
from minisink.evaluation.difference import paired
from minisink.experiments import rules as experiment
from minisink.experiments.position_rules import prove, rules
from minisink.hf.shipped import sample_text

TRAINED, T = 13, 29


@pytest.fixture(scope="module", autouse=True)
def few_sizes():
    """The proof is tested by itself; here it tries few caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "prove", partial(prove, most_sinks=1, widest=2))
        yield


@pytest.fixture(scope="module")
def rows():
    """The rows of a tiny Llama, two windows."""
    return list(experiment.run(public(tiny.make(max_positions=TRAINED)), tiny.ids(T), n_sinks=2, windows=(3, 5)))


def wrong(name, n_sinks, window, t):
    """Whether token t finds a key of its window elsewhere than in the text, said for each rule by itself."""
    if name == "one place":
        return window > 1 and t >= n_sinks + window
    ring, start = {"modulo 2W": (2 * window, n_sinks), "modulo trained": (TRAINED, 0)}.get(name, (T, 0))
    return t - start >= ring and (t - start) % ring < window - 1


def test_each_row_is_a_loss_on_its_tokens(rows):
    """After the first eviction: all, within the trained length, beyond it, and by whether the window is wrong."""
    model, ids = public(tiny.make(max_positions=TRAINED)), tiny.ids(T)
    names = list(rules())
    assert [(row["window"], row["rule"]) for row in rows] == [(window, name) for window in (3, 5) for name in names]
    for row in rows:
        n_sinks, window = row["n_sinks"], row["window"]
        policy = rules(TRAINED)[row["rule"]](n_sinks, window)
        nll, slots = (minisink.token_nll(model, ids, each) for each in (policy, minisink.Streaming(2, window)))
        late = [t for t in range(T - 1) if t >= n_sinks + window]
        tokens = {"all": late, "within": [t for t in late if t < TRAINED], "beyond": [t for t in late if t >= TRAINED]}
        tokens["wrong"] = [t for t in late if wrong(row["rule"], n_sinks, window, t)]
        tokens["right"] = [t for t in late if t not in tokens["wrong"]]
        for key, where in tokens.items():
            assert np.flatnonzero(row["where"][key]).tolist() == where
            assert row[f"{key} share"] == pytest.approx(len(where) / len(late))
            for name, losses in ((key, nll), (f"{key} slots", slots)):
                np.testing.assert_allclose(row[name], np.exp(np.mean(losses[where])) if where else np.nan)
            if len(where) > 1:
                above = paired(nll[where], slots[where])
                np.testing.assert_allclose(
                    (row[f"{key} above"], row[f"{key} error"]), (above.mean, above.error), atol=1e-9
                )
        np.testing.assert_allclose(row["above"], nll - slots, atol=1e-9)
        assert row["refused"] == "" and row["chunks kept"] == "yes"


def test_the_same_distances_cost_nothing_and_others_are_named(rows):
    found = list(experiment.effects(rows))
    assert [effect.size for effect in found if "ring - slots" in effect.what] == [pytest.approx(0, abs=1e-9)] * 2
    assert [effect.shown for effect in found if re.search("(ring|shift) - ", effect.what)] == [True] * 4
    assert found[-1].shown and found[-1].size == 0
    assert {row["rule"]: row["counterexample"] for row in rows}["original"] == "(1, 1, 2, 0): 2, not 1"


def test_a_distance_of_the_ring_that_is_wrong_is_no_proof(rows):
    """One row with a counterexample, and the verdict on all three falls."""
    changed = [row | {"counterexample": "(0, 1, 1, 0): 2, not 1"} if row["rule"] == "ring" else row for row in rows]
    assert not list(experiment.effects(changed))[-1].shown


def test_the_distances_drawn_are_those_of_the_first_token_and_the_oldest(rows):
    """By hand for slots with 2 + 3: token 7 sees 0, 1, 5, 6, 7 at 0 to 4; under modulo 2W it stands at 2 + 5."""
    far = {row["rule"]: row["far"].tolist() for row in rows if row["window"] == 3}
    assert far["slots"][7] == [4, 2] and far["original"][7] == [7, 2] and far["slots"][1] == [1, 0]
    assert far["modulo 2W"][7] == [7, 2] and far["modulo 2W"][8] == [2, -4] and far["one place"][8] == [4, 0]
    assert far["half at once"][5] == [4, 2] and far["modulo trained"][13] == [0, -11]


@pytest.mark.parametrize("window", [3, 9])
def test_a_gpt2_is_measured_as_far_as_it_has_vectors(window):
    """Each token is embedded at the position of its own; what was learned ends, and the rest is refused by name."""
    model, ids = public(tiny.make(gpt2, max_positions=TRAINED)), tiny.ids(T)
    rows = {row["rule"]: row for row in experiment.run(model, ids, n_sinks=1, windows=(window,))}
    embedded = {"original": range(T), "modulo 2W": [0, *(1 + t % (2 * window) for t in range(T))]}
    for name, row in rows.items():
        end = next((t for t, place in enumerate(embedded.get(name, ())) if place >= TRAINED), None)
        assert row["refused"] == (f"from token {end} on: tiny has learned {TRAINED} positions" if end else "")
        assert np.isfinite(row["above"]).tolist() == [end is None or t < end for t in range(T - 1)]
    np.testing.assert_allclose(rows["one place"]["above"], 0, atol=1e-9)  # nothing else reaches an embedding
    assert np.allclose(rows["half at once"]["above"], 0) == (window == 3)  # where half of it is one token
    assert "original is refused from token 13 on" in experiment.show(list(rows.values()))
    assert "nan" not in experiment.finding(list(rows.values()))
    assert not [found.what for found in experiment.effects(list(rows.values())) if "original" in found.what]


def test_what_cannot_be_shown_is_refused():
    model = public(tiny.make())
    with pytest.raises(ValueError, match="nothing is evicted"):
        next(experiment.run(model, tiny.ids(7), windows=(3, 6)))
    with pytest.raises(ValueError, match="cannot hold 1 sink"):
        next(experiment.run(model, tiny.ids(9), windows=(0, 3)))
    with pytest.raises(ValueError, match="tiny has learned 13 positions, and a cache of 14 needs more"):
        next(experiment.run(public(tiny.make(gpt2, max_positions=13)), tiny.ids(19), windows=(3, 13)))


@pytest.mark.slow
def test_the_page_shows_what_is_measured():
    """The tables of `novels`; its perplexities are those that a script of thirty lines had found before."""
    model = minisink.load("novels")
    rows = list(experiment.run(model, model.encode(sample_text().read_text("utf-8"))[:1200]))
    page, number = (Path(__file__).parents[2] / "docs" / "position-rules.md").read_text("utf-8"), r"\d+\.\d+"
    shown = re.search(r"`minisink reproduce rules`:\n```\n(.*?)\n```", page, re.DOTALL)[1]
    now = experiment.show(rows).partition("\n\ndistances kept")[0]
    assert re.sub(number, "#", now) == re.sub(number, "#", shown)
    wanted = [float(x) for x in re.findall(number, shown)]
    assert [float(x) for x in re.findall(number, now)] == pytest.approx(wanted, rel=1e-3, abs=2e-4)
    found = {(row["window"], row["rule"]): round(row["all"], 2) for row in rows}
    first = {(15, "slots"): 19.68, (15, "original"): 24.16, (15, "modulo 2W"): 22.28}
    assert found | first | {(63, "slots"): 18.11, (63, "original"): 19.08, (63, "modulo 2W"): 40.00} == found
