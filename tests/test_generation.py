"""Text out: greedy and drawn tokens by the book, an iterator that waits to be asked."""

import itertools
import math
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import gpt2, llama
from minisink.fast.decoder import Decoder
from minisink.generation import Stream
from minisink.hf.tokenizer import text_stream
from minisink.sampling import Sampler

V = tiny.LLAMA["vocab_size"]
logits = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=9)


# Which token --------------------------------------------------------------------------------------


def distribution(row, temperature, top_k, top_p):
    """What a token is drawn from, by the book: a list of probabilities."""
    largest = max(row)
    weights = [math.exp((x - largest) / temperature) for x in row]
    ranked = sorted(range(len(row)), key=lambda i: (-row[i], i))  # of equals the earlier first
    ranked = ranked[:top_k] if top_k else ranked
    total, kept, held = math.fsum(weights[i] for i in ranked), [], 0.0
    for i in ranked:
        if held >= top_p and top_p < 1.0:
            break
        kept.append(i)
        held += weights[i] / total
    total = math.fsum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(row))]


@examples(300)
@given(logits, st.sampled_from([0.1, 0.5, 1.0, 3.0]), st.integers(0, 10), st.sampled_from([0.01, 0.3, 0.77, 0.99, 1.0]))
def test_probabilities_are_their_definitions(row, temperature, top_k, top_p):
    """Temperature, then the k likeliest, then the fewest of those that hold p."""
    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
    got = sampler.probabilities(np.array(row))
    np.testing.assert_allclose(got, distribution(row, temperature, top_k, top_p), atol=1e-12)


@given(logits)
def test_the_likeliest_always_stays(row):
    """However small p or k: somebody can be drawn, and it is the likeliest."""
    for options in ({"top_k": 1}, {"top_p": 1e-12}):
        assert Sampler(temperature=1.0, **options).probabilities(np.array(row)).tolist() == distribution(
            row, 1.0, 1, 1.0
        )


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_a_temperature_near_zero_is_greedy(temperature):
    """Logits divided by next to nothing do not overflow."""
    sampler = Sampler(temperature=temperature)
    assert [sampler(np.array(row)) for row in ([1.0, 9.0, -3.0], [-1e4, -2e4], [1e4, 1.01e4])] == [1, 0, 1]


def test_tokens_are_drawn_as_often_as_they_are_likely():
    """5,000 draws from three tokens, within four standard errors; none from what top-k cut away."""
    p = np.array([0.5, 0.3, 0.2])
    sampler = Sampler(temperature=1.0, seed=7)
    n = 5_000
    seen = Counter(sampler(np.log(p)) for _ in range(n))
    for i, probability in enumerate(p):
        assert abs(seen[i] / n - probability) < 4 * math.sqrt(probability * (1 - probability) / n)
    sampler = Sampler(temperature=1.0, seed=7, top_k=2)
    assert {sampler(np.log(p)) for _ in range(200)} == {0, 1}


@given(logits, st.sets(st.integers(0, 8)), st.sampled_from([0.5, 1.0, 1.3, 5.0]))
def test_the_repetition_penalty_is_its_definition(row, seen, penalty):
    """Divided where positive, multiplied where negative, for tokens that occurred; once, however often they did."""
    seen = sorted(i for i in seen if i < len(row))
    penalised = [x if i not in seen else x / penalty if x > 0 else x * penalty for i, x in enumerate(map(float, row))]
    sampler = Sampler(repetition_penalty=penalty)
    sampler.seen.update(seen)
    given_logits = np.array(row)
    token = sampler(given_logits)
    assert penalised[token] == max(penalised)
    assert given_logits.tolist() == row  # the caller's array is the caller's


def test_a_penalty_makes_no_token_likelier():
    """Below zero it multiplies, however near to zero."""
    for logits in ([-0.5, -0.6], [0.5, 0.3]):
        sampler = Sampler(repetition_penalty=2.0)
        sampler.seen.add(0)
        assert sampler(np.array(logits)) == 1


def test_what_is_chosen_counts_as_having_occurred():
    """With a strong penalty, greedy decoding goes through the tokens in order of their logits."""
    sampler = Sampler(repetition_penalty=100.0)
    assert [sampler(np.array([5.0, 3.0, 4.0, 2.0])) for _ in range(5)] == [0, 2, 1, 3, 0]


