"""The same work on many items, on processes of this machine or on others: results in order, the model sent once."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from functools import lru_cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from textwrap import shorten

import numpy as np
from tokenizers import Tokenizer

from ..cache import check_whole
from ..hf.arrays import from_arrays
from ..hf.layout import lay_out, matrices, side_by_side
from ..system import PACKAGE
from ..system.errors import warn_caller
from ..system.files import blame, load_state, save_state

KIND = "minisink.model"  # of the file of what is no matrix
TIMEOUT = 10  # seconds in which a cluster must answer
IN_FLIGHT = 2  # items a worker: one it works on, one that waits for it


def in_order(work, model, items, executor=None):
    """Yield ``work(model, item)`` for each item, in their order.

    Parameters
    ----------
    work : function of a module, of a model and an item
    model : Model
        It travels once to each worker; on one machine all map the same file.
    items : iterable
        Taken as they are needed, about two for each worker ahead of what is yielded.
    executor : concurrent.futures.Executor, optional
        Without one the work is done here, one item after another.

    Raises
    ------
    ChildProcessError
        Naming the item whose process ended without a result, and did so again.
    """
    if executor is None:
        yield from (work(model, item) for item in items)
        return
    items, waiting = iter(items), deque()
    with ExitStack() as stack:
        pool = _Pool(executor, work, model, stack)
        stack.callback(lambda: [future.cancel() for _, future in waiting])
        while True:
            if not any(_lost(future) for _, future in waiting):  # what is done again is done alone, to be known by name
                room = IN_FLIGHT * pool.n_workers - len(waiting)
                waiting.extend((item, pool.submit(item)) for item in islice(items, room))
            if not waiting:
                return
            item, future = waiting.popleft()
            _wait(future)
            if _lost(future):
                _wait(future := pool.again(item))
            if _lost(future):
                raise ChildProcessError(f"{_name(item)}: its process ended without a result, twice")
            yield future.result()


class _Pool:
    """An executor, to which a model is lent; a new one of its kind when one of its processes has died."""

    def __init__(self, executor, work, model, stack):
        self.executor, self.work, self.model, self.stack = executor, work, model, stack
        self.client = getattr(executor, "_client", None)  # of Dask
        if self.client:
            self.n_workers = sum(self.client.nthreads().values())
        else:
            self.n_workers = getattr(executor, "_max_workers", None) or _cores()
        self.lent = self._lend()

    def submit(self, item):
        try:
            return self.executor.submit(_call, self.work, self.lent, item)
        except BrokenExecutor as error:
            failed = Future()
            failed.set_exception(error)
            return failed

    def again(self, item):
        """Do an item again whose process died."""
        if self.client:
            self.lent = self._lend()  # what lay with the worker may be gone with it
        future, old = self.submit(item), self.executor
        if _lost(future) and isinstance(old, ProcessPoolExecutor):  # one process dies, and the pool takes no more
            how = old._mp_context, old._initializer, old._initargs
            self.executor = self.stack.enter_context(_killed_at_the_end(ProcessPoolExecutor(self.n_workers, *how)))
            future = self.submit(item)
        return future

    def _lend(self):
        if isinstance(self.executor, ThreadPoolExecutor):
            return _Lent(self.model)
        shell, arrays, tokenizer = _apart(self.model)
        if self.client:
            return self.client.scatter(_Lent(self.model, _unpack, (shell, arrays, tokenizer)), broadcast=True)
        return _Lent(self.model, _map, (self.stack.enter_context(_file(self.model)), shell))


class _Lent:
    """A model that travels as what makes it: ``make(*parts)`` at the other end."""

    def __init__(self, model, make=None, parts=()):
        self.model, self.make, self.parts = model, make, parts

    def __reduce__(self):
        return self.make, self.parts


def _call(work, lent, item):
    return work(lent.model, item)


def _apart(model):
    """Return a model without weights and tokenizer, its arrays, and the tokenizer as JSON."""
    if not isinstance(model.weights.embed, np.ndarray):
        raise ValueError(f"{model.name}: its weights lie on a device; other processes take those in memory")
    shell = copy(model)
    shell.weights = shell.tokenizer = None
    return shell, model.arrays(), model.tokenizer and model.tokenizer.to_str()


def _together(shell, arrays, tokenizer):
    """Undo `_apart`; the arrays lie where they are to be."""
    model = copy(shell)
    model.weights, model.tokenizer = from_arrays(model.config, arrays), tokenizer and Tokenizer.from_str(tokenizer)
    return _Lent(model)


def _unpack(shell, arrays, tokenizer):
    return _together(shell, lay_out(shell.config, arrays.items(), arrays["embed"][:0]), tokenizer)


def _map(folder, shell):
    vector, rest, tokenizer = _opened(folder)
    return _together(shell, rest | matrices(shell.config, vector), tokenizer)


@contextmanager
def _file(model):
    """Write a model to a folder that processes map; until it is gone, the model itself is what lies there.

    So its weights are in memory once, however many processes there are.
    """
    config, (_, arrays, tokenizer) = model.config, _apart(model)
    about = {"dtype": model.dtype.str, "tokenizer": tokenizer}
    with tempfile.TemporaryDirectory(prefix="minisink-", ignore_cleanup_errors=True) as folder:
        with blame(folder, "no room for the weights, which other processes read there"):
            with open(Path(folder) / "matrices", "wb") as file:
                for names in side_by_side(config):
                    parts = [arrays[name].T if config.tied and name == "embed" else arrays[name] for name in names]
                    file.write(np.ascontiguousarray(np.concatenate(parts, axis=1)).data)
        save_state(Path(folder) / "rest", KIND, about, {name: a for name, a in arrays.items() if a.ndim != 2})
        vector, rest, _ = _open(folder)
        model.weights = from_arrays(config, rest | matrices(config, vector))
        try:
            yield folder
        finally:
            model.weights = from_arrays(config, lay_out(config, model.arrays().items(), vector[:0]))


def _open(folder):
    """Map the matrices of `_file`, and read the rest."""
    about, rest = load_state(Path(folder) / "rest", KIND, f"what {KIND} lies in for other processes")
    return np.asarray(np.memmap(Path(folder) / "matrices", about["dtype"], "c")), rest, about["tokenizer"]


@lru_cache(maxsize=1)
def _opened(folder):
    """Open it once in each process."""
    if not Path(folder).exists():
        raise ValueError(f"{folder}: not seen by a worker on another machine; give TMPDIR a folder that all see")
    return _open(folder)


@contextmanager
def processes(n_jobs):
    """Yield an executor of `n_jobs` processes, each on one BLAS thread; None for 1, which is this process.

    None of them is left, however this ends: after an exception or Ctrl-C they are gone at once.

    Raises
    ------
    ValueError
        For less than one.
    """
    check_whole("jobs", n_jobs, 1)
    if n_jobs > _cores():
        warn_caller(f"{n_jobs} jobs, and {_cores()} cores: more jobs than cores bring nothing")
    if n_jobs == 1:
        yield None
        return
    pool = _Processes(n_jobs, multiprocessing.get_context("spawn"), _begin)
    with _killed_at_the_end(pool):
        yield pool


@contextmanager
def connect(address):
    """Yield an executor of the Dask cluster whose scheduler answers at `address`; ValueError if none does."""
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(f"a Dask cluster needs distributed: pip install '{PACKAGE}[dask]'") from None
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{address}: no Dask scheduler answers there ({error})") from None
    with client:
        yield client.get_executor(pure=False)


class _Processes(ProcessPoolExecutor):
    """Processes that Ctrl-C does not reach while they start."""

    def submit(self, *args, **kwargs):
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(*args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a process inherits
        try:
            return super().submit(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin():
    """Prepare a process for work: one BLAS thread, Ctrl-C left to its parent, no life without that."""
    with suppress(ImportError):
        import_module("threadpoolctl").threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


@contextmanager
def _killed_at_the_end(pool):
    try:
        yield pool
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(cancel_futures=True)


def _wait(future):
    while not wait([future], timeout=1).done:  # an endless one could not be interrupted on Windows
        pass


def _lost(future):
    """Whether it ended without a result since its worker did."""
    if not future.done():
        return False
    error = CancelledError() if future.cancelled() else future.exception()
    return isinstance(error, (BrokenExecutor, CancelledError)) or type(error).__name__ == "KilledWorker"


def _name(item):
    return getattr(item, "name", None) or shorten(repr(item), 60)


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
