"""Parts of a text on a Dask cluster of two workers: the same numbers, also when a worker dies."""

import sys

import numpy as np
import pytest
import work

import minisink
from minisink.evaluation.jobs import connect, in_order
from minisink.methods import Streaming

dask = pytest.importorskip("dask", reason="needs the extra dask")
distributed = pytest.importorskip("distributed", reason="needs the extra dask")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(sys.platform == "win32", reason="kills workers"),
]


@pytest.fixture(scope="module")
def cluster():
    """Two workers, which find tests/evaluation/work.py as this test does.

    Every two seconds Dask drops the copies that idle workers hold, and a worker that gets work after that fetches the
    model again. Here it does not, since one test counts the copies.
    """
    keep_copies = {"distributed.scheduler.active-memory-manager.start": False}
    options = {"dashboard_address": ":0", "silence_logs": 50}
    with dask.config.set(keep_copies), distributed.LocalCluster(2, threads_per_worker=1, **options) as cluster:
        yield cluster


def test_the_same_numbers_and_the_weights_once(cluster):
    """Each worker has one model, whatever it is asked for."""
    model = minisink.load("novels")
    ids, method = np.random.default_rng(0).integers(1, 1000, 3000), Streaming(1, 31)
    with connect(cluster.scheduler_address) as executor:
        nll = np.concatenate(list(minisink.nll_parts(model, ids, method, executor=executor, parts=7)))
        np.testing.assert_allclose(nll, minisink.token_nll(model, ids, method), atol=2e-5)
        seen = set(in_order(work.which, model, range(20), executor))
    assert len({process for process, _ in seen}) == len(seen) <= 2


def test_a_worker_that_dies(cluster, tmp_path):
    """Nothing is lost, not even when each of them dies."""
    model, items = minisink.load("novels"), [(number, tmp_path) for number in range(8)]
    for number in (2, 5):
        (tmp_path / f"{number}.once").touch()
    with connect(cluster.scheduler_address) as executor:
        assert list(in_order(work.die, model, items, executor)) == [*range(8)]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "tcp://", "other://127.0.0.1:1"])
def test_nobody_answers(address, monkeypatch):
    monkeypatch.setattr("minisink.evaluation.jobs.TIMEOUT", 1)
    with pytest.raises(ValueError, match=f"^{address}: no Dask scheduler answers there"), connect(address):
        pass
