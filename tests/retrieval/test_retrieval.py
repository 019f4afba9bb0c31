"""Retrieval in the readable path: StreamingLLM where nothing is fetched, dense where everything is."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import Retrieval, Streaming, gpt2, llama, new_cache
from minisink import by_the_book as book
from minisink.attention import score
from minisink.families import gpt_neox, mpt
from minisink.fast.decoder import Decoder
from minisink.retrieval.cache import TIE, channel_range, top_blocks, upper_bound
from minisink.retrieval.method import SELECT
from minisink.retrieval.search import top_k

pytestmark = pytest.mark.filterwarnings("ignore:a block of")  # longer than the window, as some are drawn
some = examples(60)
few = examples(30)  # the book is slow
both = pytest.mark.parametrize("arch", [llama, gpt2])
policies = st.builds(
    Retrieval,
    n_sinks=st.integers(0, 3),
    window=st.integers(1, 6),
    positions=tiny.positions,
    n_blocks=st.integers(0, 4),
    block=st.integers(1, 5) | st.integers(17, 30),
    select=st.sampled_from(SELECT),
    store=st.none() | st.integers(1, 9),
)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def stream(model, ids, policy, chunks=None, cache=None):
    """Logits (T, V) of a text fed in chunks, one token at a time by default."""
    cache = new_cache(model, policy) if cache is None else cache
    stops = np.cumsum([1] * len(ids) if chunks is None else chunks)
    return np.concatenate([model.forward(part, cache=cache) for part in np.split(np.array(ids), stops[:-1])])


def looked_at(model, ids, policy):
    """The trace of every layer, one token at a time: a list over tokens of lists over layers."""
    cache, out = new_cache(model, policy), []
    for token in ids:
        trace = {}
        model.forward([token], cache=cache, trace=trace)
        out.append(trace["layers"])
    return out


@few
@given(tiny.models(), tiny.chunked_texts(14), policies)
def test_retrieval_is_the_book(model, text, policy):
    """From a plain reading of the formula, whatever is grouped, rotated, or taken off in the softmax."""
    ids, chunks = text
    policy = replace(policy, select="best", store=None)
    bring_back = book.retrieve(policy.n_blocks, policy.block, policy.window)
    evict, places = book.evict(policy.n_sinks, policy.window), policy.positions
    capacity = policy.n_sinks + policy.window
    want = book.decode(ids, model.weights, model.config, evict, nothing, places, capacity, bring_back)
    close(stream(public(model), ids, policy, chunks), want)


def nothing(kept):
    """Nobody leaves after attending."""


@some
@given(tiny.all_models(), tiny.chunked_texts(24), policies)
def test_no_blocks_is_streaming_to_the_bit(model, text, policy):
    """And so is a text of which nothing was evicted, whatever is fetched then."""
    (ids, chunks), model = text, public(model)
    policy = replace(policy, n_blocks=0)
    want = stream(model, ids, policy.in_slots, chunks)
    assert stream(model, ids, policy, chunks).tobytes() == want.tobytes()
    wide = replace(policy, n_blocks=3, window=len(ids))
    want = stream(model, ids, wide.in_slots, chunks)
    assert stream(model, ids, wide, chunks).tobytes() == want.tobytes()


@some
@given(tiny.all_models(), tiny.chunked_texts(24), policies)
def test_all_blocks_at_their_own_places_are_dense(model, text, policy):
    """Sinks, everything evicted and the window, each token where it stands in the text: the whole text."""
    (ids, chunks), model = text, public(model)
    policy = replace(policy, n_blocks=24, positions="original", store=None)
    close(stream(model, ids, policy, chunks), model.forward(ids))


@some
@given(tiny.llamas(), tiny.chunked_texts(24), policies)
def test_all_blocks_without_rotation_are_dense(model, text, policy):
    """At distance `window` too, when positions do not matter: one softmax over every key, each counted once."""
    (ids, chunks), model = text, public(replace(model, config=replace(model.config, rope_theta=1e300)))
    model.config = still(model.config)
    close(stream(model, ids, replace(policy, n_blocks=24, store=None), chunks), model.forward(ids))


def still(config):
    """A config whose rotation stands still."""

    class Still(type(config)):
        frequencies = property(lambda self: np.zeros(self.head_dim // 2))

    return Still(**vars(config))


@some
@given(tiny.all_models(), tiny.chunked_texts(24), policies)
def test_any_chunking_gives_what_single_tokens_give(model, text, policy):
    (ids, chunks), model = text, public(model)
    close(stream(model, ids, policy, chunks), stream(model, ids, policy))


@some
@given(tiny.all_models(n_layers=2), tiny.texts(max_size=24), policies)
def test_what_is_fetched_was_evicted(model, ids, policy):
    """Never a sink, never a token of the window, never twice; blocks are whole as far as they are there."""
    s, w, B, n = policy.n_sinks, policy.window, policy.block, policy.n_blocks
    for t, layers in enumerate(looked_at(public(model), ids, policy)):
        oldest = s if policy.store is None else max(s, t - w + 1 - policy.store)
        evicted = set(range(oldest, max(s, t - w + 1)))
        blocks = {b: {i for i in evicted if (i - s) // B == b} for b in {(i - s) // B for i in evicted}}
        for layer in layers:
            for held, first, pattern in zip(layer["token_index"], layer["fetched"], layer["pattern"], strict=True):
                there = held[0][held[0] >= 0].tolist()
                assert len(set(there)) == len(there) <= s + n * B + w
                slots = {*range(min(s, t + 1)), *range(max(0, t - w + 1), t + 1)}
                fetched = set(there) - slots
                assert slots <= set(there) and fetched <= evicted
                of = {(i - s) // B for i in fetched}
                assert len(of) == min(n, len(blocks)) and fetched == set().union(*(blocks[b] for b in of))
                assert sorted(first[0]) == first[0].tolist() == sorted(min(blocks[b]) for b in of)
                assert (pattern[0][held[0] < 0] == 0).all()


@some
@given(st.sampled_from([llama, gpt2]), tiny.texts(min_size=2, max_size=20), tiny.texts(max_size=6), policies)
def test_a_saved_stream_goes_on_to_the_same_bits(tmp_path_factory, arch, before, after, policy):
    """Stopped anywhere, before the first token and within a block too."""
    model, path = public(tiny.make(arch)), tmp_path_factory.mktemp("state") / "cache"
    for cut in (0, len(before)):
        cache = new_cache(model, policy)
        if cut:
            stream(model, before[:cut], policy, cache=cache)
        minisink.save_cache(cache, path)
        again = minisink.load_cache(path)
        assert (type(again), again.policy, again.n_seen) == (type(cache), policy, cut)
        want = stream(model, after, policy, cache=cache)
        assert stream(model, after, policy, cache=again).tobytes() == want.tobytes()


@both
def test_losses_and_text_go_through_it(arch):
    """By every public function, and equal to a cache of one's own."""
    model, ids = public(tiny.make(arch)), tiny.ids(20)
    method = Retrieval(1, 3, n_blocks=2, block=2)
    logits = stream(model, ids, method)
    nll = minisink.token_nll(model, ids, method, readable=True)
    close(nll, [-np.log(np.exp(row[i]) / np.exp(row).sum()) for row, i in zip(logits, ids[1:], strict=False)])
    close(minisink.token_nll(model, ids, method), nll)
    close(np.concatenate(list(minisink.nll_stream(model, [ids[:7], ids[7:]], method, chunk=3))), nll)
    assert abs(nll - minisink.token_nll(model, ids, Streaming(1, 3))).max() > 1e-3
    for readable in (True, False):
        text = list(minisink.generate(model, ids, method, max_new_tokens=3, readable=readable))
        assert text[0] == logits[-1].argmax()
    assert text == list(minisink.generate(model, ids, max_new_tokens=3, cache=new_cache(model, method)))


