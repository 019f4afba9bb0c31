"""A right cache passes in every size; each wrong one fails at the first token where it differs, by its own name."""

import re
from pathlib import Path

import numpy as np
import pytest
from caches import fed, readable
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from minisink import conformance
from minisink.cache import Policy
from minisink.conformance import WRONG_TURNS, Cache, check, check_losses, drawn
from minisink.fast.ring import RingAttention, RingCache
from minisink.positions import Rotary, rope_frequencies, unrotated
from minisink.wrong_turns import CHUNKS, chunks, engine, tokens

PAGE = (Path(__file__).parents[2] / "docs" / "check-your-cache.md").read_text(encoding="utf-8")
RECORDED = [trace for name in conformance.NAMES for trace in conformance.load(name)]

sizes = st.fixed_dictionaries(
    {
        "n_sinks": st.integers(0, 4),
        "window": st.integers(1, 7),
        "n_kv_heads": st.sampled_from([1, 2]),
        "n_heads": st.sampled_from([2, 4]),
        "head_dim": st.sampled_from([2, 6]),
        "theta": st.sampled_from([None, 1e4, 17.0]),
        "n_layers": st.sampled_from([1, 2]),
    }
)


def ring(state, q, k, v, *, n_sinks, window, theta):
    """The ring of the fast path, one layer: its keys never move, so it has no positions to show."""
    if state is None:
        cache = RingCache(1, *k.shape, Policy(n_sinks, window), dtype=q.dtype)
        encoding = unrotated if theta is None else Rotary(rope_frequencies(q.shape[-1], theta))
        state = cache, RingAttention(cache, len(q), encoding)
    cache, newest = state
    newest.begin(cache.n_seen)
    newest.qkv[:] = np.concatenate((q, k, v)).ravel()
    out = np.empty_like(q)
    newest.mix(0, out)
    cache.n_seen += 1
    return out, state, {"token_index": cache.token_index}


@examples(40)
@given(sizes, st.integers(0, 99), st.integers(1, 20))
def test_minisink_s_own_caches_pass_in_every_size(sizes, seed, n_tokens):
    """Slots, positions, keys, scores and outputs; the ring of the fast path; and the list of `wrong_turns.Cache`."""
    trace = drawn(seed, n_tokens=n_tokens, **sizes)
    for cache in (readable, ring, Cache):
        report = check(cache, trace)
        assert report, report


def test_they_pass_the_golden_vectors():
    assert check(readable) and check(ring) and check(Cache)


