"""Turns in a stream: what a conversation reads, writes, scores and keeps is what the same text gives without a chat."""

import itertools
from dataclasses import replace
from datetime import datetime

import chatty
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tokenizers import AddedToken

import minisink
from minisink.chat.conversation import Conversation
from minisink.chat.stream import load_stream, save_stream
from minisink.generation import Stream
from minisink.methods import Dense, Recompute, Streaming, Window

METHODS = ("dense", "window", "recompute", "streaming", "retrieval")

pytestmark = pytest.mark.filterwarnings("ignore:a block of")  # retrieval with a small window, which is drawn here
MODEL = chatty.model(template=None)  # ChatML
WORDS = st.text("abc <|>", min_size=1, max_size=9).filter(str.strip)
DRAWS = {"temperature": 1.0, "seed": 3}


def asked(turns, template):
    """The ids of a conversation of (words, ids of the answer), up to its last answer and with it."""
    ids = []
    for i, (words, answer) in enumerate(turns):
        ids += template.turn_ids(words) if i else template.first_ids(words)
        ids += answer
    return ids


@examples(40)
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
    value = tiny.method(method, n_sinks, window)
    conversation = Conversation(MODEL, value, readable=readable and method != "recompute")
    scores, ends = [], []
    for words, reply in turns:
        nll = conversation.score(words, reply)
        ids = MODEL.encode(reply, bos=False).tolist()
        assert len(nll) == len(ids) + 1
        scores.append(nll)
        ends.append((words, ids))
    template = conversation.template
    whole = asked(ends, template) + template.end_ids()
    expected = minisink.token_nll(MODEL, whole, value)
    for i, nll in enumerate(scores):
        stop = len(asked(ends[: i + 1], template))
        np.testing.assert_allclose(nll, expected[stop - len(nll) : stop], atol=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_what_generate_writes(method):
    """Greedy, each answer as long as it may be or ended by the marker: a continuation of all there was before."""
    value = tiny.method(method, 2, 20)
    conversation, turns = Conversation(MODEL, value), []
    for words in ("abc", "<|im_end|>", "c b a", "aa"):
        answer = list(conversation.answer(words, max_new_tokens=9))
        prompt = asked([*turns, (words, [])], conversation.template)
        expected = minisink.generate(MODEL, prompt, value, max_new_tokens=9, stop_tokens=[chatty.END])
        assert answer == [i for i in expected if i != chatty.END]
        turns.append((words, answer))
    assert conversation.n_turns == 4


@examples(25)
@given(
    st.sampled_from(METHODS), st.integers(0, 3), st.integers(3, 30), st.booleans(), st.integers(0, 3), st.integers(1, 3)
)
def test_a_state_goes_on_to_the_same_bits(tmp_path_factory, method, n_sinks, window, readable, n_before, n_after):
    """Talk, stop, go on tomorrow: tokens drawn, losses, cache and view are those of a talk without a stop."""
    path = tmp_path_factory.mktemp("state") / "chat.state"
    value = tiny.method(method, n_sinks, window)
    whole, first, second = (Conversation(MODEL, value, readable=readable, **DRAWS) for _ in range(3))
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


class Dated:
    """A conversation under a template that writes the date, as Llama 3.2's does, and before every turn as well."""

    DAY = "Today Date: {{ strftime_now('%d %B %Y').lstrip('0') }}\n"

    def __init__(self, monkeypatch):
        loop, dated = "{% for m in messages %}", "{% if m.role == 'user' %}" + self.DAY + "{% endif %}"
        self.monkeypatch = monkeypatch
        self.model = chatty.model(template=self.DAY + chatty.CHATML.replace(loop, loop + dated))

    def on(self, day, **options):
        """A conversation begun on some day."""
        clock = type("clock", (datetime,), {"now": staticmethod(lambda: datetime.strptime(day, "%d %B %Y"))})
        self.monkeypatch.setattr("minisink.chat.template.datetime", clock)
        return Conversation(self.model, **{"method": Streaming(4, 60)} | options, **DRAWS)


@pytest.mark.parametrize("options", [{}, {"system": "be kind"}, {"system": "be kind", "pin_system": True}])
def test_a_chat_goes_on_after_midnight(tmp_path, monkeypatch, options):
    """To the same bits, whatever day it is, and a day of more letters too; pinned, with as many sinks as it had."""
    dated, path = Dated(monkeypatch), tmp_path / "chat.state"
    whole, first = dated.on("9 May 2026", **options), dated.on("9 May 2026", **options)
    assert list(whole.answer("abc", max_new_tokens=7)) == list(first.answer("abc", max_new_tokens=7))
    first.save(path)
    second = dated.on("10 December 2026", **options)
    second.load(path)
    assert (second.n_seen, second.n_pinned, second.stream.method) == (whole.n_seen, whole.n_pinned, whole.stream.method)
    for words in ("b", "cab"):
        assert list(whole.answer(words, max_new_tokens=7)) == list(second.answer(words, max_new_tokens=7))
        assert whole.score("b", "c").tolist() == second.score("b", "c").tolist()
    second.save(path)  # and on the day after
    third = dated.on("11 December 2026", **options)
    third.load(path)
    assert list(whole.answer("a", max_new_tokens=7)) == list(third.answer("a", max_new_tokens=7))


def test_a_scored_reply_begins_after_a_marker_that_swallows_blanks():
    """As in a whole conversation: neither the template's blank nor the reply's is a token."""
    tokenizer = chatty.tokenizer(())
    tokenizer.add_tokens(
        [AddedToken(marker, special=True, normalized=False, rstrip=True) for marker in ("<|im_start|>", "<|im_end|>")]
    )
    tokenizer.encode_special_tokens = True
    template = "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}"
    template += "{% else %}{{ ' ' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    for made, n_tokens in ((tokenizer, [3, 3]), (MODEL.tokenizer, [4, 5])):
        model = minisink.Model(MODEL.config, MODEL.weights, made, chat_template=template)
        assert [len(Conversation(model).score("a", reply)) for reply in ("ok", " ok")] == n_tokens


def test_another_template_is_another_chat(tmp_path):
    """By its text, were the pieces the same."""
    path, options = tmp_path / "chat.state", {"method": Streaming(2, 20)}
    Conversation(chatty.model(), **options).save(path)
    Conversation(chatty.model(), **options).load(path)
    with pytest.raises(ValueError, match="chat.state: is the state of a chat with another system message or template"):
        Conversation(chatty.model(template=chatty.CHATML + "{# the same #}"), **options).load(path)


def test_an_answer_that_is_stopped_belongs_to_the_text():
    """Close it after any number of tokens: the next turn goes on from there, its marker included."""
    for n_read in range(4):
        conversation = Conversation(MODEL, Dense())
        answer = conversation.answer("abc", max_new_tokens=9)
        tokens = list(itertools.islice(answer, n_read))
        answer.close()
        reply = conversation.score("b", "c")
        turns = [("abc", tokens), ("b", MODEL.encode("c", bos=False).tolist())]
        assert n_read == len(tokens)
        if n_read:
            expected = minisink.token_nll(MODEL, asked(turns, conversation.template) + [chatty.END], Dense())
            np.testing.assert_allclose(reply, expected[-2:], atol=1e-4)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(0, 4), st.integers(4, 40))