@some
@given(tiny.seeds, st.integers(1, 6), st.sampled_from([1, 2, 4]), st.data())
def test_no_key_exceeds_the_bound(seed, block, n_kv_heads, data):
    """However many of its tokens a block has; with one token it is the score."""
    q, keys = (tiny.arrays(*shape, seed=seed) for shape in ((1, 4, 6), (5, block, n_kv_heads, 6)))
    filled = np.arange(5 * block).reshape(5, block) < 4 * block + data.draw(st.integers(1, block))
    scores = score(q, keys.reshape(-1, n_kv_heads, 6)).reshape(4, 5, block)
    bounds = upper_bound(q, *channel_range(keys.swapaxes(1, 2), filled[:, None]))[:, 0]  # (H, N)
    assert (np.where(filled, scores, -np.inf) <= bounds[..., None] + 1e-12).all()
    if block == 1:
        close(bounds, scores[..., 0])


@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("arch", [mpt, gpt_neox])
def test_no_score_of_a_model_exceeds_the_bound(arch, block, positions):
    """With a bias on the distance too, and in the block that is not filled."""

    class Bounded(Retrieval):
        def block_scores(self, query, keys, scores, filled, *, layer, t):
            bounds = super().block_scores(query, keys, scores, filled, layer=layer, t=t)
            assert (scores.max(axis=-1) <= bounds + 1e-9).all()
            if block == 1:
                close(bounds, scores[..., 0])
            return bounds

    model = public(tiny.make(arch, n_layers=1))
    stream(model, tiny.ids(20), Bounded(1, 3, positions, n_blocks=2, block=block, select="bound"))


