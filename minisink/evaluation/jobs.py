"""The same work on many items, by processes here or on other machines: results in order, the model sent once."""

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
    """Yield ``work(model, item)`` for each item, in their order: done here, or by an executor.

    `work` is a function of a module. Items are taken as they are needed, two for each worker ahead. What is lost with
    a process that died is done again, with nothing beside it; an item that this too ends is named: ChildProcessError.
    """
    items = track(items)
    if executor is None:
        yield from (work(model, item) for item in items)
        return
    items, waiting = iter(items), deque()
    with ExitStack() as stack:
        pool = _Pool(executor, partial(_work, work), model, stack)
        stack.callback(lambda: [future.cancel() for _, future in waiting])
        while True:
            if not any(future.done() and _lost(future.exception()) for _, future in waiting):
                ahead = islice(items, 2 * pool.n_workers - len(waiting))
                waiting.extend((item, pool.submit(item)) for item in ahead)
            if not waiting:
                return
            item, future = waiting.popleft()
            for n_left in (2, 1, 0):  # its process may first have died of another item, then of itself
                try:
                    result = _finished(future).result()
                    break
                except BaseException as error:
                    if not _lost(error):
                        raise
                    if not n_left or type(error).__name__ == "KilledWorker":  # Dask has done it again by itself
                        name = getattr(item, "name", None) or shorten(repr(item), 60)
                        raise ChildProcessError(f"{name}: the process that works on it dies, done again too") from error
                future = pool.again(item)
            yield result


class _Pool:
    """An executor that has been lent a model; another one once a process of it has died."""

    def __init__(self, executor, work, model, stack):
        self.executor, self.work, self.stack = executor, work, stack
        self.client = getattr(executor, "_client", None)  # Dask's
        if self.client:
            self.n_workers = sum(self.client.nthreads().values())
        else:
            self.n_workers = getattr(executor, "_max_workers", None) or cores()
        in_memory = self.client or isinstance(executor, ThreadPoolExecutor)
        self.lent = _Lent(model, None if in_memory else stack.enter_context(_folder(model)))
        # the result of a task: where it is lost Dask makes it again; what is scattered, it does not
        self.sent = self.client.submit(_Lent, model, pure=False) if self.client else self.lent

    def submit(self, item):
        """Return the future of an item: one that has failed, where the executor takes no more."""
        if self.client:  # whose executor waits without an end for what was lost
            return self.client.submit(self.work, self.sent, item, pure=False)
        try:
            return self.executor.submit(self.work, self.sent, item)
        except BrokenExecutor as error:
            (future := Future()).set_exception(error)
            return future

    def again(self, item):
        """Do an item again whose process died, and maybe what lay there, or all the others with it."""
        future, old = self.submit(item), self.executor
        if isinstance(old, ProcessPoolExecutor) and future.done() and _lost(future.exception()):
            how = old._mp_context, old._initializer, old._initargs
            self.executor = self.stack.enter_context(_killed(ProcessPoolExecutor(self.n_workers, *how)))
            future = self.submit(item)
        return future


class _Lent:
    """A model that travels as a folder, which is mapped where it arrives; without a folder, as it is."""

    def __init__(self, model, folder=None):
        self.model, self.folder = model, folder

    def __reduce__(self):
        if self.folder is None:
            return _Lent, (self.model,)
        rest = {name: value for name, value in vars(self.model).items() if name not in ("weights", "tokenizer")}
        return _arrive, (self.folder, self.model.dtype.str, type(self.model), rest)


def _arrive(folder, dtype, kind, rest):
    model = kind.__new__(kind)
    vector, tokenizer = _opened(folder, dtype)
    vars(model).update(rest, weights=from_arrays(rest["config"], cut(rest["config"], vector)), tokenizer=tokenizer)
    return _Lent(model)


def _work(work, lent, item):
    return work(lent.model, item)