def by_definition(n_sinks, window, n_kv_heads, n_heads, head_dim, theta, n_layers):
    """The first token at which each wrong turn is wrong, None where it is right at this size: from its docstring."""
    full = n_sinks + window  # the first token that makes another one leave
    second = 1 if full > 1 else None  # the first query that has a choice
    moves = theta is not None
    several = full if moves and window > 1 else None
    slots = {
        "OneMore": full,
        "OneLess": full - 1,
        "NothingLeaves": full,
        "Crops": 23 if 3 * full <= 24 else None,  # memory is judged when all is over, and the text long enough
        "NoSinks": full if n_sinks else None,
        "WindowAlone": window if n_sinks else None,
        "OneMoreSink": full,
        "OneMoreSinkInside": full if window > 1 else None,
        "SinksWithin": max(window, n_sinks + 1) if max(window, n_sinks + 1) < full else None,
        "SinksFillTheWindow": max(window, n_sinks) if n_sinks else None,
        "HalfAtOnce": full if window > 3 else None,
        "BlockLeavesEarly": full if window > 1 else None,
        "BlockOf4LeavesEarly": full if window > 1 else None,
        "BlockOf16LeavesEarly": full if window > 1 else None,
        "PageLeavesEarly": full,  # in which all of a text this short still lies
        "MinusZero": full if window == 1 else None,
        "MinusZeroFromTheStart": full if window == 1 else None,
        "Overlapping": 0 if n_sinks else None,
        "NothingNew": full,
        "StartsOver": second,
        "NoCopy": second,
        "Unequal": full,
        "ValuesWithoutSinks": full if n_sinks else None,
        "ZeroSlot": 0 if full > 1 else None,  # else it has left before it is met
        "ZeroSlotForGood": 0,
        "EmptySlots": 0 if full > 1 else None,
        "OneEmptySlot": 0 if full > 1 else None,
        "NotItself": 0,
        "AttendsFirst": 0,
        "MaskedAfter": full,
        "HalfPrecision": 0,
    }
    where = {
        "TextPositions": full,
        "HoledKeys": full,
        "SinksFar": full,
        "QueryTooFar": second,
        "QueryTooNear": second,
        "QueryAtTheEnd": 1 if full > 2 else None,
        "QueryBeforeEviction": full if full > 1 else None,
        "LateQuery": full if full > 1 else None,
        "LateKey": full,
        "LateEntry": full,
        "OnePlace": several,
        "OnePlaceBehind": full,
        "OnePlaceBehindTheQuery": full,
        "WrongWay": several,
        "ShiftedTwice": several,
        "ShiftedEarly": full - 1 if window > 1 else None,
        "RingOrder": several,
        "RingOrderLast": several,
        "TwiceTheRing": full,
        "WindowFromZero": n_sinks or None,
        "RotatedTwice": second,
        "RotatedOnEntryToo": second,
        "RotatedAtEveryStep": 2 if max(n_sinks, window) > 1 else None,
        "Drift": several,
        "DriftFromEntry": second,
        "Neighbours": second if head_dim > 2 else None,
        "Backwards": second,
        "OtherTheta": second if theta != 1e4 and head_dim > 2 else None,
        "SlowsTooLittle": second if head_dim > 2 else None,
        "SlowsTwice": second if head_dim > 2 else None,
        "NotRotated": second,
        "KeysNotRotated": second,
        "QueryNotRotated": second,
        "ValuesToo": second,
        "CountsInEveryLayer": second if n_layers > 1 else None,
        "ShiftsInEveryLayer": several if n_layers > 1 else None,
        "KeysShiftInEveryLayer": several if n_layers > 1 else None,
    }
    return (
        slots
        | {name: token if moves else None for name, token in where.items()}
        | {
            "RingOverTheSinks": full if moves or n_sinks else None,  # it shows positions of the text
            "RotatesGPT2": None if moves else second,
            "WrongGroup": 0 if 1 < n_kv_heads < n_heads else None,
            "Unscaled": second,
            "ScaledTwice": second,
            "OneForAll": 0 if n_layers > 1 else None,
            "NotReset": 0,  # of the second reading
        }
    )


@pytest.mark.sampled
@pytest.mark.parametrize("turn", [turn for turn in WRONG_TURNS if turn not in CHUNKS], ids=lambda turn: turn.__name__)
@examples(15, least=2)
@given(sizes, st.integers(0, 99))
def test_each_wrong_turn_fails_where_its_definition_says(turn, sizes, seed):
    """In every size; and passes where it is no other cache: one slot leaves no choice, no sinks none to lose."""
    report, token = fed(turn, drawn(seed, **sizes)), by_definition(**sizes)[turn.__name__]
    assert (None if report else report.first.token) == token
    found = {each.name for each in report.looks_like} | {each.number for each in report.looks_like} - {None}
    assert report or found & {turn.name, turn.number}  # the smallest sizes cannot tell a zero slot from an empty one


def seen_by_definition(turn, t, start, stop, n_sinks, window):
    """What token t of the chunk [start, stop) sees, and how far the first of them stands: (tokens, distance)."""
    full, sees = n_sinks + window, lambda t: [j for j in range(t + 1) if j < n_sinks or j > t - window]
    held = sees(start)[:-1]
    if turn is chunks.SeesAhead:
        seen = [*held, *range(start, stop)]
    elif turn is chunks.LongerThanTheRingInPlace:
        slots = {j: j if j < n_sinks else n_sinks + (j - n_sinks) % window for j in sees(stop - 1)}
        return [j for j, slot in slots.items() if slot < min(t + 1, full)], min(t, full - 1)
    elif issubclass(turn, chunks.EvictsFirst):
        whole = turn is chunks.LongerThanTheRing  # masked by slots
        seen = sees(stop - 1)[: t + 1] if whole else [j for j in sees(stop - 1) if j <= t]
        return seen, len(seen) - 1
    else:
        seen = [*held, *range(start, t + 1)] if turn is chunks.Overshoots else sees(t)
    return seen, min(start, full - 1) + t - start


