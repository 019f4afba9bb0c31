"""What of the sink is needed: each slot by the book, and the losses by the readable cache."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from hypothesis import given
from profiles import examples

import minisink
from minisink import Streaming, Window, gpt2, llama
from minisink.experiments import sink_parts
from minisink.experiments.inside import look_inside
from minisink.families import gpt_neox, mpt

NEWLINE, IDS = 3, tiny.ids(23)


def public(tiny_model, newline=(NEWLINE,)):
    """A `minisink.Model` of a tiny one, whose tokenizer knows line breaks."""
    tokenizer = SimpleNamespace(encode=lambda text, **_: SimpleNamespace(ids=list(newline)))
    return minisink.Model(tiny_model.config, tiny_model.weights, tokenizer, name="tiny")


MODELS = [public(tiny.make(arch)) for arch in (llama, gpt2, gpt_neox, mpt)]


@pytest.mark.parametrize("model", MODELS)
def test_the_losses_are_those_of_a_cache_whose_slot_0_was_written(model):
    """Token by token through `KVCache`, its slot 0 overwritten when it is full."""
    cache = 6
    found = sink_parts.slots(model, IDS, cache, 4, 0)
    rows = list(sink_parts.run(model, IDS, cache=cache, others=4))
    assert [row["sink"] for row in rows] == list(found)
    for row, slot in zip(rows, found.values(), strict=True):
        policy = Streaming(1, cache - 1) if slot else Window(cache)
        kept = minisink.KVCache(3, model.config.n_kv_heads, model.config.head_dim, policy, like=model.weights.embed)
        model.forward(IDS[:cache], cache=kept)
        for (key, value), layer in zip(slot or (), kept.layers, strict=bool(slot)):
            layer.keys[0], layer.values[0] = key[0], value[0]
        nll = []
        for t in range(cache, len(IDS) - 1):
            logits = model.forward(IDS[t : t + 1], cache=kept)[0]
            nll.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[IDS[t + 1]])
        np.testing.assert_allclose(row["nll"], nll)
        assert row["perplexity"] == pytest.approx(np.exp(np.mean(nll)))
        assert row["added"] == pytest.approx(np.mean(nll - rows[0]["nll"]))


@pytest.mark.parametrize("model", MODELS)
def test_a_slot_is_what_its_name_says(model):
    """Keys and values of a first token, zeros, and of a stream whose massive channels are others."""
    found = sink_parts.slots(model, IDS, 6, 4, 1)
    first = look_inside(model, IDS[:1])["layers"]
    newline = look_inside(model, [NEWLINE])["layers"]
    for i in range(3):
        k, v = first[i]["k"], first[i]["v"]
        want = {
            "as it was": (k, v),
            "key kept, value zero": (k, np.zeros_like(v)),
            "both zero": (0 * k, np.zeros_like(v)),
            "value kept, key zero": (np.zeros_like(k), v),
            "a newline": (newline[i]["k"], newline[i]["v"]),
        }
        for name, pair in want.items():
            np.testing.assert_array_equal(found[name][i], pair)
    candidates = [look_inside(model, [token])["layers"] for token in set(IDS.tolist()) - {int(IDS[0]), NEWLINE}]
    assert any(np.array_equal(found["another token"][2][0], layers[2]["k"]) for layers in candidates)
    layer, channels = sink_parts.spike(look_inside(model, IDS[:6]))
    for name in ("zero", "its mean", "random", "elsewhere"):
        for i in range(3):  # until the spike is there, nothing is changed; from then on, all
            same = [
                np.array_equal(*both) for both in zip(found[f"spike: {name}"][i], found["as it was"][i], strict=True)
            ]
            assert same == [i <= layer] * 2
    assert len({found[f"spike: {name}"][2][0].tobytes() for name in ("zero", "its mean", "random", "elsewhere")}) == 4


@pytest.mark.parametrize("model", MODELS)
def test_the_mean_of_one_other_is_its_own(model):
    """With one other token, its massive channels stand in the stream of the first, after the layer with the spike."""
    found = sink_parts.slots(model, IDS, 6, 1, 0)
    other = next(
        trace
        for trace in ([look_inside(model, [token]) for token in set(IDS.tolist())])
        if np.array_equal(trace["layers"][2]["k"], found["another token"][2][0])
    )
    layer, channels = sink_parts.spike(look_inside(model, IDS[:6]))
    x = look_inside(model, IDS[:1])["layers"][layer + 1]["x"].copy()
    x[:, channels] = other["layers"][layer + 1]["x"][:, channels]
    want = sink_parts.pairs(sink_parts.from_layer(model, layer + 1, x))
    np.testing.assert_array_equal(found["spike: its mean"][layer + 1], want[0])


@given(tiny.models(n_layers=3), tiny.seeds)
@examples(20)
def test_the_layers_from_one_on_go_on_as_the_model_does(model, seed):
    """A residual stream that is handed on unchanged makes the same keys and values."""
    model = public(model)
    trace = look_inside(model, tiny.ids(1, seed))
    for layer in (1, 2):
        later = sink_parts.from_layer(model, layer, trace["layers"][layer]["x"])
        for got, want in zip(sink_parts.pairs(later), sink_parts.pairs(trace)[layer:], strict=True):
            np.testing.assert_allclose(got, want)


def test_the_spike_is_found():
    """In the layer where it is largest, above a hundred times the median; else the largest channel."""
    x = np.ones((4, 5, 10))  # before each of four layers: 5 tokens, 10 channels
    trace = {"layers": [{"x": layer} for layer in x]}
    x[1, 0, 7], x[2, 0, 3], x[2, 0, 4], x[2, 0, 5], x[3, 0, 1] = 50.0, -400.0, 100.0, 99.0, 300.0
    layer, channels = sink_parts.spike(trace)
    assert (layer, channels.tolist()) == (1, [3, 4])
    x[2:] = 1.0
    layer, channels = sink_parts.spike(trace)
    assert (layer, channels.tolist()) == (0, [7])


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (MODELS[0], {"cache": 2}, "cache is 2"),
        (MODELS[0], {"cache": 23}, "nothing is evicted"),
        (MODELS[0], {"cache": 22}, "nothing is evicted"),
        (MODELS[0], {"cache": 5, "others": 0}, "others is 0"),
        (public(tiny.make(), newline=(1, 2)), {"cache": 5}, "a line break as 2 tokens"),
        (public(tiny.make(n_layers=1)), {"cache": 5}, "one-layer model"),
    ],
)
def test_what_cannot_be_is_said(model, options, message):
    with pytest.raises(ValueError, match=message):
        list(sink_parts.run(model, IDS, **options))
