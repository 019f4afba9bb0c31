"""Work by other processes: the same results in the same order, one model in memory, and nobody left behind."""

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tiny
import work
from folders import words
from hypothesis import given
from profiles import examples

import minisink
from minisink import llama
from minisink.evaluation import jobs
from minisink.evaluation.jobs import connect, in_order, processes

linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux for memory and processes")
TEXTS = [np.arange(n) % 17 for n in range(1, 12)]
MODEL = minisink.Model(tiny.make().config, tiny.make().weights, words(17), name="tiny")


class Elsewhere(Executor):
    """Does at once, pickled to and fro, what it is given; items in `deaths` are lost, as often as they are there."""

    _max_workers = 2

    def __init__(self, deaths=()):
        self.deaths, self.order, self.out, self.most = list(deaths), [], 0, 0

    def submit(self, *call):
        function, *args = pickle.loads(pickle.dumps(call))
        future = Future()
        self.order.append(args[-1])
        self.out += 1
        self.most = max(self.most, self.out)
        if self.deaths and args[-1] == self.deaths[0]:
            future.set_exception(BrokenProcessPool(f"{self.deaths.pop(0)} died"))
            return future
        try:
            future.set_result(function(*args))
        except ZeroDivisionError as error:
            future.set_exception(error)
        return future


@examples(20)
@given(tiny.models() | tiny.families())
def test_the_same_results_in_the_same_order(made):
    """Any architecture by mapped file, whatever executor; the model is in memory afterwards, its numbers as before."""
    model = minisink.Model(made.config, made.weights, words(17), name="tiny")
    before = model.arrays()
    want = list(in_order(work.logits, model, TEXTS))
    for executor in (Elsewhere(), ThreadPoolExecutor(2)):
        with executor:
            got = list(in_order(work.logits, model, iter(TEXTS), executor))
        assert len(got) == len(want)
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-10)
    for name, array in model.arrays().items():
        assert array.dtype == np.float64 and not isinstance(array.base, np.memmap)
        np.testing.assert_array_equal(array, before[name])


