"""The sink rate of Gu et al.: each number by the book, and what the READMEs of the models that ship say of it."""

import re

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import gpt2, llama
from minisink.commands.parser import main
from minisink.experiments import metric
from minisink.experiments.inside import look_inside
from minisink.families import mpt
from minisink.hf.shipped import sample_text, shipped, shipped_names


def row(rows, **wanted):
    """The one row with these numbers."""
    (found,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return found


@pytest.mark.sampled
@pytest.mark.parametrize("name", shipped_names())
def test_the_readme_says_what_is_printed(name, monkeypatch):
    """Of natural text; the others take as long and are not stated."""
    monkeypatch.setattr(metric, "TEXTS", ("natural",))
    model = minisink.load(name)
    ids = model.encode(sample_text().read_text(encoding="utf-8"))[: metric.TOKENS]
    printed = "\n" + metric.show(list(metric.run(model, ids, lengths=(64,))))
    stated = (shipped(name) / "README.md").read_text(encoding="utf-8")
    numbers = re.compile(r"\d+(?:\.\d+)?")
    stated = stated[stated.index("\nsink rate") :].split("\n```")[0]
    printed = printed[printed.index("\nsink rate") :].split("\n\n")[0]
    wanted = [float(x) for x in numbers.findall(stated)]
    assert [float(x) for x in numbers.findall(printed)] == pytest.approx(wanted, rel=0.01, abs=0.051)
    assert re.findall("[a-z]+", printed) == re.findall("[a-z]+", stated)  # kinds of sinks too


def test_rows_by_the_book():
    """Of two pieces of 9 tokens, the begin-of-text token first in each: every number as a plain mean."""
    model = public(tiny.make(bos=0))
    ids = [0, *(np.arange(16) % 13 + 1)]
    rows = list(metric.run(model, ids, lengths=(9,)))
    assert len(rows) == 3 * 5 * model.config.n_layers
    pieces = [[0, *ids[1:9]], [0, *ids[9:17]]]
    traces = [look_inside(model, piece)["layers"] for piece in pieces]
    for key in (0, 1, 2, 3, 4):
        for layer in range(model.config.n_layers):
            found = row(rows, text="natural", length=9, key=key, layer=layer)
            patterns = [trace[layer]["pattern"] for trace in traces]
            weights = [p[h, i, key] for p in patterns for h in range(4) for i in range(key + 1, 9)]
            alphas = [sum(p[h, i, key] for i in range(key, 9)) / (9 - key) for p in patterns for h in range(4)]
            values = []
            for trace in traces:
                norm = np.sqrt((trace[layer]["v"] ** 2).sum(axis=-1)).mean(axis=-1)  # (T, K, D) -> (T,)
                values.append(norm[key] / np.median([norm[i] for i in range(9) if i != key]))
            assert found["n_texts"] == 2
            assert found["weight"] == pytest.approx(np.mean(weights))
            assert found["value"] == pytest.approx(np.mean(values))
            for eps in metric.EPS:
                assert found[f"sink_{eps}"] == np.mean(np.array(alphas) > eps)
            assert metric.rates(rows, "natural", 9, key).shape == (2,)
    every = [row(rows, text="natural", key=2, layer=layer)["sink_0.2"] for layer in range(3)]
    assert metric.rates(rows, "natural", 9, 2, eps=0.2).mean() == pytest.approx(np.mean(every))


@examples(15)
@given(tiny.seeds, st.sampled_from([1, 2, 4]), st.integers(8, 13))
def test_by_distances_no_copy_of_a_repeated_token_is_special(seed, n_kv_heads, length):
    """All have one residual stream and one value, so no ratio but 1; every head brings the same home to all of them."""
    made = (tiny.make(llama, seed, n_kv_heads=n_kv_heads), "rotary"), (tiny.make(mpt, seed), "ALiBi")
    rows = {kind: metric.run(public(one), tiny.ids(60), lengths=(length,), n_texts=2, seed=seed) for one, kind in made}
    for kind, found in ((kind, row) for kind, own in rows.items() for row in own):
        assert found["positions"] == kind
        if found["text"] == "repeated":
            for ratio in ("residual", "value", "stable_rank"):
                assert found[ratio] == pytest.approx(1.0)


def test_in_gpt2_copies_are_told_apart():
    rows = metric.run(public(tiny.make(gpt2)), tiny.ids(40), lengths=(9,), n_texts=2)
    assert all(abs(row["value"] - 1) > 1e-3 for row in rows if row["text"] == "repeated")


@pytest.mark.parametrize("bos", [None, 0])
def test_what_the_texts_are_made_of(bos):
    """Random tokens behind the begin-of-text token; a single one repeated, and nothing in front of it."""
    model = public(tiny.make(bos=bos))
    natural = [[0, 3, 5, 7, 2, 1, 4, 8], [0, 9, 9, 1, 2, 2, 6, 8]]
    assert list(metric.made(model, natural, "natural", 0)) == natural
    drawn = np.array(list(metric.made(model, natural, "random", 3)))
    assert drawn.shape == (2, 8) and (drawn != natural).any()
    assert (drawn[:, 0] == 0).all() == (bos == 0)
    for piece in metric.made(model, natural, "repeated", 3):
        assert len(piece) == 8 and len(set(piece)) == 1


def test_what_is_too_short_is_refused(capsys):
    model = public(tiny.make(bos=0))
    with pytest.raises(ValueError, match="length is 7; it must be .* 8 or more, so that a piece has a middle"):
        list(metric.run(model, tiny.ids(40), lengths=(7, 9)))
    with pytest.raises(ValueError, match="the text has 6 tokens; a piece takes 9"):
        list(metric.run(model, [0, *tiny.ids(6)], lengths=(10,)))
    assert main(["reproduce", "metric", "--tokens", "30"]) == 2
    assert "a piece takes 63" in capsys.readouterr().err
