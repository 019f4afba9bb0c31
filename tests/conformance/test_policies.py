"""A trace of any policy, by name or of your own: what is held, numbered and answered, transcribed word for word."""

import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
from caches import readable
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import conformance
from minisink.attention import attend
from minisink.cache import Policy
from minisink.conformance import POLICIES, drawn, named, trace_of
from minisink.evaluation.policies import Blockwise, HalfAtOnce
from minisink.positions import rope_frequencies, rotate

some = examples(40)


@dataclass(frozen=True)
class Odd(Policy):
    """Sinks, a window, and every odd token; positions two apart."""

    def survivors(self, token_index):
        is_recent = token_index > token_index[-1] - self.window
        return np.flatnonzero((token_index < self.n_sinks) | is_recent | (token_index % 2 == 1))

    def positions_of(self, token_index):
        return 2 * np.arange(len(token_index))


def held_by(name, n_sinks, window, T, layer):
    """The tokens of a layer after each of T, by the definition of the policy."""
    kept, every = [], []
    for t in range(T):
        half = max(1, window // 2)
        if name == "half" and len(kept) == n_sinks + window:
            kept = kept[:n_sinks] + kept[n_sinks + half :]
        kept = [*kept, t]
        stays = {
            "streaming": lambda j, t=t: j < n_sinks or j > t - window,
            "blocks:4": lambda j, t=t: j // 4 * 4 < n_sinks or j // 4 * 4 + 3 > t - window,
            "first-dense": lambda j, t=t: layer == 0 or j < n_sinks or j > t - window,
            "odd": lambda j, t=t: j < n_sinks or j > t - window or j % 2 == 1,
        }
        stays |= {"original": stays["streaming"], "half": lambda j: True}
        kept = [j for j in kept if stays[name](j)]
        every.append(kept)
    return every


@some
@given(
    st.sampled_from(["streaming", "blocks:4", "half", "original", "first-dense", "odd"]),
    st.integers(0, 4),
    st.integers(1, 6),
    st.integers(1, 30),
    st.integers(1, 3),
    st.sampled_from([None, 1e4, 50.0]),
    st.integers(0, 99),
)
@example("first-dense", 1, 3, 12, 2, None, 0)
def test_a_trace_is_what_its_policy_says(name, n_sinks, window, T, L, theta, seed):
    """Tokens, positions, keys, scores and outputs; without rotation positions are those of the embedding."""
    policy = Odd if name == "odd" else name
    trace = drawn(seed, n_sinks=n_sinks, window=window, n_tokens=T, n_layers=L, theta=theta, policy=policy)
    last = held_by(name, n_sinks, window, T, L - 1)
    place = {"original": lambda held: held, "odd": lambda held: [2 * i for i in range(len(held))]}
    place = place.get(name, lambda held: list(range(len(held))))
    embedded = [place(held)[-1] for held in last]
    assert trace.evicts == any(len(held_by(name, n_sinks, window, T, i)[-1]) < T for i in range(L))
    for i in range(L):
        for t, held in enumerate(held_by(name, n_sinks, window, T, i)):
            q, k, v = trace.q[t, i], trace.k[held, i], trace.v[held, i]
            places = place(held) if theta else [embedded[token] for token in held]
            assert (trace.held(t, i), trace.places(t, i)) == (held, places)
            assert (trace.token_index[t, i, len(held) :] == -1).all()
            assert (trace.positions[t, i, len(held) :] == -1).all()
            if theta:
                q = rotate(q[None], np.array(places[-1:]), rope_frequencies(6, theta))[0]
                k = rotate(k, np.array(places), rope_frequencies(6, theta))
            np.testing.assert_array_equal(trace.keys_at(t, i), k)
            scores = [[q[h] @ key[h // 2] / 6**0.5 for key in k] for h in range(4)]
            np.testing.assert_allclose(trace.scores_at(t, i), scores, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(trace.out[t, i], attend(q[None], k, v)[0], rtol=1e-9, atol=1e-12)


def test_a_name_stands_for_what_makes_it():
    """All of POLICIES, and blocks of any number; and back: a trace says its name, or the call."""
    assert named("half")(2, 5) == HalfAtOnce(2, 5) and named("blocks:3")(2, 5) == Blockwise(2, 5, block=3)
    assert named(None)(2, 5) == minisink.Streaming(2, 5) and named(Odd) is Odd
    assert set(POLICIES) == {"streaming", "blocks:16", "half", "original", "first-dense"}
    for name in (*POLICIES, "blocks:3"):
        trace = drawn(policy=name, n_layers=3)
        assert trace.policy_name == name and drawn(policy=named(name), n_layers=3).policy == trace.policy
        assert str(trace) == "drawn, n_sinks=1, window=4" + (f", {name}" if name != "streaming" else "")
    assert drawn(policy=Odd).policy_name == "Odd(n_sinks=1, window=4, positions='slot')"


@pytest.mark.parametrize("policy", ["blocks", "blocks:", "blocks:0", "blocks:x", "halves", 5, minisink.Streaming(1, 4)])
def test_another_name_is_answered_with_those_that_are_known(policy):
    known = r"known are streaming, blocks:16 \(or another number\), half, original, first-dense, or give what makes"
    for use in (named, lambda p: drawn(policy=p), lambda p: conformance.check(conformance.Cache, policy=p)):
        with pytest.raises(ValueError, match=known) as caught:
            use(policy)
        assert "\n" not in str(caught.value)


def test_what_makes_no_policy_is_refused():
    for makes in (minisink.Retrieval, lambda n_sinks, window: window):
        with pytest.raises(ValueError, match=r"policy made .* from n_sinks=1, window=16; it must make a Policy"):
            drawn(policy=makes, window=16)


def test_a_policy_by_layer_is_as_long_as_its_trace():
    """Its last policy holds in all further layers."""
    trace = drawn(n_layers=3, policy=lambda n_sinks, window: minisink.ByLayer([HalfAtOnce(n_sinks, window), Odd(0, 2)]))
    assert trace.policy == minisink.ByLayer([HalfAtOnce(1, 4), Odd(0, 2), Odd(0, 2)])
    assert [trace.held(9, i) for i in range(3)] == [[0, 7, 8, 9], [1, 3, 5, 7, 8, 9], [1, 3, 5, 7, 8, 9]]


@pytest.mark.sampled
@pytest.mark.parametrize("policy", [*POLICIES, "blocks:4", Odd])
@pytest.mark.parametrize("theta", [None, 1e4])
def test_a_right_cache_of_a_policy_is_right_under_it(policy, theta):
    """With all that it shows; over arrays of one's own, the golden vectors, and in chunks."""

    def step(state, q, k, v, *, layer, n_sinks, window, theta):
        state = state or {}
        value = named(policy)(n_sinks, window)
        value = value.policies[min(layer, 1)] if isinstance(value, minisink.ByLayer) else value
        out, state[layer], seen = readable(
            state.get(layer), q, k, v, n_sinks=n_sinks, window=window, theta=theta, policy=value
        )
        return out, state, seen

    mine = drawn(n_layers=2, theta=theta)
    mine = trace_of(mine.q.tolist(), mine.k, mine.v, n_sinks=2, window=5, theta=theta)
    report = conformance.check(
        step, [conformance.load("gqa" if theta else "gpt2")[1], mine], shared=True, policy=policy
    )
    assert report, report
    other = conformance.check(step, [mine], shared=True, policy="half" if policy != "half" else None)
    assert not other


def test_a_trace_keeps_its_own_policy_unless_another_is_given():
    """Made again, its losses are those of no engine any more."""
    gqa = conformance.load("gqa")[1]
    half = drawn(policy="half")
    assert (
        conformance.check(readable, gqa).traces == (gqa,) == conformance.check(readable, gqa, policy="streaming").traces
    )
    assert conformance.check(readable, half).traces == (half,)
    (again,) = conformance.check(readable, gqa, policy="half").traces
    assert (again.policy_name, again.name, again.losses) == ("half", "gqa", None) and again.ids is gqa.ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": np.zeros((3, 1, 4))}, r"q has shape \(3, 1, 4\).*they must be \(T, L, H, D\), \(T, L, K, D\) and"),
        ({"v": np.zeros((24, 1, 1, 6))}, "they must be"),
        ({"k": np.zeros((23, 1, 2, 6)), "v": np.zeros((23, 1, 2, 6))}, "they must be"),
        ({"q": np.zeros((24, 1, 3, 6))}, "n_heads is 3; it must be a multiple of n_kv_heads, 2"),
        ({"q": np.zeros((24, 1, 0, 6))}, "there is no token, layer or head"),
        ({"window": 0}, "window is 0"),
        ({"n_sinks": 1.5}, "n_sinks is 1.5"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    trace = drawn()
    given = {"q": trace.q, "k": trace.k, "v": trace.v, "n_sinks": 1, "window": 4, "theta": 1e4} | change
    with pytest.raises(ValueError, match=message):
        trace_of(**given)
    assert replace(trace, name="mine").name == "mine"


def silent(policy):
    """A right cache of a policy, of which outputs are all that shows."""

    def step(state, q, k, v, *, n_sinks, window, theta):
        sizes = {"n_sinks": n_sinks, "window": window, "theta": theta}
        return readable(state, q, k, v, **sizes, policy=named(policy)(n_sinks, window))[:2]

    return step


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("half", "half of the window is evicted at once, as in llama.cpp's context shift"),
        pytest.param("original", "StreamingLLM with positions in the text, as in MLX's keep", marks=pytest.mark.slow),
        pytest.param(
            "blocks:4",
            "a block of tokens is evicted once all of it has left the window, as in paged caches",
            marks=pytest.mark.slow,
        ),
        ("blocks:16", "a block of tokens is evicted once all of it has left the window, as in paged caches"),
    ],
)
def test_under_the_default_it_is_told_which_policy_it_is(policy, says):
    """By name, in the golden vectors; and right under that name, of which the report speaks then."""
    report = conformance.check(silent(policy), "gqa")
    assert not report and report.right_under == (policy,)
    lines = str(report).splitlines()
    assert lines[3] == f"  it is right under policy {policy!r} ({says}): check(cache, policy={policy!r})"
    assert "nothing evicted" not in str(report)  # it looks like that up to the token at which a block leaves
    right = conformance.check(silent(policy), "gqa", policy=policy)
    assert right and str(right).startswith(f"right in 4 traces of 24 tokens under policy {policy!r}, off by ")
    hint = "such as conformance.drawn(n_sinks=1, window=4, n_tokens=140, policy='blocks:16')"
    assert (f"nothing was evicted in 3 of them: take more tokens, {hint}" in str(right)) == (policy == "blocks:16")
    back = conformance.check(silent("streaming"), "gqa", policy=policy)
    assert back.right_under == ("streaming",)


def test_a_layer_that_keeps_everything_is_told_too():
    def step(state, q, k, v, *, layer, **sizes):
        state = state or {}
        policy = minisink.Dense() if layer == 0 else None
        out, state[layer], _ = readable(state.get(layer), q, k, v, **sizes, policy=policy)
        return out, state

    report = conformance.check(step, "gqa", shared=True)
    assert (report.right_under, report.layers) == (("first-dense",), (0,))
    assert conformance.check(step, "gqa", shared=True, policy="first-dense")


@pytest.mark.slow
def test_no_policy_is_named_where_it_explains_some_of_it_only():
    """Dense attention, of which no trace shows a block leaving; one that shows other slots; one wrong at its end."""
    dense = silent(lambda n_sinks, window: minisink.Dense())
    assert conformance.check(dense, "gqa").right_under == () == conformance.check(dense, drawn()).right_under
    half = silent("half")

    def shows(state, q, k, v, **sizes):
        return (*half(state, q, k, v, **sizes), {"token_index": [0]})

    def spoilt(state, q, k, v, **sizes):
        state = state or [None, 0]
        out, cache = half(state[0], q, k, v, **sizes)
        return out * (1 if state[1] < 20 else 2), [cache, state[1] + 1]

    for cache in (shows, spoilt):
        report = conformance.check(cache, "gqa")
        assert not report and report.right_under == ()


@dataclass(frozen=True)
class Eighth(Policy):
    """Keeps every eighth token for good."""

    def survivors(self, token_index):
        return np.flatnonzero((token_index > token_index[-1] - self.window) | (token_index % 8 == 0))


def test_memory_may_grow_as_the_policy_does():
    trace = drawn(n_sinks=0, window=2, n_tokens=87, policy=Eighth)  # 13 held; one more since token 74
    assert conformance.check(silent(Eighth), trace, policy=Eighth)


@pytest.mark.slow
def test_a_large_trace_takes_little_memory():
    """4 + 1020 places, 2,048 tokens, eight heads of 64: keys and scores are made when they are asked for."""
    tracemalloc.start()
    try:
        drawn(n_sinks=4, window=1020, n_tokens=2048, n_heads=8, n_kv_heads=8, head_dim=64)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
