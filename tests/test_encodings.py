"""Every position encoding by its formula: in scores, through a cache, in blocks and in the ring; and its page."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from test_positions import rotate_interleaved

from minisink import Streaming
from minisink import by_the_book as book
from minisink.attention import score
from minisink.cache import KVCache
from minisink.fast.blocks import Banded
from minisink.fast.ring import RingCache
from minisink.ops import softmax, softmax1
from minisink.paths import cached_attention
from minisink.positions import Rotary, Slopes, alibi_slopes, bias_of, rope_frequencies, unrotated

PAGE = (Path(__file__).parents[1] / "docs" / "positions.md").read_text(encoding="utf-8")
H, K, D = 4, 2, 6
WHOLE, PART = rope_frequencies(D, 50.0), rope_frequencies(4, 50.0)


def part_in_pairs(x, position, rates):
    return np.concatenate((rotate_interleaved(x[:4], position, rates), x[4:]))


LITERAL = {  # the encoding, what it makes of one vector, and what it adds to the score of a head
    "rotary": (Rotary(WHOLE), lambda x, p: book.rotate(x, p, WHOLE), None),
    "part": (Rotary(PART), lambda x, p: book.rotate(x, p, PART), None),
    "pairs": (Rotary(WHOLE, interleaved=True), lambda x, p: rotate_interleaved(x, p, WHOLE), None),
    "part in pairs": (Rotary(PART, interleaved=True), lambda x, p: part_in_pairs(x, p, PART), None),
    "slopes": (Slopes(alibi_slopes(H)), lambda x, p: x, lambda h, m, n: -book.slope(h, H, 8) * (m - n)),
    "none": (unrotated, lambda x, p: x, None),
}
every_encoding = pytest.mark.parametrize("name", LITERAL)
some = examples(40)
sizes = st.tuples(st.integers(0, 3), st.integers(1, 5))


def qkv(seed, n_tokens):
    return [tiny.arrays(n_tokens, heads, D, seed=seed + add) for add, heads in ((1, H), (2, K), (3, K))]


def literally(name, q, k, v, n_sinks, window, positions):
    """Outputs (T, H, D) of StreamingLLM, token by token."""
    _, place, bias = LITERAL[name]
    out, kept, leave = np.zeros_like(q), [], book.evict(n_sinks, window)
    for t in range(len(q)):
        kept.append(t)
        leave(kept)
        places = kept if positions == "original" else range(len(kept))
        for h in range(H):
            query, keys = (
                place(q[t, h], places[-1]),
                [place(k[n, h // 2], p) for n, p in zip(kept, places, strict=True)],
            )
            added = [0.0 if bias is None else bias(h, places[-1], p) for p in places]
            scores = [book.dot(query, key) / D**0.5 + more for key, more in zip(keys, added, strict=True)]
            out[t, h] = np.array(book.softmax(scores)) @ v[kept, h // 2]
    return out


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def in_chunks(mix, q, k, v, chunks):
    stops = np.cumsum(chunks)
    return np.concatenate([mix(q[t - n : t], k[t - n : t], v[t - n : t]) for n, t in zip(chunks, stops, strict=True)])


@every_encoding
@some
@given(tiny.seeds, st.integers(1, 14).flatmap(tiny.chunks), sizes, tiny.positions)
def test_cache_and_blocks_are_the_formula(name, seed, chunks, sizes, positions):
    """Whatever the chunks, in slots and at places in the text."""
    q, k, v = qkv(seed, sum(chunks))
    encoding, method = LITERAL[name][0], Streaming(*sizes, positions)
    want = literally(name, q, k, v, *sizes, positions)
    layer = KVCache(1, K, D, method, like=q).layers[0]
    close(in_chunks(lambda *new: cached_attention(*new, layer, encoding), q, k, v, chunks), want)
    blocks = Banded(1, method)
    close(in_chunks(lambda *new: blocks.mix(0, *new, encoding, normalise=softmax), q, k, v, chunks), want)


@every_encoding
@some
@given(tiny.seeds, st.integers(1, 14), sizes, tiny.positions)
def test_the_ring_is_the_formula(name, seed, n_tokens, sizes, positions):
    """Keys that never move."""
    q, k, v = qkv(seed, n_tokens)
    cache = RingCache(1, K, D, Streaming(*sizes, positions), dtype=q.dtype)
    newest, out = cache.attention(H, LITERAL[name][0]), np.empty_like(q)
    for t in range(n_tokens):
        newest.begin(t)
        newest.qkv[:] = np.concatenate((q[t], k[t], v[t])).ravel()
        newest.mix(0, out[t])
        cache.n_seen += 1
    close(out, literally(name, q, k, v, *sizes, positions))


def scores(encoding, q, k, queries, keys):  # -> (H, T, S)
    bias = bias_of(encoding, queries, keys, like=q)
    found = score(encoding(q, queries), encoding(k, keys))
    return found if bias is None else found + bias


@every_encoding
@given(tiny.seeds, st.integers(0, 100_000))
def test_only_distances_count(name, seed, shift):
    """Queries and keys moved by one number score the same."""
    q, k, _ = qkv(seed, 7)
    places, encoding = np.arange(7), LITERAL[name][0]
    near, far = (scores(encoding, q, k, places + far, places + far) for far in (0, shift))
    np.testing.assert_allclose(far, near, atol=1e-9)


@given(st.integers(1, 40), st.sampled_from([8.0, 4.0]))
def test_slopes_are_their_equation(n_heads, bias_max):
    """Of any number of heads."""
    np.testing.assert_allclose(
        alibi_slopes(n_heads, bias_max), [book.slope(h, n_heads, bias_max) for h in range(n_heads)]
    )


@given(tiny.seeds, st.integers(0, 50))
def test_softmax_does_not_see_where_an_alibi_query_stands(seed, place):
    """``slope n`` has the pattern of ``-slope (m - n)``; softmax1, where one term has no position, tells them apart."""
    q, k, _ = qkv(seed, 7)
    encoding = LITERAL["slopes"][0]
    here, there = (scores(encoding, q, k, np.full(7, m), np.arange(7)) for m in (7, 8 + place))
    close(softmax(here), softmax(there))
    assert np.abs(softmax1(here) - softmax1(there)).max() > 1e-4


@given(tiny.seeds, sizes, st.integers(1, 60))
def test_at_places_in_the_text_alibi_s_sinks_fade(seed, sizes, n_evicted):
    """Compared with the window each sink weighs exp(-slope) less for each token that has left."""
    (n_sinks, window), (q, k, _) = sizes, qkv(seed, 9)
    slots, encoding = np.arange(n_sinks + window), LITERAL["slopes"][0]
    text = np.where(slots < n_sinks, slots, slots + n_evicted)
    k = k[: len(slots)]
    in_slots, in_text = (softmax(scores(encoding, q[:1], k, at[-1:], at))[:, 0] for at in (slots, text))
    ratio = (in_text[:, :n_sinks] / in_text[:, -1:]) / (in_slots[:, :n_sinks] / in_slots[:, -1:])
    np.testing.assert_allclose(ratio, np.exp(-alibi_slopes(H) * n_evicted)[:, None].repeat(n_sinks, 1), rtol=1e-9)


def test_the_page_prints_what_stands_below_its_blocks(capsys):
    """All of them; and its script draws the picture."""
    names, shown = {}, re.findall(r"```python\n(.*?)```\nprints\n```\n(.*?)```", PAGE, re.DOTALL)
    assert len(shown) == PAGE.count("```python") == 3
    for code, printed in shown:
        exec(compile(code, "positions.md", "exec"), names)
        assert capsys.readouterr().out == printed


def test_the_picture_s_numbers_are_those_of_its_script():
    """In its text: what head 3 subtracts at 63 and at 127."""
    slope = alibi_slopes(8)[2]
    assert f"subtracts {63 * slope:.1f} at a distance of 63 and {127 * slope:.1f} at 127" in PAGE
