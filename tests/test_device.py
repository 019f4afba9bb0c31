"""Whatever runs on NumPy runs on a GPU: shown with arrays that refuse to meet a host array, as CuPy's do."""

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from numpy.lib.mixins import NDArrayOperatorsMixin

import minisink
from minisink import gpt2, llama
from minisink.device import array_module, to_device, to_host
from minisink.methods import METHODS


class DeviceArray(NDArrayOperatorsMixin):
    """A stand-in for CuPy's array: answers NumPy's dispatch protocols, and mixes with nothing but scalars."""

    def __init__(self, host):
        self.host = host

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return on_host(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function, types, args, options):
        if function is np.asarray and isinstance(args[0], np.ndarray | list):
            return DeviceArray(np.array(*args, **options))  # the one way from host to device
        return on_host(function, args, options)

    def __array__(self, *args, **options):
        raise TypeError("a device array does not turn into a host array by itself; call .get()")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.host, name)
        return (lambda *args, **options: on_host(value, args, options)) if callable(value) else wrapped(value)

    def __getitem__(self, index):
        return wrapped(self.host[as_index(index)])

    def __setitem__(self, index, value):
        self.host[as_index(index)] = unwrapped(value)

    def __len__(self):
        return len(self.host)

    def __float__(self):
        return float(self.host)

    def get(self):
        return self.host.copy()


def on_host(function, args, options):
    """Run `function` on the arrays behind device arrays, and wrap what it gives."""
    return wrapped(function(*unwrapped(args), **unwrapped(options)))


def unwrapped(value):
    """The host arrays behind device arrays, in any nesting; a host array that stands among them is an error."""
    if isinstance(value, DeviceArray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"a host array of shape {value.shape} meets a device array")
    if isinstance(value, tuple | list):
        return type(value)(unwrapped(v) for v in value)
    return {k: unwrapped(v) for k, v in value.items()} if isinstance(value, dict) else value


def wrapped(value):
    """Arrays, and the scalars a reduction leaves (0-d arrays on a GPU), as device arrays."""
    return DeviceArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def as_index(index):
    """An index may hold arrays of either side, as CuPy's may."""
    if isinstance(index, tuple):
        return tuple(as_index(i) for i in index)
    return index.host if isinstance(index, DeviceArray) else index


def on_device(value):
    """Weights with every array on the stand-in device."""
    if dataclasses.is_dataclass(value):
        return type(value)(**{field.name: on_device(getattr(value, field.name)) for field in dataclasses.fields(value)})
    if isinstance(value, list):
        return [on_device(v) for v in value]
    return DeviceArray(value) if isinstance(value, np.ndarray) else value


def close(got, want):
    assert isinstance(got, DeviceArray)
    np.testing.assert_allclose(got.get(), want, rtol=1e-12, atol=1e-12)


@pytest.fixture(
    params=[
        (llama, {"qkv_bias": True, "rope_scaling": tiny.LLAMA3}),
        (llama, {"softmax": "softmax1", "tied": True}),
        (gpt2, {}),
        (gpt2, {"sink_logit": True}),
    ],
    ids=["llama", "llama-softmax1", "gpt2", "gpt2-sink-logit"],
)
def models(request):
    """One model on the host and on the device."""
    arch, changes = request.param
    model = tiny.make(arch, **changes)
    return minisink.Model(model.config, model.weights), minisink.Model(model.config, on_device(model.weights))


def test_the_stand_in_refuses_host_arrays():
    """The guard can fail: a ufunc, an operator, a function, an assignment and a silent copy each refuse to mix."""
    host, device = np.ones(3), DeviceArray(np.ones(3))
    for mix in (
        lambda: np.add(device, host),
        lambda: host * device,
        lambda: device @ host,
        lambda: np.concatenate((device, host)),
        lambda: np.where(host > 0, device, 0.0),
        lambda: device.__setitem__(0, host[:1]),
        lambda: np.asarray(device),
    ):
        with pytest.raises(TypeError):
            mix()
    close(np.asarray(host, like=device) * 2.0 + np.float64(1.0), np.full(3, 3.0))


