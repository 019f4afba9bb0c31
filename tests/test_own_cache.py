"""A cache of one's own works everywhere or is refused: the page that shows how, and what it promises."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import by_the_book as book
from minisink import gpt2
from minisink.fast.blocks import Banded, Windows
from minisink.fast.decoder import Decoder
from minisink.fast.ring import RingCache
from minisink.paths import Cached

PAGE = (Path(__file__).parents[1] / "docs" / "your-own-cache.md").read_text(encoding="utf-8")
some = examples(60)


@pytest.mark.slow
def test_the_page_prints_what_stands_below_its_blocks(capsys):
    names, shown = {}, re.findall(r"```python\n(.*?)```(?:\nprints\n```\n(.*?)```)?", PAGE, re.DOTALL)
    assert len(shown) == 4 and not shown[0][1] and not shown[3][1]
    for code, printed in shown:
        exec(compile(code, "your-own-cache.md", "exec"), names)
        now, number = capsys.readouterr().out, r"\d+\.\d+"
        assert re.sub(number, "#", now.rstrip()) == re.sub(number, "#", printed.rstrip())
        wanted = [float(x) for x in re.findall(number, printed)]
        assert [float(x) for x in re.findall(number, now)] == pytest.approx(wanted, rel=1e-3)
    one, streaming = re.findall(r"^(?:1 heavy hitters|streaming): (\d+\.\d+)", shown[2][1], re.MULTILINE)
    assert one == streaming
    code = re.search(r"class HeavyHitters:.*?return mixed\n", PAGE, re.DOTALL)[0]
    assert len(code.splitlines()) <= 30


@dataclass(frozen=True)
class Odd(minisink.Policy):
    """Keeps the sinks, a window, and of the others those whose token_index is odd."""

    def survivors(self, token_index):
        is_recent = token_index > token_index[-1] - self.window
        return np.flatnonzero((token_index < self.n_sinks) | is_recent | (token_index % 2 == 1))


@dataclass(frozen=True)
class Backwards(minisink.Policy):
    """Sinks and a window, numbered from the other end."""

    def positions_of(self, token_index):
        return np.arange(len(token_index))[::-1].copy()


@dataclass(frozen=True)
class Renamed(minisink.Policy):
    """Decides nothing by itself."""


own = st.builds(Odd, st.integers(0, 2), st.integers(1, 4), tiny.positions)


@some
@given(tiny.models(), tiny.chunked_texts(24), own)
def test_any_chunking_gives_what_single_tokens_give(model, text, policy):
    """The policy is asked after every token, however many come at once; GPT-2 embeds each where it comes in."""
    ids, chunks = text
    one_by_one = model.cache(policy, policy.positions)
    want, kept = [], []
    for t, token in enumerate(ids):
        want.append(model.forward([token], one_by_one))
        kept = [i for i in [*kept, t] if i < policy.n_sinks or i > t - policy.window or i % 2 == 1]
        assert one_by_one.token_index.tolist() == kept
    got = model.stream(ids, policy, policy.positions, chunks)
    np.testing.assert_allclose(got, np.concatenate(want), rtol=1e-10, atol=1e-10)


@some
@given(tiny.models(), tiny.texts(min_size=2, max_size=24), own, st.integers(1, 9))
def test_losses_and_text_go_through_it(model, ids, policy, block):
    """`token_nll`, `nll_stream` and `generate` ask the same cache, given as a policy or as a cache."""
    model = public(model)
    alone = minisink.nll_stream(model, [ids[:1], ids[1:]], policy, chunk=block)
    logits = np.concatenate([model.forward([t], cache=c) for c in [minisink.new_cache(model, policy)] for t in ids])
    stream = minisink.nll_stream(model, [ids[:1], ids[1:]], chunk=block, cache=minisink.new_cache(model, policy))
    own = minisink.token_nll(model, ids, cache=minisink.new_cache(model, policy))
    for nll in (own, minisink.token_nll(model, ids, policy), *(np.concatenate(list(x)) for x in (stream, alone))):
        np.testing.assert_allclose(nll, book.losses(logits, ids), rtol=1e-9, atol=1e-9)
    text = list(minisink.generate(model, ids, max_new_tokens=1, cache=minisink.new_cache(model, policy)))
    assert text == list(minisink.generate(model, ids, policy, max_new_tokens=1))
    assert logits[-1][text[0]] == pytest.approx(logits[-1].max())


def test_the_next_position_is_the_policys():
    """What GPT-2 embeds a token with is what `positions_of` will say of it."""
    model = tiny.make(gpt2)
    cache = model.cache(Odd(1, 2))
    assert cache.next_positions(7).tolist() == [0, 1, 2, 3, 3, 4, 4]  # 4 comes, and 2 leaves; 6 comes, and 4 leaves
    for t, place in enumerate([0, 1, 2, 3, 3, 4, 4]):
        model.forward([3], cache)
        assert (cache.positions[-1], len(cache) - 1) == (place, place), t


@pytest.mark.parametrize("policy", [Odd(1, 4), Backwards(1, 4)])
def test_the_fast_paths_refuse_what_they_cannot_do(policy, tmp_path):
    """Instead of passing over it in silence; and a file could not bring it back."""
    model = public(tiny.make())
    for make in (
        lambda: Banded(3, policy),
        lambda: RingCache(3, 2, 6, policy),
        lambda: Decoder(model, policy),
    ):
        with pytest.raises(ValueError, match=f"{type(policy).__name__}.*the fast paths handle only sinks and a window"):
            make()
    with pytest.raises(ValueError, match="is your own class"):
        minisink.save_cache(minisink.new_cache(model, policy), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_a_subclass_that_decides_nothing_is_as_good_as_its_base():
    model, ids = public(tiny.make()), tiny.ids(20)
    got = Decoder(model, Renamed(1, 4))(ids)
    np.testing.assert_allclose(got, Decoder(model, minisink.Streaming(1, 4))(ids), rtol=1e-12)


@pytest.mark.parametrize("answer", [[], [0], [0, 0, 2], [2, 0], [-1, 2], [0, 1, 3]])
def test_a_policy_that_answers_nonsense_is_named(answer):
    """Slots out of order, twice, not there, or without the newest."""

    @dataclass(frozen=True)
    class Broken(minisink.Policy):
        def survivors(self, token_index):
            return np.arange(len(token_index)) if len(token_index) < 3 else np.array(answer, int)

    model = tiny.make()
    with pytest.raises(ValueError, match="Broken.*survivors are"):
        model.stream([1, 2, 3], Broken())


class Recorded:
    """A path that passes on to another, and is falsy while it is empty."""

    def __init__(self, path):
        self.path, self.calls = path, []

    def __len__(self):
        return 0

    n_seen = property(lambda self: self.path.cache.n_seen)

    def positions(self, n_tokens):
        return self.path.positions(n_tokens)

    def mix(self, layer, *args, **options):
        self.calls.append(layer)
        return self.path.mix(layer, *args, **options)


@pytest.mark.parametrize("arch", [tiny.llama, gpt2])
def test_a_path_without_a_length_is_a_path_all_the_same(arch):
    """An empty one is falsy, and dense attention does not step in for it."""
    model, ids = public(tiny.make(arch)), tiny.ids(12)
    path = Recorded(Cached(minisink.new_cache(model, minisink.Streaming(1, 3))))
    got = model.forward(ids, cache=path)
    assert path.calls == [0, 1, 2]
    want = model.forward(ids, cache=minisink.new_cache(model, minisink.Streaming(1, 3)))
    np.testing.assert_array_equal(got, want)


def test_what_is_no_cache_is_refused():
    """An empty dict, a list, a class, a ring, a cache of another model, a path that does not count: one line each."""
    model = public(tiny.make())
    others = [minisink.new_cache(public(tiny.make(**changes))) for changes in ({"n_layers": 2}, {"n_kv_heads": 4})]
    for cache, message in [
        ({}, "cache is {}; it must be a KVCache or a path"),
        ([], r"cache is \[\]"),
        (False, "cache is False"),
        (RingCache(3, 2, 6, minisink.Window(3)), "must be a KVCache or a path"),
        (others[0], r"this cache has \(layers, heads, channels\) \(2, 2, 6\); tiny needs \(3, 2, 6\)"),
        (others[1], r"\(3, 4, 6\); tiny needs \(3, 2, 6\)"),
    ]:
        for use in (model.forward, lambda ids, cache: minisink.token_nll(model, ids, cache=cache)):
            with pytest.raises(ValueError, match=message):
                use([1, 2], cache=cache)
    uncounted = type("Uncounted", (), {"positions": lambda self, n: np.arange(n), "mix": lambda self, *a, **o: a[1]})()
    model.forward([1, 2], cache=uncounted)
    with pytest.raises(ValueError, match="needs `n_seen` too"):
        minisink.token_nll(model, [1, 2], cache=uncounted)


def test_a_trace_of_the_fast_path_is_refused():
    """Instead of being left empty."""
    model = public(tiny.make())
    for cache in (Banded(3, minisink.Window(3)), Windows(2)):
        with pytest.raises(ValueError, match="nothing to show in a trace"):
            model.forward([1, 2], cache=cache, trace={})
    with pytest.raises(ValueError, match="trace is True; pass an empty dict"):
        model.forward([1, 2], trace=True)


def test_a_text_goes_on_with_the_cache_it_left():
    """Prompt and text stay in the cache that was given: the next call goes on from there."""
    model, cache = public(tiny.make()), None
    whole = list(minisink.generate(model, [1, 2, 3], minisink.Streaming(1, 4), max_new_tokens=8))
    cache = minisink.new_cache(model, minisink.Streaming(1, 4))
    first = list(minisink.generate(model, [1, 2, 3], max_new_tokens=5, cache=cache))
    rest = list(minisink.generate(model, first[-1:], max_new_tokens=3, cache=cache))
    assert first + rest == whole
    assert cache.n_seen == 3 + 4 + 3
    assert repr(cache).startswith("<KVCache of 3 layers: 5 slots of 10 tokens seen, Streaming(")


def test_a_policy_is_compared_by_what_it_says():
    assert Renamed(1, 2) != minisink.Streaming(1, 2) and replace(Renamed(1, 2), window=3) == Renamed(1, 3)
