"""Traces of other encodings than plain rotary: what a cache must answer, and which wrong turns each of them shows."""

import numpy as np
import pytest
from caches import engine, readable
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from test_positions import rotate_interleaved

from minisink import by_the_book as book
from minisink.cache import Policy
from minisink.conformance import WRONG_TURNS, Cache, check, drawn, trace_of
from minisink.conformance.run import spans
from minisink.fast.ring import RingAttention, RingCache
from minisink.positions import Rotary, Slopes, alibi_slopes, rope_frequencies, unrotated
from minisink.wrong_turns import CHUNKS, ENCODINGS, POSITIONS, chunks, heads, positions, tokens
from minisink.wrong_turns import encodings as others
from minisink.wrong_turns import engine as engines

RATES = rope_frequencies(4, 50.0)
PART, PAIRS, ALIBI = Rotary(RATES), Rotary(rope_frequencies(6, 50.0), interleaved=True), Slopes(alibi_slopes(4))
TRACES = {
    "rotary": {"theta": 50.0},
    "part of a head": {"encoding": PART},
    "neighbouring pairs": {"encoding": PAIRS},
    "ALiBi": {"encoding": ALIBI},
    "ALiBi, six heads": {"encoding": Slopes(alibi_slopes(6)), "n_heads": 6},
    "no positions": {"encoding": unrotated},
    "learned": {"theta": None},
}
every_encoding = pytest.mark.parametrize("name", TRACES)


def ring(state, q, k, v, *, n_sinks, window, theta, encoding):
    """The ring of the fast path: keys never move."""
    if state is None:
        cache = RingCache(1, *k.shape, Policy(n_sinks, window), dtype=q.dtype)
        state = cache, RingAttention(cache, len(q), encoding)
    cache, newest = state
    newest.begin(cache.n_seen)
    newest.qkv[:] = np.concatenate((q, k, v)).ravel()
    out = np.empty_like(q)
    newest.mix(0, out)
    cache.n_seen += 1
    return out, state, {"token_index": cache.token_index}


@every_encoding
@examples(20)
@given(st.integers(0, 99), st.integers(0, 3), st.integers(1, 5), st.integers(1, 12))
def test_minisink_s_own_caches_are_right(name, seed, n_sinks, window, n_tokens):
    """The readable path with all there is to show, the list of the gallery, and the ring; in a line that names it."""
    trace = drawn(seed, n_sinks=n_sinks, window=window, n_tokens=n_tokens, **TRACES[name])
    for cache in (readable, Cache) if trace.encoding is None else (readable, Cache, ring):
        report = check(cache, trace)
        assert report, report
    assert ("ALiBi" in str(report)) == ("ALiBi" in name)


def literal_score(name, q, k, h, m, n):  # (D,), (D,)
    """q · k / sqrt(D), for head h at positions m and n."""
    turn = rotate_interleaved if name == "neighbouring pairs" else book.rotate
    rates = {"part of a head": RATES, "neighbouring pairs": rope_frequencies(6, 50.0)}.get(name, [])
    H = 6 if "six" in name else 4
    bias = -book.slope(h, H, 8) * (m - n) if "ALiBi" in name else 0.0
    if len(rates):
        q, k = turn(q, m, rates), turn(k, n, rates)
    return book.dot(q, k) / 6**0.5 + bias


