"""One BLAS thread while products are small: how many there are, at work and afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from threadpoolctl import threadpool_info, threadpool_limits

import minisink
from minisink import Streaming
from minisink.fast.decoder import Decoder
from minisink.paths import Uncached
from minisink.system import threads
from minisink.system.threads import one_thread, stay_on_one_thread
from minisink.training import gradients, optimizer
from minisink.training.parameters import initial_vector
from minisink.training.trigger import toy as trigger


def counts():
    """Return how many threads each BLAS of this process takes."""
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@contextmanager
def all_at(n):
    """Let each BLAS take `n` threads, as a script finds them that sets no variable."""
    before = [(library, library.num_threads) for library in threads._libraries()]
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            patch.delenv(variable, raising=False)
        threads._free.cache_clear()
        try:
            for library, _ in before:
                threads._set(library, n)
            yield
        finally:
            for library, was in before:
                threads._set(library, was)
    threads._free.cache_clear()


@pytest.fixture
def three():
    """Let each BLAS take three threads during a test."""
    if not counts():
        pytest.skip("no BLAS here that threadpoolctl knows")
    with all_at(3):
        assert set(counts()) == {3}
        yield [3] * len(counts())


class Looking(Uncached):
    """A path that notes how many threads the attention runs on."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def mix(self, *args, **more):
        self.seen += counts()
        return super().mix(*args, **more)


class ByThread:
    """A BLAS over OpenMP: what one thread of Python sets, another does not see."""

    threading_layer = "openmp"

    def __init__(self):
        self.local = threading.local()

    @property
    def num_threads(self):
        return getattr(self.local, "n", 5)

    def set_num_threads(self, n):
        self.local.n = n


def test_a_model_runs_on_one_thread_and_gives_the_others_back(novels, three, monkeypatch):
    """A forward pass of a small model, of a big one, and one that fails."""
    path = Looking()
    novels.forward([1, 2, 3], path)
    assert set(path.seen) == {1} and counts() == three
    with pytest.raises(ZeroDivisionError):
        novels.forward([1], SimpleNamespace(positions=lambda n: 1 / 0, mix=print))
    assert counts() == three
    monkeypatch.setattr(threads, "SMALL", novels.config.d_model)
    path = Looking()
    novels.forward([1, 2, 3], path)
    assert set(path.seen) == {3}


def test_a_token_is_decoded_on_one_thread(novels, three, monkeypatch):
    seen, step = [], Decoder._step
    monkeypatch.setattr(Decoder, "_step", lambda *args: seen.append(counts()) or step(*args))
    list(minisink.generate(novels, [1, 2, 3], max_new_tokens=2))
    assert seen == [[1] * len(three)] * 2 and counts() == three


def test_a_text_that_waits_holds_nothing(novels, three):
    """Between two tokens or blocks all threads are there: two texts at once, one dropped in the middle."""
    first, second = (minisink.generate(novels, [1, 2, 3], Streaming(1, 7), readable=slow) for slow in (False, True))
    blocks = minisink.nll_blocks(novels, list(range(20)), chunk=4)
    for _ in range(3):
        for waiting in (first, second, blocks):
            next(waiting)
            assert counts() == three
    del first
    second.close()
    assert counts() == three


def test_a_gradient_is_made_on_one_thread(novels, three, monkeypatch):
    """Of a small model; with workers, of a big one too."""
    seen, forward = [], gradients.passes.forward
    monkeypatch.setattr(gradients.passes, "forward", lambda *args: seen.append(counts()) or forward(*args))
    vector, ids = initial_vector(novels.config, 0), np.arange(12).reshape(4, 3)
    for small, workers, expected in ((1e9, 1, 1), (1e9, 2, 1), (1, 1, 3), (1, 2, 1)):
        monkeypatch.setattr(threads, "SMALL", small)
        gradients.batch_gradient(novels.config, vector, ids, ids, piece=2, workers=workers)
        assert seen == [[expected] * len(three)] * 2 and counts() == three
        seen.clear()


def test_the_rest_of_a_training_runs_on_one_thread(three, monkeypatch):
    """The norm of a gradient, and a whole training of the smallest toy, which fails here."""

    class Gradient:
        def __matmul__(self, _):
            return len(seen.append(counts()) or seen)

    seen = []
    assert optimizer.clip(Gradient(), 9.0) == 1.0
    monkeypatch.setattr(trigger.Toy, "gradient", lambda *_: (np.nan, seen.append(counts())))
    with pytest.raises(ValueError, match="the loss is nan"):
        trigger.Toy("softmax").train(1)
    assert seen == [[1] * len(three)] * 2 and counts() == three


def test_a_smaller_limit_stays(novels, three):
    """A limit of the caller's holds within a text and after it, also where the text began before."""
    text = minisink.generate(novels, [1, 2, 3])
    next(text)
    with threadpool_limits(1, "blas"):
        next(text)
        assert set(counts()) == {1}
    assert counts() == three
    with threadpool_limits(2, "blas"):
        next(text)
        assert set(counts()) == {2}
    assert counts() == three


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12), st.integers(1, 3))
def test_the_threads_are_given_back(calls, n):
    """Calls on four threads of Python begin and end in any order, nested too, with a BLAS of each kind."""
    by_thread, shared = ByThread(), threads._libraries()
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        stack.enter_context(all_at(n))
        patch.setattr(threads, "_free", lambda: [*shared, by_thread])
        workers = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(4)]
        at_work = [[] for _ in workers]
        before = counts()
        for i, begins in calls:
            if begins:
                at_work[i].append(one_thread())
                workers[i].submit(at_work[i][-1].__enter__).result()
                assert set(counts()) <= {1}
            elif at_work[i]:
                workers[i].submit(at_work[i].pop().__exit__, None, None, None).result()
            own = [worker.submit(lambda: by_thread.num_threads).result() for worker in workers]
            assert own == [1 if calls else 5 for calls in at_work]
        for worker, left in zip(workers, at_work, strict=True):
            while left:
                worker.submit(left.pop().__exit__, None, None, None).result()
        assert counts() == before


def test_many_threads_at_once(three):
    """Calls that overlap as they come, thousands of them."""

    def busy(seed):
        for _ in range(500):
            with one_thread(), one_thread():
                pass

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(busy, range(6)))
    assert counts() == three


@pytest.mark.parametrize("variable", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_a_variable_says_what_it_is(three, monkeypatch, variable):
    """Who sets one has chosen."""
    monkeypatch.setenv(variable, "3")
    threads._free.cache_clear()
    with one_thread():
        assert counts() == three


def test_a_process_may_stay_on_one_thread(three):
    stay_on_one_thread()
    assert set(counts()) == {1}
    with one_thread():
        pass
    assert set(counts()) == {1}
