"""Position rules: each against a loop that does what its engine does, the proof, and the distances in real scores."""

import re
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from minisink.cache import KVCache, Policy
from minisink.evaluation.policies import HalfAtOnce
from minisink.experiments import position_rules
from minisink.experiments.position_rules import Numbered, prove, ring, rules, seen, shift
from minisink.fast.blocks import Banded
from minisink.fast.ring import RingCache
from minisink.paths import Cached
from minisink.positions import Rotary, rotate

PAGE = (Path(__file__).parents[2] / "docs" / "position-rules.md").read_text(encoding="utf-8")
SIZES = list(product(range(4), range(1, 6)))
KEPT = {  # tokens, window, sinks, and the first wrong distance
    "slots": (True, True, True, None),
    "ring": (True, True, True, None),
    "shift": (True, True, True, None),
    "original": (True, True, False, (1, 1, 2, 0, 2, 1)),
    "modulo 2W": (True, False, False, (0, 2, 4, 3, -3, 1)),
    "half at once": (False, True, False, (1, 4, 5, 0, 3, 4)),
    "one place": (True, False, True, (0, 2, 2, 1, 0, 1)),
    "modulo trained": (True, False, False, (0, 2, 4, 3, -3, 1)),
}


def queries(policy, n_tokens):
    """What each of so many tokens sees: (token_index, positions)."""
    return seen(KVCache(1, 1, 0, policy).layers[0], n_tokens)


def distances(policy, n_tokens):
    """For each of so many tokens: how far the tokens are that it sees, by token."""
    return [{j: p[-1] - q for j, q in zip(index, p, strict=True)} for index, p in queries(policy, n_tokens)]


def by_hand(name, n_sinks, window, n_tokens, trained):
    """Yield for each token {token: distance}, from a list of [token, position], as an engine of that rule moves it."""
    held, capacity = [], n_sinks + window
    for t in range(n_tokens):
        if len(held) == capacity:
            n_leave = max(1, window // 2) if name == "half at once" else 1
            del held[n_sinks : n_sinks + n_leave]
            if name in ("shift", "half at once"):  # what lies behind moves down
                for entry in held[n_sinks:]:
                    entry[1] -= n_leave
        stands_at = {
            "ring": t,
            "original": t,
            "modulo 2W": t if t < n_sinks else n_sinks + (t - n_sinks) % (2 * window),
            "modulo trained": t % trained,
        }.get(name, len(held))  # the others rotate a key to the slot it comes in at
        held.append([t, stands_at])
        if name == "slots":  # all of them anew
            held = [[token, slot] for slot, (token, _) in enumerate(held)]
        query = {token: held[-1][1] for token, _ in held}
        if name == "ring":  # rotated a second time, for the sinks
            query |= dict.fromkeys(range(n_sinks), len(held) - 1)
        yield {token: query[token] - position for token, position in held}


@pytest.mark.parametrize("name", KEPT)
@examples(60)
@given(st.integers(0, 4), st.integers(1, 7), st.integers(1, 40), st.integers(12, 30))
def test_a_rule_is_what_its_engine_does(name, n_sinks, window, n_tokens, trained):
    found = distances(rules(trained)[name](n_sinks, window), n_tokens)
    assert found == list(by_hand(name, n_sinks, window, n_tokens, trained))


# The proof ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [pytest.param((3, 5), marks=pytest.mark.slow), pytest.param((1, 4), id="the sizes of the counterexamples")]
)
@pytest.mark.parametrize("name", KEPT)
def test_what_each_rule_keeps(name, sizes):
    kept = prove(rules()[name], *sizes)
    assert (kept["tokens"], kept["window"], kept["sinks"], kept["first"]) == KEPT[name] and kept["chunks"]


def off_by_one(law, slot):
    """Return a rule whose position of one slot is one too large from the second eviction of the cache of 2 + 3 on."""

    def changed(j, s, w):
        positions = np.array(law(j, s, w))
        if (s, w) == (2, 3) and j[-1] > s + w:
            positions[slot] += 1
        return positions

    return partial(Numbered, rule=changed)


@pytest.mark.parametrize(
    ("slot", "wrong", "key"), [(0, {"sinks"}, 0), (2, {"window"}, 4), (-1, {"sinks", "window"}, 0)]
)
@pytest.mark.parametrize("law", [lambda j, s, w: np.arange(len(j)), ring, shift], ids=["slots", "ring", "shift"])
def test_one_position_off_by_one_is_found(law, slot, wrong, key):
    """A sink, the window's oldest, or the query: in one cache, from its second eviction on."""
    kept = prove(off_by_one(law, slot), 2, 3)
    assert {name for name in ("tokens", "window", "sinks", "chunks") if not kept[name]} == wrong
    n_sinks, window, t, found, distance, right = kept["first"]
    assert (n_sinks, window, t, found) == (2, 3, 6, key) and abs(distance - right) == 1


