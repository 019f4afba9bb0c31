"""A training step on arrays that refuse to meet a host array, as CuPy's do."""

from types import SimpleNamespace

import numpy as np
import pytest
import small
from device_array import DeviceArray
from safetensors.numpy import load_file

from minisink import Dense, Streaming, Window, llama
from minisink.experiments import emergence
from minisink.training import data, loop
from minisink.training import toy as toys
from minisink.training.backcopy import toy as backcopy
from minisink.training.backcopy.chain import Task
from minisink.training.gradients import batch_gradient, batch_loss
from minisink.training.induction import gaps
from minisink.training.induction import toy as induction
from minisink.training.loop import Training, run
from minisink.training.optimizer import AdamW, clip
from minisink.training.parameters import decayed, share
from minisink.training.recipe import Recipe


class StricterArray(DeviceArray):
    """The trainer must not ask for `ufunc.at` either: CuPy's gives other bits every run."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method != "__call__":
            return NotImplemented
        return super().__array_ufunc__(ufunc, method, *inputs, **options)


@pytest.mark.parametrize("case", small.CASES)
def test_a_step_gives_the_same_weights(case, monkeypatch):
    monkeypatch.setattr("device_array.DeviceArray", StricterArray)  # whatever comes out of an operation is strict too
    _, config, vector = small.make(case)
    inputs, targets = small.batch(1)
    results = []
    for put in (np.array, lambda host: StricterArray(np.array(host))):
        w, x, y = put(vector), put(inputs), put(targets)
        optimizer = AdamW(w, decayed(config))
        loss, gradient = batch_gradient(config, w, x, y, piece=2)
        if not config.tied:
            share(config, gradient)
        norm = clip(gradient, 0.5)
        optimizer.step(w, gradient, 0.1)
        results.append((loss, norm, w, batch_loss(config, w, x, y)))
    (loss, norm, w, after), (loss2, norm2, w2, after2) = results
    assert isinstance(w2, StricterArray)
    assert np.isclose(loss, loss2)
    assert np.isclose(norm, norm2)
    assert np.allclose(w, w2.get(), rtol=1e-10, atol=1e-12)
    assert np.isclose(after[0], after2[0])
    assert np.allclose(after[1], after2[1])


def test_the_classroom_experiment_is_the_same(monkeypatch):
    """Learning, looking and streaming of `train backcopy`, with every array on the device."""
    options = {"n_steps": 4, "batch": 2, "length": 9}
    host = backcopy.Toy(Task.random(0), **options)
    monkeypatch.setattr("device_array.DeviceArray", StricterArray)
    strict = SimpleNamespace(asarray=lambda array: StricterArray(np.array(array)))
    monkeypatch.setattr(toys, "array_module", {"cuda": strict}.get)
    device = backcopy.Toy(Task.random(0), **options, device="cuda", workers=2)
    for _ in range(4):
        assert np.isclose(host.step(), device.step(), rtol=1e-4)
    assert isinstance(device.vector, StricterArray)
    assert device.look() == pytest.approx(host.look(), rel=1e-4)
    for method in (Dense(), Window(9), Streaming(1, 8)):
        ours, theirs = (toy.above_floor(method, 1, 30).mean() + toy.floor for toy in (device, host))
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_induction_is_the_same(monkeypatch):
    """Learning, looking and the table of `train induction`, with every array on the device."""
    options, sizes = {"n_steps": 4, "batch": 2}, {"gaps": (0, 9), "n_texts": 1, "cache": 8}
    host = induction.Toy(**options)
    monkeypatch.setattr("device_array.DeviceArray", StricterArray)
    strict = SimpleNamespace(asarray=lambda array: StricterArray(np.array(array)))
    monkeypatch.setattr(toys, "array_module", {"cuda": strict}.get)
    device = induction.Toy(**options, device="cuda", workers=2)
    for _ in range(4):
        assert np.isclose(host.step(), device.step(), rtol=1e-4)
    ours, theirs = device.look(), host.look()
    assert {name: ours[name] for name in ("first", "second", "previous", "induction")} == pytest.approx(
        {name: theirs[name] for name in ("first", "second", "previous", "induction")}, rel=1e-3
    )
    ours, theirs = (gaps.each(toy.as_model("toy"), **sizes) for toy in (device, host))
    for name, losses in theirs.items():
        for cell, expected in zip(ours[name], losses, strict=True):
            assert cell.mean() == pytest.approx(expected.mean(), rel=1e-3), name


def test_a_training_is_the_same(monkeypatch, tmp_path):
    """Steps, looks at held-out text, checkpoints and a resume, with every array on the device."""
    sizes = {"d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12, "vocab_size": 17, "max_positions": 6, "bos": 0}
    config = llama.Config(n_kv_heads=2, head_dim=4, **sizes)
    recipe = Recipe(n_steps=4, batch=3, context=6, rate=0.01, warmup=2, shared=True)
    ids = np.random.default_rng(0).integers(1, 17, 400).astype(np.uint16)
    run(Training(config, recipe, ids, ids[-50:], tmp_path / "cpu"), eval_every=1)
    monkeypatch.setattr("device_array.DeviceArray", StricterArray)
    strict = SimpleNamespace(asarray=lambda array: StricterArray(np.array(array)))
    monkeypatch.setattr(loop, "array_module", {"cuda": strict}.get)
    options = {"device": "cuda", "workers": 2}
    first = Training(config, recipe, ids, ids[-50:], tmp_path / "cuda", **options)
    run(first, eval_every=1, stop=lambda: first.n_steps_done == 2)
    second = Training(config, recipe, ids, ids[-50:], tmp_path / "cuda", resume=True, **options)
    run(second, eval_every=1)
    assert isinstance(second.vector, StricterArray)
    ours, theirs = (load_file(tmp_path / name / "state.safetensors") for name in ("cuda", "cpu"))
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, rtol=1e-3, atol=1e-6, err_msg=name)
    ours, theirs = (emergence.read_log(tmp_path / name / "log.csv") for name in ("cuda", "cpu"))
    for name, column in theirs.items():
        np.testing.assert_allclose(ours[name], column, atol=1e-3, err_msg=name)


def test_samples_are_drawn_on_the_host():
    inputs, targets = data.draw(np.random.default_rng(0), np.arange(40, dtype=np.uint16), 2, 5)
    assert isinstance(inputs, np.ndarray)
    assert inputs.dtype == targets.dtype == np.int64
