"""What one text leaves to the next, slots that a pool does not get back, and what a right report leaves open."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from minisink import conformance
from minisink.conformance import Cache, check, drawn, named
from minisink.wrong_turns import engine, tokens


class Again(Cache):
    """A right cache that can be reset."""

    def reset(self):
        self.__init__(n_sinks=self.n_sinks, window=self.window, theta=self.theta)


class Forgets(Cache):
    """Its reset forgets what the slots hold."""

    def reset(self):
        pass


class OneCounter(Again):
    """Its reset leaves the place in the text, and it counts positions from there."""

    @property
    def positions(self):
        return list(range(self.later, self.later + len(self.token_index)))

    later = 0

    def reset(self):
        super().reset()
        self.later = 24


class HalfReset(Again):
    """Its reset leaves the first value."""

    def reset(self):
        value = self.values[0]
        super().reset()
        self.token_index, self.keys, self.values = [-1], [0 * value], [value]


def test_a_cache_that_is_reset_reads_each_trace_twice():
    """The same object; without `reset` each reading has a new one."""
    made = []

    class Counted(Cache):
        def __init__(self, **sizes):
            super().__init__(**sizes)
            made.append(self)

    class Resets(Counted, Again):
        def reset(self):
            self.token_index, self.keys, self.values, self.n_seen = [], [], [], 0
            self.read = getattr(self, "read", 0) + 1

    assert check(Counted, drawn(n_layers=2)) and len(made) == 4
    made.clear()
    report = check(Resets, drawn(n_layers=2))
    assert report, report
    assert [cache.read for cache in made] == [1, 1]
    assert "a second text after a reset" not in str(report)


def test_what_a_reset_leaves_is_found_and_said():
    report = check(Forgets, "gqa")
    assert (report.first.token, report.first.again, report.looks_like) == (0, True, (engine.NotReset,))
    assert str(report).startswith("gqa, n_sinks=0, window=5, read again: token 0, layer 0: slots differ: ")
    assert "  it looks like 'not reset between texts': the cache is not reset" in str(report)
    assert len(report.failed) == 4
    for cache in (OneCounter, HalfReset):
        report = check(cache)
        assert (report.first.token, report.first.again) == (0, True)


def test_what_a_function_keeps_alive_is_found_too():
    """A pool of its own, in which the last text lies; the first reading is right."""
    pool: dict = {}

    def step(state, q, k, v, *, layer, **sizes):
        if state is None:
            pool["old"], pool["new"] = pool.get("new", []), []
            state = pool["new"] = engine.NotReset.layers(2, pool["old"], **sizes)
        return state[layer].step(q, k, v), state

    report = check(step, drawn(n_layers=2), shared=True)
    assert (report.first.token, report.first.again, report.looks_like) == (0, True, (engine.NotReset,))


def test_a_reset_that_raises_is_named():
    class Raises(Cache):
        def reset(self):
            raise KeyError("slots")

    with pytest.raises(ValueError, match="drawn, n_sinks=1, window=4: reset raised KeyError: 'slots'"):
        check(Raises, drawn())


class Pool(Cache):
    """A right cache over pages of a pool of fixed size; `n_held` are the slots given out and not given back."""

    page, leaks = 4, 0

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.given, self.left = set(), 0

    def keep(self, slots):
        super().keep(slots)
        pages = {token // self.page for token in self.token_index}
        self.left += len(self.given - pages) * self.leaks
        self.given = pages

    def show(self):
        return {"n_held": (len(self.given) + self.left) * self.page}


@examples(40)
@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 5), st.sampled_from([None, 1e4]))
def test_a_pool_is_held_to_what_the_policy_needs(n_sinks, window, page, theta):
    """In pages of any size, also where the policy lets single tokens leave; one that is leaked is seen as it leaves."""
    trace = drawn(n_sinks=n_sinks, window=window, n_tokens=40, theta=theta)
    right = type("Right", (Pool,), {"page": page})
    assert check(right, trace), str(check(right, trace))
    report = check(type("Leaks", (right,), {"leaks": 1}), trace)
    assert not report and report.first.what == "memory"
    if page == 1:
        first = report.first
        assert (first.token, first.says.partition(";")[0]) == (
            trace.capacity,
            f"{trace.capacity + 1} slots are held, {trace.capacity} are needed",
        )


def test_sinks_may_lie_in_pages_of_their_own():
    class Apart(Pool):
        def show(self):
            pages = {(token >= self.n_sinks, (token - self.n_sinks) // 4) for token in self.token_index}
            return {"n_held": 4 * len(pages)}

    assert check(Apart, drawn(n_sinks=1, window=8, n_tokens=40))


def test_a_page_that_is_not_given_back_is_named():
    """At the token at which it should have been; a ring that is allocated at once has no more than it says."""

    class Pages(Pool):
        page = 16

        def survivors(self, n):
            index = np.array([*self.token_index, self.n_seen][:n])
            return named("blocks:16")(self.n_sinks, self.window).survivors(index).tolist()

    trace = drawn(n_sinks=1, window=4, n_tokens=80, policy="blocks:16")
    assert check(Pages, trace), str(check(Pages, trace))
    report = check(type("Leaks", (Pages,), {"leaks": 1}), trace)
    assert str(report.first).splitlines()[0] == (
        "drawn, n_sinks=1, window=4, blocks:16: token 35, layer 0: memory differs: 48 slots are held, 32 are needed in "
        "pages of 16; what is evicted must be given back"
    )
    assert report.looks_like == (tokens.Crops,)


@pytest.mark.parametrize("n_held", [[1], 1.5, "x"])
def test_slots_held_are_a_whole_number(n_held):
    class Shows(Cache):
        def show(self):
            return {"n_held": n_held}

    with pytest.raises(ValueError, match="token 0, layer 0: n_held is .*number"):
        check(Shows, drawn())


@pytest.mark.parametrize(
    ("options", "open_questions"),
    [
        ({}, ["a prompt in chunks (chunks=)", "one object for all layers (shared=True)"]),
        ({"traces": drawn()}, ["a prompt in chunks (chunks=)", "more than one layer (n_layers=)"]),
        ({"chunks": 1}, ["a prompt in chunks (chunks=)", "one object for all layers (shared=True)"]),
        ({"chunks": (3, 1)}, ["a chunk longer than the cache (chunks=)", "one object for all layers (shared=True)"]),
        ({"chunks": (9, 1)}, ["one object for all layers (shared=True)"]),
    ],
)
def test_a_right_report_says_what_was_not_checked(options, open_questions):
    def step(state, q, k, v, **sizes):
        state = state or Cache(**sizes)
        return (state.steps if q.ndim == 3 else state.step)(q, k, v), state

    report = check(step, **{"traces": conformance.load("gqa")[1], **options})
    assert report.unchecked == tuple(open_questions)
    assert str(report).splitlines()[-1] == f"  not checked: {', '.join(open_questions)}"
    assert check(Cache, drawn()).unchecked[-1] == "a second text after a reset (reset())"
    assert check(Again, drawn()).unchecked[-1] != "a second text after a reset (reset())"


def test_nothing_is_left_open_where_all_was_checked():
    class Every:
        def __init__(self, **sizes):
            self.sizes, self.layers = sizes, {}

        def steps(self, q, k, v, layer):
            return self.layers.setdefault(layer, Cache(**self.sizes)).steps(q, k, v)

        def reset(self):
            self.layers = {}

    report = check(Every, "gqa", chunks=(9, 1), shared=True)
    assert report.unchecked == () and "not checked" not in str(report)