@pytest.mark.parametrize(
    ("law", "first"),
    [
        (lambda j, s, w: np.where(j < s, j, s + (j - s) % (2 * w + 1)), (0, 2, 5, 4, -4, 1)),
        (lambda j, s, w: np.minimum(j, s + w), (0, 2, 3, 2, 0, 1)),
        (lambda j, s, w: np.where(j < s, j, j + 1), (1, 1, 1, 0, 2, 1)),
    ],
    ids=["a ring of 2W + 1", "the place behind the last", "the window a place behind the sinks"],
)
def test_a_rule_off_by_one_has_another_counterexample(law, first):
    assert prove(partial(Numbered, rule=law), 1, 2)["first"] == first


@dataclass(frozen=True)
class OneMore(Policy):
    """One key too many."""

    def survivors(self, token_index):
        return Policy(self.n_sinks, self.window + 1).survivors(token_index)


def test_a_key_too_many_is_found():
    """Its tokens are not the paper's, and by slots the sinks are one place too far."""
    kept = prove(OneMore, 1, 2)
    assert not kept["tokens"] and kept["window"] and kept["first"] == (1, 1, 2, 0, 2, 1)


def test_a_chunk_that_is_not_its_tokens_is_found(monkeypatch):
    """It takes in one token more at once than there is room for; one by one it is right."""

    def overshoots(layer, n_tokens):
        first = min(n_tokens, max(1, layer.policy.capacity - len(layer.keys) + 1))
        yield from (slice(0, first), *(slice(t, t + 1) for t in range(first, n_tokens)))

    monkeypatch.setattr(position_rules, "blocks", overshoots)
    kept = prove(Policy, 1, 2)
    assert not kept["chunks"] and kept["tokens"] and kept["first"] is None


# Why small caches and short texts are enough ------------------------------------------------------


