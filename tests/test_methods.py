"""The four methods through the public functions, and the fast paths against the readable one."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import by_the_book as book
from minisink import gpt2, llama
from minisink.families import gpt_neox, mpt
from minisink.fast.blocks import Banded, Windows
from minisink.fast.decoder import Decoder
from minisink.methods import lead_of
from minisink.snapshot import method_from, method_state

some = examples(60)
thousand = examples(1000)
few = examples(20)  # the book is slow
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
    cache = minisink.new_cache(model, tiny.method(method, n_sinks, window, positions))
    return np.concatenate([model.forward([token], cache=cache) for token in ids])


@few
@given(tiny.models(), tiny.texts(min_size=2, max_size=12), st.sampled_from(tiny.METHODS), sizes, tiny.positions)
def test_token_nll_is_the_book(model, ids, method, sizes, positions):
    """The loss of each token under each method, from a plain reading of the paper."""
    want = book.losses(literally(model, ids, method, *sizes, positions), ids)
    close(minisink.token_nll(public(model), ids, tiny.method(method, *sizes, positions)), want)


@thousand
@given(tiny.all_models(), tiny.texts(max_size=40), cached_methods, sizes, tiny.positions, st.integers(1, 50))
def test_blocks_of_loss_are_one_token_at_a_time(model, ids, method, sizes, positions, block):
    """However many tokens a forward pass takes, the losses are those of decoding one by one through a cache."""
    model = public(model)
    blocks = list(minisink.nll_blocks(model, ids, tiny.method(method, *sizes, positions), chunk=block))
    assert [len(b) for b in blocks[:-1]] == [block] * (len(blocks) - 1)
    want = book.losses(readable(model, ids, method, *sizes, positions), ids)
    close(np.concatenate([np.empty(0), *blocks]), want)


@thousand
@given(tiny.all_models(), tiny.chunked_texts(40), sizes, tiny.positions)
def test_banded_is_a_cache(model, text, sizes, positions):
    """Rotating keys once and queries twice under a banded mask gives the logits of rotating every key by its slot."""
    (ids, chunks), model = text, public(model)
    fast = Banded(model.config.n_layers, minisink.Streaming(*sizes, positions))
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
@given(tiny.all_models(), tiny.texts(min_size=2, max_size=30), st.integers(1, 6), st.integers(1, 40))
def test_recompute_is_each_window_from_scratch(model, ids, window, block):
    """Token t is predicted from a dense pass over the `window` tokens before it, in blocks of any size."""
    model = public(model)
    blocks = minisink.nll_blocks(model, ids, minisink.Recompute(window), chunk=block)
    alone = [model.forward(ids[max(0, t - window) : t])[-1] for t in range(1, len(ids) + 1)]
    close(np.concatenate(list(blocks)), book.losses(alone, ids))


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_methods_agree_until_the_first_eviction_and_then_part(arch):
    """With capacity 5 the first five predictions are one number; from the sixth on, the methods are four."""
    model, ids = public(tiny.make(arch)), tiny.ids(12)
    methods = [minisink.Dense(), minisink.Window(5), minisink.Recompute(5), minisink.Streaming(2, 3)]
    nll = np.array([minisink.token_nll(model, ids, method) for method in methods])
    close(nll[:, :5], np.broadcast_to(nll[:1, :5], (4, 5)))
    for row in nll[:, 5:].T:
        assert np.diff(np.sort(row)).min() > 1e-6


def test_by_default_every_method_has_256_tokens_in_sight():
    """Four sinks and 252, or a window of 256: equal memory, so that what differs is the method."""
    named = [minisink.Window(), minisink.Recompute(), minisink.Streaming(), minisink.Retrieval()]
    assert [method.capacity for method in named] == [256] * 4
    assert (minisink.Streaming().n_sinks, minisink.Retrieval().n_sinks) == (4, 4)
    model, ids = public(tiny.make(n_layers=1)), tiny.ids(300)
    assert minisink.new_cache(model).policy == minisink.Streaming(4, 252)
    close(minisink.token_nll(model, ids), minisink.token_nll(model, ids, minisink.Streaming(4, 252)))
    texts = [
        list(minisink.generate(model, ids, *method, max_new_tokens=2)) for method in ([], [minisink.Streaming(4, 252)])
    ]
    assert texts[0] == texts[1]


# A method is a value ------------------------------------------------------------------------------

whole, one_up = st.integers(0, 9), st.integers(1, 9)
simple = (
    st.builds(minisink.Dense, tiny.positions)
    | st.builds(minisink.Window, one_up, tiny.positions)
    | st.builds(minisink.Streaming, whole, one_up, tiny.positions)
    | st.builds(minisink.Policy, whole, one_up | st.none(), tiny.positions)
)
retrievals = st.builds(
    minisink.Retrieval, whole, st.just(9), tiny.positions, n_blocks=whole, block=one_up,
    select=st.sampled_from(["best", "bound"]), store=one_up | st.none(),
)  # fmt: skip
recomputes = st.builds(minisink.Recompute, st.just(9), lead=st.lists(whole, max_size=8))
methods = simple | retrievals | recomputes | st.builds(minisink.ByLayer, st.lists(simple, min_size=1, max_size=3))


@some
@given(methods, methods)
def test_a_method_is_a_value(method, other):
    """Its repr is the call that makes it; equal ones are equal as keys; it cannot be changed; JSON brings it back."""
    names = {name: getattr(minisink, name) for name in minisink.__all__ if name[0].isupper()}
    assert eval(repr(method), names) == method
    assert (method == other) == (repr(method) == repr(other)) == (len({method, other}) == 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.window = 5
    assert method_from(json.loads(json.dumps(method_state(method)))) == method


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: minisink.Streaming(-1), "n_sinks is -1; it must be a whole number of 0 or more"),
        (lambda: minisink.Streaming(4, 0), "window is 0; it must be a whole number of 1 or more"),
        (lambda: minisink.Streaming(4, None), "window is None.*Dense.. keeps everything"),
        (lambda: minisink.Window(2.5), "window is 2.5"),
        (lambda: minisink.Dense("cache"), "positions is 'cache'; it must be 'slot' or 'original'"),
        (lambda: minisink.Recompute(0), "window is 0"),
        (lambda: minisink.Recompute(3, [1, 2, 3]), "lead has 3 tokens; a window of 3 has no room"),
        (lambda: minisink.Retrieval(window=None), "window is None"),
        (lambda: minisink.Retrieval(n_blocks=-1), "n_blocks is -1"),
        (lambda: minisink.Retrieval(block=0), "block is 0"),
        (lambda: minisink.Retrieval(select="random"), "select is 'random'; it must be one of best, bound"),
        (lambda: minisink.Retrieval(store=0), "store is 0"),
        (lambda: minisink.ByLayer([]), "it needs one for each layer"),
        (lambda: minisink.ByLayer([minisink.Dense(), minisink.Recompute(4)]), "layer 1 has Recompute"),
        (lambda: minisink.ByLayer([minisink.Retrieval()]), "layer 0 has Retrieval"),
        (lambda: minisink.ByLayer(["dense"]), "layer 0 has 'dense'"),
    ],
)
def test_a_method_is_checked_when_it_is_made(make, message):
    """What cannot be is refused by name and value, before there is a model."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("function", [minisink.token_nll, minisink.nll_blocks, minisink.generate, minisink.new_cache])