@pytest.mark.parametrize("name", list(TRACES)[1:])
@pytest.mark.parametrize("policy", ["streaming", "original"])
def test_a_trace_is_its_formula(name, policy):
    """Slots or places in the text, and the scores and outputs of each token: plain loops."""
    trace = drawn(3, n_sinks=1, window=3, n_tokens=8, policy=policy, **TRACES[name])
    H = trace.q.shape[2]
    for t in range(8):
        held = [*range(min(t + 1, 1)), *range(max(1, t - 2), t + 1)]
        places = held if policy == "original" else list(range(len(held)))
        assert trace.held(t) == held
        if not trace.embeds:  # where it was embedded
            assert trace.places(t) == places
        for h in range(H):
            keys, values = trace.k[held, 0, h // (H // 2)], trace.v[held, 0, h // (H // 2)]
            at = zip(keys, places, strict=True)
            scores = [literal_score(name, trace.q[t, 0, h], k, h, places[-1], n) for k, n in at]
            np.testing.assert_allclose(trace.scores_at(t, 0)[h], scores, atol=1e-12)
            out = sum(weight * value for weight, value in zip(book.softmax(scores), values, strict=True))
            np.testing.assert_allclose(trace.out[t, 0, h], out, atol=1e-12)


def test_an_encoding_that_does_not_fit_is_refused():
    """By its number of slopes, its number of channels, and beside a theta."""
    for options, said in (
        ({"encoding": ALIBI, "n_heads": 6}, "has 4 slopes; n_heads is 6"),
        ({"encoding": PAIRS, "head_dim": 4}, "rotates 6 channels; head_dim is 4"),
    ):
        with pytest.raises(ValueError, match=said):
            drawn(**options)
    arrays = np.zeros((3, 1, 1, 1, 2))
    with pytest.raises(ValueError, match="one of them must be None"):
        trace_of(*arrays, n_sinks=0, window=1, theta=10.0, encoding=PART)


# Wrong turns ----------------------------------------------------------------------------------------

OF_SLOPES = {turn for turn in ENCODINGS if "slope" in turn.name}
OF_A_PART = {others.WholeHead, others.WholeWidth, others.LastChannels}
OF_ROTATION = {each for each in heads.__dict__.values() if each in WRONG_TURNS and not issubclass(each, heads.Unscaled)}
OF_ROTATION |= {turn for turn in POSITIONS if issubclass(turn, (positions.RotatedTwice, positions.Drift))}
OF_THE_QUERY = {positions.QueryTooFar, positions.QueryTooNear, positions.QueryAtTheEnd, positions.QueryBeforeEviction}
OF_THE_QUERY |= {positions.LateQuery}  # its own position is one number for all scores of a row: softmax takes it off
OF_POSITIONS = {turn for turn in POSITIONS if turn is not positions.RingOverTheSinks}  # which keeps other tokens
OF_POSITIONS |= {engines.CountsInEveryLayer, engines.ShiftsInEveryLayer, engines.KeysShiftInEveryLayer}
OF_POSITIONS |= {chunks.NumberedOnce}
NOTHING = OF_POSITIONS | OF_ROTATION | OF_SLOPES | OF_A_PART | {others.Halves}
CANNOT_BE_MADE = {
    "rotary": OF_SLOPES | OF_A_PART | {others.Halves, engines.RotatesGPT2},
    "part of a head": OF_SLOPES | {others.Halves, engines.RotatesGPT2},
    "neighbouring pairs": OF_SLOPES | OF_A_PART | {heads.Neighbours, engines.RotatesGPT2},
    "ALiBi": OF_ROTATION | OF_THE_QUERY | OF_A_PART | {others.Halves, others.SlopesOfAPower},
    "ALiBi, six heads": OF_ROTATION | OF_THE_QUERY | OF_A_PART | {others.Halves},
    "no positions": NOTHING,
    "learned": NOTHING,
}


def is_right(turn, trace):
    """Whether a wrong turn has the right outputs, for two texts one after the other."""
    caches = []
    for _ in range(2):
        caches = turn.layers(trace.q.shape[1], caches, **trace.sizes)
        for at in spans(len(trace.q), (9, 1) if turn in CHUNKS else (1,)):
            for i, cache in enumerate(caches):
                out = cache.steps(trace.q[at, i], trace.k[at, i], trace.v[at, i])
                if not np.abs(out - trace.out[at, i]).max() < 1e-9:
                    return False
    return True


@pytest.mark.sampled
@every_encoding
def test_each_wrong_turn_is_red_under_every_encoding_that_it_can_be_made_in(name):
    """In two sizes, one of them with a window of one; memory that is not given back is in no output."""
    traces = [drawn(1, n_sinks=n, window=w, n_tokens=16, n_layers=2, **TRACES[name]) for n, w in ((2, 4), (1, 1))]
    right = {turn for turn in WRONG_TURNS + ENCODINGS if all(is_right(turn, trace) for trace in traces)}
    assert right - {tokens.Crops} == CANNOT_BE_MADE[name]


NAMED = [("part of a head", turn) for turn in sorted(OF_A_PART, key=str)] + [("neighbouring pairs", others.Halves)]
NAMED += [("ALiBi, six heads", turn) for turn in ENCODINGS if turn in OF_SLOPES]
NAMED += [("ALiBi", positions.TextPositions), ("ALiBi", engines.RotatesGPT2), ("part of a head", heads.Backwards)]


@pytest.mark.parametrize(("name", "turn"), NAMED, ids=lambda each: getattr(each, "name", each))
def test_it_is_named(name, turn):
    """By its outputs alone."""
    trace = drawn(2, n_sinks=1, window=3, n_tokens=9, **TRACES[name])
    report = check(engine(turn, 1, shows=False), trace, shared=True)
    assert report.looks_like[0].name == turn.name  # another may be the same in all that can be seen
    assert turn.diagnosis() in str(report) or report.right_under
