"""Which tokens the weight goes to."""

import re

import numpy as np
import pytest
import tiny

import minisink
from minisink.commands.parser import main
from minisink.experiments import sink_tokens
from minisink.experiments.inside import look_inside, pieces
from minisink.hf.shipped import shipped, shipped_names

READMES = {name: (shipped(name) / "README.md").read_text(encoding="utf-8") for name in shipped_names()}


def received(model, ids):
    """What tokens receive that come twice in pieces of eight."""
    return sink_tokens.received(((piece, look_inside(model, piece)) for piece in pieces(model, ids, 8, 100)), 2)


@pytest.mark.parametrize("bos", [None, 0])
def test_weights_and_values_by_the_book(bos):
    """A token's weight and values are means over where it stands, in the first half of a piece; the first is apart."""
    model = minisink.Model(tiny.make(bos=bos).config, tiny.make(bos=bos).weights)
    ids = np.random.default_rng(1).integers(1, 5, size=31)
    lead = [] if bos is None else [bos]
    found = received(model, [*lead, *ids])
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


@pytest.mark.sampled
@pytest.mark.parametrize("name", [name for name, readme in READMES.items() if "\ntokens that" in readme])
def test_the_readme_says_what_is_printed(name, capsys):
    """Every row that a README states."""
    assert main(["reproduce", "sink-tokens", "--model", name]) == 0
    printed, readme = capsys.readouterr().out, READMES[name]
    where = readme.index("\ntokens that")
    stated, found = (
        [re.split(r"\s{2,}", row.strip()) for row in text.splitlines()[3:]]
        for text in (
            readme[where : readme.index("```", where)].strip(),
            printed[printed.index("\ntokens") :].split("\n\n")[0].strip(),
        )
    )
    assert len(stated) == len(found) == 12
    for ours, theirs in zip(found, stated, strict=True):
        assert ours[:4] == theirs[:4]
        assert [float(x) for x in ours[4:]] == pytest.approx([float(x) for x in theirs[4:]], abs=0.011)


def test_a_row_is_a_token_in_its_head():
    """Grouped heads share their values; of a piece of one token nothing can be said."""
    tiny_model = tiny.make(bos=0)
    model = minisink.Model(tiny_model.config, tiny_model.weights)
    model.decode = lambda tokens: f"<{tokens[0]}>"
    ids = np.concatenate(([0], np.random.default_rng(1).integers(1, 5, size=31)))
    found = received(model, ids)
    words = {repr(f"<{token}>") if token >= 0 else "the first": about for token, about in found.items()}
    rows = list(sink_tokens.run(model, ids, length=8, at_least=2))
    assert [row["layer"] for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for row in rows:
        about = words[row["token"]]
        assert row["times"] == about["times"]
        assert row["weight"] == about["weight"][row["layer"]].max() == about["weight"][row["layer"], row["head"]]
        assert row["value"] == about["value"][row["layer"], row["head"] // 2]
    with pytest.raises(ValueError, match="length is 1"):
        list(sink_tokens.run(model, ids, length=1))
    with pytest.raises(ValueError, match="no token occurs 99 times"):
        list(sink_tokens.run(model, ids, length=8, at_least=99))


def test_what_is_claimed_is_judged_by_the_strongest_of_each_layer():
    rows = [{"layer": i, "token": "the first" if i else "'a'", "value": 0.1 + 0.01 * i} for i in range(5)]
    rows += [{"layer": i, "token": "'b'", "value": 2.0} for i in range(5)]
    share, value = sink_tokens.effects(sorted(rows, key=lambda row: row["layer"]))
    assert (share.size, value.size) == (0.8, pytest.approx(0.12))
    assert value.shown