@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ("dense", "'dense'"),
        (minisink.Recompute, "<class 'minisink.methods.Recompute'>"),
        (None, "None"),
    ],
)
def test_a_name_where_a_value_is_due_shows_the_call_to_write(function, wrong, shown):
    """At once, not with the first token."""
    model = public(tiny.make())
    with pytest.raises(ValueError, match=f"method is {shown}; pass a value, such as minisink.Streaming"):
        function(model, wrong) if function is minisink.new_cache else function(model, [1, 2], wrong)


def test_a_method_and_a_cache_are_one_too_many():
    """A cache says by itself what it keeps; also where the two agree."""
    model, method = public(tiny.make()), minisink.Streaming(1, 3)
    for function in (minisink.token_nll, minisink.nll_blocks, minisink.generate):
        for given_too in (method, minisink.Dense(), minisink.Streaming()):
            with pytest.raises(ValueError, match=r"both .* and cache= are given"):
                function(model, [1, 2, 3], given_too, cache=minisink.new_cache(model, method))
    ring = Decoder(model, method).cache
    with pytest.raises(ValueError, match=r"both .* and cache= are given"):
        minisink.generate(model, [1, 2, 3], method, cache=ring)


class EveryThird(minisink.Policy):
    """Keep the window, and of what is older every third token."""

    def survivors(self, token_index):
        old, S = token_index[: -self.window], len(token_index)
        return np.array([i for i in range(S) if i >= len(old) or old[i] % 3 == 0])


def test_a_policy_of_ones_own_goes_through_the_same_door():
    """`token_nll`, `generate` and `new_cache` take it as they take a method of the house."""
    model, ids, policy = public(tiny.make()), tiny.ids(20), EveryThird(0, 3)
    cache = minisink.new_cache(model, policy)
    logits = np.concatenate([model.forward([token], cache=cache) for token in ids])
    assert cache.token_index.tolist() == [*range(0, 17, 3), 17, 18, 19]
    close(minisink.token_nll(model, ids, policy), book.losses(logits, ids))
    assert next(minisink.generate(model, ids, policy)) == logits[-1].argmax()
    assert abs(logits - model.forward(ids)).max() > 1e-3