@examples(40)
@given(tiny.models(), tiny.texts(max_size=9), st.floats(1.0, 3.0))
def test_greedy_is_the_argmax_of_the_uncached_forward(model, ids, penalty):
    """With room for everything, each token is the likeliest one after a dense pass over all before it."""
    model, text = public(model), list(ids)
    options = {"method": minisink.Streaming(4, 40), "repetition_penalty": penalty, "max_new_tokens": 6}
    for token in minisink.generate(model, ids, **options):
        row = model.forward(text)[-1]
        again = sorted(set(text))
        row[again] = np.where(row[again] > 0, row[again] / penalty, row[again] * penalty)
        assert row[token] >= row.max() - 1e-9
        text.append(token)
    assert len(text) == len(ids) + 6


@examples(40)
@given(tiny.models(), tiny.texts(max_size=12), st.integers(1, 5))
def test_recompute_is_a_dense_pass_over_the_last_window(model, ids, window):
    """Each token from the last `window` tokens and nothing else."""
    model, text = public(model), list(ids)
    for token in minisink.generate(model, ids, minisink.Recompute(window), max_new_tokens=5):
        row = model.forward(text[-window:])[-1]
        assert row[token] >= row.max() - 1e-9
        text.append(token)


@examples(20)
@given(tiny.models(), st.sampled_from(["dense", "window", "recompute", "streaming"]), tiny.seeds)
def test_a_seed_gives_one_text(model, method, seed):
    """The same seed, the same draws."""
    model = public(model)
    options = {"temperature": 50.0, "max_new_tokens": 30}
    first, again = (list(minisink.generate(model, [1, 2], tiny.method(method), seed=seed, **options)) for _ in range(2))
    assert first == again


def test_other_seeds_give_other_texts():
    """Ten seeds, ten texts."""
    model = public(tiny.make())
    options = {"method": minisink.Streaming(2, 4), "temperature": 5.0, "max_new_tokens": 30}
    assert len({tuple(minisink.generate(model, [1, 2], seed=seed, **options)) for seed in range(10)}) == 10


def test_two_streams_do_not_share_a_seed():
    """Streams that are read in turns give what each gives alone."""
    model = public(tiny.make())
    options = {"method": minisink.Streaming(4, 4), "temperature": 1.0, "max_new_tokens": 12}
    alone = [list(minisink.generate(model, [1], seed=seed, **options)) for seed in (1, 2)]
    turns = zip(*(minisink.generate(model, [1], seed=seed, **options) for seed in (1, 2)), strict=True)
    assert [list(text) for text in zip(*turns, strict=True)] == alone


# When it comes, and when it ends ------------------------------------------------------------------


def counted(model):
    """The model, and a list that receives the number of tokens of each forward pass."""
    calls, forward = [], model.forward

    def counting(ids, *args, **options):
        calls.append(len(ids))
        return forward(ids, *args, **options)

    model.forward = counting
    return model, calls


def test_nothing_is_decoded_before_it_is_asked_for():
    """One forward pass a token, none ahead, none after the last."""
    model, calls = counted(public(tiny.make()))
    tokens = minisink.generate(model, [1, 2, 3], minisink.Recompute(8), max_new_tokens=3)
    assert calls == []
    next(tokens)
    assert calls == [3]
    next(tokens)
    assert calls == [3, 4]
    assert len(list(tokens)) == 1
    assert calls == [3, 4, 5]
    assert list(minisink.generate(model, [1], minisink.Recompute(), max_new_tokens=0)) == []
    assert calls == [3, 4, 5]
    for method in ("dense", "window", "streaming"):
        tokens = minisink.generate(model, [1], tiny.method(method), max_new_tokens=None)
        assert len(list(itertools.islice(tokens, 7))) == 7


@pytest.mark.parametrize("arch", [llama, gpt2])
@pytest.mark.parametrize("n_prompt", [1, 7, 8, 50, 700])
def test_a_prompt_of_any_length(arch, n_prompt):
    """What follows a prompt is what follows when the cache takes it in token by token."""
    model, ids = public(tiny.make(arch)), tiny.ids(n_prompt)
    method = minisink.Streaming(2, 5)
    cache = minisink.new_cache(model, method)
    for token in ids[:-1]:
        model.forward([token], cache=cache)
    last = ids[-1]
    for token in minisink.generate(model, ids, method, max_new_tokens=6):
        row = model.forward([last], cache=cache)[0]
        assert row[token] >= row.max() - 1e-9
        last = token


