"""Table 3 in small: each row against the loss it stands for, which stretch is read, and what follows from the rows."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import Streaming, gpt2
from minisink.commands.parser import main
from minisink.experiments import training
from minisink.experiments.inside import stretch


class Letters:
    """A tokenizer for tiny models: a letter a token."""

    def encode(self, text, add_special_tokens=False):
        return type("", (), {"ids": [ord(letter) - ord("a") for letter in text]})()


def public(model, name="tiny"):
    return minisink.Model(model.config, model.weights, tokenizer=Letters(), name=name)


MODELS = {
    "own": public(tiny.make(bos=16)),
    "neither": public(tiny.make(seed=1)),
    "zero": public(tiny.make(seed=2, softmax="softmax1")),
}
TEXT = "".join(chr(ord("a") + token) for token in tiny.ids(50, 3) % 15)


@examples(10)
@given(
    caches=st.lists(st.integers(4, 11), min_size=1, max_size=2, unique=True),
    n_tokens=st.integers(13, 60),
    seed=st.integers(0, 5),
)
def test_a_row_is_the_loss_after_the_first_eviction(caches, n_tokens, seed):
    """Of each model on its own ids, whichever stretch is read; the begin-of-text token before every one."""
    rows = list(training.run(MODELS, TEXT, caches=caches, sinks=(0, 3), tokens=n_tokens, seed=seed))
    assert [(row["model"], row["cache"], row["n_sinks"]) for row in rows] == [
        (name, cache, n) for name in MODELS for cache in caches for n in (0, 3)
    ]
    letters = [ord(letter) - ord("a") for letter in TEXT]
    for row in rows:
        own = n_tokens - (row["model"] == "own")
        start = seed * own % (len(TEXT) - own + 1) if own < len(TEXT) else 0
        ids = [16] * (row["model"] == "own") + letters[start : start + own]
        cache, n, model = row["cache"], row["n_sinks"], MODELS[row["model"]]
        nll = minisink.token_nll(model, ids, Streaming(n, cache - n), readable=True)[cache:]
        assert len(nll) == len(row["nll"]) == len(ids) - 1 - cache
        np.testing.assert_allclose(row["nll"], nll)
        np.testing.assert_allclose(row["perplexity"], np.exp(nll.mean()))


def test_the_config_tells_what_a_model_learned_with():
    told = {name: training.trained_with(model.config) for name, model in MODELS.items()}
    assert told == {"own": "sink token", "neither": "vanilla", "zero": "softmax1"}


def test_another_seed_reads_other_letters_without_a_gap():
    """Stretch after stretch, as long as the text lasts."""
    model = MODELS["neither"]
    first, second = (stretch(model, model.encode(TEXT), 20, seed) for seed in (0, 1))
    whole = model.encode(TEXT)
    assert [*first, *second] == whole[:40].tolist()
    own = stretch(MODELS["own"], MODELS["own"].encode(TEXT), 20, 1)
    assert own.tolist() == [16, *whole[19:38]]


@pytest.mark.parametrize(
    ("trained", "nll", "shown"),
    [
        ("sink token", {0: 4, 1: 3, 4: 3}, [True, True]),
        ("sink token", {0: 4, 1: 3, 4: 2.9}, [True, False]),  # one is not enough
        ("sink token", {0: 4, 1: 3, 4: 3.1}, [True, False]),
        ("vanilla", {0: 4, 1: 3, 4: 2.9}, [True, True]),
        ("vanilla", {0: 3, 1: 3, 4: 3}, [False, False]),
        ("softmax1", {0: 4, 1: 3, 4: 3.1}, [True, False]),
        ("vanilla", {1: 3}, []),
    ],
)
def test_the_verdict_follows_from_the_losses(trained, nll, shown):
    rows = [{"model": "a", "trained": trained, "cache": 8, "n_sinks": n, "nll": np.full(9, x)} for n, x in nll.items()]
    assert [effect.shown for effect in training.effects(rows)] == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caches": (50,)}, "nothing is evicted"),
        ({"tokens": 0}, "nothing is evicted"),
        ({"caches": (64, 4)}, "a cache of 4 tokens cannot hold 4 sinks and a window"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        list(training.run({"neither": MODELS["neither"]}, TEXT, **options))


@pytest.mark.filterwarnings("ignore:a cache of 9")
def test_a_gpt2_learned_its_positions():
    model = public(tiny.make(gpt2, max_positions=8))
    with pytest.raises(ValueError, match="position"):
        list(training.run({"gpt2": model}, TEXT, caches=(9,)))


def test_the_command_takes_other_models(capsys):
    options = ["--tokens", "80", "--caches", "16", "--sinks", "0", "1"]
    others = ("novels", "novels-gpt2", "novels-alibi", "novels-neox")
    assert main(["reproduce", "training", "--model", *others, *options]) == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert table[0].split() == ["model", "trained", "cache", "n", "sinks", "perplexity"]
    cells = [[name, "sink", "token", "16", kept] for name in others for kept in "01"]
    assert [line.split()[:5] for line in table[2:]] == cells