@examples(30)
def test_which_turns_are_in_view(lengths, n_sinks, window):
    """Counted token by token: a turn is in view while one of its tokens is in the window; and no list grows."""
    conversation = Conversation(MODEL, Streaming(n_sinks, window))
    turn_of = []
    for number, n in enumerate(lengths, 1):
        list(conversation.answer("a", max_new_tokens=n))
        turn_of += [number] * (conversation.n_seen - len(turn_of))
        oldest = max(0, len(turn_of) - window) if len(turn_of) > n_sinks + window else 0
        numbers = sorted(set(turn_of[oldest:]))
        turns, cut = conversation.in_view
        assert turns == numbers
        assert cut == (oldest > turn_of.index(numbers[0]))
        assert len(conversation.starts) <= window + n_sinks + 1
        assert conversation.stream.n_held == min(len(turn_of), n_sinks + window)


@pytest.mark.parametrize("method", METHODS)
def test_another_method_reads_what_is_in_view(method):
    """From then on it is a text of those tokens alone; the count of tokens and turns goes on."""
    conversation = Conversation(MODEL, Streaming(2, 20))
    for words in ("abc", "cba", "abcabc"):
        list(conversation.answer(words, max_new_tokens=9))
    stream, n_seen, view = conversation.stream, conversation.n_seen, conversation.in_view
    held, waiting = [*stream.sink_ids, *stream.window_ids], list(stream.pending)
    value = tiny.method(method, 2, 20)
    conversation.switch_method(value)
    assert (conversation.n_seen, conversation.n_turns, conversation.stream.method) == (n_seen, 3, value)
    assert conversation.in_view[0] == view[0]
    answer = list(conversation.answer("b", max_new_tokens=9))
    template = conversation.template
    prompt = held + waiting + template.turn_ids("b")
    expected = minisink.generate(MODEL, prompt, value, max_new_tokens=9, stop_tokens=[chatty.END])
    assert answer == [i for i in expected if i != chatty.END]


