"""A stand-in for CuPy's arrays, which refuses to meet a host array as they do, and counts what a GPU would wait for."""

import dataclasses
from collections import Counter

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

TRAFFIC = Counter()  # copies to and from the stand-in device, and kernels it was sent
VIEWS = {"reshape", "swapaxes", "transpose", "view", "split"}  # no work for a GPU, as a rule


class DeviceArray(NDArrayOperatorsMixin):
    """A stand-in for CuPy's array: answers NumPy's dispatch protocols, and mixes with nothing but scalars.

    What CuPy refuses it refuses too; what makes the host wait for the GPU is counted in `TRAFFIC`.
    """

    def __init__(self, host):
        self.host = host

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method != "__call__" and ufunc not in (np.add, np.multiply):
            raise NotImplementedError(f"CuPy has no np.{ufunc.__name__}.{method}")
        return on_host(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function, types, args, options):
        if function is np.asarray and isinstance(args[0], np.ndarray | list):
            TRAFFIC["up"] += 1
            return DeviceArray(np.array(*args, **options))  # the one way from host to device
        return on_host(function, args, options)

    __cuda_array_interface__ = property(lambda self: self.host.__array_interface__)

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
        TRAFFIC["kernels"] += 1
        self.host[as_index(index)] = unwrapped(value)

    def __len__(self):
        return len(self.host)

    def __float__(self):
        return float(self.get())

    def __bool__(self):
        return bool(self.get())

    def dot(self, other, out=None):
        outs = () if out is None else (out,)
        if any(array.dtype != self.dtype for array in (other, *outs)):
            raise TypeError("a weight of another dtype would be copied whole")
        return on_host(self.host.dot, (other, *outs), {})

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def get(self):
        TRAFFIC["down"] += 1
        return self.host.copy()


def on_host(function, args, options):
    """Run `function` on the arrays behind device arrays, and wrap what it gives."""
    TRAFFIC["kernels"] += function.__name__ not in VIEWS
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
    if isinstance(value, list):
        return [wrapped(v) for v in value]
    return DeviceArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def as_index(index):
    """An index may hold arrays of either side, as CuPy's may."""
    if isinstance(index, tuple):
        return tuple(as_index(i) for i in index)
    TRAFFIC["up"] += isinstance(index, np.ndarray | list)
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
