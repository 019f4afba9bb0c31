"""Why the window breaks: what is printed is what the caches hold, and what the README says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny

import minisink
from minisink.commands.parser import main
from minisink.experiments.why import run

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_it_is_read_off_the_two_caches():
    """The last token's weight, value and mixed norm, layer by layer, from a stream of its own."""
    tiny_model = tiny.make()
    model, ids = minisink.Model(tiny_model.config, tiny_model.weights, name="tiny"), tiny.ids(11)
    found = run(model, ids, cache=5)
    for name, options in (("streaming", {"n_sinks": 1, "window": 4}), ("window", {"method": "window", "window": 5})):
        cache, trace = minisink.new_cache(model, **options), {}
        model.forward(ids[:-1], cache=cache)
        model.forward(ids[-1:], cache=cache, trace=trace)
        assert {rows.shape for rows in found[name].values()} == {(6, 3)}
        for i, (inside, layer) in enumerate(zip(trace["layers"], cache.layers, strict=True)):
            size = np.sqrt((layer.values**2).sum(axis=-1))  # (S, K)
            want = {
                "weight": inside["pattern"][:, 0, 0].mean(),
                "value": np.mean([size[0, k] / np.median(size[1:, k]) for k in range(2)]),
                "mixed": np.sqrt((inside["mixed"] ** 2).sum()),
            }
            assert {key: rows[-1, i] for key, rows in found[name].items()} == pytest.approx(want)


def test_the_readme_says_what_is_measured(capsys):
    """The command it names, and the four numbers before it."""
    numbers = r"goes from (\S+) to (\S+), and the norm .*? from (\S+) to (\S+)\s+\(`minisink (reproduce why [^`]*)`\)"
    *said, command = re.search(numbers, README, re.DOTALL).groups()
    assert main([*command.split(), "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    measured = [seen[name][key][0] for key in ("weight", "mixed") for name in ("streaming", "window")]
    assert [float(x) for x in said] == pytest.approx(measured, abs=0.006)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cache", "1"], "cannot hold a sink and a window"),
        (["--tokens", "60"], "nothing is evicted"),
        (["--token", "63"], "--token is 63"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(options, message, capsys):
    assert main(["reproduce", "why", *options]) == 2
    assert message in capsys.readouterr().err