def test_a_pinned_system_message_stays():
    """All of it is sinks; without --pin-system it leaves, but for its first tokens."""
    conversation = Conversation(MODEL, Streaming(4, 36), system="be kind", pin_system=True)
    system = conversation.template.system_ids()
    for _ in range(5):
        list(conversation.answer("abc", max_new_tokens=9))
    assert conversation.stream.sink_ids == system
    assert conversation.stream.cache.token_index[: len(system)].tolist() == list(range(len(system)))
    assert conversation.stream.method == Streaming(len(system), 40 - len(system))
    for method, system in (
        (None, None),
        (Window(20), "be kind"),
        (Dense(), "be kind"),
        (Recompute(20), "be kind"),
        ("window", "be kind"),
    ):
        with pytest.raises(ValueError, match="method with sinks"):
            Conversation(MODEL, method, system=system, pin_system=True)
    with pytest.raises(ValueError, match="17 sinks leave no window in a cache of 17; give a larger window"):
        Conversation(MODEL, Streaming(4, 13), system="be kind", pin_system=True)


def test_the_default_is_as_long_as_the_model_was_trained():
    """256 keys at most, four of them sinks."""
    assert Conversation(MODEL).stream.method == Streaming(4, 252)
    short = minisink.Model(replace(MODEL.config, max_positions=64), MODEL.weights, MODEL.tokenizer)
    assert Conversation(short).stream.method == Streaming(4, 60)


def test_states_that_do_not_fit(tmp_path):
    """Another model, method, size or system message; a text; any other file: refused, and nothing has changed."""
    path = tmp_path / "chat.state"
    conversation = Conversation(MODEL, Streaming(2, 20), system="be kind")
    list(conversation.answer("abc", max_new_tokens=9))
    conversation.save(path)
    options = {"method": Streaming(2, 20), "system": "be kind"}
    other = chatty.model(template=None, seed=1)
    for model, changes, message in (
        (other, {}, "state of another model"),
        (MODEL, {"method": Window(20)}, r"made with Streaming\(n_sinks=2, .*, but this is Window\(window=20"),
        (MODEL, {"method": Streaming(2, 21)}, "made with .*window=20, .*, but this is .*window=21"),
        (MODEL, {"method": Streaming(3, 20)}, "made with .*n_sinks=2, .*, but this is .*n_sinks=3"),
        (MODEL, {"system": "be short"}, "a chat with another system message or template"),
        (MODEL, {"readable": True}, "made with readable=False"),
    ):
        stranger = Conversation(model, **options | changes)
        list(stranger.answer("c", max_new_tokens=3))
        before = stranger.n_seen
        with pytest.raises(ValueError, match=message):
            stranger.load(path)
        assert stranger.n_seen == before and list(stranger.answer("a", max_new_tokens=2))
    save_stream(conversation.stream, path)
    with pytest.raises(ValueError, match="is the state of a text, not a chat"):
        conversation.load(path)
    save_stream(conversation.stream, path, turns=[], n_turns=1, before=0, system="be kind", pinned=0, template={})
    with pytest.raises(ValueError, match="chat.state: is the state of a chat of an earlier version; start"):
        conversation.load(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="not a saved state of a chat or a generated text"):
        conversation.load(path)


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_keeps_its_lead(tmp_path, method):
    """Re-computation goes on with the lead that its state was written with, whatever the new prompt begins with."""
    path, prompt = tmp_path / "text.state", list(range(1, 40))
    value = Recompute(9, lead=(7,)) if method == "recompute" else tiny.method(method, 2, 9)
    whole, first = Stream(MODEL, value), Stream(MODEL, value)
    expected = list(whole.write(whole.read(prompt), 12))
    written = list(first.write(first.read(prompt), 5))
    save_stream(first, path)
    second = Stream(MODEL, Recompute(9) if method == "recompute" else value)
    load_stream(second, path)
    assert second.method == value
    assert written + list(second.write(second.read([]), 7)) == expected


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
