"""Turns in a stream: what a conversation reads, writes, scores and keeps is what the same text gives without a chat."""

import itertools

import chatty
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minisink
from minisink.chat.conversation import Conversation
from minisink.methods import METHODS

pytestmark = pytest.mark.filterwarnings("ignore:a block of")  # retrieval with a small window, which is drawn here
MODEL = chatty.model()
WORDS = st.text("abc <|>", min_size=1, max_size=9).filter(str.strip)
DRAWS = {"temperature": 1.0, "seed": 3}


def asked(turns, template):
    """The ids of a conversation of (words, ids of the answer), up to its last answer and with it."""
    ids = []
    for i, (words, answer) in enumerate(turns):
        ids += template.fill(*((template.end, template.turn) if i else (template.first,)), user=words)
        ids += answer
    return ids


@settings(max_examples=40)
@given(
    st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4),
    st.sampled_from(METHODS),
    st.integers(0, 5),
    st.integers(2, 40),
    st.booleans(),
)
def test_replies_score_what_they_would_in_one_text(turns, method, n_sinks, window, readable):
    """Each token of a reply and the marker after it: `token_nll` of the whole conversation, by the same method."""
    if method == "streaming" and n_sinks + window < 2:
        return
    options = {"method": method, "n_sinks": n_sinks, "window": window}
    conversation = Conversation(MODEL, **options, readable=readable and method != "recompute")
    scores, ends = [], []
    for words, reply in turns:
        nll = conversation.score(words, reply)
        ids = MODEL.encode(reply, bos=False).tolist()
        assert len(nll) == len(ids) + 1
        scores.append(nll)
        ends.append((words, ids))
    template = conversation.template
    whole = asked(ends, template) + template.fill(template.end)
    expected = minisink.token_nll(MODEL, whole, **options)
    for i, nll in enumerate(scores):
        stop = len(asked(ends[: i + 1], template))
        np.testing.assert_allclose(nll, expected[stop - len(nll) : stop], atol=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_what_generate_writes(method):
    """Greedy, each answer as long as it may be or ended by the marker: a continuation of all there was before."""
    options = {"method": method, "n_sinks": 2, "window": 20}
    conversation, turns = Conversation(MODEL, **options), []
    for words in ("abc", "<|im_end|>", "c b a", "aa"):
        answer = list(conversation.answer(words, max_new_tokens=9))
        prompt = asked([*turns, (words, [])], conversation.template)
        expected = minisink.generate(MODEL, prompt, max_new_tokens=9, stop_tokens=[chatty.END], **options)
        assert answer == [i for i in expected if i != chatty.END]
        turns.append((words, answer))
    assert conversation.n_turns == 4


@settings(max_examples=25)
@given(
    st.sampled_from(METHODS), st.integers(0, 3), st.integers(3, 30), st.booleans(), st.integers(0, 3), st.integers(1, 3)
)
def test_a_state_goes_on_to_the_same_bits(tmp_path_factory, method, n_sinks, window, readable, n_before, n_after):
    """Talk, stop, go on tomorrow: tokens drawn, losses, cache and view are those of a talk without a stop."""
    path = tmp_path_factory.mktemp("state") / "chat.state"
    options = {"method": method, "n_sinks": n_sinks, "window": window, "readable": readable, **DRAWS}
    whole, first, second = (Conversation(MODEL, **options) for _ in range(3))
    for i in range(n_before):
        assert list(whole.answer(f"a{i}", max_new_tokens=7)) == list(first.answer(f"a{i}", max_new_tokens=7))
    first.save(path)
    second.load(path)
    for i in range(n_after):
        assert list(whole.answer(f"b{i}", max_new_tokens=7)) == list(second.answer(f"b{i}", max_new_tokens=7))
        assert whole.score("b", "c").tolist() == second.score("b", "c").tolist()
    assert (whole.n_seen, whole.n_turns, whole.in_view) == (second.n_seen, second.n_turns, second.in_view)
    if whole.stream.cache is not None:
        for a, b in zip(whole.stream.cache.state()[0].values(), second.stream.cache.state()[0].values(), strict=True):
            assert np.array_equal(a, b)


def test_an_answer_that_is_stopped_belongs_to_the_text():
    """Close it after any number of tokens: the next turn goes on from there, its marker included."""
    for n_heard in range(4):
        conversation = Conversation(MODEL, method="dense")
        answer = conversation.answer("abc", max_new_tokens=9)
        heard = list(itertools.islice(answer, n_heard))
        answer.close()
        reply = conversation.score("b", "c")
        n_read = n_heard if n_heard else 0
        turns = [("abc", heard), ("b", MODEL.encode("c", bos=False).tolist())]
        assert n_read == len(heard)
        if n_heard:
            expected = minisink.token_nll(MODEL, asked(turns, conversation.template) + [chatty.END], method="dense")
            np.testing.assert_allclose(reply, expected[-2:], atol=1e-4)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(0, 4), st.integers(4, 40))
