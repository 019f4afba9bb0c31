"""Mean maps: each number as a plain mean over pieces, and an effect that follows the heads."""

import numpy as np
import pytest
import tiny
from tiny import public

from minisink import gpt2, llama
from minisink.experiments import maps
from minisink.experiments.inside import look_inside
from minisink.families import gpt_neox, mpt


@pytest.mark.parametrize(("arch", "bos"), [(llama, 0), (llama, None), (gpt2, None), (gpt_neox, 0), (mpt, None)])
def test_rows_by_the_book(arch, bos):
    """Two pieces of 13 tokens: the last one's weights and scores, and the first 9 queries, head by head."""
    model = public(tiny.make(arch, bos=bos))
    lead = [] if bos is None else [bos]
    text = tiny.ids(2 * (13 - len(lead)) + 3).tolist()
    rows = list(maps.run(model, [*lead, *text], length=13, side=9))
    assert [row["layer"] for row in rows] == [0, 1, 2]
    half = 13 - len(lead)
    traces = [look_inside(model, [*lead, *text[i : i + half]])["layers"] for i in (0, half)]
    for i, row in enumerate(rows):
        heads, near, logits = [], [], []
        for h in range(4):
            heads.append(sum(trace[i]["pattern"][h, 12, 0] for trace in traces) / 2)
            near.append(sum(trace[i]["pattern"][h, 12, k] for trace in traces for k in (9, 10, 11, 12)) / 2)
            logits += [t[i]["scores"][h, 12, 0] - np.mean(t[i]["scores"][h, 12, 1:]) for t in traces]
        np.testing.assert_allclose(row["heads"], heads)
        np.testing.assert_allclose(row["near_heads"], near)
        assert row["first"] == pytest.approx(np.mean(heads))
        assert (row["least"], row["most"]) == (pytest.approx(min(heads)), pytest.approx(max(heads)))
        assert row["spread"] == pytest.approx(np.std(heads))
        assert (row["near"], row["logit"]) == (pytest.approx(np.mean(near)), pytest.approx(np.mean(logits)))
        assert row["pattern"].shape == (9, 9) and row["tokens"] == 13
        drawn = [np.mean([t[i]["pattern"][:, q, k] for t in traces]) for q in range(9) for k in range(9)]
        np.testing.assert_allclose(row["pattern"].ravel(), drawn)


def made(firsts, nears, tokens=64):
    """Rows with these weights, eight heads a layer that differ a little."""
    little = np.linspace(-0.001, 0.001, 8)
    return [
        {"heads": a + little, "near_heads": b + little, "tokens": tokens} for a, b in zip(firsts, nears, strict=True)
    ]


def test_the_claim_is_that_of_the_paper():
    """Two near layers below, all later ones at the first token; each part can fail by itself."""
    shown = [effect.shown for effect in maps.effects(made([0.01, 0.02, 0.5, 0.6], [0.5, 0.6, 0.2, 0.2]))]
    assert shown == [True, True, True]
    shown = [effect.shown for effect in maps.effects(made([0.6, 0.5, 0.2, 0.1], [0.1, 0.1, 0.2, 0.2]))]
    assert shown == [False, True, False]
    equal = list(maps.effects(made([1 / 64] * 4, [4 / 64] * 4)))
    assert [effect.shown for effect in equal] == [True, False, False]
    assert equal[2].size == pytest.approx(0, abs=1e-12)


def test_later_more_is_a_difference_of_means():
    values = np.array([[0.1, 0], [0.3, 0], [0.9, 1], [0.5, 1], [0.4, 1]])
    assert maps.later_more(values) == pytest.approx(0.6 - 0.2)
    assert np.isnan(maps.later_more(values[:2])) and np.isnan(maps.later_more(values[2:]))


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (2, {}, "tiny has 2 layers"),
        (3, {"length": 12, "side": 13}, "length is 12; it must be a whole number of 13 or more"),
        (3, {"length": 12, "side": 8}, "side is 8; it must be a whole number of 9 or more"),
        (3, {"length": 41, "side": 16}, "the text has 40 tokens; a piece takes 41"),
    ],
)
def test_what_cannot_be_is_refused(layers, options, message):
    with pytest.raises(ValueError, match=message):
        list(maps.run(public(tiny.make(n_layers=layers)), tiny.ids(40), **options))
