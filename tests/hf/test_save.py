"""Folders out: what is saved loads again to the last bit, and a failed save leaves nothing behind."""

import json
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tiny
from folders import models, same, tensors, tensors_of, words
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import CheckpointError, gpt2, llama
from minisink.hf.arrays import from_arrays, to_arrays
from minisink.hf.folder import tensor_shapes, to_tensors


def public(model, tokenizer=None):
    return minisink.Model(model.config, model.weights, tokenizer, name="tiny")


def transposed(model):
    """The same numbers, each matrix laid out the other way round in memory, and every vector with gaps."""

    def other(array):
        if array is None:
            return None
        return np.stack([array, array], axis=-1)[..., 0] if array.ndim == 1 else np.array(array.T, order="C").T

    layers = [type(x)(**{f.name: other(getattr(x, f.name)) for f in fields(x)}) for x in model.weights.layers]
    changed = {f.name: other(getattr(model.weights, f.name)) for f in fields(model.weights) if f.name != "layers"}
    return tiny.Tiny(model.arch, model.config, type(model.weights)(layers=layers, **changed))


@examples(30)
@given(models, st.booleans(), st.sampled_from(["float32", "float64"]))
def test_what_is_saved_loads_to_the_last_bit(model, turned, dtype):
    """Config, every tensor and the logits, whatever the memory layout of the arrays."""
    cast = {name: array.astype(dtype) for name, array in to_arrays(model.config, model.weights).items()}
    saved = public(tiny.Tiny(model.arch, model.config, from_arrays(model.config, cast)))
    if turned:
        saved.weights = transposed(tiny.Tiny(model.arch, model.config, saved.weights)).weights
    with tempfile.TemporaryDirectory() as root:
        saved.save(Path(root) / "new" / "folder")
        loaded = minisink.load(Path(root) / "new" / "folder", dtype=dtype)
        assert loaded.config == saved.config and loaded.ignored == []
        same(tensors(loaded), tensors(saved))
        again = Path(root) / "again"
        loaded.save(again)
        same(tensors(minisink.load(again, dtype=dtype)), tensors(saved))
        ids = [1, 2, 3]
        np.testing.assert_allclose(loaded.forward(ids), saved.forward(ids), rtol=1e-3 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_the_bytes_are_those_of_the_arrays(tmp_path, arch):
    """Read without any library: each tensor lies row by row, under Hugging Face's name and shape."""
    model = transposed(tiny.make(arch, dtype=np.float32, tied=False))
    public(model).save(tmp_path)
    stored = tensors_of(tmp_path / "model.safetensors")
    expected = to_tensors(model.config, to_arrays(model.config, model.weights))
    assert set(stored) == set(expected)
    for name, array in expected.items():
        kind, shape, raw = stored[name]
        assert (kind, tuple(shape)) == ("F32", array.shape) == ("F32", tensor_shapes(model.config)[name])
        assert struct.unpack(f"<{array.size}f", raw) == tuple(float(x) for row in array for x in np.atleast_1d(row))
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["torch_dtype"] == "float32"


def test_saving_copies_a_tensor_at_a_time(tmp_path):
    """A loaded model lies otherwise than its file; of 26 MB, the copies of two matrices are the most there is."""
    sizes = {"n_layers": 6, "d_model": 256, "n_heads": 8, "n_kv_heads": 8, "head_dim": 32, "d_ff": 1024}
    public(tiny.make(dtype=np.float32, **sizes)).save(tmp_path / "as drawn")
    loaded = minisink.load(tmp_path / "as drawn")
    assert 4 * loaded.n_parameters > 25e6
    tracemalloc.start()
    try:
        loaded.save(tmp_path / "as loaded")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * loaded.weights.layers[0].w_up.nbytes
    first, second = (tmp_path / folder / "model.safetensors" for folder in ("as drawn", "as loaded"))
    assert first.read_bytes() == second.read_bytes()
    assert int.from_bytes(first.read_bytes()[:8], "little") % 8 == 0  # so that the numbers are aligned


def test_the_shipped_model_survives(tmp_path, novels_folder):
    """Weights, tokenizer and text; every file can be read by others."""
    model = minisink.load(novels_folder)
    model.save(tmp_path)
    loaded = minisink.load(tmp_path)
    same(tensors(loaded), tensors(model))
    text = "Ærøskøbing — “nothing <s> but”\n\nwords 😀"
    assert loaded.encode(text).tolist() == model.encode(text).tolist()
    assert loaded.decode(loaded.encode(text)) == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_saving_over_a_folder_replaces_it(tmp_path):
    """A second model in the same place is the second model, though the first came in shards or with a tokenizer."""
    first, second = public(tiny.make(seed=1, dtype=np.float32), words(17)), public(tiny.make(gpt2, dtype=np.float32))
    first.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    second.save(tmp_path)
    loaded = minisink.load(tmp_path)
    same(tensors(loaded), tensors(second))
    assert loaded.tokenizer is None
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("place", ["file", "file/folder", "a\0b"])
def test_a_folder_that_cannot_be_is_refused(tmp_path, place):
    """A file where the folder should be is named, and stays as it was."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be written"):
        public(tiny.make()).save(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


SAVE_WITHOUT_ROOM = """
import resource, sys
import minisink
from minisink.hf.folder import tensor_shapes, to_tensors
model = minisink.load("novels")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    model.save(sys.argv[1])
except minisink.CheckpointError as error:
    print(error)
cache = minisink.new_cache(model)
model.forward(list(range(100)), cache=cache)
try:
    minisink.save_cache(cache, sys.argv[1] + "/stream.cache")
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_save_that_runs_out_of_room_leaves_what_was_there(tmp_path):
    """With no room for the weights, or for anything at all, the folder holds the model it held before."""
    old = public(tiny.make(dtype=np.float32))
    for room in (10_000, 100):
        folder = tmp_path / str(room)
        old.save(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        command = [sys.executable, "-c", SAVE_WITHOUT_ROOM, str(folder), str(room)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        model, cache = run.stdout.splitlines()
        assert model.startswith(f"{folder}: cannot be written (")
        assert cache.startswith(f"{folder / 'stream.cache'}: cannot be written (")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_save_that_was_killed_goes_with_the_next_one(tmp_path):
    """A whole model in a folder that no run has locked."""
    model = public(tiny.make(dtype=np.float32))
    killed = tmp_path / ".saving-abcdefgh"
    model.save(killed)
    model.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_cache_is_written_whole_or_not_at_all(tmp_path):
    """A folder that is not there, or in the way, is named; a saved cache is one file."""
    model = public(tiny.make())
    cache = minisink.new_cache(model, minisink.Streaming(1, 3))
    model.forward(tiny.ids(9), cache=cache)
    with pytest.raises(ValueError, match="stream.cache: cannot be written"):
        minisink.save_cache(cache, tmp_path / "none" / "stream.cache")
    (tmp_path / "stream.cache").mkdir()
    with pytest.raises(ValueError, match="stream.cache: cannot be written"):
        minisink.save_cache(cache, tmp_path / "stream.cache")
    assert list(tmp_path.rglob("*")) == [tmp_path / "stream.cache"]
    (tmp_path / "stream.cache").rmdir()
    minisink.save_cache(cache, tmp_path / "stream.cache")
    assert [path.name for path in tmp_path.iterdir()] == ["stream.cache"]
    restored = minisink.load_cache(tmp_path / "stream.cache")
    more = tiny.ids(5, seed=1)
    np.testing.assert_array_equal(model.forward(more, cache=restored), model.forward(more, cache=cache))


def test_biases_no_config_can_express_are_refused(tmp_path):
    """Llama's config.json has one attention_bias; a folder that could not be read again is not begun."""
    model = tiny.make(qkv_bias=True, o_bias=False)
    with pytest.raises(ValueError, match="one attention_bias"):
        minisink.Model(model.config, model.weights).save(tmp_path / "saved")
    assert not list(tmp_path.iterdir())
