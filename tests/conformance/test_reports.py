"""What a cache shows, answers and holds, in drawn sizes; wrong turns told apart; and reports, word for word."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from caches import readable
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from minisink import conformance
from minisink.conformance.traces import Trace
from minisink.wrong_turns import positions, tokens

some = examples(40)
thetas = st.sampled_from([10000.0, 50.0, None])


@st.composite
def traces(draw, most_sinks=4, most_window=6):
    """Traces in any size, from half full to many times round."""
    n_kv_heads = draw(st.sampled_from([2, 1, 3]))
    sizes = {"n_sinks": draw(st.integers(0, most_sinks)), "window": draw(st.integers(1, most_window))}
    sizes |= {"n_tokens": draw(st.integers(1, 30)), "n_layers": draw(st.integers(1, 2))}
    heads = {"n_heads": n_kv_heads * draw(st.sampled_from([2, 1, 3])), "n_kv_heads": n_kv_heads}
    head_dim = draw(st.sampled_from([4, 6]))
    return conformance.drawn(draw(st.integers(0, 2**16)), **sizes, **heads, head_dim=head_dim, theta=draw(thetas))


# Right ones -----------------------------------------------------------------------------------------


@some
@given(traces(), st.integers(0, 9), st.integers(0, 3))
def test_slots_may_come_in_any_order_and_be_empty(trace, seed, n_empty):
    """What is shown is sorted by token_index, and one below 0 left out."""
    random = np.random.default_rng(seed)

    def shuffled(state, q, k, v, **sizes):
        out, state, seen = readable(state, q, k, v, **sizes)
        n = len(seen["token_index"])
        order = random.permutation(n + n_empty)
        seen["token_index"] = np.append(seen["token_index"], [-1] * n_empty)[order]
        seen["positions"] = np.append(seen["positions"], [7] * n_empty)[order]
        seen["keys"] = np.concatenate((seen["keys"], np.ones((n_empty, *k.shape))))[order]
        seen["scores"] = np.concatenate((seen["scores"], np.ones((len(q), n_empty))), axis=1)[:, order]
        return out, state, seen

    report = conformance.check(shuffled, trace)
    assert report, report


# Wrong ones -----------------------------------------------------------------------------------------


def silent(wrong):
    """A function that shows nothing of itself: outputs only."""

    def step(state, q, k, v, **sizes):
        state = state or wrong(**sizes)
        return state.step(q, k, v), state

    return step


@some
@given(traces())
def test_a_wrong_size_is_a_right_cache_of_another(trace):
    """One key too many is a window one wider, to the last token; no sinks are a window as large as the cache."""
    s, w, T = trace.n_sinks, trace.window, len(trace.q)
    others = {"OneMore": (s, w + 1), "NoSinks": (0, trace.capacity), "NothingLeaves": (0, T)}
    others |= {"OneLess": (s, w - 1)} if w > 1 else {}
    for name, (n_sinks, window) in others.items():
        wrong = getattr(tokens, name)(n_sinks=s, window=w, theta=trace.theta)
        right = conformance.Cache(n_sinks=n_sinks, window=window, theta=trace.theta)
        for q, k, v in zip(trace.q[:, 0], trace.k[:, 0], trace.v[:, 0], strict=True):
            np.testing.assert_array_equal(wrong.step(q, k, v), right.step(q, k, v))
            assert wrong.token_index == right.token_index


@some
@given(traces(), st.data())
def test_what_is_shown_wrongly_is_found_there(trace, data):
    """One number of one thing at one token and layer, the outputs being right."""
    T, L, _, _ = trace.q.shape
    name = data.draw(st.sampled_from(["token_index", "positions", "keys", "scores"]))
    at, where, calls = data.draw(st.integers(0, T - 1)), data.draw(st.integers(0, L - 1)), []

    def step(state, q, k, v, **sizes):
        out, state, seen = readable(state, q, k, v, **sizes)
        if len(calls) == at * L + where:
            seen[name] = seen[name].copy()
            seen[name].reshape(-1)[-1] += 1
        calls.append(1)
        return out, state, seen

    report = conformance.check(step, trace)
    if name == "positions" and trace.theta is None:
        assert report
    else:
        what = "slots" if name == "token_index" else name
        assert (report.first.token, report.first.layer, report.first.what) == (at, where, what)


@some
@given(traces(), st.data())
def test_a_layer_that_is_wrong_alone_is_named(trace, data):
    """One object for all layers, of which one never evicts: the layer is named, and what is wrong in it."""
    T, L, _, _ = trace.q.shape
    alone = data.draw(st.integers(0, L - 1))

    class Whole:
        def __init__(self, **sizes):
            kinds = [tokens.NothingLeaves if layer == alone else conformance.Cache for layer in range(L)]
            self.layers = [kind(**sizes) for kind in kinds]

        def step(self, q, k, v, layer):
            return self.layers[layer].step(q, k, v)

        def show(self, layer):
            return self.layers[layer].show()

    report = conformance.check(Whole, trace, shared=True)
    if T <= trace.capacity:
        assert report and "but nothing was evicted in 1 of them: take more tokens" in str(report)
    else:
        assert (report.first.token, report.first.layer, report.layers) == (trace.capacity, alone, (alone,))
        assert tokens.NothingLeaves in report.looks_like
        assert (f", in layer {alone} only" in str(report)) == (L > 1)


def test_several_layers_are_named_together():
    def step(state, q, k, v, *, layer, **sizes):
        state = state or [(tokens.OneMore if i < 2 else conformance.Cache)(**sizes) for i in range(3)]
        return state[layer].step(q, k, v), state

    report = conformance.check(step, conformance.drawn(n_layers=3), shared=True)
    assert "  wrong in 1 of 1 trace, in layers 0 and 1 only" in str(report)
    assert report.looks_like == (tokens.OneMore,)


@some
@given(traces(), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_what_is_shown_after_a_chunk_is_compared(trace, chunks):
    """By its last token; minisink's own layer, run by run, with all that it shows."""

    def step(state, q, k, v, *, n_sinks, window, theta):
        out = np.empty_like(q)
        for t in range(len(q)):
            out[t], state, seen = readable(state, q[t], k[t], v[t], n_sinks=n_sinks, window=window, theta=theta)
        return out, state, seen

    report = conformance.check(step, trace, chunks=chunks)
    assert report, report

    def last_slot_wrong(state, q, k, v, **sizes):
        out, state, seen = step(state, q, k, v, **sizes)
        return out, state, {"token_index": seen["token_index"] + 1}

    report = conformance.check(last_slot_wrong, trace, chunks=chunks)
    assert (report.first.token, report.first.what) == (min(chunks[0], len(trace.q)) - 1, "slots")


