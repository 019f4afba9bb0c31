"""Checkpoints of a training: each number by the book, in the order of the steps, and one line for what is none."""

import json

import numpy as np
import pytest
import tiny
from matplotlib.figure import Figure
from tokenizers import Tokenizer

import minisink
from minisink.commands.parser import main
from minisink.experiments import emergence
from minisink.families import gpt_neox
from minisink.loss import nll_of

TEXT = "It was a dark night, and the keeper of the light was old. He had seen many a storm. " * 3
OPTIONS = {"cache": 8, "tokens": 40}


def save(folder, seed=0, vocab_size=1024, tokenizer=None, **changes):
    """A drawn GPT-NeoX with the tokenizer of `novels`, in a folder that is returned."""
    drawn = tiny.make(gpt_neox, seed, np.float32, vocab_size=vocab_size, max_positions=256, bos=0, **changes)
    tokenizer = minisink.load("novels").tokenizer if tokenizer is None else tokenizer
    minisink.Model(drawn.config, drawn.weights, tokenizer, name="drawn").save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three steps of one model, as Pythia's are named."""
    root = tmp_path_factory.mktemp("pythia")
    return [save(root / f"step{step}", seed) for seed, step in enumerate((1000, 0, 143000))]


def test_each_number_by_the_book(saved, monkeypatch):
    """Two pieces of 20 tokens, the begin-of-text token first in each; and what is kept of the text in a cache of 8."""
    monkeypatch.setattr(emergence, "PIECE", 20)
    rows = list(emergence.run(TEXT, checkpoints=saved, **OPTIONS))
    assert [row["step"] for row in rows] == [0, 1000, 143000]
    assert {(row["training"], tuple(row)) for row in rows} == {(rows[0]["training"], tuple(rows[0]))}
    for row, folder in zip(rows, (saved[1], saved[0], saved[2]), strict=True):
        model = minisink.load(folder)
        ids = model.encode(TEXT)[:40]
        losses, weights = [], []
        for piece in (ids[:20], np.concatenate((ids[:1], ids[20:39]))):
            trace: dict = {}
            losses.append(nll_of(model.forward(piece, trace=trace)[:-1], piece[1:]))
            weights.append([[layer["pattern"][h, 10:, 0].mean() for h in range(4)] for layer in trace["layers"]])
        by_layer = np.mean(weights, axis=(0, 2))
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        np.testing.assert_allclose([row[f"weight_{i}"] for i in range(3)], by_layer, rtol=1e-5)
        assert (row["weight"], row["layer"]) == (pytest.approx(by_layer.max()), by_layer.argmax())
        methods = minisink.Window(8), minisink.Streaming(1, 7)
        window, sink = (minisink.token_nll(model, ids, method, readable=True)[8:] for method in methods)
        np.testing.assert_allclose(row["lost"], window - sink, atol=1e-4)
        assert row["gap"] == pytest.approx(np.mean(window - sink), abs=1e-5) and row["error"] > 0


def test_the_command_prints_and_draws_them(saved, tmp_path, capsys, monkeypatch):
    """A row for each checkpoint, the gap with its error; steps below the picture."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    drawn: list = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.touch())
    options = ["--text", str(tmp_path / "text.txt"), "--tokens", "40", "--cache", "8"]
    words = ["reproduce", "emergence", "--checkpoints", *saved, *options]
    assert main([*words, "--plot", str(tmp_path / "x.png")]) == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [line.split()[1] for line in table[2:]] == ["0", "1,000", "143,000"] and "±" in table[-1]
    assert all(axes.get_xlabel() == "step" for axes in drawn[0].get_axes())
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"weight_0", "weight_2", "gap", "error"} <= {*said["rows"][0]} and "After 143,000 steps" in said["finding"]
    assert [effect["what"].rpartition(", ")[2] for effect in said["effects"]][1:] == ["steps", "nats per token"]


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["step512", "step8"], [8, 512]),
        (["checkpoint-500", "checkpoint-20"], [20, 500]),
        (["pythia-70m-step512", "pythia-70m-step_8"], [8, 512]),
        (["early", "late"], [0, 1]),
    ],
)
def test_the_step_stands_in_the_name_or_is_the_place_in_the_order(tmp_path, names, steps):
    folders = [tmp_path / name for name in names]
    for folder in folders:
        folder.mkdir()
    assert [step for step, _ in emergence.in_order(folders)] == steps


def test_what_is_not_one_model_is_refused_in_a_line(saved, tmp_path, capsys):
    (tmp_path / "main").mkdir()
    about = json.loads(minisink.load("novels").tokenizer.to_str())
    vocabulary = about["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    other = Tokenizer.from_str(json.dumps(about))
    for folders, said in (
        ([saved[0], "nowhere"], "nowhere: there is no such folder"),
        ([saved[0], str(tmp_path / "main")], "main: no number in its name"),
        ([saved[0], saved[0]], "step 1000 again"),
        ([saved[0], save(tmp_path / "step9999", vocab_size=1030)], "is from a different model than"),
        ([saved[0], save(tmp_path / "step9998", n_layers=2)], "is from a different model than"),
        ([saved[0], save(tmp_path / "step9997", tokenizer=other)], "is from a different model than"),
    ):
        assert main(["reproduce", "emergence", "--fast", "--checkpoints", *folders]) == 2
        err = capsys.readouterr().err
        assert said in err and len(err.splitlines()) == 1, (said, err)
