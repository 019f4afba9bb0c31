"""Moving arrays to the GPU and back: the only file that names CuPy.

Everything else is written with ``np.*``; CuPy arrays support NumPy's dispatch protocols, so the same line
runs where its arrays live. A device is "cpu", "cuda" or "cuda:N".
"""

import numpy as np

from . import PACKAGE


def array_module(device):
    """Return the module that makes arrays on a device: ``numpy`` for "cpu", ``cupy`` for "cuda".

    Raise ValueError for an unknown device, if CuPy is not installed, or if there is no such GPU.
    """
    if device == "cpu":
        return np
    name, _, index = device.partition(":")
    if name != "cuda" or not (index == "" or index.isdecimal()):
        raise ValueError(f"device {device!r} is not known; use 'cpu', 'cuda' or 'cuda:N'")
    try:
        import cupy
    except ImportError:
        install = f"pip install '{PACKAGE}[gpu]' (or cupy-cuda12x for CUDA 12)"
        raise ValueError(f"device {device!r} needs CuPy: {install}") from None
    try:
        cupy.cuda.Device(int(index or 0)).use()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ValueError(f"device {device!r}: CuPy finds no such GPU ({error})") from None
    return cupy


def to_host(array):
    """Copy an array from any device to a numpy.ndarray, or return one unchanged."""
    return array.get() if hasattr(array, "get") else array


def place(array):
    """Return an array's address, shape, strides and dtype, which are equal for two views of the same data.

    >>> x = np.zeros((2, 3))
    >>> place(x[:, :2]) == place(x[:, :2]), place(x[:, :2]) == place(x[:, 1:])
    (True, False)
    """
    about = array.__array_interface__ if isinstance(array, np.ndarray) else array.__cuda_array_interface__
    return about["data"][0], array.shape, array.strides, array.dtype