def test_only_what_show_returns_is_compared():
    """An engine has positions, keys and the like for purposes of its own."""

    class Engine:
        def __init__(self, **sizes):
            self.cache, self.seen, self.positions, self.token_index = conformance.Cache(**sizes), 0, [7], "text"

        def step(self, q, k, v):
            return self.cache.step(q, k, v)

    class Shows(Engine):
        def show(self):
            return {"positions": self.positions}

    assert conformance.check(Engine)
    report = conformance.check(Shows)
    assert (report.first.token, report.first.what) == (0, "positions")


def test_two_mistakes_are_named_up_to_where_the_second_begins():
    """One key too many; and from token 9 on unscaled as well."""

    class Both(tokens.OneMore):
        def attend(self, q, keys, values):
            return super().attend(q * (q.shape[-1] ** 0.5 if self.n_seen > 9 else 1.0), keys, values)

    report = conformance.check(silent(Both), conformance.drawn())
    assert (report.looks_like, report.until) == ((tokens.OneMore,), 8)
    assert "  up to token 8 it looks like 'one key too many': the query sees one key too many" in str(report)


def test_a_wrong_turn_explains_the_token_that_differs_first_and_need_not_the_next():
    """One that gives another answer there is not named; one that does up to and with it is, and told so."""

    def from_token(t):
        class Spoilt(tokens.OneMore):
            def attend(self, q, keys, values):
                return super().attend(q, keys, values) * (-3.0 if self.n_seen > t else 1.0)

        return conformance.check(silent(Spoilt), conformance.drawn())  # one key too many from token 5 on

    at_once, next_token = from_token(5), from_token(6)
    assert (at_once.first.token, at_once.looks_like, at_once.until) == (5, (), None)
    assert (next_token.first.token, next_token.until) == (5, 5) and tokens.OneMore in next_token.looks_like


