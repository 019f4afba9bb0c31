"""Training as a whole: the same bits after a pause, and nothing lost when something goes wrong."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from minisink import Streaming, Window, llama, load, token_nll
from minisink.system import files
from minisink.training import data, state
from minisink.training.loop import Training, run
from minisink.training.recipe import Recipe

SIZES = {"d_model": 8, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "head_dim": 4, "d_ff": 12, "vocab_size": 17}
CONFIG = llama.Config(**SIZES, max_positions=6, bos=0)
RECIPE = Recipe(n_steps=9, batch=4, context=6, rate=0.01, warmup=2, seed=5, shared=True)
IDS = np.random.default_rng(0).integers(1, 17, 400).astype(np.uint16)
VALID = IDS[-50:]


def training(folder, *, recipe=RECIPE, config=CONFIG, ids=IDS, **options):
    return Training(config, recipe, ids, VALID, folder, **options)


def rows(folder):
    with open(folder / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("pause", [3, 4, 7])
def test_resume_is_bit_exact(tmp_path, pause):
    whole = training(tmp_path / "whole")
    run(whole, eval_every=4, save_every=100)
    first = training(tmp_path / "parts")
    run(first, eval_every=4, save_every=2, stop=lambda: first.n_steps_done == pause)
    assert first.n_steps_done == pause
    second = training(tmp_path / "parts", resume=True, workers=2)
    assert second.n_steps_done == pause
    run(second, eval_every=4, save_every=100)
    for name, array in load_file(tmp_path / "whole" / state.FILE).items():
        assert array.tobytes() == load_file(tmp_path / "parts" / state.FILE)[name].tobytes(), name
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "parts/model.safetensors").read_bytes()
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert [row["step"] for row in rows(tmp_path / "parts")] == ["4", "8", "9"]


def test_rows_after_the_checkpoint_are_left_out(tmp_path):
    run(training(tmp_path / "whole"), eval_every=2)
    killed = training(tmp_path / "killed")
    for step in range(1, 8):  # saved at 4, looked at 6, then gone without a word
        last = killed.step()
        if step % 2 == 0:
            killed.evaluate(last)
        if step == 4:
            killed.save()
    run(training(tmp_path / "killed", resume=True), eval_every=2)
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


def test_the_folder_loads_as_a_model(tmp_path):
    done = training(tmp_path / "out", dtype="float16")
    row = run(done, eval_every=3)
    model = load(tmp_path / "out")
    assert model.config == CONFIG
    text = np.array([0, 3, 1, 4])
    assert np.allclose(model.forward(text), done.model().forward(text), atol=1e-2)
    assert row["tokens"] == 9 * 4 * 6
    assert set(row) >= {"step", "tokens", "seconds", "rate", "loss", "sink_0", "sink_1"}


def test_a_row_says_what_it_says(tmp_path):
    """The loss is the mean of the steps since the last row; the gap is that of two caches on the held-out text."""
    losses, looked = [], []

    def on_step(last, row):
        losses.append(last["loss"])
        if row is None:
            return
        looked.append(row)
        text = np.concatenate(([0], VALID)).astype(np.int64)
        for name, method in {"window": Window(3), "one_sink": Streaming(1, 2)}.items():
            nll = token_nll(done.model(), text, method)
            assert row[f"{name}_nll"] == pytest.approx(nll.mean(), abs=2e-5)

    done = training(tmp_path)
    run(done, eval_every=2, on_step=on_step)
    means = [np.mean(losses[i : i + 2]) for i in range(0, 9, 2)]
    assert [row["loss"] for row in looked] == pytest.approx(means, abs=2e-5)


@pytest.mark.parametrize("std", [0.04, 0.5])
def test_weights_begin_as_wide_as_the_recipe_says(tmp_path, std):
    begun = training(tmp_path, recipe=dataclasses.replace(RECIPE, std=std)).model().weights
    assert begun.layers[0].wq.std() == pytest.approx(std, rel=0.3)


def test_learning_lowers_the_loss(tmp_path):
    recipe = dataclasses.replace(RECIPE, n_steps=60, rate=0.03)
    ids = np.tile(np.arange(1, 9), 60).astype(np.uint16)  # 1 2 ... 8 1 2 ...: certain but for the first
    row = run(Training(CONFIG, recipe, ids, ids[:50], tmp_path), eval_every=60)
    assert row["valid_loss"] < 0.8 < math.log(17)


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    hurt = training(tmp_path)

    def poison(last, row):
        if hurt.n_steps_done == 5:
            hurt.vector[:] = np.nan

    with pytest.raises(ValueError, match=r"step 6: the loss is nan.*checkpoint of step 4"):
        run(hurt, eval_every=100, save_every=2, on_step=poison)
    kept = load_file(tmp_path / state.FILE)
    assert np.isfinite(kept["weights"]).all()
    again = training(tmp_path, resume=True)
    assert again.n_steps_done == 4
    run(again, eval_every=100)
    assert again.n_steps_done == 9


def test_nan_before_any_checkpoint_says_so(tmp_path):
    hurt = training(tmp_path)
    hurt.vector[:] = np.inf
    with pytest.raises(ValueError, match=r"step 1: .*no checkpoint had been written"):
        hurt.step()


def test_text_shorter_than_a_sample(tmp_path):
    with pytest.raises(ValueError, match="shorter than one sample: 6 tokens, where a context of 6 needs 7"):
        training(tmp_path, ids=IDS[:6])
    with pytest.raises(ValueError, match="shorter than one sample"):
        data.split(IDS[:13], 6)
    train, held = data.split(IDS[:14], 6)
    assert (len(train), len(held)) == (7, 7)
    with pytest.raises(ValueError, match="held-out"):
        Training(CONFIG, RECIPE, IDS, IDS[:3], tmp_path)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    run(training(tmp_path), eval_every=9)
    before = (tmp_path / state.FILE).read_bytes()
    with pytest.raises(ValueError, match="another config: intermediate_size is 12 there and 10 here"):
        training(tmp_path, resume=True, config=dataclasses.replace(CONFIG, d_ff=10))
    with pytest.raises(ValueError, match="another recipe: rate is 0.01 there and 0.02 here"):
        training(tmp_path, resume=True, recipe=dataclasses.replace(RECIPE, rate=0.02))
    with pytest.raises(ValueError, match="another text: tokens is 400 there and 399 here"):
        training(tmp_path, resume=True, ids=IDS[1:])
    with pytest.raises(ValueError, match="another held-out text: checksum is"):
        Training(CONFIG, RECIPE, IDS, VALID[::-1], tmp_path, resume=True)
    with pytest.raises(ValueError, match="another text: checksum is"):
        training(tmp_path, resume=True, ids=IDS[::-1])
    with pytest.raises(ValueError, match="holds a training already"):
        training(tmp_path)
    assert (tmp_path / state.FILE).read_bytes() == before


def test_nothing_or_rubbish_to_resume(tmp_path):
    with pytest.raises(ValueError, match="nothing to resume"):
        training(tmp_path, resume=True)
    (tmp_path / state.FILE).write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="not a sound training state"):
        training(tmp_path, resume=True)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        training(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written"):
        training(tmp_path / "file" / "below")


def test_a_half_written_state_does_not_replace_a_whole_one(tmp_path, monkeypatch):
    first = training(tmp_path)
    run(first, eval_every=100, stop=lambda: first.n_steps_done == 2)
    before = (tmp_path / state.FILE).read_bytes()

    def full_disk(vectors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(files, "save_file", full_disk)
    first.step()
    with pytest.raises(ValueError, match="cannot be written.*no space left"):
        first.save()
    assert (tmp_path / state.FILE).read_bytes() == before


def test_the_state_holds_no_pickle(tmp_path):
    done = training(tmp_path)
    run(done, eval_every=100)
    raw = (tmp_path / state.FILE).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["minisink"])["step"] == 9
    assert {name for name in header if name != "__metadata__"} == {"weights", "m", "v"}


def test_samples():
    ids = np.arange(100, 200)
    inputs, targets = data.draw(np.random.default_rng(0), ids, 50, 7)
    assert inputs.shape == targets.shape == (50, 7)
    assert (targets[:, :-1] == inputs[:, 1:]).all()
    assert (targets == inputs + 1).all()
    inputs, targets = data.draw(np.random.default_rng(0), ids, 50, 7, bos=3)
    assert (inputs[:, 0] == 3).all()
    assert (targets != 3).all()
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    every, _ = data.draw(np.random.default_rng(0), ids[:9], 200, 7)
    assert set(every[:, 0].tolist()) == {100, 101}  # the last start leaves room for a target
    even, _ = data.spread(ids, 3, 7)
    assert even[:, 0].tolist() == [100, 146, 192]


IMPOSSIBLE = [{"n_steps": 0}, {"batch": 0}, {"context": 1}, {"context": 3}, {"rate": 0.0}, {"sample_start": "eos"}]
IMPOSSIBLE += [{"warmup": -1}, {"weight_decay": -0.5}, {"weight_decay": float("nan")}, {"seed": -2}]
IMPOSSIBLE += [{"decay": 1.5}, {"decay": -0.5}]


@pytest.mark.parametrize("wrong", IMPOSSIBLE)
def test_impossible_recipes(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        dataclasses.replace(RECIPE, **wrong)
