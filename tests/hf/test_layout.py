"""How the arrays of a model lie once it is loaded: the same numbers, where decoding reads them fast, and once."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
from device_array import DeviceArray
from folders import models, write
from hypothesis import given
from profiles import examples

import minisink
from minisink.experiments.shapes import random_model
from minisink.fast.fused import fuse
from minisink.hf import package
from minisink.hf.arrays import from_arrays, to_arrays
from minisink.hf.fields import CheckpointError
from minisink.hf.layout import lay_out

some = examples(100)
SCRIPT = """
import minisink

def megabytes(of):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(of)) / 1e6

model = minisink.load("smollm2")
loaded = megabytes("VmHWM")
tokens = minisink.generate(model, model.encode("My dear"), minisink.Streaming(4, 252), max_new_tokens=50)
for _ in range(49):
    next(tokens)
print(4 * model.n_parameters / 1e6, loaded, megabytes("VmRSS"), megabytes("VmHWM"))
"""


def arrays(model):
    return to_arrays(model.config, model.weights)


@some
@given(tiny.models())
def test_the_numbers_are_the_same(model):
    """Every name, shape and bit."""
    wanted, like = arrays(model), np.empty(0)
    got = lay_out(model.config, wanted.items(), like)
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
        assert not np.shares_memory(got[name], array) or array.ndim == 1


@some
@given(tiny.models())
def test_all_lie_in_one_vector(model):
    """It is filled to the last number, nothing lies in two places, and what meets a token lies in rows."""
    got = lay_out(model.config, arrays(model).items(), np.empty(0))
    (vector,) = {id(array.base): array.base for array in got.values()}.values()
    assert vector.size == sum(array.size for array in got.values())
    for i, array in enumerate(got.values()):
        array[...] = i
    assert np.bincount(vector.astype(int)).tolist() == [array.size for array in got.values()]
    head = from_arrays(model.config, got).head
    assert {array.strides[1] for name, array in got.items() if array.ndim == 2 and name != "embed"} == {8}
    assert head.flags.c_contiguous


def test_they_lie_on_the_device():
    """Sent there, and laid out there."""
    model = tiny.make(tied=True)
    got = lay_out(model.config, arrays(model).items(), DeviceArray(np.empty(0)))
    for name, array in arrays(model).items():
        np.testing.assert_array_equal(got[name].get(), array, err_msg=name)


@examples(20)
@given(models)
def test_a_loaded_model_is_not_copied_to_decode(model):
    """Its matrices are those of the decoder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), model)
        loaded = minisink.load(folder)
    used = fuse(loaded.weights, loaded.config).matrices
    layers = [array for layer in loaded.weights.layers for array in vars(layer).values()]
    for readable in (*layers, loaded.weights.head):
        if readable is not None and readable.ndim == 2:
            assert sum(np.shares_memory(readable, w) for w in used) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_random_model_lies_so_too(dtype):
    """Speed is measured of what a loaded model is."""
    model = random_model("novels", dtype=dtype)
    assert {array.dtype for array in model.arrays().values()} == {np.dtype(dtype)}
    assert model.weights.layers[0].wq.base is model.weights.layers[3].w_down.base is not None


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory a process has")
def test_a_real_model_lies_in_memory_once():
    """SmolLM2 loaded and decoding, in a process of its own, libraries and all: 1.2 times its weights at most."""
    try:
        package.installed("smollm2")
    except CheckpointError as error:
        pytest.skip(str(error))
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    weights, loaded, resident, peak = map(float, said.split())
    assert weights == pytest.approx(538, abs=1)
    assert loaded <= 1.2 * weights
    assert resident <= 1.2 * weights
    assert peak <= 1.2 * weights
