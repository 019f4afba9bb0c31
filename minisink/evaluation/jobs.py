"""Do the same work on many items, in processes here or on other machines: results in order, the model sent once."""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
import warnings
from collections import deque
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from textwrap import shorten

import numpy as np

from ..cache import check_whole
from ..hf.arrays import from_arrays
from ..hf.layout import cut, fill, lay_out
from ..system import PACKAGE
from ..system.errors import warn_caller
from ..system.files import blame, unfinished_folder
from ..system.threads import stay_on_one_thread

WEIGHTS, TOKENIZER = "weights", "tokenizer.json"  # in the folder that processes share
TIMEOUT = 10  # seconds in which a cluster must answer


def in_order(work, model, items, executor=None, *, track=iter):
    """Yield ``work(model, item)`` for each item, in their order, computed here or by an executor.

    `work` is a module-level function. Items are taken as needed, two ahead per worker. Items lost when a process
    dies are redone, one at a time; ChildProcessError names an item that kills its process every time.
    """
    items = iter(track(items))
    if executor is None:
        yield from (work(model, item) for item in items)
        return
    waiting: deque = deque()
    with ExitStack() as stack:
        pool = _Pool(executor, work, model, stack)
        stack.callback(lambda: [future.cancel() for _, future in waiting])
        while True:
            if not any(future.done() and _died(future.exception()) for _, future in waiting):
                ahead = islice(items, 2 * pool.n_workers - len(waiting))
                waiting.extend((item, pool.submit(item)) for item in ahead)
            if not waiting:
                return
            yield pool.result(*waiting.popleft())


class _Pool:
    """An executor that shares a model with its workers, and is replaced when one of its processes dies."""

    def __init__(self, executor, work, model, stack):
        self.executor, self.work, self.stack = executor, work, stack
        self.client = getattr(executor, "_client", None)  # Dask's
        if self.client:
            self.n_workers = sum(self.client.nthreads().values())
            # if it is lost, Dask recomputes the result of a task, but not scattered data
            self.model = self.client.submit(copy, model, pure=False)
        else:
            self.n_workers = getattr(executor, "_max_workers", None) or cores()
            in_memory = isinstance(executor, ThreadPoolExecutor)
            self.model = model if in_memory else stack.enter_context(_folder(model))

    def submit(self, item):
        """Return the future of an item, a failed one if the executor accepts no more."""
        if self.client:  # its executor would wait for ever for a lost result
            return self.client.submit(_work, self.work, self.model, item, pure=False)
        try:
            return self.executor.submit(_work, self.work, self.model, item)
        except BrokenExecutor as error:
            (future := Future()).set_exception(error)
            return future

    def result(self, item, future):
        """Wait for an item, and redo it if its process dies, the first time perhaps because of another item."""
        for n_left in (2, 1, 0):
            while not future.done():
                time.sleep(0.005)  # on Windows, Ctrl-C does not interrupt a wait without a limit
            try:
                return future.result()
            except BaseException as error:
                if not _died(error):
                    raise
                if not n_left or type(error).__name__ == "KilledWorker":  # Dask has tried again by itself
                    name = getattr(item, "name", None) or shorten(repr(item), 60)
                    raise ChildProcessError(f"{name}: the process that works on it dies every time") from error
            future = self.submit(item)
            if isinstance(self.executor, ProcessPoolExecutor) and future.done() and _died(future.exception()):
                how = self.executor._mp_context, self.executor._initializer, self.executor._initargs
                self.executor = self.stack.enter_context(_killed(ProcessPoolExecutor(self.n_workers, *how)))
                future = self.submit(item)


def _work(work, model, item):
    return work(model() if isinstance(model, partial) else model, item)


@contextmanager
def _folder(model):
    """Write weights and tokenizer to a folder that all processes map, this one too, so memory holds the weights once.

    Yield a `partial` that makes the model in another process; its pickle holds the folder's name instead of weights.
    """
    config, like = model.config, np.empty(0, model.dtype)  # no view of the weights, which would keep them in memory
    if not isinstance(model.weights.embed, np.ndarray):
        raise ValueError(f"{model.name}: its weights are on a device, out of reach of other processes")
    with unfinished_folder(tempfile.gettempdir()) as folder:
        with blame(folder, "no room for the weights, which other processes read there"):
            Path(folder, WEIGHTS).write_bytes(bytes(model.n_parameters * like.itemsize))  # a full disk fails here
            if model.tokenizer:
                Path(folder, TOKENIZER).write_text(model.tokenizer.to_str(), encoding="utf-8")
        mapped = np.asarray(np.memmap(Path(folder, WEIGHTS), like.dtype, "r+"))
        model.weights = from_arrays(config, fill(config, model.arrays().items(), mapped))
        try:
            yield partial(_mapped, replace(model, weights=None, tokenizer=None), str(folder), like.dtype.str)
        finally:
            model.weights = from_arrays(config, lay_out(config, model.arrays().items(), like))


def _mapped(model, folder, dtype):
    vector, tokenizer = _opened(folder, dtype)
    return replace(model, weights=from_arrays(model.config, cut(model.config, vector)), tokenizer=tokenizer)


@lru_cache(maxsize=1)
def _opened(folder, dtype):
    """Map a folder of `_folder`, once in each process."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: missing on a worker's machine; set TMPDIR to a folder that all of them share")
    from tokenizers import Tokenizer  # imported here, as in `hf`

    tokenizer = Path(folder, TOKENIZER)
    weights = np.asarray(np.memmap(Path(folder, WEIGHTS), dtype, "c"))
    return weights, Tokenizer.from_file(str(tokenizer)) if tokenizer.exists() else None


@contextmanager
def processes(n_jobs):
    """Yield an executor of `n_jobs` processes, each on one BLAS thread; None for 1, which is this process.

    After an exception or Ctrl-C the processes are killed at once.
    """
    check_whole("jobs", n_jobs, 1)
    if n_jobs > cores():
        warn_caller(f"{n_jobs} jobs on {cores()} cores; more than one per core gains nothing")
    if n_jobs == 1:
        yield None
        return
    with _killed(ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn"), _begin)) as pool:
        mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has none
        before = mask(getattr(signal, "SIG_BLOCK", 0), {signal.SIGINT})  # inherited: Ctrl-C is left to this process
        for _ in range(n_jobs):
            pool.submit(os.getpid)  # each call starts one
        mask(getattr(signal, "SIG_SETMASK", 0), before)
        yield pool


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
        asyncio.run(knock())  # a Client that finds no scheduler takes a long time to give up
    except (OSError, ValueError) as error:
        raise ValueError(f"{address}: no Dask scheduler answers there ({error})") from None
    with Client(address, set_as_default=False) as client:
        yield client.get_executor()


@contextmanager
def _killed(pool):
    """Kill the processes of a pool, busy or not, when the block ends."""
    try:
        yield pool
    finally:
        manager, started = pool._executor_manager_thread, [*(pool._processes or {}).values()]
        pool.shutdown(wait=False, cancel_futures=True)  # before the kills: its thread must not fail cancelled futures
        for process in started:
            process.kill()
        if manager:
            manager.join()


def _begin():
    stay_on_one_thread()
    np.empty(31 << 20, np.uint8)  # from now on glibc keeps freed blocks up to this size
    warnings.simplefilter("ignore", UserWarning)  # each process would repeat it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # left to the parent
    threading.Thread(target=_follow, daemon=True).start()


def _follow():
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _died(error):
    return isinstance(error, BrokenExecutor) or type(error).__name__ in ("KilledWorker", "FutureCancelledError")


def cores():
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
