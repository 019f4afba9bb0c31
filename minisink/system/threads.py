"""One BLAS thread while products are small.

A second thread gains little there, and on a machine that is busy with something else, threads that wait for each other
cost many times the work. The count belongs to the whole process. So it is lowered within a call, never while a
generator waits to go on, and the last call to end gives it back. It is never raised: where ``OPENBLAS_NUM_THREADS`` or
a limit of the caller's says one, nothing happens.
"""

import os
import threading
from contextlib import contextmanager
from functools import cache
from weakref import WeakSet

SMALL = 30_000_000  # a model of fewer parameters runs on one thread; measured by benchmarks/threads.py


@contextmanager
def one_thread(n_parameters=0):
    """Hold the BLAS to one thread in a block, or as a decorator; for a model of `SMALL` parameters or more do nothing.

    >>> with one_thread():
    ...     {library.num_threads for library in _blas(os.getpid()).libraries} <= {1}
    True
    """
    if n_parameters >= SMALL:
        yield
        return
    blas, call = _blas(os.getpid()), _Call()
    try:
        blas.enter(call)
        yield
    finally:
        blas.leave(call)


def stay_on_one_thread():
    """Hold the BLAS to one thread from now on, in a process whose products are all small: a lesson, a worker."""
    _lower(_blas(os.getpid()).libraries)


@cache
def _blas(_):
    """Return what this process has: looked for once, and once more in a forked child, where no call is at work."""
    return _Blas()


class _Call:
    own = ()  # counts to give back that are of its thread only


class _Blas:
    """The matrix libraries of a process, and the calls that hold them to one thread.

    A library over OpenMP counts for each thread of Python by itself, so each call gives back its own.
    """

    def __init__(self):
        import numpy  # noqa: F401  (what is not loaded yet is not found)
        from threadpoolctl import ThreadpoolController

        self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        by_thread = [library for library in self.libraries if getattr(library, "threading_layer", "") == "openmp"]
        self.by_thread, self.shared = by_thread, [library for library in self.libraries if library not in by_thread]
        self.lock, self.lowered = threading.Lock(), []
        self.calls = WeakSet()  # one that a Ctrl-C kept from leaving is forgotten

    def enter(self, call):
        with self.lock:
            self.calls.add(call)
            self.lowered += _lower(self.shared)
        call.own = _lower(self.by_thread)

    def leave(self, call):
        """Give back the counts of this thread, and after the last call those of the process."""
        _set(call.own)
        with self.lock:
            self.calls.discard(call)
            if not self.calls:
                _set(self.lowered)
                self.lowered = []


def _lower(libraries):
    """Set each count to 1, and return the libraries whose count that changed, with what it was."""
    before = [(library, n) for library in libraries if (n := library.num_threads) and n > 1]
    _set((library, 1) for library, _ in before)
    return before


def _set(counts):
    for library, n in counts:
        library.set_num_threads(n)
        if hasattr(library, "clear_controlling_thread"):  # threadpoolctl 3.8: else no other thread could set it
            library.clear_controlling_thread()