# What is said ---------------------------------------------------------------------------------------


@some
@given(traces(), st.sampled_from(["keys", "scores"]))
def test_keys_that_are_shown_wrongly_look_like_nothing(trace, name):
    """Outputs, slots and positions being right, no wrong turn explains them."""

    def step(state, q, k, v, **sizes):
        out, state, seen = readable(state, q, k, v, **sizes)
        return out, state, seen | {name: seen[name] + 1}

    report = conformance.check(step, trace)
    assert (report.first.token, report.first.what, report.looks_like) == (0, name, ())
    assert "it looks like no wrong turn known here" in str(report)


def test_what_is_shown_wrongly_does_not_mislead_about_outputs():
    """Slots are shown one too large from the start; outputs are those of one key too many, and named so."""

    class Shows(tokens.OneMore):
        def show(self):
            return {"token_index": [token + 1 for token in self.token_index]}

    report = conformance.check(Shows)
    assert (report.first.token, report.first.what, report.looks_like) == (0, "slots", (tokens.OneMore,))


def test_the_report_is_plain():
    """Where, what was expected, how often, and what to do: word for word."""
    report = conformance.check(tokens.OneMore, conformance.load("gqa")[1])
    assert str(report).splitlines() == [
        "gqa, n_sinks=1, window=4: token 5, layer 0: slots differ: [0, 1, 2, 3, 4, 5]; expected [0, 2, 3, 4, 5]",
        "  there the query sees tokens [0, 2, 3, 4, 5], at positions [0, 1, 2, 3, 4]",
        "  wrong in 1 of 1 trace",
        "  it looks like 'one key too many': the query sees one key too many: eviction comes after attention, or "
        "before the new key is in; the authors' (start, recent) means n_sinks=start, window=recent + 1",
    ]
    learned = conformance.check(silent(tokens.OneMore), conformance.load("gpt2")[1])
    assert "  there the query sees tokens [0, 2, 3, 4, 5], embedded at [0, 2, 3, 4, 4]" in str(learned)
    assert "outputs differ: off by " in str(learned.first) and "of the largest number" in str(learned.first)


def test_the_earliest_token_of_all_traces_is_shown():
    report = conformance.check(tokens.OneMore)
    assert str(report.first.trace) == "llama, n_sinks=2, window=1" and report.first.token == 3
    assert len(report.failed) == len(report.traces) == 12


class Slotted:
    """Something that keeps what it gets, and has no `__dict__`."""

    __slots__ = ("kept",)

    def __init__(self):
        self.kept = None

    def append(self, array):
        self.kept = (array, self.kept)


@pytest.mark.parametrize(
    ("keeps", "as_kept"), [(list, np.copy), (deque, np.copy), (Slotted, np.copy), (list, np.ndarray.tolist)]
)
def test_memory_that_grows_is_found_wherever_it_is(keeps, as_kept):
    class Leaks(conformance.Cache):
        def step(self, q, k, v):
            self.all = getattr(self, "all", None) or keeps()
            self.all.append(as_kept(k))
            return super().step(q, k, v)

    report = conformance.check(Leaks)
    assert report.first.what == "memory" and len(report.failed) == 12


def test_memory_that_grows_is_found_though_outputs_are_right():
    """Attention cropped, the cache not; buffers that are merely larger, or trimmed now and then, are fine."""

    class Crops(conformance.Cache):
        def step(self, q, k, v):
            self.all = [*getattr(self, "all", []), k]
            return super().step(q, k, v)

    class Trims(Crops):
        def step(self, q, k, v):
            self.all = getattr(self, "all", [])[-4:] if self.n_seen % 3 == 0 else self.all
            return super().step(q, k, v)

    report = conformance.check(Crops)
    assert report.first.what == "memory" and report.looks_like == (tokens.Crops,) and len(report.failed) == 12
    assert "  wrong in 12 of 12 traces" in str(report).splitlines()  # and in no layer alone
    line = str(conformance.check(Crops, conformance.drawn(n_sinks=1, window=2)).first).splitlines()[0]
    assert line == (
        "drawn, n_sinks=1, window=2: token 23, layer 0: memory differs: the state holds 85 numbers after token 3 and "
        "325 at the end; what is evicted must leave it, not just be masked"
    )
    assert "it looks like 'attention cropped, memory not'" in str(report)
    assert conformance.check(Trims)


