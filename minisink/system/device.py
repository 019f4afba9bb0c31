"""To the GPU and back: the only file that names CuPy.

Everything else is written with ``np.*``; CuPy arrays answer NumPy's dispatch protocols, so the same line
runs where its arrays live.
"""

import numpy as np


def array_module(device):
    """The module that makes arrays on a device: ``numpy`` for "cpu", ``cupy`` for "cuda".

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:N".

    Returns
    -------
    module

    Raises
    ------
    ValueError
        For an unknown device, when CuPy is not installed, or when there is no such GPU.
    """
    if device == "cpu":
        return np
    name, _, index = device.partition(":")
    if name != "cuda" or not (index == "" or index.isdecimal()):
        raise ValueError(f"device {device!r} is not known; use 'cpu', 'cuda' or 'cuda:N'")
    try:
        import cupy
    except ImportError:
        raise ValueError(
            f"device {device!r} needs CuPy: pip install 'minisink[gpu]' (or cupy-cuda12x for CUDA 12)"
        ) from None
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ValueError(f"device {device!r}: CuPy finds no GPU ({error})") from None
    if int(index or 0) >= n_devices:
        raise ValueError(f"device {device!r} does not exist; this machine has {n_devices} GPU(s)")
    cupy.cuda.Device(int(index or 0)).use()
    return cupy


def to_device(array, device):
    """Copy a host array to a device ("cpu" returns it as it is).

    Parameters
    ----------
    array : numpy.ndarray
    device : str
        "cpu", "cuda" or "cuda:N".

    Returns
    -------
    ndarray of the device's own kind
    """
    return array_module(device).asarray(array)


def to_host(array):
    """Copy an array of any device to a numpy.ndarray (one that is there already is returned as it is).

    Parameters
    ----------
    array : ndarray
        NumPy's or CuPy's.

    Returns
    -------
    numpy.ndarray
    """
    return array.get() if hasattr(array, "get") else array


def same_memory(a, b):
    """Whether two arrays are one and the same: the same numbers at the same place, in the same order.

    >>> x = np.zeros((2, 3))
    >>> same_memory(x[:, :2], x[:, :2]), same_memory(x[:, :2], x[:, 1:])
    (True, False)
    """
    where = "__array_interface__" if isinstance(a, np.ndarray) else "__cuda_array_interface__"
    here, there = getattr(a, where, None), getattr(b, where, None)
    return here is not None and here == there
