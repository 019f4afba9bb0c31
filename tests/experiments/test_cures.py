"""The toys under softmax and under its cures: each row against its toy, and what follows from the rows."""

import math

import numpy as np
import pytest

from minisink.commands.parser import main
from minisink.experiments import cures
from minisink.training.backcopy import toy as backcopy
from minisink.training.backcopy.chain import Task
from minisink.training.parameters import as_weights
from minisink.training.trigger.toy import Toy


def test_a_row_is_a_training_of_the_trigger_task():
    """Each length with each width, each kind, each seed from the first on."""
    options = {"kinds": ("relu", "gate"), "lengths": (5, 4), "head_dims": (3, 2), "n_seeds": 2, "steps": 6, "seed": 7}
    rows = list(cures.run(**options, backcopy_steps=0))
    expected = [(T, D, kind, seed) for T in (5, 4) for D in (3, 2) for kind in ("relu", "gate") for seed in (7, 8)]
    assert [(row["length"], row["width"], row["kind"], row["seed"]) for row in rows] == expected
    for row in rows:
        toy = Toy(row["kind"], length=row["length"], head_dim=row["width"], seed=row["seed"])
        assert row["task"] == "trigger" and row["steps"] == toy.train(6) == 6
        seen = toy.look()
        assert {key: row[key] for key in ("idle", "busy", "value", "error")} == {
            key: seen[key] for key in ("idle", "busy", "value", "error")
        }
        assert math.isnan(row["spike"])


@pytest.mark.parametrize("kind", ["softmax", "logit"])
def test_a_row_is_a_training_of_backcopy(kind):
    rows = list(cures.run(kinds=(kind, "gate"), n_seeds=1, steps=1, backcopy_steps=2, seed=3))
    assert [(row["task"], row["kind"]) for row in rows] == [("trigger", kind), ("trigger", "gate"), ("backcopy", kind)]
    toy = backcopy.Toy(Task.random(3), kind=kind, n_steps=2, seed=3)
    assert toy.config.sink_logit == (kind == "logit") and toy.config.softmax == "softmax"
    toy.step()
    toy.step()
    seen, embed = toy.look(), as_weights(toy.config, toy.vector).embed
    expected = {
        "idle": seen["bos_from_nontrigger"],
        "busy": seen["bos_from_trigger"],
        "value": seen["value_ratio"],
        "spike": np.sqrt(np.square(embed[0]).sum()) / np.median(np.sqrt(np.square(embed).sum(axis=1))),
        "error": seen["loss"] - seen["floor"],
    }
    assert {key: rows[-1][key] for key in expected} == pytest.approx(expected, rel=1e-5)


def test_a_sink_logit_is_learned():
    """It begins at 0, softmax1, and moves."""
    toy = backcopy.Toy(Task.random(0), kind="logit", n_steps=3, batch=2, length=8)
    logits = as_weights(toy.config, toy.vector).layers[0].sink_logits
    assert logits.tolist() == [0.0]
    toy.step()
    assert logits[0] != 0


@pytest.mark.slow
def test_softmax_must_and_relu_need_not():
    """The theorem, on short texts: solved, with all of the idle weight on BOS or none of it."""
    rows = list(cures.run(kinds=("softmax", "relu"), lengths=(5,), n_seeds=2, backcopy_steps=0))
    assert [effect.shown for effect in cures.effects(rows)] == [True, True, True]
    assert rows[0]["idle"] > 0.99 and rows[-1]["idle"] < 0.01 and max(row["steps"] for row in rows) < 4000


def row(task="trigger", kind="softmax", idle=1.0, error=0.001):
    return {"task": task, "kind": kind, "idle": idle, "error": error}


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([row(), row(), row(kind="relu", idle=0.1), row(kind="relu", idle=0.2)], [True, True, True]),
        ([row()], [True, False]),  # one training has no interval
        ([row(), row(error=0.1)], [False, True]),  # not solved: the theorem says nothing
        ([row(), row(idle=0.9)], [True, False]),  # one that does not is enough
        ([row(kind="gate", idle=0.9)], [True, False]),
        ([row("backcopy", idle=0.5, error=1)] * 2, [True]),
        ([row("backcopy", "logit", idle=0.5)], [False]),
    ],
)
def test_the_verdict_follows_from_the_rows(rows, shown):
    assert [effect.shown for effect in cures.effects(rows)] == shown


def test_the_table_has_the_mean_of_the_trainings(capsys):
    options = ["--kinds", "relu", "--n-seeds", "2", "--lengths", "5", "--steps", "3", "--backcopy-steps", "1"]
    assert main(["reproduce", "cures", *options, "--seed", "4"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.split("\n\n")[1].splitlines()]
    assert lines[2][:6] == ["trigger", "relu", "5", "16", "2", "3"]
    assert lines[3][:6] == ["backcopy", "relu", "64", "64", "2", "1"]
    rows = list(cures.run(kinds=("relu",), n_seeds=2, lengths=(5,), steps=3, backcopy_steps=0, seed=4))
    assert lines[2][6] == f"{np.mean([row['idle'] for row in rows]):.3f}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-seeds", "0"], "n_seeds is 0; it must be a whole number of 1"),
        (["--steps", "0"], "steps is 0"),
        (["--backcopy-steps", "-1"], "backcopy_steps is -1; it must be a whole number of 0"),
        (["--lengths", "2"], "length is 2; it must be 3 or more"),
        (["--head-dims", "0"], "the width of a head is 0"),
        (
            ["--kinds", "relu", "soft"],
            "kind is 'soft'; it must be one of softmax, softmax1, logit, gate, softpick, relu",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(options, message, capsys):
    assert main(["reproduce", "cures", "--fast", *options]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
