"""A right cache passes in every size; each wrong one fails at the first token where it differs, by its own name."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisink import conformance
from minisink.cache import KVCache, keep_sinks
from minisink.conformance import WRONG_TURNS, Cache, check, check_losses, drawn
from minisink.conformance import wrong_turns as wrong
from minisink.fast.ring import Newest, RingCache
from minisink.positions import rope_frequencies, rotate

PAGE = (Path(__file__).parents[2] / "docs" / "check-your-cache.md").read_text(encoding="utf-8")
RECORDED = [trace for name in conformance.NAMES for trace in conformance.load(name)]

CHUNKS = wrong.CHUNKS
sizes = st.fixed_dictionaries({
    "n_sinks": st.integers(0, 4), "window": st.integers(1, 7), "n_kv_heads": st.sampled_from([1, 2]),
    "n_heads": st.sampled_from([2, 4]), "head_dim": st.sampled_from([2, 6]),
    "theta": st.sampled_from([None, 1e4, 17.0]), "n_layers": st.sampled_from([1, 2]),
})  # fmt: skip


def readable(state, q, k, v, *, n_sinks, window, theta):
    """minisink's own cache, one layer."""
    cache = state or KVCache(1, len(k), k.shape[-1], keep_sinks(n_sinks, window), like=k)
    layer = cache.layers[0]
    layer.append(k[None], v[None])
    keys, query = layer.keys, q[None]
    if theta is not None:
        rates = rope_frequencies(q.shape[-1], theta)
        keys, query = rotate(keys, layer.positions, rates), rotate(query, layer.positions[-1:], rates)
    scores = np.einsum("hd,skd->hks", query[0], keys)[
        np.arange(len(q)), np.arange(len(q)) // (len(q) // len(k))
    ] / np.sqrt(q.shape[-1])
    pattern = np.exp(scores - scores.max(axis=-1, keepdims=True))
    pattern /= pattern.sum(axis=-1, keepdims=True)
    values = layer.values.repeat(len(q) // len(k), axis=1)  # (S, H, D)
    seen = {"token_index": cache.token_index, "positions": layer.positions, "keys": keys, "scores": scores}
    return np.einsum("hs,shd->hd", pattern, values), cache, seen


def ring(state, q, k, v, *, n_sinks, window, theta):
    """The ring of the fast path, one layer: its keys never move, so it has no positions to show."""
    if state is None:
        cache = RingCache(1, *k.shape, keep_sinks(n_sinks, window), dtype=q.dtype)
        rates = None if theta is None else rope_frequencies(q.shape[-1], theta)
        state = cache, Newest(cache, len(q), rates, folded=False)
    cache, newest = state
    newest.begin(cache.n_seen)
    newest.qkv[:] = np.concatenate((q, k, v)).ravel()
    out = np.empty_like(q)
    newest.mix(0, out)
    cache.n_seen += 1
    return out, state, {"token_index": cache.token_index}


@settings(max_examples=40)
@given(sizes, st.integers(0, 99), st.integers(1, 20))
def test_minisink_s_own_caches_pass_in_every_size(sizes, seed, n_tokens):
    """Slots, positions, keys, scores and outputs; the ring of the fast path; and the list of `wrong_turns.Cache`."""
    trace = drawn(seed, n_tokens=n_tokens, **sizes)
    for cache in (readable, ring, Cache):
        report = check(cache, trace)
        assert report, report


def test_they_pass_the_golden_vectors():
    assert check(readable) and check(ring) and check(Cache)


def fed(turn, traces=conformance.NAMES, chunks=(9, 1), shows=True):
    """The report on a wrong turn as a function of one step, or of one chunk."""
    chunks = chunks if turn in CHUNKS else None

    def step(state, q, k, v, *, layer=0, **sizes):
        state = state or turn(**sizes)
        return (state.steps if chunks else state.step)(q, k, v), state, state.show() if shows else None

    return check(step, traces, chunks=chunks, shared=turn.shared)


def by_definition(n_sinks, window, n_kv_heads, n_heads, head_dim, theta, n_layers):
    """The first token at which each wrong turn is wrong, None where it is right at this size: from its docstring."""
    full = n_sinks + window  # the first token that makes another one leave
    second = 1 if full > 1 else None  # the first query that has a choice
    moves = theta is not None
    several = full if moves and window > 1 else None
    within = n_sinks + max(1, window - n_sinks)
    return {
        "one key too many": full,
        "one key too few": full - 1,
        "nothing evicted": full,
        "no sinks": full if n_sinks else None,
        "no sinks beside the window": window if n_sinks else None,
        "sinks within the window": within if within < full else None,
        "half the window at once": full if window > 3 else None,
        "empty slots attended to": 0 if full > 1 else None,
        "no copy kept": second,
        "keys[-0:]": full if window == 1 else None,
        "a slot of zeros": 0 if full > 1 else None,  # else it has left before it is met
        "attends before it appends": 0,
        "masked after the softmax": full,
        "original positions": full if moves else None,
        "keys never shifted": full if moves else None,
        "sinks one place too far": full if moves and n_sinks else None,
        "query one place too far": second if moves else None,
        "query not shifted": full if moves and full > 1 else None,
        "newest not shifted": full if moves else None,
        "all recent keys at one place": several,
        "positions in ring order": several,
        "keys in ring order": several,
        "shifted a token too early": full - 1 if moves and window > 1 else None,
        "shifted the wrong way": several,
        "keys rotated twice": second if moves else None,
        "drift": several,
        "neighbouring channels paired": second if moves and head_dim > 2 else None,
        "nothing rotated": second if moves else None,
        "values rotated": second if moves else None,
        "theta not used": second if moves and theta != 1e4 and head_dim > 2 else None,
        "learned positions rotated": None if moves else second,
        "wrong key head": 0 if 1 < n_kv_heads < n_heads else None,
        "scores not scaled": second,
        "scores scaled twice": second,
        "one state for all layers": 0 if n_layers > 1 else None,
    }


@pytest.mark.parametrize("turn", [turn for turn in WRONG_TURNS if turn not in CHUNKS], ids=lambda turn: turn.name)
@settings(max_examples=15)
@given(sizes, st.integers(0, 99))
def test_each_wrong_turn_fails_where_its_definition_says(turn, sizes, seed):
    """In every size; and passes where it is no other cache: one slot leaves no choice, no sinks none to lose."""
    report, token = fed(turn, drawn(seed, **sizes)), by_definition(**sizes)[turn.name]
    assert (None if report else report.first.token) == token
    assert report or turn in report.looks_like


def seen_by_definition(turn, t, start, stop, n_sinks, window):
    """What token t of the chunk [start, stop) sees, and how far the first of them stands: (tokens, distance)."""
    full, sees = n_sinks + window, lambda t: [j for j in range(t + 1) if j < n_sinks or j > t - window]
    held = sees(start)[:-1]
    if turn is wrong.SeesAhead:
        seen = [*held, *range(start, stop)]
    elif turn is wrong.EvictsFirst:
        seen = [j for j in sees(stop - 1) if j <= t]
        return seen, len(seen) - 1
    else:
        seen = [*held, *range(start, t + 1)] if turn is wrong.Overshoots else sees(t)
    return seen, min(start, full - 1) + t - start


@pytest.mark.parametrize("turn", [turn for turn in CHUNKS if turn is not wrong.OneLeaves], ids=lambda turn: turn.name)
@settings(max_examples=15)
@given(sizes, st.integers(0, 99), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_each_wrong_chunk_fails_where_its_definition_says(turn, sizes, seed, chunks):
    """At the first token that sees others, or its sinks from another place; and chunks of one token are right.

    What `OneLeaves` holds depends on all chunks before; the golden vectors have it.
    """
    trace, n_sinks, window = drawn(seed, **sizes), sizes["n_sinks"], sizes["window"]
    ends = np.minimum(np.cumsum([*chunks, *[chunks[-1]] * 24]), 24).tolist()
    starts, wanted = [0, *ends], None
    for t in range(24):
        start, stop = max(s for s in starts if s <= t), min(e for e in ends if e > t)
        seen, distance = seen_by_definition(turn, t, start, stop, n_sinks, window)
        far = sizes["theta"] is not None and n_sinks and distance != len(trace.held(t)) - 1
        if seen != trace.held(t) or far:
            wanted = t
            break
    report = fed(turn, trace, chunks)
    assert (None if report else report.first.token) == wanted
    assert report or turn in report.looks_like
    assert check(turn, trace) and check(Cache, trace, chunks=chunks)


@pytest.mark.parametrize("shows", [True, False], ids=["showing", "silent"])
@pytest.mark.parametrize("turn", WRONG_TURNS, ids=lambda turn: turn.name)
def test_the_golden_vectors_tell_them_apart(turn, shows):
    """Its own name and no other, whether the cache shows its slots or not."""
    report = fed(turn, shows=shows)
    assert report.looks_like == (turn,) and f"looks like {turn.name!r}" in str(report)


def test_outputs_alone_tell_it_too():
    """A function that shows nothing of itself: the token where one key too many first moves the output."""

    def step(state, q, k, v, **sizes):
        state = state or wrong.OneMore(**sizes)
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
    assert (report.first.token, report.looks_like) == (1, (wrong.NoCopy,))
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


def test_in_half_precision_all_but_drift_are_seen_and_named():
    """What a wrong turn answers being rounded, and as much allowed as in bfloat16."""
    unseen, traces = [], [conformance.load("gqa")[1], conformance.load("gqa")[3], conformance.load("gpt2")[1]]
    for turn in WRONG_TURNS:
        chunks = (9, 1) if turn in CHUNKS else None

        def step(state, q, k, v, *, layer=0, turn=turn, chunks=chunks, **sizes):
            state = state or turn(**sizes)
            return (state.steps if chunks else state.step)(q, k, v).astype(np.float16), state

        report = check(step, traces, chunks=chunks, shared=turn.shared, tolerance=0.1)
        unseen += [] if turn in report.looks_like else [turn.name]
    assert unseen == ["drift"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda q: q, r"it must return \(out, state\)"),
        (lambda q: (q[:1, :1], None), r"out has shape \(1, 1\)"),
        (lambda q: (q, None, {"slots": [1]}), "seen holds 'slots'; known are token_index"),
        (lambda q: ("no", None), "no array of real numbers"),
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


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_page_prints_what_stands_below_its_blocks(library, capsys):
    """Those of NumPy everywhere, all of them where PyTorch is."""
    pytest.importorskip(library)
    names, shown = {"__name__": "page"}, re.findall(r"```python\n(.*?)```\n(?:prints\n```\n(.*?)```)?", PAGE, re.DOTALL)
    assert len(shown) == 9 and all(printed for _, printed in shown)
    for code, printed in shown:
        if library == "numpy" and "torch" in code:
            continue
        exec(compile(code, "check-your-cache.md", "exec"), names)
        assert capsys.readouterr().out == printed


def test_the_page_names_every_wrong_turn():
    """In the words that a report has."""
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE))
    for turn in WRONG_TURNS:
        assert rows[turn.name] == " ".join(turn.__doc__.split())


def test_every_wrong_turn_is_listed():
    """A class with a name of its own is one of those that are recognised."""
    files = (wrong.tokens, wrong.positions, wrong.heads, wrong.layers, wrong.chunks)
    found = {each for file in files for each in vars(file).values() if isinstance(each, type) and "name" in vars(each)}
    assert found - {Cache} == set(WRONG_TURNS)
