"""The four methods through the public functions, and the fast paths against the readable one."""

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import public

import minisink
from minisink import by_the_book as book
from minisink import gpt2, llama
from minisink.fast.blocks import Banded, Windows
from minisink.methods import METHODS, lead_of

some = settings(max_examples=60)
thousand = settings(max_examples=1000)
few = settings(max_examples=20)  # the book is slow
cached_methods = st.sampled_from(["dense", "window", "streaming"])
sizes = st.tuples(st.integers(0, 3), st.integers(1, 6))  # n_sinks, window


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def literally(model, ids, method, n_sinks, window, positions):
    """Logits (T, V) of a method, by the book."""
    if method == "recompute":
        return book.recompute(ids, model.weights, model.config, window)
    if method == "dense":
        return book.decode(ids, model.weights, model.config)
    n_sinks = 0 if method == "window" else n_sinks
    evict, bring_back = book.evict(n_sinks, window), book.retrieve(2, 1, window) if method == "retrieval" else None
    options = {"positions": positions, "capacity": n_sinks + window, "bring_back": bring_back}
    return book.decode(ids, model.weights, model.config, evict, **options)


def readable(model, ids, method, n_sinks, window, positions):
    """Logits (T, V) of a cached method, one token at a time."""
    cache = minisink.new_cache(model, method=method, n_sinks=n_sinks, window=window, positions=positions)
    return np.concatenate([model.forward([token], cache=cache) for token in ids])


@few
@given(tiny.models(), tiny.texts(min_size=2, max_size=12), st.sampled_from(METHODS), sizes, tiny.positions)
def test_token_nll_is_the_book(model, ids, method, sizes, positions):
    """The loss of each token under each method, from a plain reading of the paper."""
    want = book.losses(literally(model, ids, method, *sizes, positions), ids)
    n_sinks, window = sizes
    options = {
        "method": method,
        "n_sinks": n_sinks,
        "window": window,
        "positions": positions,
        "n_blocks": 2,
        "block": 1,
    }
    got = minisink.token_nll(public(model), ids, **options)
    close(got, want)


@thousand
@given(tiny.models(), tiny.texts(max_size=40), cached_methods, sizes, tiny.positions, st.integers(1, 50))
def test_blocks_of_loss_are_one_token_at_a_time(model, ids, method, sizes, positions, block):
    """However many tokens a forward pass takes, the losses are those of decoding one by one through a cache."""
    model, (n_sinks, window) = public(model), sizes
    options = {"method": method, "n_sinks": n_sinks, "window": window, "positions": positions}
    blocks = list(minisink.nll_blocks(model, ids, chunk=block, **options))
    assert [len(b) for b in blocks[:-1]] == [block] * (len(blocks) - 1)
    want = book.losses(readable(model, ids, **options), ids)
    close(np.concatenate([np.empty(0), *blocks]), want)


@thousand
@given(tiny.models(), tiny.chunked_texts(40), sizes, tiny.positions)
def test_banded_is_a_cache(model, text, sizes, positions):
    """Rotating keys once and queries twice under a banded mask gives the logits of rotating every key by its slot."""
    (ids, chunks), model = text, public(model)
    fast = Banded(model.config.n_layers, minisink.keep_sinks(*sizes, positions))
    got, start = [], 0
    for n in chunks:
        got.append(model.forward(ids[start : start + n], cache=fast))
        start += n
        assert fast.n_seen == start
    close(np.concatenate(got), readable(model, ids, "streaming", *sizes, positions))


@some
@given(tiny.models(), st.integers(1, 5), st.integers(1, 4), tiny.seeds)
def test_windows_side_by_side_do_not_see_each_other(model, length, n_windows, seed):
    """Many windows in one pass give what each gives alone."""
    model, ids = public(model), tiny.ids(length * n_windows, seed)
    got = model.forward(ids, cache=Windows(length))
    close(got, np.concatenate([model.forward(window) for window in ids.reshape(n_windows, length)]))


