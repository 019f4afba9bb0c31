"""Which tokens the weight goes to."""

import re

import numpy as np
import pytest
import tiny

import minisink
from minisink.commands.parser import main
from minisink.experiments import sink_tokens
from minisink.sinks import look_inside
from minisink.system.resources import sample_text, shipped, shipped_names

READMES = {name: (shipped(name) / "README.md").read_text(encoding="utf-8") for name in shipped_names()}


@pytest.mark.parametrize("bos", [None, 0])
def test_weights_and_values_by_the_book(bos):
    """A token's weight and values are means over where it stands, in the first half of a piece; the first is apart."""
    model = minisink.Model(tiny.make(bos=bos).config, tiny.make(bos=bos).weights)
    ids = np.random.default_rng(1).integers(1, 5, size=31)
    found = sink_tokens.run(model, ids, length=8, at_least=2)
    lead = [] if bos is None else [bos]
    step = 8 - len(lead)
    weights, values = {}, {}
    for start in range(0, len(ids) - step + 1, step):
        piece = [*lead, *ids[start : start + step].tolist()]
        layers = look_inside(model, piece)["layers"]
        for k in range(4):
            weight = [[np.mean([pattern[i, k] for i in range(k + 1, 8)]) for pattern in x["pattern"]] for x in layers]
            norm = [np.sqrt((x["v"].astype(float) ** 2).sum(axis=-1)) for x in layers]  # L of (T, K)
            token = piece[k] if k else -1
            weights.setdefault(token, []).append(weight)
            values.setdefault(token, []).append([x[k] / np.median(x, axis=0) for x in norm])
    assert found.keys() == {token for token, seen in weights.items() if len(seen) >= 2}
    for token, about in found.items():
        assert about["times"] == len(weights[token])
        np.testing.assert_allclose(about["weight"], np.mean(weights[token], axis=0), rtol=1e-5)
        np.testing.assert_allclose(about["value"], np.mean(values[token], axis=0), rtol=1e-5)


def test_the_strongest_come_first():
    weight = {3: [[0.1, 0.2], [0.5, 0.1]], 7: [[0.3, 0.0], [0.0, 0.2]], -1: [[0.25, 0.1], [0.3, 0.4]]}
    found = {token: {"weight": np.array(x)} for token, x in weight.items()}
    assert sink_tokens.strongest(found, 0) == [(7, 0), (-1, 0), (3, 1)]
    assert sink_tokens.strongest(found, 1, n=2) == [(3, 0), (-1, 1)]


@pytest.mark.parametrize("name", [name for name, readme in READMES.items() if f"{name}: tokens that" in readme])
def test_the_readme_says_what_is_measured(name):
    """Every row that a README states."""
    model = minisink.load(name)
    found = sink_tokens.run(model, model.encode(sample_text().read_text(encoding="utf-8"), bos=False))
    readme = READMES[name]
    where = readme.index(f"{name}: tokens that")
    rows = [re.split(r"\s{2,}", row.strip()) for row in readme[where : readme.index("```", where)].splitlines()[3:]]
    assert [int(row[0]) for row in rows] == [layer for layer in range(model.config.n_layers) for _ in range(3)]
    words = {repr(model.decode([token])) if token >= 0 else "the first": token for token in found}
    for layer, head, word, times, weight, value in rows:
        about = found[words[word]]
        assert about["times"] == int(times)
        assert about["weight"][int(layer), int(head)] == pytest.approx(float(weight), abs=0.0051)
        assert about["value"][int(layer), int(head)] == pytest.approx(float(value), abs=0.0051)


def test_a_table_a_model(capsys):
    assert main(["reproduce", "sink-tokens", "--model", "novels", "novels-vanilla"]) == 0
    printed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in printed.splitlines() if ": tokens" in line] == [
        "novels",
        "novels-vanilla",
    ]
    assert printed.count("the first") >= 4
