"""The same work on many items, by processes here or on other machines: results in order, the model sent once."""

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import warnings
from collections import deque
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np

from ..cache import check_whole
from ..hf.arrays import from_arrays
from ..hf.layout import cut, fill
from ..system import PACKAGE
from ..system.errors import warn_caller
from ..system.files import blame, unfinished_folder
from ..system.threads import stay_on_one_thread

WEIGHTS, MODEL = "weights", "model.pickle"  # in the folder that processes share
TIMEOUT = 10  # seconds in which a cluster must answer


def in_order(work, model, items, executor=None, *, track=iter):
    """Yield ``work(model, item)`` for each item, in their order, computed here or by an executor.

    `work` is a function of a module. Items are taken as they are needed, two ahead per worker. Raise ChildProcessError
    if a process dies.
    """
    items = iter(track(items))
    if executor is None:
        yield from (work(model, item) for item in items)
        return
    client, n_workers = getattr(executor, "_client", None), getattr(executor, "_max_workers", None) or cores()
    in_memory, waiting = client or isinstance(executor, ThreadPoolExecutor), deque()
    with nullcontext() if in_memory else _folder(model) as folder:
        submit, shared = executor.submit, _Shared(model, folder)
        if client:  # Dask's; its executor would wait for ever for a lost result
            submit, n_workers = partial(client.submit, pure=False), sum(client.nthreads().values())
            shared = submit(_Shared, model)  # Dask computes a lost result again, but not data that was scattered
        try:
            while True:
                ahead = islice(items, 2 * n_workers - len(waiting))
                waiting.extend(submit(_work, work, shared, item) for item in ahead)
                if not waiting:
                    return
                while not waiting[0].done():
                    time.sleep(0.005)  # on Windows, Ctrl-C does not interrupt a wait without a limit
                yield waiting.popleft().result()
        except Exception as error:
            if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":  # Dask's
                raise ChildProcessError("a process died; perhaps there was not enough memory for so many") from error
            raise
        finally:
            for future in waiting:
                future.cancel()


class _Shared:
    """A model that is pickled as the path of a folder, which the worker maps into memory; without a folder, whole."""

    def __init__(self, model, folder=None):
        self.model, self.folder = model, folder

    def __reduce__(self):
        return (_opened, (self.folder, self.model.dtype.str)) if self.folder else (_Shared, (self.model,))


def _work(work, shared, item):
    return work(shared.model, item)


@contextmanager
def _folder(model):
    """Write a model to a folder that all workers map into memory, where its weights then are only once."""
    if not isinstance(model.weights.embed, np.ndarray):
        raise ValueError(f"{model.name}: its weights are on a device, out of reach of other processes")
    (rest := copy(model)).weights = None
    with unfinished_folder(tempfile.gettempdir()) as folder:
        with blame(folder, "no room for the weights, which other processes read there"):
            vector = np.empty(model.n_parameters, model.dtype)
            fill(model.config, model.arrays().items(), vector)
            (folder / WEIGHTS).write_bytes(vector.data)
            (folder / MODEL).write_bytes(pickle.dumps(rest))
        del vector
        yield str(folder)


@lru_cache(maxsize=1)
def _opened(folder, dtype):
    """Map a folder of `_folder`, once in each process."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: missing on a worker's machine; set TMPDIR to a folder that all of them share")
    model = pickle.loads(Path(folder, MODEL).read_bytes())
    vector = np.asarray(np.memmap(Path(folder, WEIGHTS), dtype, "c"))
    model.weights = from_arrays(model.config, cut(model.config, vector))
    return _Shared(model)


@contextmanager
def processes(n_jobs):
    """Yield an executor of `n_jobs` processes, each on one BLAS thread; None for 1, which is this process.

    After an exception or Ctrl-C the processes are killed at once.
    """
    check_whole("jobs", n_jobs, 1)
    if n_jobs > cores():
        warn_caller(f"{n_jobs} jobs on {cores()} cores; more than one per core gain nothing")
    if n_jobs == 1:
        yield None
        return
    pool = ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn"), _begin)
    try:
        mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has none
        before = mask(getattr(signal, "SIG_BLOCK", 0), {signal.SIGINT})  # inherited: Ctrl-C is left to this process
        for _ in range(n_jobs):
            pool.submit(os.getpid)  # each starts one
        mask(getattr(signal, "SIG_SETMASK", 0), before)
        yield pool
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()  # busy or not
        pool.shutdown(cancel_futures=True)


@contextmanager
def connect(address):
    """Yield an executor of the Dask cluster whose scheduler is at `address`; ValueError if it does not answer."""
    import asyncio  # only here, because it imports slowly

    try:
        from distributed import Client, core
    except ImportError:
        raise ValueError(f"a Dask cluster needs distributed: pip install '{PACKAGE}[dask]'") from None

    async def knock():
        (await core.connect(address, timeout=TIMEOUT)).abort()

    try:
        asyncio.run(knock())  # a Client that finds no scheduler takes long to give up
    except (OSError, ValueError) as error:
        raise ValueError(f"{address}: no Dask scheduler answers there ({error})") from None
    with Client(address, set_as_default=False) as client:
        yield client.get_executor()


def _begin():
    """Prepare a process: one BLAS thread, Ctrl-C left to its parent, and an end when the parent ends."""
    stay_on_one_thread()
    np.empty(31 << 20, np.uint8)  # from now on glibc keeps freed blocks up to this size
    warnings.simplefilter("ignore", UserWarning)  # each process would repeat it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow():
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def cores():
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