# A method for each layer --------------------------------------------------------------------------


@some
@given(tiny.llamas(), tiny.texts(min_size=2, max_size=16), st.data())
def test_each_layer_has_the_policy_it_was_given(model, ids, data):
    """By the book: layer i evicts and numbers by policy i; losses, cache and greedy text follow."""
    policies = data.draw(st.lists(tiny.policies | st.just(minisink.Dense()), min_size=3, max_size=3))
    policies = policies[: model.config.n_layers]
    method = minisink.ByLayer(policies)
    cache = minisink.new_cache(public(model), method)
    each = [minisink.new_cache(public(model), policy) for policy in policies]
    for i, layer in enumerate(cache.layers):
        assert layer.policy == policies[i]
    logits = np.concatenate([public(model).forward([token], cache=cache) for token in ids])
    for token in ids:
        for one in each:
            public(model).forward([token], cache=one)
    for i, one in enumerate(each):  # what stays in a layer does not depend on the others
        assert cache.layers[i].token_index.tolist() == one.token_index.tolist()
    close(minisink.token_nll(public(model), ids, method), book.losses(logits, ids))
    same = minisink.ByLayer([policies[0]] * model.config.n_layers)
    close(minisink.token_nll(public(model), ids, same), minisink.token_nll(public(model), ids, policies[0]))


def test_one_streaming_layer_over_dense_ones_differs_from_all():
    """The policy of layer 1 alone changes the losses, and not before its first eviction."""
    model, ids = public(tiny.make()), tiny.ids(14)
    dense, window = minisink.Dense(), minisink.Window(4)
    nll = [
        minisink.token_nll(model, ids, minisink.ByLayer(policies))
        for policies in ([dense] * 3, [dense, window, dense], [window] * 3)
    ]
    for one, other in itertools.combinations(nll, 2):
        close(one[:4], other[:4])
        assert abs(one[4:] - other[4:]).min() > 1e-6
    tokens = minisink.generate(model, ids, minisink.ByLayer([dense, window, dense]), max_new_tokens=4)
    assert len(list(tokens)) == 4


def test_layers_that_do_not_fit_are_refused():
    """As many policies as layers; and a GPT-2 adds its positions once, so its layers must agree on them."""
    with pytest.raises(ValueError, match=r"has 2 policies, but the model has 3 layers"):
        minisink.new_cache(public(tiny.make()), minisink.ByLayer([minisink.Dense()] * 2))
    learned = public(tiny.make(gpt2))
    dense, window = minisink.Dense(), minisink.Window(4)
    with pytest.raises(ValueError, match="cannot number tokens differently"):
        minisink.token_nll(learned, [1, 2], minisink.ByLayer([dense, window, dense]))
    original = [minisink.Dense("original"), minisink.Window(4, "original"), minisink.Streaming(1, 2, "original")]
    assert len(minisink.token_nll(learned, tiny.ids(9), minisink.ByLayer(original))) == 8
    slopes = public(tiny.make(mpt))  # each layer counts its own distances
    assert len(minisink.token_nll(slopes, tiny.ids(9), minisink.ByLayer([dense, window, dense]))) == 8


@few
@given(tiny.models(), tiny.texts(max_size=8), st.sampled_from(tiny.METHODS), sizes, tiny.positions)
def test_greedy_text_follows_the_likeliest_token(model, ids, method, sizes, positions):
    """Each generated token is the likeliest one after everything before it, as the method sees it."""
    text = [*ids, *minisink.generate(public(model), ids, tiny.method(method, *sizes, positions), max_new_tokens=6)]
    logits = literally(model, text, method, *sizes, positions)[len(ids) - 1 : -1]
    chosen = logits[np.arange(6), text[len(ids) :]]
    close(chosen, logits.max(axis=-1))


def test_losses_are_in_the_dtype_of_the_model():
    """A float32 model gives float32 nats, T - 1 of them, and none for a single token."""
    model = public(tiny.make(dtype=np.float32))
    for method in map(tiny.method, tiny.METHODS):
        nll = minisink.token_nll(model, tiny.ids(9), method)
        assert (nll.dtype, nll.shape) == (np.float32, (8,))
        assert minisink.token_nll(model, [3], method).shape == (0,)
    exact = minisink.token_nll(public(tiny.make()), tiny.ids(9), minisink.Streaming(1, 3))
    close_enough = minisink.token_nll(model, tiny.ids(9), minisink.Streaming(1, 3))
    np.testing.assert_allclose(close_enough, exact, atol=1e-4)


def test_perplexity_is_the_exponential_of_the_mean_loss():
    """exp of the mean, in float64; not a number for no tokens."""
    assert minisink.perplexity(np.log([1.0, 4.0])) == pytest.approx(2.0)
    assert np.isnan(minisink.perplexity(np.empty(0)))


