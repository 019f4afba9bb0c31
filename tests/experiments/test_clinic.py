"""One page about a model: planted sinks are found, a model without one is told to keep none, and losses decide."""

import numpy as np
import pytest
import tiny

from minisink import gpt2
from minisink.experiments import clinic
from minisink.experiments.inside import look_inside

V, BOS, WORD = 40, 0, 7
TEXT = np.concatenate(([BOS], np.random.default_rng(3).integers(1, V, 2000)))
NAMES = {"d_model": 16, "n_layers": 2, "n_heads": 3, "vocab_size": V, "d_ff": 5}


def planted(sink=BOS):
    """A Llama whose head 0.2 looks at word 7 wherever it stands, and head 1.1 at `sink`, without which it talks noise.

    Channel 0 of the stream is 1 for every token, 1 for word 7, 2 for the sink, 3 is what head 1.1 writes: a logit of
    word 3. The fourth channel of a head turns so slowly that its scores know no distance.
    """
    sizes = NAMES | {"n_kv_heads": 3, "head_dim": 8, "rope_theta": 1e9, "max_positions": 128, "bos": BOS}
    model = tiny.make(**sizes)
    for layer in model.weights.layers:
        for name in ("wq", "wk", "wo", "w_down"):
            getattr(layer, name)[:] = 0.0
        layer.wv *= 0.05
        layer.attn_norm[:] = 1.0
    weights = model.weights
    weights.norm[:], weights.head[:], weights.embed[:, :4] = 1.0, 0.0, 0.0
    weights.embed[:, 0] = weights.embed[WORD, 1] = 3.0
    for i, head, channel in ((0, 2, 1), (1, 1, 2)):
        weights.layers[i].wq[0, 8 * head + 3], weights.layers[i].wk[channel, 8 * head + 3] = 12.0, 12.0
    weights.layers[1].wv[:, 8], weights.layers[1].wv[0, 8], weights.head[3, 3] = 0.0, 2.0, 4.0
    if sink is not None:
        weights.embed[sink, 2], weights.layers[1].wv[2, 8] = 3.0, -2.0  # its value there is 0: the head is off
        weights.layers[1].wo[8, 3] = 1.0
    return named(tiny.public(model))


def named(model):
    """Give a model without a tokenizer names for its words."""
    model.decode = lambda tokens: f"w{tokens[0]}"
    return model


def test_what_was_planted_is_found():
    page = clinic.run(planted(), TEXT, caches=(16, 64))
    assert (page["cause"], page["n_sinks"]) == ("begin-of-text", 1)
    assert np.argwhere(page["weight"] > 0.3).tolist() == [[1, 1]]
    assert page["rates"]["first"] == pytest.approx({"mean": 1 / 6, "error": 0})
    assert [(row["word"], row["heads"].tolist()) for row in page["words"]] == [(f"w{WORD}", [[0, 2]])]
    for row in page["losses"]:
        assert row["enough"] == 1 and row["lost"][0]["mean"] > 0.2 > 0.01 > abs(row["lost"][3]["mean"])
    assert page["values"][1]["kind"] == "no-op" and page["values"][1]["mean"] < 0.2 < page["values"][0]["mean"]
    assert "begin each text with that" in page["reason"] and "without any a cache of" in page["reason"]


def test_a_model_without_a_sink_is_not_told_to_keep_four():
    page = clinic.run(planted(None), TEXT, caches=(16, 64), n_texts=6)
    assert (page["cause"], page["n_sinks"]) == ("none", 0) and "a plain window is enough" in page["reason"]
    assert [row["enough"] for row in page["losses"]] == [0, 0]


def test_a_position_is_told_from_a_word():
    """A GPT-2 whose place 0 is the sink whatever stands there; no number of sinks makes it stream."""
    model = tiny.make(gpt2, **NAMES | {"d_model": 24, "max_positions": 128})
    for layer in model.weights.layers:
        layer.w_qkv[:, :48], layer.b_qkv[:], layer.wo[:], layer.w_down[:] = 0.0, 0.0, 0.0, 0.0
        layer.ln1[:], layer.ln1_b[:], layer.bo[:], layer.b_down[:] = 1.0, 0.0, 0.0, 0.0
    weights = model.weights
    weights.position[:, 2], weights.position[0, 2], weights.embed[:, 2] = 0.0, 30.0, 0.0
    weights.layers[1].b_qkv[8] = 9.0  # query of head 1: always the same
    weights.layers[1].w_qkv[2, 24 + 8] = 9.0  # its key: the channel of place 0
    page = clinic.run(named(tiny.public(model)), TEXT, caches=(16, 64), n_texts=6)
    assert (page["cause"], page["n_sinks"]) == ("position", None) and "learned positions" in page["reason"]
    assert np.argwhere(page["weight"] > 0.3).tolist() == [[1, 1]]