@contextmanager
def _folder(model):
    """Write weights and tokenizer to a folder for other processes; as long as it is there, the model itself maps it.

    So the weights are in memory once, however many processes read them.
    """
    config, like = model.config, np.empty(0, model.dtype)  # no view of the weights, which would keep them in memory
    if not isinstance(model.weights.embed, np.ndarray):
        raise ValueError(f"{model.name}: its weights lie on a device, where other processes do not reach them")
    with unfinished_folder(tempfile.gettempdir()) as folder:
        with blame(folder, "no room for the weights, which other processes read there"):
            Path(folder, WEIGHTS).write_bytes(bytes(model.n_parameters * like.itemsize))  # a map's page may find none
            if model.tokenizer:
                Path(folder, TOKENIZER).write_text(model.tokenizer.to_str(), encoding="utf-8")
        mapped = np.asarray(np.memmap(Path(folder, WEIGHTS), like.dtype, "r+"))
        model.weights = from_arrays(config, fill(config, model.arrays().items(), mapped))
        try:
            yield str(folder)
        finally:
            model.weights = from_arrays(config, lay_out(config, model.arrays().items(), like))


@lru_cache(maxsize=1)
def _opened(folder, dtype):
    """Map a folder of `_folder`, once in each process."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: not there on a worker's machine; let TMPDIR be a folder that all of them see")
    from tokenizers import Tokenizer  # imported here, as in `hf`

    tokenizer = Path(folder, TOKENIZER)
    weights = np.asarray(np.memmap(Path(folder, WEIGHTS), dtype, "c"))
    return weights, Tokenizer.from_file(str(tokenizer)) if tokenizer.exists() else None


@contextmanager
def processes(n_jobs):
    """Yield an executor of `n_jobs` processes, each on one BLAS thread; None for 1, which is this process.

    None of them is left, however this ends: after an exception or Ctrl-C they are gone at once.
    """
    check_whole("jobs", n_jobs, 1)
    if n_jobs > cores():
        warn_caller(f"{n_jobs} jobs on {cores()} cores: more than one for each core bring nothing")
    if n_jobs == 1:
        yield None
        return
    with _killed(ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn"), _begin)) as pool:
        mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has none
        before = mask(getattr(signal, "SIG_BLOCK", 0), {signal.SIGINT})  # they inherit it: Ctrl-C is this process's
        for _ in range(n_jobs):
            pool.submit(os.getpid)  # each starts one
        mask(getattr(signal, "SIG_SETMASK", 0), before)
        yield pool


@contextmanager
def connect(address):
    """Yield an executor of the Dask cluster whose scheduler is at `address`; ValueError if it does not answer."""
    import asyncio  # only here: it takes longer to import than all else of this file

    try:
        from distributed import Client, core
    except ImportError:
        raise ValueError(f"a Dask cluster needs distributed: pip install '{PACKAGE}[dask]'") from None

    async def knock():
        (await core.connect(address, timeout=TIMEOUT)).abort()

    try:
        asyncio.run(knock())  # a Client that finds nobody takes long to go
    except (OSError, ValueError) as error:
        raise ValueError(f"{address}: no Dask scheduler answers there ({error})") from None
    with Client(address, set_as_default=False) as client:
        yield client.get_executor()


@contextmanager
def _killed(pool):
    """End the processes of a pool with the block, busy or not."""
    try:
        yield pool
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(cancel_futures=True)


def _begin():
    """Prepare a process: one BLAS thread, Ctrl-C left to its parent, an end with that."""
    stay_on_one_thread()
    np.empty(31 << 20, np.uint8)  # glibc keeps what is freed up to this size: no pass has to map its blocks again
    warnings.simplefilter("ignore", UserWarning)  # each process would say it once more
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow():
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _finished(future):
    while not future.done():
        time.sleep(0.005)  # to wait without an end is not to be interrupted on Windows
    return future


def _lost(error):
    """Tell whether an item failed since its process died."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ in ("KilledWorker", "FutureCancelledError")


def cores():
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
