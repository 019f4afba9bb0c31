"""One BLAS thread while products are small.

A second thread gains little there, and on a busy machine threads that wait for each other cost many times the work. The
count belongs to the whole process, so it is lowered within a call, never while a generator waits, then restored.
It is never raised, and is left alone if ``OPENBLAS_NUM_THREADS`` or ``OMP_NUM_THREADS`` sets it. If calls on several
Python threads overlap, the one that lowered the count restores it.
"""

import os
from contextlib import ExitStack, contextmanager
from functools import lru_cache

SMALL = 2048  # products narrower than this run on one thread: benchmarks/threads.py


@contextmanager
def one_thread(width=0):
    """Hold the BLAS to one thread in a block, or as a decorator; do nothing if products are at least `SMALL` wide.

    >>> with one_thread():
    ...     {library.num_threads for library in _free()} <= {1}
    True
    """
    with ExitStack() as restored:
        for library in _free() if width < SMALL else ():
            if (n := library.num_threads or 1) > 1:
                restored.callback(_set, library, n)
                _set(library, 1)
        yield


def stay_on_one_thread():
    """Hold the BLAS to one thread from now on."""
    for library in _libraries():
        _set(library, 1)


@lru_cache
def _free():
    """Return the libraries, unless the user has chosen their threads."""
    return () if {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys() else _libraries()


def _libraries():
    import numpy  # noqa: F401  (only loaded libraries are found)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set(library, n):
    library.set_num_threads(n)
    if hasattr(library, "clear_controlling_thread"):  # threadpoolctl 3.8: otherwise no other thread can set it
        library.clear_controlling_thread()