@some
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.integers(1, 10), tiny.seeds)
def test_the_best_blocks_and_of_equal_ones_the_newer(steps, n_blocks, seed):
    """As plain sorting has it, whatever rounding adds to the scores."""
    noise = np.random.default_rng(seed).uniform(-0.4, 0.4, len(steps)) * TIE
    best = sorted(range(len(steps)), key=lambda block: (steps[block], block))[max(0, len(steps) - n_blocks) :]
    scores = np.array([steps]) * 3 * TIE + noise
    assert top_blocks(scores, n_blocks).tolist() == [sorted(best)]
    assert sorted(top_k(scores, n_blocks)[0].tolist()) == sorted(best)


@some
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.integers(1, 10), st.floats(-1, 1), tiny.seeds)
def test_rounding_chooses_no_block(steps, n_blocks, offset, seed):
    """Wherever equal scores lie, at the edge of any grid too: numbers off by rounding give the same blocks.

    Scores are whole steps of half a tie from an offset, so many are equal; only one that lies at the very edge of a
    tie may be fetched or not, and such are moved off it.
    """
    random = np.random.default_rng(seed)
    scores = offset + np.array([steps]) * 0.51 * TIE
    last = np.sort(scores, axis=1)[:, max(0, len(steps) - n_blocks), None]
    assert (abs(abs(scores - last) - TIE) > 1e-5).all()
    noisy = scores + random.uniform(-1e-6, 1e-6, scores.shape)
    assert top_blocks(scores, n_blocks).tolist() == top_blocks(noisy, n_blocks).tolist()
    assert sorted(top_k(noisy, n_blocks)[0].tolist()) == top_blocks(scores, n_blocks)[0].tolist()


@pytest.mark.parametrize("decision", ["survivors", "positions_of"])
def test_a_decision_of_ones_own_is_refused_and_not_ignored(decision):
    """The slots are StreamingLLM's: a subclass overrides `block_scores` alone."""
    own = type("Own", (Retrieval,), {decision: lambda self, token_index: token_index})
    with pytest.raises(ValueError, match=f"Own overrides {decision}"):
        own(1, 4, block=2)


class Worst(Retrieval):
    """A method of one's own: the blocks that fit worst."""

    def block_scores(self, query, keys, scores, filled, *, layer, t):
        return -scores.max(axis=-1)


def test_a_method_of_your_own_takes_the_readable_path():
    """By itself in the public functions; a decoder that is asked for it says so."""
    model, ids, method = public(tiny.make()), tiny.ids(20), Worst(1, 3, n_blocks=1, block=2)
    nll = minisink.token_nll(model, ids, method)
    assert (nll == minisink.token_nll(model, ids, method, readable=True)).all()
    assert abs(nll - minisink.token_nll(model, ids, Retrieval(1, 3, n_blocks=1, block=2))).max() > 1e-3
    text = list(minisink.generate(model, ids, method, max_new_tokens=2))
    assert text[0] == stream(model, ids, method)[-1].argmax()
    with pytest.raises(ValueError, match="the fast paths handle only sinks and a window; use readable=True"):
        Decoder(model, method)


def test_equal_words_tie_and_the_newer_block_comes_back():
    """A word that came twice has one key in layer 0: rounding does not say which of its blocks is fetched."""
    model, ids = public(tiny.make()), [3, 5, 7, 5, 9, 1, 2, 5, 11, 13, 16, 5]
    layers = looked_at(model, ids, Retrieval(0, 2, n_blocks=1, block=1))[-1]
    for head in range(4):
        token = int(layers[0]["fetched"][head, 0, 0])
        assert ids[token] not in [ids[i] for i in range(token + 1, 10)]


