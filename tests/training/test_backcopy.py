"""The Bigram-Backcopy task and the model that learns it."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from minisink import Dense, Streaming, Window
from minisink.commands.parser import make_parser
from minisink.training.backcopy import chain
from minisink.training.backcopy import toy as backcopy

ROOT = Path(__file__).parents[2]


@examples(20)
@given(seed=st.integers(0, 999), bos=st.booleans())
def test_triggers_copy_back(seed, bos):
    task = chain.Task.random(seed, n_tokens=9, n_triggers=2, starts_with_bos=bos)
    ids, nll = task.draw(np.random.default_rng(seed), 20, 15)
    assert ((ids[:, 0] == 0).all()) == bos
    assert (ids[:, 1:] > 0).all()
    assert (ids[:, int(bos)] > 2).all()  # an ordinary token comes first
    for text, costs in zip(ids, nll, strict=True):
        for t in range(2, 15):
            if text[t - 1] in (1, 2):
                assert text[t] == text[t - 2] > 2  # ordinary, so no two triggers repeat each other for ever
                assert costs[t] == 0
            else:
                assert math.isclose(costs[t], -math.log(task.table[text[t - 1], text[t]]))


@examples(8)
@given(seed=st.integers(0, 999), bos=st.booleans())
def test_the_floor_is_the_entropy(seed, bos):
    task = chain.Task.random(seed, n_tokens=6, n_triggers=2, starts_with_bos=bos)
    _, nll = task.draw(np.random.default_rng(seed), 4000, 11)
    means = nll[:, 1:].mean(axis=1)
    assert abs(means.mean() - task.floor(10)) < 5 * means.std() / math.sqrt(4000)


def test_rows_of_the_chain_are_chances_and_triggers_are_common():
    task = chain.Task.random(0)
    assert np.allclose(task.table.sum(axis=1), 1)
    assert (task.table[:, 0] == 0).all()
    frequency = np.linalg.matrix_power(task.table, 200)[0]
    assert frequency[1:6].min() >= frequency[6:].max()
    assert task.is_trigger(np.arange(33)).tolist() == [1 <= token <= 5 for token in range(33)]
    assert (task.table[0, 1:6] == 0).all()


def test_the_toy_starts_without_a_sink_and_learns():
    toy = backcopy.Toy(chain.Task.random(0), n_steps=60, batch=8, length=16)
    before = toy.look()
    assert before["bos_from_nontrigger"] < 0.2
    for _ in range(60):
        toy.step()
    after = toy.look()
    assert after["floor"] < after["loss"] < before["loss"] - 0.5


@pytest.mark.parametrize("kind", ["softmax", "softmax1", "relu"])
def test_streaming_path_equals_training_path(kind):
    """On a text no longer than the cache all three methods see the same, and agree with the training forward."""
    toy = backcopy.Toy(chain.Task.random(1), kind=kind, n_layers=2, length=16, batch=2, n_steps=5)
    toy.step()
    ids, nll = toy.task.draw(np.random.default_rng([4, 3]), 3, 17)
    methods = Dense(), Window(16), Streaming(1, 15)
    long = [toy.floor + toy.above_floor(method, n_texts=3, n_tokens=17, seed=4).mean() for method in methods]
    logits, _ = toy.forward(ids[:, :-1])
    expected = toy.floor + backcopy.nll_of(logits, ids[:, 1:].reshape(-1)).mean() - nll[:, 1:].mean()
    assert all(math.isclose(value, expected, abs_tol=1e-5) for value in long)


@pytest.mark.slow
def test_the_sink_that_is_promised():
    """The command as it is called, in a process of its own: it takes care of its threads."""
    command = [sys.executable, "-m", "minisink", "train", "backcopy", "--json"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    seen = json.loads(out.splitlines()[-1])
    assert seen["bos_from_nontrigger"] >= 0.5
    assert seen["bos_from_trigger"] <= 0.02
    assert seen["value_ratio"] <= 0.3
    assert abs(seen["loss"] - seen["floor"]) < 0.02
    assert abs(seen["streaming_nll"] - seen["floor"]) < 0.02
    assert seen["window_nll"] > seen["streaming_nll"] + 0.01
    assert seen["dense_nll"] > seen["streaming_nll"] + 0.05


def command(*options):
    args = make_parser().parse_args(["train", "backcopy", *options])
    return args.run(args)


def test_command_ends_with_the_promised_json(capsys, tmp_path):
    command("--steps", "3", "--length", "8", "--json", "--plot", str(tmp_path / "curves.png"))
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"  window - streaming [+-]\d\.\d{4} ± \d\.\d{4} \(standard error\)$", line) for line in lines)
    result = json.loads(lines[-1])
    names = "seconds loss floor bos_from_nontrigger bos_from_trigger value_ratio dense_nll window_nll streaming_nll"
    assert list(result) == names.split()
    assert all(math.isfinite(value) for value in result.values())
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("options", [("--no-bos",), ("--layers", "2"), ("--optimizer", "sgd"), ("--softmax", "relu")])
def test_variants_run(options, capsys):
    command(*options, "--steps", "2", "--length", "8", "--workers", "1")
    assert "streaming" in capsys.readouterr().out


IMPOSSIBLE = [("--layers", "0"), ("--steps", "0"), ("--length", "2"), ("--rate", "-1"), ("--seed", "-1")]
IMPOSSIBLE += [("--plot", "missing/curves.png"), ("--plot", "curves.what")]


@pytest.mark.parametrize("options", IMPOSSIBLE)
def test_impossible_options(options):
    with pytest.raises(ValueError, match=options[0][2:] if options[0] != "--plot" else options[1]):
        command(*options)


def test_a_rate_too_high_says_at_which_step():
    toy = backcopy.Toy(chain.Task.random(0), batch=2, length=8, optimizer="sgd", n_steps=50)
    toy.vector[:] = np.nan
    with pytest.raises(ValueError, match="step 1: the loss is nan"):
        toy.step()