@settings(max_examples=30)
def test_which_turns_are_in_view(lengths, n_sinks, window):
    """Counted token by token: a turn is in view while one of its tokens is in the window; and no list grows."""
    conversation = Conversation(MODEL, n_sinks=n_sinks, window=window)
    turn_of = []
    for number, n in enumerate(lengths, 1):
        list(conversation.answer("a", max_new_tokens=n))
        turn_of += [number] * (conversation.n_seen - len(turn_of))
        oldest = max(0, len(turn_of) - window) if len(turn_of) > n_sinks + window else 0
        numbers = sorted(set(turn_of[oldest:]))
        turns, cut = conversation.in_view
        assert turns == numbers
        assert cut == (oldest > turn_of.index(numbers[0]))
        assert len(conversation.turns) <= window + n_sinks + 1
        assert conversation.stream.n_held == min(len(turn_of), n_sinks + window)


@pytest.mark.parametrize("method", METHODS)
def test_another_method_reads_what_is_in_view(method):
    """From then on it is a text of those tokens alone; the count of tokens and turns goes on."""
    conversation = Conversation(MODEL, n_sinks=2, window=20)
    for words in ("abc", "cba", "abcabc"):
        list(conversation.answer(words, max_new_tokens=9))
    stream, n_seen, view = conversation.stream, conversation.n_seen, conversation.in_view
    held, waiting = [*stream.first, *stream.recent], list(stream.unread)
    conversation.go_on_with(method, n_sinks=2, window=20)
    assert (conversation.n_seen, conversation.n_turns, conversation.stream.method) == (n_seen, 3, method)
    assert conversation.in_view[0] == view[0]
    answer = list(conversation.answer("b", max_new_tokens=9))
    template = conversation.template
    prompt = held + waiting + template.fill(template.end, template.turn, user="b")
    options = {"method": method, "n_sinks": 2, "window": 20}
    expected = minisink.generate(MODEL, prompt, max_new_tokens=9, stop_tokens=[chatty.END], **options)
    assert answer == [i for i in expected if i != chatty.END]


def test_a_pinned_system_message_stays():
    """All of it is sinks; without --pin-system it leaves, but for its first tokens."""
    conversation = Conversation(MODEL, system="be kind", pin_system=True, window=20)
    told = conversation.template.fill(conversation.template.system, system="be kind")
    for _ in range(5):
        list(conversation.answer("abc", max_new_tokens=9))
    assert conversation.stream.first == told
    assert conversation.stream.cache.token_index[: len(told)].tolist() == list(range(len(told)))
    for options in ({}, {"system": "be kind", "method": "window"}):
        with pytest.raises(ValueError, match="only a method with sinks can pin a system message"):
            Conversation(MODEL, pin_system=True, **options)


def test_states_that_do_not_fit(tmp_path):
    """Another model, method, size or system message; a text; any other file: refused, and nothing has changed."""
    path = tmp_path / "chat.state"
    conversation = Conversation(MODEL, n_sinks=2, window=20, system="be kind")
    list(conversation.answer("abc", max_new_tokens=9))
    conversation.save(path)
    options = {"n_sinks": 2, "window": 20, "system": "be kind"}
    other = chatty.model(seed=1)
    for model, changes, message in (
        (other, {}, "state of another model"),
        (MODEL, {"method": "window"}, "made with method 'streaming', and this is 'window'"),
        (MODEL, {"window": 21}, "made with window 20, and this is 21"),
        (MODEL, {"n_sinks": 3}, "made with n_sinks 2, and this is 3"),
        (MODEL, {"system": "be short"}, "a chat with another system message or template"),
        (MODEL, {"readable": True}, "made with readable False"),
    ):
        stranger = Conversation(model, **options | changes)
        list(stranger.answer("c", max_new_tokens=3))
        before = stranger.n_seen
        with pytest.raises(ValueError, match=message):
            stranger.load(path)
        assert stranger.n_seen == before and list(stranger.answer("a", max_new_tokens=2))
    conversation.stream.save(path)
    with pytest.raises(ValueError, match="is the state of a text, no chat"):
        conversation.load(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="not a state that a chat or a generated text goes on from"):
        conversation.load(path)


def test_turns_without_words():
    """Refused before anything is read."""
    conversation = Conversation(MODEL)
    for call in (
        lambda: conversation.answer("  "),
        lambda: conversation.score("", "a"),
        lambda: conversation.score("a", ""),
    ):
        with pytest.raises(ValueError, match="empty|without words"):
            call()
    assert conversation.n_seen == conversation.n_turns == 0