def period(name, n_sinks, window):
    """After how many tokens a full cache does the same again."""
    longer = {"modulo 2W": 2 * window, "half at once": max(1, window // 2), "modulo trained": 2 * (n_sinks + window)}
    return longer.get(name, 1)


@pytest.mark.parametrize("name", [name for name in KEPT if name != "original"])
def test_a_full_cache_repeats_itself(name):
    """At t + P every distance is what it was at t, the window P tokens on. Of the text's positions only the window."""
    for n_sinks, window in SIZES:
        full, step = n_sinks + window, period(name, n_sinks, window)
        full += window if name == "one place" else 0  # until all that came in before it was full have left
        found = distances(rules()[name](n_sinks, window), full + 2 * step + 9)
        for t in range(full, len(found) - step):
            moved = {j + step * (j >= n_sinks): distance for j, distance in found[t].items()}
            assert moved == found[t + step]


@pytest.mark.parametrize("name", KEPT)
@examples(60)
@given(st.integers(0, 9), st.integers(1, 90), st.integers(0, 400))
def test_what_is_kept_in_small_is_kept_in_large(name, n_sinks, window, t):
    """In any cache, at any token: a distance that is kept in all small ones is right."""
    _, window_kept, sinks_kept, _ = KEPT[name]
    for j, distance in distances(rules()[name](n_sinks, window), t + 1)[t].items():
        if window_kept and j >= n_sinks:
            assert distance == t - j
        if sinks_kept and j < n_sinks:
            assert distance == min(t, n_sinks + window - 1) - j


CASES = {  # in each, distance and the right one are sums of n_sinks, window, t and the key, with fixed factors
    "window": lambda s, w, t, j: s <= j and t < s + w,
    "window, full": lambda s, w, t, j: s <= j and t >= s + w and j >= s + w - 1,
    "window, full, in before it was": lambda s, w, t, j: s <= j < s + w - 1 and t >= s + w,
    "sinks": lambda s, w, t, j: j < s and t < s + w,
    "sinks, full": lambda s, w, t, j: j < s and t >= s + w,
}


@pytest.mark.parametrize("case", CASES)
def test_the_small_caches_fix_every_factor(case):
    """A sum a + b n_sinks + c window + d t + e key that is 0 on all points of a case is 0 everywhere: rank 5."""
    points = [
        (1, s, w, t, j)
        for s, w in SIZES
        for t, (index, _) in enumerate(queries(Policy(s, w), s + 4 * w))
        for j in index
        if CASES[case](s, w, t, j)
    ]
    assert np.linalg.matrix_rank(points) == 5


# The proof is of index laws; here the distances are read off the scores of real caches -----------------

RADIANS = 0.05  # per position


def turning(x, positions):
    """Rotate the first pair of channels slowly, so that an angle tells a distance."""
    return rotate(x, positions, np.array([RADIANS, *[0.0] * (x.shape[-1] // 2 - 1)]))


def inputs(n_tokens):
    """q, k, v for two heads, whose scores are cosine and sine of the distance; a token's value is its own channel."""
    D = 2 * n_tokens
    q, k, v = np.zeros((n_tokens, 2, D)), np.zeros((n_tokens, 1, D)), np.zeros((n_tokens, 1, D))
    q[:, 0, 0], q[:, 1, D // 2] = np.sqrt(D), -np.sqrt(D)
    k[:, 0, 0], v[:, 0, :n_tokens] = 1.0, np.eye(n_tokens)
    return q, k, v


def told(cosines, sines):
    """{token: distance} of the scores by token; a token that is not seen has none."""
    angles = np.arctan2(sines, cosines) / RADIANS
    return {j: round(angle) for j, angle in enumerate(angles) if np.hypot(sines[j], cosines[j]) > 0.5}


def unmasked(scores):
    """Take scores for weights: what comes out is then the score of each token."""
    return np.where(np.isfinite(scores), scores, 0.0)


@pytest.mark.parametrize("sizes", [[(1, 2)], pytest.param(SIZES, marks=pytest.mark.slow)], ids=["1 + 2", "all"])
@pytest.mark.parametrize("name", ["blocks", *KEPT])
def test_the_scores_have_these_distances_in_any_chunks(name, sizes):
    """The readable path under each rule, and the fast one of blocks: a state after t tokens, and a chunk of n."""
    for n_sinks, window in sizes:
        q, k, v = inputs(T := n_sinks + 4 * window)
        policy = rules().get(name, Policy)(n_sinks, window)
        want = distances(policy, T)
        for start, stop in combinations(range(T + 1), 2):
            path = Banded(1, policy) if name == "blocks" else Cached(KVCache(1, 1, 2 * T, policy, like=q))
            for run in (slice(0, start), slice(start, stop)) if start else (slice(0, stop),):
                mixed = path.mix(0, q[run], k[run], v[run], turning, normalise=unmasked)
            assert [told(*row[:, :T]) for row in mixed] == want[start:stop]


@pytest.mark.parametrize(("n_sinks", "window"), SIZES)
def test_the_ring_has_these_distances(n_sinks, window):
    """`fast.ring`, token by token: the query rotated twice, and no key moved."""
    policy = Policy(n_sinks, window)
    q, k, v = inputs(T := n_sinks + 4 * window)
    cache = RingCache(1, 1, 2 * T, policy, dtype=np.float64)
    attention = cache.attention(2, Rotary(np.array([RADIANS, *[0.0] * (T - 1)])))
    for t, want in enumerate(distances(policy, T)):
        attention.begin(t)
        attention.qkv[:] = np.concatenate((q[t], k[t], v[t])).ravel()
        attention.prepare(0)
        cache.n_seen = t + 1
        scores = np.zeros((2, T))
        scores[:, cache.token_index] = attention.scores
        assert told(*scores) == want


def test_the_page_says_what_is_proved(capsys):
    """Its table of rules, and what stands below its block."""
    lines = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 8]
    found = {cells[0].strip(" `"): [cell.strip(" *") for cell in cells[3:]] for cells in lines}
    for name, (*kept, first) in KEPT.items():
        wrong = "({}, {}, {}, {}): {}, not {}".format(*first) if first else ""
        assert found[name] == [*("yes" if each else "no" for each in kept), wrong]
    assert [*found] == [*KEPT]
    ((code, printed),) = re.findall(r"```python\n(.*?)```\nprints\n```\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "position-rules.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_each_policy_is_one_of_cache_py():
    """Sizes are checked, and the rules keep StreamingLLM's tokens but for half at once."""
    for name, make in rules(9).items():
        policy = make(2, 3)
        assert policy.capacity == 5 and isinstance(policy, HalfAtOnce if name == "half at once" else Policy)
        with pytest.raises(ValueError, match="window is 0"):
            make(2, 0)
    assert rules(3)["modulo trained"](1, 1).positions_of(np.arange(4)).tolist() == [0, 1, 2, 0]
