"""Where arrays are made: the host, or a GPU by way of CuPy."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from device_array import DeviceArray, close

from minisink.system.device import array_module, to_host


def test_the_host_needs_no_copy():
    """On "cpu" arrays are numpy's, and go to the device and back as they are."""
    x = np.ones(3)
    assert array_module("cpu") is np
    assert array_module("cpu").asarray(x) is x
    assert to_host(x) is x
    assert (to_host(DeviceArray(x)) == x).all()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "mps"])
def test_an_unknown_device_is_refused(device):
    """A device that is none is named."""
    with pytest.raises(ValueError, match=f"device '{device}' is not known"):
        array_module(device)


def test_a_gpu_without_cupy_is_refused(monkeypatch):
    """Without CuPy, the message says how to install it."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ValueError, match="pip install"):
        array_module("cuda")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    """What CUDA says of it is an error; otherwise that GPU is chosen."""
    used = []

    class CUDARuntimeError(RuntimeError):
        pass

    def device(i):
        if i >= 2:
            raise CUDARuntimeError("invalid device ordinal")
        return SimpleNamespace(use=lambda: used.append(i))

    runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=device), asarray=DeviceArray)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(ValueError, match="'cuda:2': CuPy finds no such GPU .invalid device ordinal"):
        array_module("cuda:2")
    assert array_module("cuda:1") is cupy
    close(array_module("cuda").asarray(np.ones(3)), np.ones(3))
    assert used == [1, 0]