def test_the_file_is_there_while_there_is_work(monkeypatch, tmp_path):
    """A model that is laid out lies so at the other end, its tokenizer with it; then the folder is gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = minisink.load("novels")
    strides = {name: array.strides for name, array in model.arrays().items()}
    for text, lay in in_order(work.look, model, ["It was a dark night"] * 3, Elsewhere()):
        assert text == "It was a dark night" and lay == strides
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    assert {name: array.strides for name, array in model.arrays().items()} == strides


def test_items_are_taken_as_they_are_needed():
    """No more than two a worker ahead of what was yielded."""
    taken, executor = [], Elsewhere()
    for n_yielded, _ in enumerate(in_order(work.fail, MODEL, (taken.append(n) or -n for n in range(50)), executor)):
        assert len(taken) <= n_yielded + 4
    assert taken == [*range(50)]


def test_what_work_raises_comes_through():
    """As it is, after the results before it."""
    for executor in (None, Elsewhere(), ThreadPoolExecutor(2)):
        results = in_order(work.fail, MODEL, range(9), executor)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError, match="three"):
            next(results)


def test_what_was_lost_is_done_again_by_itself_and_then_named():
    executor = Elsewhere(deaths=[3, 4])
    assert list(in_order(work.fail, MODEL, [-1, 0, 3.5, 4, 5, 6, 7, 8], Elsewhere([4, 6]))) == [
        -1,
        0,
        3.5,
        4,
        5,
        6,
        7,
        8,
    ]
    executor = Elsewhere([5, 5, 5])
    results = in_order(work.fail, MODEL, [0, 1, 2, 4, 5, 6, 7, 8], executor)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 4]
    with pytest.raises(ChildProcessError, match="^5: the process that works on it dies every time$"):
        next(results)
    assert executor.order.count(5) == 3 and 8 not in executor.order


@pytest.mark.parametrize("n_jobs", [0, -1, 1.5, True])
def test_a_number_of_jobs_that_is_none(n_jobs):
    with pytest.raises(ValueError, match="^jobs"), processes(n_jobs):
        pass


def test_one_job_is_this_process():
    with processes(1) as executor:
        assert executor is None


def test_what_cannot_be_lent_is_one_line(monkeypatch, tmp_path):
    """Weights on a device, a full disk, a folder that a worker does not see."""
    on_device = minisink.Model(MODEL.config, llama.Weights(embed=memoryview(b""), layers=[], norm=None, head=None))
    monkeypatch.setattr(minisink.Model, "dtype", np.dtype("f4"))
    with pytest.raises(ValueError, match="its weights are on a device"):
        list(in_order(work.fail, on_device, [0], Elsewhere()))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="nowhere: missing on a worker's machine; set TMPDIR"):
        jobs._mapped(MODEL, str(tmp_path / "nowhere"), "<f4")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    before = MODEL.weights
    with pytest.raises(ValueError, match=r"no room for the weights, .* \(No space left on device\)"):
        list(in_order(work.fail, MODEL, [0], Elsewhere()))
    assert MODEL.weights is before


def test_without_the_extra_a_cluster_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'minisink\[dask\]'"), connect("tcp://127.0.0.1:1"):
        pass


# Real processes -----------------------------------------------------------------------------------


def of_two(start):
    return processes(2) if start is None else ProcessPoolExecutor(2, multiprocessing.get_context(start))


STARTS = [None, *multiprocessing.get_all_start_methods()]
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@forks
@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_processes_of_any_start(start):
    """The same numbers; our own have one BLAS thread."""
    model = minisink.load("novels")
    want = list(in_order(work.logits, model, TEXTS))
    with of_two(start) as executor:
        np.testing.assert_equal(list(in_order(work.logits, model, TEXTS, executor)), want)
        np.testing.assert_equal(list(in_order(work.logits, model, TEXTS, executor)), want)  # a second file
        if start is None:
            assert list(in_order(work.threads, model, [0], executor)) == [1]
    assert multiprocessing.active_children() == [] or start == "forkserver"


@forks
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
@pytest.mark.parametrize("start", [start for start in STARTS if start in (None, "fork")])
def test_processes_that_die(start, tmp_path):
    """Once: nothing is lost, however many; twice: the item is named, and those before it were yielded."""
    items = [(number, tmp_path) for number in range(10)]
    for number in (7, 8):
        (tmp_path / f"{number}.once").touch()
    with of_two(start) as executor:
        assert list(in_order(work.die, MODEL, items, executor)) == [*range(10)]
    (tmp_path / "7.once").touch()
    (tmp_path / "7.twice").touch()
    (tmp_path / "7.thrice").touch()
    with of_two(start) as executor:
        results = in_order(work.die, MODEL, items, executor)
        assert [next(results) for _ in range(7)] == [*range(7)]
        with pytest.raises(ChildProcessError, match=r"^\(7, "):
            next(results)


@linux
@pytest.mark.slow
def test_the_weights_are_in_memory_once():
    """Two processes and this one together have them once, and next to nothing of their own."""
    config = llama.Config(**tiny.LLAMA | {"d_model": 1000, "d_ff": 4000})
    shapes = minisink.hf.arrays.shapes(config)
    model = minisink.Model(config, jobs.from_arrays(config, {k: np.ones(v, np.float32) for k, v in shapes.items()}))
    n_bytes = 4 * model.n_parameters
    found, before = [], work.measure()
    with processes(2) as executor:
        for result in in_order(work.memory, model, range(2), executor):
            found = [*found, result]
            here = work.measure()
    shared = [*(shared for shared, _ in found), here[0]]
    assert n_bytes > 1.4e8 and 0.9 * n_bytes < sum(shared) < 1.1 * n_bytes
    assert max(own for _, own in found) < 0.4 * n_bytes and here[1] - before[1] < 0.4 * n_bytes


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("how", ["group", "parent", "kill"])
def test_nobody_is_left_behind(how, tmp_path):
    """Ctrl-C, which all get; a signal to the parent alone; its sudden end."""
    began = tmp_path / "began"
    program = subprocess.Popen(
        [sys.executable, work.__file__, str(began)], stderr=subprocess.PIPE, cwd=tmp_path, start_new_session=True
    )
    pids = []
    while len(pids) < 2:
        time.sleep(0.1)
        with suppress(OSError):
            pids = began.read_text(encoding="utf-8").split()
    if how == "group":
        os.killpg(program.pid, signal.SIGINT)
    else:
        os.kill(program.pid, signal.SIGINT if how == "parent" else signal.SIGKILL)
    _, said = program.communicate()
    assert how == "kill" or (program.returncode, said.decode()) == (130, "minisink: interrupted\n")
    while any(Path(f"/proc/{pid}").exists() for pid in pids):  # without an end if one stays
        time.sleep(0.1)