def test_rounding_is_called_rounding():
    def step(state, q, k, v, **sizes):
        state = state or conformance.Cache(**sizes)
        return state.step(q, k, v) * (1 + 1e-5), state

    report = conformance.check(step)
    assert not report and report.looks_like == ()
    assert "outputs are off by 1e-05 of the largest at most: rounding rather than another token" in str(report)
    assert conformance.check(step, tolerance=1e-4)
    far = conformance.check(lambda state, q, k, v, **sizes: (q * 7.0, 0))
    assert "  it looks like no wrong turn known here" in str(far)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "rounds", "too_far"), [(np.float64, 5e-5, 1e-2), (np.float32, 5e-4, 1e-2), (np.float16, 1e-2, 5e-2)]
)
def test_what_is_called_rounding_depends_on_the_precision(dtype, rounds, too_far):
    """One per cent in double precision is a mistake."""

    def off_by(share):
        def step(state, q, k, v, **sizes):
            state = state or conformance.Cache(**sizes)
            return (state.step(q, k, v) * (1 + share)).astype(dtype), state

        return str(conformance.check(step, tolerance=1e-9))

    assert "rounding rather than another token" in off_by(rounds)
    assert "rounding" not in off_by(too_far) and "no wrong turn known here" in off_by(too_far)


def test_a_right_cache_is_measured_too():
    def step(state, q, k, v, **sizes):
        state = state or conformance.Cache(**sizes)
        return state.step(q, k, v) * (1 + 3e-10), state

    report = conformance.check(step)
    assert report and report.worst == pytest.approx(3e-10, rel=1e-4)
    assert str(report).splitlines() == [
        "right in 12 traces of 24 tokens, off by at most 3e-10 of the largest number",
        "  not checked: a prompt in chunks (chunks=), one object for all layers (shared=True)",
    ]


@pytest.mark.slow
def test_long_lists_of_slots_are_written_by_their_ends():
    trace = conformance.drawn(n_sinks=4, window=64, n_tokens=129)
    report = str(conformance.check(tokens.OneMore, trace))
    assert "slots differ: [0..68]; expected [0..3, 5..68]" in report
    assert "sees tokens [0..3, 5..68], at positions [0..67]" in report


def test_lists_are_arrays_too():
    def step(state, q, k, v, **sizes):
        state = state or conformance.Cache(**sizes)
        return state.step(q, k, v).tolist(), state, {"token_index": list(state.token_index), "scores": None}

    assert conformance.check(step, ["gqa", conformance.drawn()])


def test_of_several_wrong_turns_the_one_that_explains_most_traces_is_named():
    """Keys begin at their place in the text and fall ever faster: two wrong turns agree to the end of the trace."""

    class Stored(positions.LateQuery):
        @property
        def positions(self):
            shifts = [self.own - max(token, self.capacity - 1) for token in self.token_index]
            pairs = list(zip(self.token_index, shifts, strict=True))
            return [token - max(0, shift) ** 2 if token >= self.n_sinks else token for token, shift in pairs]

    report = conformance.check(silent(Stored))
    assert report.looks_like == (positions.LateKey,) and "in this trace it looks like 'newest" in str(report)
    assert len(conformance.check(silent(Stored), report.first.trace).looks_like) == 2


def answer(*result):
    return lambda state, q, k, v, **sizes: result if len(result) > 1 else result[0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (answer(1, 2, 3, 4), r"step returned \(1, 2, 3, 4\)"),
        (answer("x", 0), "out is 'x', not an array of real numbers"),
        (
            answer(np.zeros((4, 6)), 0, {"slots": 1}),
            "seen holds 'slots'; known are token_index, positions, keys, scores",
        ),
        (answer(np.zeros((4, 6)), 0, 5), "seen is 5; it must be a dict"),
        (answer(None, 0), "out is None, not an array of real numbers"),
        (answer(np.zeros((4, 6), complex), 0), "not an array of real numbers"),
        (answer([["1"] * 6] * 4, 0), "not an array of real numbers"),
        (answer(np.zeros((4, 6)), 0, {"keys": "x"}), "token 0, layer 0: keys is 'x', not an array of real numbers"),
        (
            lambda state, q, k, v, **sizes: q @ k,
            "drawn, n_sinks=1, window=4: token 0, layer 0: the cache raised ValueError: ",
        ),
        (lambda state, q, k, v: (q, 0), "the cache raised TypeError: .* unexpected keyword argument 'n_sinks'"),
        (object, "the cache raised TypeError"),
        (None, "cache is None; it must be a function of one step, or a class"),
        (
            conformance.Cache(n_sinks=1, window=4, theta=None),
            "cache is <.*>; it must be a function of one step, or a class",
        ),
    ],
)
def test_an_answer_that_is_none_is_refused_in_one_line(step, message):
    with pytest.raises(ValueError, match=message) as caught:
        conformance.check(step, conformance.drawn())
    assert "\n" not in str(caught.value)