def test_a_dense_pass_stays_on_the_device(models):
    """Logits without a cache, and everything a trace shows."""
    (host, device), ids = models, tiny.ids(7)
    here, there = {}, {}
    close(device.forward(ids, trace=there), host.forward(ids, trace=here))
    close(device.forward(ids, rows=slice(-1, None)), host.forward(ids)[-1:])
    close(there["x"], here["x"])
    for a, b in zip(there["layers"], here["layers"], strict=True):
        assert set(a) == set(b)
        for name in a:
            close(a[name], b[name])


@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize("method", ["dense", "window", "streaming"])
def test_a_cache_stays_on_the_device(models, method, positions):
    """Chunks across the eviction boundary, with a trace, through every policy and numbering."""
    ids = tiny.ids(9)
    caches = [minisink.new_cache(m, method=method, n_sinks=1, window=3, positions=positions) for m in models]
    for chunk in (ids[:3], ids[3:4], ids[4:]):
        here, there = {}, {}
        want = models[0].forward(chunk, cache=caches[0], trace=here)
        close(models[1].forward(chunk, cache=caches[1], trace=there), want)
        for a, b in zip(there["layers"], here["layers"], strict=True):
            close(a["pattern"], b["pattern"])
    for a, b in zip(caches[1].layers, caches[0].layers, strict=True):
        close(a.keys, b.keys)
        close(a.values, b.values)
    assert caches[1].nbytes == caches[0].nbytes


@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize("method", METHODS)
def test_losses_and_text_come_back_to_the_host(models, method, positions):
    """token_nll and generate work on the device, and give host arrays and plain ints."""
    host, device = models
    options = {"method": method, "n_sinks": 1, "window": 3, "positions": positions}
    blocks = [list(minisink.nll_blocks(m, tiny.ids(12), block=4, **options)) for m in (device, host)]
    np.testing.assert_allclose(np.concatenate(blocks[0]), np.concatenate(blocks[1]), rtol=1e-12)
    texts = [list(minisink.generate(m, [1, 2], max_new_tokens=6, **options)) for m in (device, host)]
    assert texts[0] == texts[1]
    assert all(type(token) is int for token in texts[0])


def test_a_saved_cache_comes_back_to_the_device(models, tmp_path):
    """A cache saved from the device is restored there, and the stream goes on to the same bits."""
    device, ids = models[1], tiny.ids(9)
    cache = minisink.new_cache(device, n_sinks=1, window=3)
    device.forward(ids[:6], cache=cache)
    minisink.save_cache(cache, tmp_path / "cache")
    restored = minisink.load_cache(tmp_path / "cache", like=device.weights.embed)
    got, want = (device.forward(ids[6:], cache=c) for c in (restored, cache))
    assert (got.get() == want.get()).all()


def test_the_host_needs_no_copy():
    """On "cpu" arrays are numpy's, and go to the device and back as they are."""
    x = np.ones(3)
    assert array_module("cpu") is np
    assert to_device(x, "cpu") is x
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
    """CuPy without a driver, or with fewer GPUs than asked for, is an error; otherwise that GPU is chosen."""
    used = []

    class CUDARuntimeError(RuntimeError):
        pass

    def no_driver():
        raise CUDARuntimeError("no driver")

    runtime = SimpleNamespace(getDeviceCount=no_driver, CUDARuntimeError=CUDARuntimeError)
    device = lambda i: SimpleNamespace(use=lambda: used.append(i))  # noqa: E731
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=device), asarray=DeviceArray)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(ValueError, match="no GPU .no driver"):
        array_module("cuda")
    runtime.getDeviceCount = lambda: 2
    with pytest.raises(ValueError, match="'cuda:2' does not exist; this machine has 2"):
        array_module("cuda:2")
    assert array_module("cuda:1") is cupy
    close(to_device(np.ones(3), "cuda"), np.ones(3))
    assert used == [1, 0]
