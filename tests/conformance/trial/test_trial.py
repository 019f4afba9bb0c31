"""Three caches as engines have them are right; eighteen known bugs in them are found, where they must be, by name."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bugs import BUGS, RIGHT, ShiftedInHalf, Size, asked
from found import table

from minisink import conformance
from minisink.conformance import checking

PAGE = Path(__file__).parents[3] / "docs" / "check-your-cache.md"
GOLDEN = [trace for name in conformance.NAMES for trace in conformance.load(name)]
SIZES = [(0, 5), (1, 4), (3, 7), (0, 1), (2, 1), (0, 2), (1, 12), (16, 3), (17, 20), (5, 33)]  # n_sinks, window

bugs = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
caches = pytest.mark.parametrize("cache", RIGHT, ids=lambda cache: cache.__name__)


def drawn(n_sinks, window, **options):
    """A trace in two layers, long enough for blocks of 16 to leave it, and keys that are shared by two query heads."""
    n_tokens = n_sinks + window + 2 * 16 + 8
    return conformance.drawn(n_sinks=n_sinks, window=window, n_tokens=n_tokens, n_layers=2, **options)


def must_differ(bug, trace):
    """The first token that must differ in a trace, if any."""
    token = bug.token(Size(trace.n_sinks, trace.window, trace.theta is not None, trace.q.shape[1]))
    return None if token is None or token >= len(trace.q) else token


def found(bug, trace):
    """The first token that does."""
    report = conformance.check(bug.cache, trace, **bug.options)
    assert report or report.first.layer == bug.layer
    return None if report else report.first.token


@pytest.fixture
def undiagnosed(monkeypatch):
    """Only where, and not what it looks like: it takes most of the time."""
    monkeypatch.setattr(checking, "diagnose", lambda *args: ((), None))
    monkeypatch.setattr(checking, "right_under", lambda *args: ())


@caches
def test_the_three_are_right_under_their_own_policy(cache):
    """A prompt longer than the cache, and decoding; all of them evict."""
    report = conformance.check(cache, [GOLDEN[5], drawn(3, 7)], chunks=(9, 1), **asked(cache))
    assert report, report


@pytest.mark.slow
@caches
@pytest.mark.parametrize("chunks", [None, (9, 1), 4, (5, 7, 30)], ids=str)
def test_the_three_are_right_in_any_chunks(cache, chunks):
    report = conformance.check(cache, [*GOLDEN, *(drawn(*size) for size in SIZES)], chunks=chunks, **asked(cache))
    assert report, report


@pytest.mark.slow
@caches
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_three_are_right_in_less_precision(cache, dtype):
    as_dtype = partial(np.asarray, dtype=dtype)
    report = conformance.check(cache, [drawn(3, 7), drawn(17, 20)], to=as_dtype, chunks=(9, 1), **asked(cache))
    assert report and report.dtype == np.dtype(dtype).name, report


@pytest.mark.slow
@caches
def test_a_right_cache_is_told_which_policy_it_has(cache):
    """Under StreamingLLM two of them are wrong, and said to be something else that is known."""
    report = conformance.check(cache, **asked(cache) | {"policy": None})
    own = asked(cache).get("policy")
    assert report.right_under == ((own,) if own else ()) and bool(report) == (own is None)
    assert own is None or f"check(cache, policy={own!r})" in str(report)


@bugs
def test_each_bug_is_found_where_it_begins(bug, undiagnosed):
    trace = conformance.drawn(n_sinks=1, window=4, n_tokens=38, n_layers=2, n_heads=2, n_kv_heads=1)
    assert found(bug, trace) == must_differ(bug, trace) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "trace", [*GOLDEN, *(drawn(*size, theta=theta) for size in SIZES for theta in (50.0, None))], ids=repr
)
@bugs
def test_each_bug_is_found_where_it_begins_in_every_size(bug, trace, undiagnosed):
    """And not where it does not matter."""
    assert found(bug, trace) == must_differ(bug, trace)


@pytest.mark.slow
@bugs
def test_each_bug_is_found_by_its_name(bug):
    """In the traces that `check` takes by itself."""
    report = conformance.check(bug.cache, **bug.options)
    assert report.first.token == min(
        token for token in (must_differ(bug, trace) for trace in GOLDEN) if token is not None
    )
    assert [turn.name for turn in report.looks_like] == [bug.looks_like] and report.right_under == ()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_all_but_what_rounds_is_found_in_less_precision(dtype, undiagnosed):
    """In half precision keys that were shifted in half precision are as exact as they can be."""
    as_dtype = partial(np.asarray, dtype=dtype)
    unseen = [bug.cache for bug in BUGS if conformance.check(bug.cache, to=as_dtype, **bug.options)]
    assert unseen == ([ShiftedInHalf] if dtype == np.float16 else [])


@pytest.mark.slow
def test_the_page_has_the_table_of_the_trial():
    assert table() in PAGE.read_text(encoding="utf-8")


def test_they_stay_small():
    """Caches of about 70 lines, and each bug one method of one of them."""
    for cache in RIGHT:
        name = re.sub("(?<!^)(?=[A-Z])", "_", cache.__name__).lower()
        assert len(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 80
    for bug in BUGS:
        changed = [name for name, value in vars(bug.cache).items() if callable(value)]
        assert len(changed) <= 2 and bug.cache.__base__ in RIGHT
    assert len(BUGS) == len({bug.cache for bug in BUGS}) == 18