def test_a_lead_leaves_room_for_the_text():
    """A lead as long as the window is refused, and so is one of ids that do not exist."""
    model = public(tiny.make())
    for function in (minisink.nll_blocks, minisink.generate):
        with pytest.raises(ValueError, match="lead has 3 tokens; a window of 3"):
            function(model, [1, 2], minisink.Recompute(3, lead=[1, 2, 3]))
        with pytest.raises(ValueError, match="id 17 at index 1"):
            function(model, [1, 2], minisink.Recompute(3, lead=[1, 17]))


@pytest.mark.parametrize("lead", [1, 1.5, "ab", (1, "a"), (1.7,), (True,), None])
def test_a_lead_of_anything_but_ids_names_it(lead):
    """A lone id, a text or a broken number is refused with what to write, and never cut to a whole number."""
    with pytest.raises(ValueError, match=re.escape(f"lead is {lead!r}; it must be token ids")):
        minisink.Recompute(4, lead)


@pytest.mark.parametrize(
    "make",
    [minisink.Window, minisink.Recompute, lambda n: minisink.Streaming(n, n), lambda n: minisink.Retrieval(n, n)],
)
@pytest.mark.filterwarnings("ignore:a block of")
def test_numbers_of_numpy_are_as_pythons(make):
    """The same value, the same `repr`, and the same text."""
    model, own = public(tiny.make()), make(np.int64(4))
    assert repr(own) == repr(make(4))
    new = [list(minisink.generate(model, [1, 2], method, max_new_tokens=4)) for method in (own, make(4))]
    assert new[0] == new[1]


@pytest.mark.parametrize("policies", [5, None, minisink.Dense()])
def test_layers_of_a_single_policy_name_it(policies):
    """What is no sequence is refused with the call to write."""
    with pytest.raises(ValueError, match=re.escape(f"ByLayer has {policies!r}; it must be a list")):
        minisink.ByLayer(policies)


@pytest.mark.parametrize("arch", [llama, gpt2])
def test_a_lead_stands_in_front_of_every_window_that_lost_its_beginning(arch):
    """Once the text is longer than the window, a window is the lead and the last tokens that fit."""
    window, lead = 5, [3, 7, 11]
    method = minisink.Recompute(window, lead)
    for seed in range(4):
        model, ids = public(tiny.make(arch, seed)), tiny.ids(14, seed).tolist()

        def after(text, model=model):
            return model.forward(text if len(text) <= window else [*lead, *text[-(window - len(lead)) :]])[-1]

        blocks = minisink.nll_blocks(model, ids, method, chunk=3)
        close(np.concatenate(list(blocks)), book.losses([after(ids[: t + 1]) for t in range(14)], ids))
        text = [*ids[:2], *minisink.generate(model, ids[:2], method, max_new_tokens=12)]
        assert text[2:] == [after(text[:t]).argmax() for t in range(2, 14)]


def test_recompute_has_no_cache():
    """Re-computation keeps nothing, so it cannot be asked for a cache."""
    with pytest.raises(ValueError, match="keeps no cache"):
        minisink.new_cache(public(tiny.make()), minisink.Recompute())


def test_a_block_has_at_least_one_token():
    """Blocks of no tokens are refused."""
    with pytest.raises(ValueError, match="chunk is 0"):
        minisink.nll_blocks(public(tiny.make()), [1, 2], chunk=0)


def test_a_cache_longer_than_training_is_warned_about():
    """More keys than any training text had: allowed, and said."""
    model = public(tiny.make(max_positions=16))
    with pytest.warns(UserWarning, match="a cache of 17 tokens is longer than the 16 positions"):
        minisink.new_cache(model, minisink.Streaming(4, 13))
    minisink.new_cache(model, minisink.Streaming(4, 12))


@pytest.mark.parametrize(("arch", "extrapolated"), [(mpt, True), (gpt_neox, False), (llama, False)])
def test_the_warning_says_what_slopes_are_extrapolated_to(arch, extrapolated):
    """A cache of 20 has distances up to 19; 16 tokens have shown those up to 15."""
    model = public(tiny.make(arch, max_positions=16))
    said = "; ALiBi's slopes are extrapolated to distances of 16 to 19" if extrapolated else ""
    with pytest.warns(UserWarning, match=f"positions tiny was trained on{said}$"):
        minisink.new_cache(model, minisink.Streaming(4, 16))


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
    assert lead_of(with_bos, text, 2) == (3,)
    cases = [(with_bos, text, 1), (with_bos, text[1:], 9), (with_bos, text[:0], 9), (without, text, 9)]
    for model, ids, window in cases:
        assert len(lead_of(model, ids, window)) == 0