def test_stop_tokens_end_the_text():
    """The first of them is the last token yielded; one in the prompt does not count."""
    model = public(tiny.make())
    free = list(minisink.generate(model, [1, 2], minisink.Streaming(4, 6), max_new_tokens=20, temperature=1.0))
    stop = free[4]
    first = free.index(stop)
    options = {"method": minisink.Streaming(4, 6), "max_new_tokens": 20, "temperature": 1.0}
    assert list(minisink.generate(model, [1, 2], stop_tokens=[stop], **options)) == free[: first + 1]
    unused = next(token for token in range(V) if token not in free)
    assert list(minisink.generate(model, [1, 2], stop_tokens={unused}, **options)) == free


@pytest.mark.parametrize("method", ["window", "recompute", "streaming"])
def test_an_endless_stream_takes_no_more_memory(method):
    """Some hundred tokens on, it holds as many bytes as before."""
    model = public(tiny.make(n_layers=1, dtype=np.float32))
    tokens = minisink.generate(model, [1], tiny.method(method, 2, 6), max_new_tokens=None, temperature=1.0)
    tracemalloc.start()
    try:
        held = []
        for _ in range(4):
            for _ in itertools.islice(tokens, 150):
                pass
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert abs(held[-1] - held[1]) < 2000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "one"}, "seed is 'one'"),
    ],
)
def test_impossible_options_are_refused_at_once(wrong, message):
    """Before the first token is asked for, naming the value."""
    with pytest.raises(ValueError, match=message):
        minisink.generate(public(tiny.make()), [1], **wrong)


@pytest.mark.parametrize(
    ("ids", "message"),
    [([], "shape"), ([[1, 2]], "shape"), ([0.5], "float64"), ([True], "bool"), ([17], "id 17"), (["a"], "whole")],
)
def test_impossible_prompts_are_refused_at_once(ids, message):
    with pytest.raises(ValueError, match=message):
        minisink.generate(public(tiny.make()), ids)


@pytest.mark.parametrize("readable", [False, True])
@pytest.mark.parametrize("method", ["window", "recompute", "streaming"])
def test_more_keys_than_in_training_are_warned_about_once(method, readable):
    """One warning a stream, not one a cache and one a token; and one a text that is measured."""
    model, method = public(tiny.make(max_positions=8)), tiny.method(method, 0, 9)
    with pytest.warns(UserWarning, match="a cache of 9 tokens is longer than the 8 positions") as caught:
        minisink.token_nll(model, [1, 2], method, readable=readable)
    assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(minisink.generate(model, [1], method, max_new_tokens=3, readable=readable))
    assert [str(w.message) for w in caught] == [
        "a cache of 9 tokens is longer than the 8 positions tiny was trained on"
    ]
    assert caught[0].filename == __file__


STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a"
    " big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, "
)


@pytest.mark.parametrize("method", ["dense", "streaming", "recompute"])
def test_the_story_is_told(stories, method):
    """A real checkpoint made elsewhere, greedy from "<s>", by every method with room for the text."""
    tokens = minisink.generate(stories, stories.encode(""), tiny.method(method, 4, 200), max_new_tokens=90)
    assert "".join(text_stream(stories.tokenizer, tokens)).startswith(STORY)


@pytest.mark.parametrize("readable", [False, True])
def test_a_stream_over_a_cache_has_its_method(readable):
    """What is in view, and what another method reads again, is what that cache kept."""
    model, method, ids = public(tiny.make()), minisink.Window(3), tiny.ids(20).tolist()
    cache = minisink.new_cache(model, method) if readable else Decoder(model, method).cache
    stream = Stream(model, cache=cache)
    stream.read(ids)
    assert (stream.method, stream.n_held, stream.oldest, [*stream.window_ids]) == (method, 3, 17, ids[-3:])
    assert stream.under(minisink.Dense()).n_held == 3