def test_what_is_raised_after_a_difference_does_not_hide_it():
    """Most often it follows from it; and the traceback of what is raised first leads into the cache."""

    def step(state, q, k, v, **sizes):
        state = state or tokens.OneMore(**sizes)
        return state.step(q, k, v) if state.n_seen < 12 else state.not_there, state

    report = conformance.check(step, "gqa")
    assert (report.first.token, len(report.failed)) == (3, 4) and report.looks_like == (tokens.OneMore,)
    assert str(report).splitlines()[-1] == (
        "  also: gqa, n_sinks=0, window=5: token 12, layer 0: the cache raised AttributeError: 'OneMore' object has no "
        "attribute 'not_there'"
    )
    with pytest.raises(ValueError) as caught:
        conformance.check(lambda state, q, k, v, **sizes: {}["key"], "gqa")
    assert isinstance(caught.value.__cause__, KeyError)


@some
@given(traces(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_what_is_no_number_differs(trace, value, data):
    """In one place, at one token."""
    T, L, H, D = trace.q.shape
    at, h, d = (data.draw(st.integers(0, n - 1)) for n in (T, H, D))
    calls = []

    def step(state, q, k, v, **sizes):
        out, state, _ = readable(state, q, k, v, **sizes)
        out[h, d] = value if len(calls) == at * L else out[h, d]
        calls.append(1)
        return out, state

    report = conformance.check(step, trace)
    assert report.first.token == at and report.first.says == "NaN or infinity is among them"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"traces": 5}, "name is 5; there are golden vectors of llama, gqa, gpt2"),
        ({"traces": None}, "name is None; there are golden vectors of"),
        ({"traces": ["gqa", "bert"]}, "name is 'bert'; there are golden vectors of"),
        (
            {"traces": replace(conformance.drawn(), q=np.zeros((0, 1, 4, 6)))},
            "0 tokens, 1 layers.* holds no tokens to check",
        ),
        ({"chunks": 0}, "a chunk is 0; it must be a whole number of 1 or more"),
        ({"chunks": (4, 1.5)}, "a chunk is 1.5; it must be a whole number"),
        ({"chunks": ()}, r"chunks is \(\); give the sizes of the chunks"),
        ({"chunks": None, "tolerance": np.nan}, "tolerance is nan; it must be 0 or more"),
        ({"chunks": "9"}, "a chunk is '9'; it must be a whole number"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        conformance.check(conformance.Cache, **given)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="'gqa' is not a text that a model read"):
        conformance.check_losses([1.0], "gqa")


@pytest.mark.parametrize("seen", [{"token_index": 3}, {"scores": np.zeros(3)}, {"keys": np.zeros((1, 2))}])
def test_something_of_another_shape_differs(seen):
    def step(state, q, k, v, **sizes):
        state = state or conformance.Cache(**sizes)
        return state.step(q, k, v), state, seen

    report = conformance.check(step, conformance.drawn())
    assert (report.first.token, report.worst) == (0, 0.0)


def test_a_cache_that_spoils_what_it_is_given_spoils_nothing():
    """Arrays are copies: the next layer, the next trace and the next run meet them as they were."""

    def step(state, q, k, v, **sizes):
        state = state or conformance.Cache(**sizes)
        out = state.step(q.copy(), k.copy(), v.copy())
        q[:], k[:], v[:] = 0, 0, 0
        return out, state

    trace = conformance.drawn()
    assert isinstance(trace, Trace) and conformance.check(step, [trace, trace])
