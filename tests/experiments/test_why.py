"""Why the window breaks: what is printed is what the caches hold, and what docs/why.md says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from profiles import examples
from tiny import public

import minisink
from minisink import Streaming, Window, gpt2
from minisink.commands.parser import main
from minisink.experiments import why

PAGE = (Path(__file__).parents[2] / "docs" / "why.md").read_text(encoding="utf-8")


CACHES = {"sink": Streaming(1, 4), "window": Window(5)}


@pytest.mark.parametrize("model", [public(tiny.make()), public(tiny.make(gpt2))])
def test_it_is_read_off_the_two_caches(model):
    """The last token, layer by layer, from a stream of its own."""
    ids = tiny.ids(11)
    rows = list(why.run(model, ids, cache=5, token=10))
    assert [(row["layer"], row["oldest"]) for row in rows] == [(i, name) for i in range(3) for name in CACHES]
    for name, method in CACHES.items():
        cache, trace = minisink.new_cache(model, method), {}
        model.forward(ids[:-1], cache=cache)
        model.forward(ids[-1:], cache=cache, trace=trace)
        own = [row for row in rows if row["oldest"] == name]
        for row, inside, layer in zip(own, trace["layers"], cache.layers, strict=True):
            size, exps = np.sqrt((layer.values**2).sum(axis=-1)), np.exp(inside["scores"][:, 0])  # (S, K), (H, S)
            want = {
                "weight": np.mean([head[0] / head.sum() for head in exps]),
                "next": np.mean([max(head[1:]) / head.sum() for head in exps]),
                "value": np.mean([size[0, k] / np.median(size[1:, k]) for k in range(size.shape[1])]),
                "mixed": np.sqrt((inside["mixed"] ** 2).sum()),
                "all": np.mean([np.log(head.sum()) for head in exps]),
                "rest": np.mean([np.log(head[1:].sum()) for head in exps]),
            }
            assert {key: row[key] for key in want} == pytest.approx(want)
            np.testing.assert_allclose(row["slots"], [np.mean(inside["pattern"][:, 0, s]) for s in range(5)])
            np.testing.assert_allclose(row["by_token"][:, 0], list(want.values()))


def test_all_tokens_are_the_mean_of_each():
    """Without --token: ``ids[cache:]``, each as it is by itself."""
    model, ids = public(tiny.make()), tiny.ids(9)
    one_by_one = [list(why.run(model, ids, cache=5, token=t)) for t in range(5, 9)]
    for i, row in enumerate(why.run(model, ids, cache=5)):
        for key in why.MEASURES:
            assert row[key] == pytest.approx(np.mean([rows[i][key] for rows in one_by_one]))


@given(tiny.texts(8, 14), tiny.seeds)
@examples(10)
def test_the_weight_is_what_the_denominator_loses(ids, seed):
    """Of one head: ``rest - all = log(1 - weight)``; no weight is more than one."""
    model = public(tiny.make(seed=seed, n_heads=1, n_kv_heads=1))
    for row in why.run(model, np.array(ids), cache=6, token=6):
        assert np.exp(row["rest"] - row["all"]) == pytest.approx(1 - row["weight"])
        assert row["slots"].sum() == pytest.approx(1) and row["next"] <= 1


def test_the_effects_are_means_over_the_layers():
    rows = list(why.run(public(tiny.make()), tiny.ids(9), cache=5))
    keys = [(name, key) for name in CACHES for key in why.MEASURES]
    mean = {(name, key): np.mean([row[key] for row in rows if row["oldest"] == name]) for name, key in keys}
    largest, value, weight, lost, home = (effect.size for effect in why.effects(rows))
    assert largest == pytest.approx(mean["sink", "weight"] - mean["sink", "next"])
    assert value == pytest.approx(mean["sink", "value"])
    assert weight == pytest.approx(mean["window", "weight"] - mean["sink", "weight"])
    assert lost == pytest.approx(mean["window", "all"] - mean["sink", "all"])
    mixed = (np.mean([row["by_token"][3] for row in rows if row["oldest"] == name], axis=0) for name in CACHES)
    assert home == pytest.approx(np.mean([b / a for a, b in zip(*mixed, strict=True)]))


def test_the_page_says_what_is_measured(capsys):
    """The command it names, and the four numbers before it."""
    numbers = r"from (\S+) to (\S+), and\s+the\s+norm .*? from (\S+) to (\S+)\s+\(`minisink (reproduce why [^`]*)`\)"
    *said, command = re.search(numbers, PAGE, re.DOTALL).groups()
    assert main([*command.split(), "--json"]) == 0
    first = {row["oldest"]: row for row in json.loads(capsys.readouterr().out)["rows"] if row["layer"] == 0}
    measured = [first[name][key] for key in ("weight", "mixed") for name in ("sink", "window")]
    assert [float(x) for x in said] == pytest.approx(measured, abs=0.006)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cache", "1"], "cache is 1"),
        (["--tokens", "60"], "nothing is evicted"),
        (["--token", "63"], "token is 63"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(options, message, capsys):
    assert main(["reproduce", "why", *options]) == 2
    assert message in capsys.readouterr().err