@pytest.mark.parametrize("turn", [turn for turn in CHUNKS if turn is not chunks.OneLeaves], ids=lambda turn: turn.name)
@examples(15, least=2)
@given(sizes, st.integers(0, 99), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_each_wrong_chunk_fails_where_its_definition_says(turn, sizes, seed, sizes_of_chunks):
    """At the first token that sees others, or its sinks from another place; and chunks of one token are right.

    What `OneLeaves` holds depends on all chunks before; the golden vectors have it.
    """
    trace, n_sinks, window = drawn(seed, **sizes), sizes["n_sinks"], sizes["window"]
    ends = np.minimum(np.cumsum([*sizes_of_chunks, *[sizes_of_chunks[-1]] * 24]), 24).tolist()
    starts, wanted = [0, *ends], None
    for t in range(24):
        start, stop = max(s for s in starts if s <= t), min(e for e in ends if e > t)
        seen, distance = seen_by_definition(turn, t, start, stop, n_sinks, window)
        far = sizes["theta"] is not None and n_sinks and distance != len(trace.held(t)) - 1
        if seen != trace.held(t) or far:
            wanted = t
            break
    report = fed(turn, trace, sizes_of_chunks)
    assert (None if report else report.first.token) == wanted
    assert report or turn.name in [wrong.name for wrong in report.looks_like]
    assert check(turn, trace) and check(Cache, trace, chunks=sizes_of_chunks)


ALIKE = {"no copy kept", "only the newest token held"}  # in their outputs: either way the newest value


# the test above has them all in the fast run, in drawn sizes; here the numbered ones
VARIED = [pytest.param(turn, marks=() if vars(turn).get("number") else pytest.mark.slow) for turn in WRONG_TURNS]


@pytest.mark.sampled
@pytest.mark.parametrize("shows", [pytest.param(True, marks=pytest.mark.slow), False], ids=["showing", "silent"])
@pytest.mark.parametrize("turn", VARIED, ids=lambda turn: turn.__name__)
def test_the_golden_vectors_tell_them_apart(turn, shows):
    """Its own name and no other, whether the cache shows its slots or not."""
    report = fed(turn, shows=shows)
    assert {each.name for each in report.looks_like} == ({turn.name} if shows or turn.name not in ALIKE else ALIKE)
    assert f"looks like {turn.name!r}: {turn.diagnosis()}" in str(report)


def test_outputs_alone_tell_it_too():
    """A function that shows nothing of itself: the token where one key too many first moves the output."""

    def step(state, q, k, v, **sizes):
        state = state or tokens.OneMore(**sizes)
        return state.step(q, k, v), state

    report = check(step, "gqa")
    assert (report.first.token, report.first.what) == (3, "outputs")
    assert [turn.name for turn in report.looks_like] == ["one key too many"]


def test_a_buffer_that_is_used_again_is_seen():
    """Where `to` writes into it; a cache that copies passes."""
    trace, held = drawn(n_kv_heads=4), []

    def to(array):
        place = len(held) % 3  # q, k, v
        held.append(array if len(held) < 3 else held[place])
        held[place][:] = array
        return held[place]

    report = check(Cache, trace, to=to)
    assert (report.first.token, report.looks_like) == (1, (engine.NoCopy,))
    held.clear()

    class Copies(Cache):
        def step(self, q, k, v):
            return super().step(q, k.copy(), v.copy())

    assert check(Copies, trace, to=to)


def test_a_memory_that_only_masks_is_seen():
    """Outputs may be right while nothing leaves."""

    def step(state, q, k, v, *, n_sinks, window, theta):
        cache, kept = state or (Cache(n_sinks=n_sinks, window=window, theta=theta), [])
        kept.append(k)
        return cache.step(q, k, v), (cache, kept)

    report = check(step)
    assert report.first.what == "memory" and "must leave it" in str(report)


@pytest.mark.slow
def test_single_precision_may_round_and_half_more():
    """The tolerance follows what comes back; a NaN is no rounding."""

    def in_bits(dtype, harm=0.0):
        def step(state, q, k, v, **sizes):
            state = state or Cache(**sizes)
            return (state.step(q, k, v) + harm).astype(dtype), state

        return step

    assert check(in_bits(np.float32)) and check(in_bits(np.float16))
    assert not check(in_bits(np.float64, harm=1e-6)) and check(in_bits(np.float32, harm=1e-6))
    assert "rounding" in str(check(in_bits(np.float64, harm=1e-6)))
    assert not check(in_bits(np.float64, harm=np.nan))


def unseen_in_half_precision(turns):
    """Names of the wrong turns that are not told, their answers being rounded, and as much allowed as in bfloat16."""
    traces = [*conformance.load("gqa")[1::2], conformance.load("gpt2")[1]]
    reports = {turn: fed(turn, traces, shows=False, dtype=np.float16, tolerance=0.1) for turn in turns}
    return {turn.name for turn, report in reports.items() if turn not in report.looks_like}


@pytest.mark.slow
def test_in_half_precision_wrong_turns_are_seen_and_named():
    assert unseen_in_half_precision(WRONG_TURNS[:6]) == set()


@pytest.mark.slow
def test_in_half_precision_all_but_what_rounds_is_seen_and_named():
    assert unseen_in_half_precision(WRONG_TURNS) == {"drift", "state in half precision"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda q: q, r"it must return \(out, state\)"),
        (lambda q: (q[:1, :1], None), r"out has shape \(1, 1\)"),
        (lambda q: (q, None, {"slots": [1]}), "seen holds 'slots'; known are token_index"),
        (lambda q: ("no", None), "not an array of real numbers"),
    ],
)
def test_what_is_no_answer_is_said(answer, message):
    with pytest.raises(ValueError, match=message):
        check(lambda state, q, k, v, **sizes: answer(q))


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(ValueError, match="name is 'bert'; there are golden vectors of llama, gqa, gpt2"):
        check(Cache, "bert")
    with pytest.raises(ValueError, match="give a Trace"):
        check(Cache, [])
    with pytest.raises(ValueError, match="tolerance is -1"):
        check(Cache, tolerance=-1)
    with pytest.raises(ValueError, match="window is 0"):
        drawn(window=0)
    with pytest.raises(ValueError, match="it must be a multiple of n_kv_heads"):
        drawn(n_heads=3, n_kv_heads=2)