def test_the_store_grows_and_a_limit_bounds_it():
    """It holds the blocks that were evicted, or as many as the limit says."""
    model, ids = public(tiny.make(n_layers=1)), tiny.ids(400)
    free, bounded = (new_cache(model, Retrieval(1, 3, n_blocks=1, block=4, store=n)) for n in (None, 10))
    for cache in (free, bounded):
        stream(model, ids, None, [400], cache)
    a_token = 2 * 2 * 6 * 8
    assert free.nbytes == 99 * 4 * a_token + 4 * a_token and len(free.stores[0]) == 99
    assert bounded.nbytes <= (3 * 4 + 4) * a_token
    assert bounded.stores[0].token_index[bounded.stores[0].token_index >= 0].tolist() == list(range(387, 397))
    assert "4 slots and 396 stored of 400 tokens seen" in repr(free)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_blocks": -1}, "n_blocks is -1; it must be a whole number of 0 or more"),
        ({"block": 0}, "block is 0; it must be a whole number of 1 or more"),
        ({"block": 2.5}, "block is 2.5"),
        ({"store": 0}, "store is 0; it must be a whole number of 1 or more; None keeps every evicted token"),
        ({"select": "mean"}, "select is 'mean'; it must be one of best, bound"),
        ({"window": 0}, "window is 0"),
        (
            {"window": None},
            "window is None; it must be .* 1 or more; Dense.. keeps everything, with nothing to bring back",
        ),
        ({"n_sinks": -1}, "n_sinks is -1"),
        ({"positions": "text"}, "positions is 'text'"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    """By name and value, when the method is made."""
    with pytest.raises(ValueError, match=message):
        Retrieval(**wrong)


def test_what_cannot_be_is_said():
    """A cache of slots alone; a block longer than the window."""
    config = tiny.make().config
    cache = minisink.KVCache(3, config.n_kv_heads, config.head_dim, Retrieval(1, 3))
    with pytest.raises(ValueError, match="needs a store besides its slots"):
        public(tiny.make(dtype=np.float32)).forward([1, 2], cache=cache)
    with pytest.warns(UserWarning, match="a block of 4 tokens is longer than the window of 3"):
        Retrieval(window=3, block=4)


def test_places_beyond_the_trained_length_are_warned_of():
    """Once, and by the number; not where everything stands within the slots."""
    model, ids = public(tiny.make(max_positions=16)), tiny.ids(30)
    for use in (
        lambda method: list(minisink.nll_blocks(model, ids, method, chunk=5)),
        lambda method: minisink.generate(model, ids[:10], method, max_new_tokens=9),
        lambda method: minisink.generate(model, ids, method),
    ):
        use(Retrieval(1, 4, block=2))
        with pytest.warns(UserWarning, match="positions='original': from token 16, fetched tokens") as caught:
            use(Retrieval(1, 4, "original", block=2))
        assert len(caught) == 1


@pytest.mark.slow
@pytest.mark.parametrize("readable", [True, False])
def test_no_memory_for_the_store_keeps_what_was_computed(monkeypatch, readable):
    """Losses and tokens until then have come out, and the error says what bounds the store."""
    model, ids, pad = public(tiny.make()), tiny.ids(1000), np.pad
    method = Retrieval(1, 4, block=2)
    want = minisink.token_nll(model, ids, method, readable=readable)

    def full(array, more, **options):
        if np.prod(np.add(array.shape, np.sum(more, axis=-1))) > 2 * 6 * 400:
            raise MemoryError("400 tokens")
        return pad(array, more, **options)

    monkeypatch.setattr(np, "pad", full)
    blocks, losses = [], minisink.nll_blocks(model, ids, method, chunk=50, readable=readable)
    with pytest.raises(MemoryError, match=r"do not fit in memory \(400 tokens\); store=N keeps only the newest N"):
        for nll in losses:
            blocks.append(nll)
    close(np.concatenate(blocks), want[: 50 * len(blocks)])
    text = minisink.generate(model, ids[:40], method, max_new_tokens=None, readable=readable)
    tokens = []
    with pytest.raises(MemoryError, match="evicted tokens do not fit in memory"):
        for token in text:
            tokens.append(token)
    assert len(tokens) > 100
    method = replace(method, store=50)
    assert len(np.concatenate(list(minisink.nll_blocks(model, ids, method, chunk=50, readable=readable)))) == 999


def test_a_cache_of_another_block_size_is_refused(tmp_path):
    """A cache that was saved goes on as what it is; a decoder says what it has and what it was asked for."""
    model = public(tiny.make())
    cache = new_cache(model, Retrieval(1, 4, block=2))
    model.forward(tiny.ids(9), cache=cache)
    minisink.save_cache(cache, tmp_path / "cache")
    again = minisink.load_cache(tmp_path / "cache")
    assert again.policy == Retrieval(1, 4, block=2) != Retrieval(1, 4, block=3)
    ring = Decoder(model, Retrieval(1, 4, block=2)).cache
    with pytest.raises(ValueError, match="this cache has Retrieval.*block=2.*, not Retrieval.*block=3"):
        Decoder(model, Retrieval(1, 4, block=3), cache=ring)


def test_the_page_prints_what_stands_below_its_block(capsys):
    page = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")
    code, printed = re.search(r"```python\n(.*?)```\nprints\n```\n(.*?)```", page, re.DOTALL).groups()
    exec(compile(code, "retrieval.md", "exec"), {})
    assert capsys.readouterr().out == printed