@some
@given(tiny.models(), tiny.texts(min_size=2, max_size=30), st.integers(1, 6), st.integers(1, 40))
def test_recompute_is_each_window_from_scratch(model, ids, window, block):
    """Token t is predicted from a dense pass over the `window` tokens before it, in blocks of any size."""
    model = public(model)
    blocks = minisink.nll_blocks(model, ids, method="recompute", window=window, chunk=block)
    alone = [model.forward(ids[max(0, t - window) : t])[-1] for t in range(1, len(ids) + 1)]
    close(np.concatenate(list(blocks)), book.losses(alone, ids))


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_methods_agree_until_the_first_eviction_and_then_part(arch):
    """With capacity 5 the first five predictions are one number; from the sixth on, the methods are four."""
    model, ids = public(tiny.make(arch)), tiny.ids(12)
    options = {
        "dense": {},
        "window": {"window": 5},
        "recompute": {"window": 5},
        "streaming": {"window": 3, "n_sinks": 2},
    }
    nll = np.array([minisink.token_nll(model, ids, method=method, **o) for method, o in options.items()])
    close(nll[:, :5], np.broadcast_to(nll[:1, :5], (4, 5)))
    for row in nll[:, 5:].T:
        assert np.diff(np.sort(row)).min() > 1e-6


def test_by_default_every_method_has_256_tokens_in_sight():
    """Four sinks and 252, or a window of 256: equal memory, so that what differs is the method."""
    assert minisink.new_cache(public(tiny.make())).policy == minisink.keep_sinks(4, 252)
    assert minisink.new_cache(public(tiny.make()), method="window").policy == minisink.keep_window(256)
    assert minisink.new_cache(public(tiny.make()), n_sinks=1).policy == minisink.keep_sinks(1, 255)
    model, ids = public(tiny.make(n_layers=1)), tiny.ids(300)
    for method, sizes in (("streaming", {"n_sinks": 4, "window": 252}), ("window", {"window": 256}), ("dense", {})):
        close(minisink.token_nll(model, ids, method=method), minisink.token_nll(model, ids, method=method, **sizes))
    again = minisink.token_nll(model, ids, method="recompute")
    close(again, minisink.token_nll(model, ids, method="recompute", window=256))
    texts = [list(minisink.generate(model, ids, method=m, max_new_tokens=2)) for m in ("window", "recompute")]
    assert texts[0] == texts[1]  # one layer: the same
    with pytest.raises(ValueError, match="window is -44"):
        minisink.new_cache(model, n_sinks=300)


@some
@given(tiny.models(), tiny.texts(max_size=12), sizes, tiny.positions)
def test_options_a_method_does_not_have_are_ignored(model, ids, sizes, positions):
    """window and recompute know no sinks, dense knows no window either."""
    model, (n_sinks, window) = public(model), sizes

    def nll(method, **options):
        return minisink.token_nll(model, ids, method=method, positions=positions, **options).tolist()

    for method in ("window", "recompute"):
        assert nll(method, window=window, n_sinks=n_sinks) == nll(method, window=window, n_sinks=0)
    assert nll("window", window=window) == nll("streaming", window=window, n_sinks=0)
    assert nll("dense", window=window, n_sinks=n_sinks) == nll("dense")


@few
@given(tiny.models(), tiny.texts(max_size=8), st.sampled_from(METHODS), sizes, tiny.positions)
def test_greedy_text_follows_the_likeliest_token(model, ids, method, sizes, positions):
    """Each generated token is the likeliest one after everything before it, as the method sees it."""
    n_sinks, window = sizes
    options = {
        "method": method,
        "n_sinks": n_sinks,
        "window": window,
        "positions": positions,
        "n_blocks": 2,
        "block": 1,
    }
    text = [*ids, *minisink.generate(public(model), ids, max_new_tokens=6, **options)]
    logits = literally(model, text, method, *sizes, positions)[len(ids) - 1 : -1]
    chosen = logits[np.arange(6), text[len(ids) :]]
    close(chosen, logits.max(axis=-1))


def test_losses_are_in_the_dtype_of_the_model():
    """A float32 model gives float32 nats, T - 1 of them, and none for a single token."""
    model = public(tiny.make(dtype=np.float32))
    for method in METHODS:
        nll = minisink.token_nll(model, tiny.ids(9), method=method, n_sinks=1, window=3, block=2)
        assert (nll.dtype, nll.shape) == (np.float32, (8,))
        assert minisink.token_nll(model, [3], method=method).shape == (0,)
    exact = minisink.token_nll(public(tiny.make()), tiny.ids(9), method="streaming", n_sinks=1, window=3)
    close_enough = minisink.token_nll(model, tiny.ids(9), method="streaming", n_sinks=1, window=3)
    np.testing.assert_allclose(close_enough, exact, atol=1e-4)