def test_losses_of_a_whole_engine():
    """Right ones pass; the first that differs is named; another number of them, or a drawn trace, is refused."""
    trace = RECORDED[1]
    assert check_losses(trace.losses, trace) is None
    wrong_from = trace.losses.copy()
    wrong_from[4:] += 0.1
    assert check_losses(wrong_from, trace) == 5
    with pytest.raises(ValueError, match="losses have shape"):
        check_losses(trace.losses[1:], trace)
    with pytest.raises(ValueError, match="it has no losses"):
        check_losses(trace.losses, drawn())


@pytest.mark.slow
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_page_prints_what_stands_below_its_blocks(library, capsys):
    """Those of NumPy everywhere, all of them where PyTorch is."""
    pytest.importorskip(library)
    names, shown = {"__name__": "page"}, re.findall(r"```python\n(.*?)```\n(?:prints\n```\n(.*?)```)?", PAGE, re.DOTALL)
    assert len(shown) >= 13 and all(printed for _, printed in shown)
    for code, printed in shown:
        if library == "numpy" and "torch" in code:
            continue
        exec(compile(code, "check-your-cache.md", "exec"), names)
        assert rounded(capsys.readouterr().out) == rounded(printed)


def rounded(text):
    """Leave out how far a right cache is off: that is the machine's rounding."""
    return re.sub(r"off by at most (0|\de-(0[7-9]|1\d)) of", "off by at most SMALL of", text)


def test_the_page_names_every_wrong_turn():
    """In the words that a report has."""
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE))
    for turn in WRONG_TURNS:
        assert rows[turn.name] == turn.diagnosis()