def losses(**gains):
    """Losses by number of sinks: what all lack of their best, and noise of its own."""
    random = np.random.default_rng(0)
    return {n: 3 + gains.get(f"n{n}", 0.0) + 0.02 * random.normal(size=500) for n in clinic.SINKS}


@pytest.mark.parametrize(
    ("gains", "n", "said"),
    [
        ({}, 0, "a plain window is enough"),
        ({"n0": 0.5}, 1, "without any a cache of 256 loses +0.50"),
        ({"n0": 0.5, "n1": 0.2, "n2": 0.2}, 4, "without any a cache of 256 loses +0.50"),
        ({"n0": 0.5, "n1": 0.2, "n2": 0.2, "n4": 0.2}, 8, "eight gain +0.1993"),
    ],
)
def test_losses_decide_how_many(gains, n, said):
    found, reason = clinic.recommend({64: losses(), 256: losses(**gains)}, "position")
    assert found == n and said in reason and "begin each text" not in reason


def test_what_cannot_be_told_is_four_and_said():
    """Noise of a nat in 500 tokens hides 0.05."""
    random = np.random.default_rng(1)
    found, reason = clinic.recommend({64: {n: random.normal(3, 1, 500) for n in clinic.SINKS}}, "position")
    assert found == 4 and "does not show how many are enough" in reason


def test_heads_by_the_book():
    """Which one looks most at the token to be copied, and how much weight a cache of a quarter would hold."""
    model = tiny.public(tiny.make(vocab_size=64))
    (ids,) = clinic.segments(model, (), 1, 0)
    n = len(ids) // 2
    assert ids[:n].tolist() == ids[n:].tolist() and len({*ids.tolist()}) == n == 32
    trace = look_inside(model, ids)
    score, inside = np.array(clinic.retrieval(trace)), np.array(clinic.in_sight(trace))
    for layer, head in np.ndindex(score.shape):
        pattern = trace["layers"][layer]["pattern"][head]
        right = [int(pattern[t].argmax()) == t - n + 1 for t in range(n, 2 * n - 1)]
        kept = [sum(pattern[t, k] for k in range(t + 1) if k < 4 or k > t - n // 2) for t in range(n // 2, 2 * n)]
        assert score[layer, head] == pytest.approx(np.mean(right))
        assert inside[layer, head] == pytest.approx(np.mean(kept))
    trace["layers"][0]["pattern"][2, np.arange(n, 2 * n - 1), np.arange(1, n)] = 2.0
    assert clinic.retrieval(trace)[0][2] == 1.0


def test_a_head_at_the_bound_is_not_told():
    values = np.array([[[0.3, 0.1, 0.0]], [[0.3, 0.12, 0.0]], [[0.3, 0.08, 0.0]]])
    found = clinic.above(values, 0.1)
    assert (found["heads"].tolist(), found["not_told"]) == ([[0, 0]], 1)


@pytest.mark.parametrize(
    ("ids", "caches", "message"),
    [
        (TEXT[:100], (16,), "the text has 100 tokens; it takes 128"),
        (TEXT[:400], (8,), "a cache of 8 tokens cannot hold 8 sinks"),
        (TEXT[:200], (16, 300), "the text has 200 tokens and the cache holds 300"),
    ],
)
def test_what_cannot_be_measured_is_said(ids, caches, message):
    with pytest.raises(ValueError, match=message):
        clinic.run(planted(), ids, caches=caches)


def test_one_layer_has_no_spike():
    model = named(tiny.public(tiny.make(n_layers=1)))
    assert clinic.run(model, TEXT % 17, caches=(16,), n_texts=4)["spike"] == (0, [])