def test_perplexity_is_the_exponential_of_the_mean_loss():
    """exp of the mean, in float64; not a number for no tokens."""
    assert minisink.perplexity(np.log([1.0, 4.0])) == pytest.approx(2.0)
    assert np.isnan(minisink.perplexity(np.empty(0)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "sliding"}, "method is 'sliding'"),
        ({"n_sinks": -1}, "n_sinks is -1"),
        ({"window": 0}, "window is 0"),
        ({"positions": "cache"}, "positions is 'cache'"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    """Whoever asks for what does not exist is told so by name, before anything is computed."""
    model = public(tiny.make())
    for function in (minisink.nll_blocks, minisink.generate):
        for method in METHODS:
            with pytest.raises(ValueError, match=message):
                function(model, [1, 2], **{"method": method, **wrong})
    with pytest.raises(ValueError, match=message):
        minisink.new_cache(model, **wrong)


def test_a_lead_leaves_room_for_the_text():
    """A lead as long as the window is refused, and so is one of ids that do not exist."""
    model = public(tiny.make())
    for function in (minisink.nll_blocks, minisink.generate):
        with pytest.raises(ValueError, match="lead has 3 tokens; a window of 3"):
            function(model, [1, 2], method="recompute", window=3, lead=[1, 2, 3])
        with pytest.raises(ValueError, match="id 17 at index 1"):
            function(model, [1, 2], method="recompute", window=3, lead=[1, 17])


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_a_lead_stands_in_front_of_every_window_that_lost_its_beginning(arch):
    """Once the text is longer than the window, a window is the lead and the last tokens that fit."""
    window, lead = 5, [3, 7, 11]
    options = {"method": "recompute", "window": window, "lead": lead}
    for seed in range(4):
        model, ids = public(tiny.make(arch, seed)), tiny.ids(14, seed).tolist()

        def after(text, model=model):
            return model.forward(text if len(text) <= window else [*lead, *text[-(window - len(lead)) :]])[-1]

        blocks = minisink.nll_blocks(model, ids, chunk=3, **options)
        close(np.concatenate(list(blocks)), book.losses([after(ids[: t + 1]) for t in range(14)], ids))
        text = [*ids[:2], *minisink.generate(model, ids[:2], max_new_tokens=12, **options)]
        assert text[2:] == [after(text[:t]).argmax() for t in range(2, 14)]


def test_recompute_has_no_cache():
    """Re-computation keeps nothing, so it cannot be asked for a cache."""
    with pytest.raises(ValueError, match="keeps no cache"):
        minisink.new_cache(public(tiny.make()), method="recompute")


def test_a_block_has_at_least_one_token():
    """Blocks of no tokens are refused."""
    with pytest.raises(ValueError, match="chunk is 0"):
        minisink.nll_blocks(public(tiny.make()), [1, 2], chunk=0)


def test_a_cache_longer_than_training_is_warned_about():
    """More keys than any training text had: allowed, and said."""
    model = public(tiny.make(max_positions=16))
    with pytest.warns(UserWarning, match="a cache of 17 tokens is longer than the 16 positions"):
        minisink.new_cache(model, n_sinks=4, window=13)
    minisink.new_cache(model, n_sinks=4, window=12)


@pytest.mark.parametrize(
    ("ids", "message"),
    [([], "shape"), ([[1]], "shape"), ([1.0], "float64"), ([1, 17], "id 17 at index 1"), ([-1], "id -1 at index 0")],
)
def test_impossible_ids_are_refused(ids, message):
    """Ids that are empty, nested, not whole or outside the vocabulary are an error that names the first."""
    model = public(tiny.make())
    for function in (model.forward, lambda ids: minisink.token_nll(model, ids)):
        with pytest.raises(ValueError, match=message):
            function(ids)


def test_a_rebuilt_window_begins_as_its_text_does():
    """With the begin-of-text token, if the text does and a second token fits; also for a text of nothing."""
    with_bos, without = public(tiny.make(bos=3)), public(tiny.make(bos=None))
    text = np.array([3, 5, 3])
    assert lead_of(with_bos, text, 2).tolist() == [3]
    cases = [(with_bos, text, 1), (with_bos, text[1:], 9), (with_bos, text[:0], 9), (without, text, 9)]
    for model, ids, window in cases:
        assert len(lead_of(model, ids, window)) == 0
