"""Tokens back to text, whole characters at a time."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples

from minisink.hf.tokenizer import HELD, text_stream


def whole_characters(model, ids):
    """Pieces of the stream, each free of half characters unless the tokens can never make one."""
    pieces = list(text_stream(model.tokenizer, ids))
    assert all(pieces)
    return pieces


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SOME = "naïve café — “Ærø” 😀👩‍👩‍👧 \n\n  two  spaces\tend"


@examples(100)
@given(text=texts)
@example(text=SOME)
@example(text="<s>")
def test_bytes_come_out_as_whole_characters(novels, text):
    """Byte-level tokens, several to a character: the pieces are valid text and add up to the whole."""
    pieces = whole_characters(novels, novels.encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@examples(100)
@given(text=texts)
@example(text=SOME)
@example(text="<s>")
def test_byte_fallback_comes_out_as_whole_characters(stories, text):
    """Bytes as tokens of their own, and a tokenizer that strips the first space."""
    ids = stories.encode(text)
    pieces = whole_characters(stories, ids)
    assert "".join(pieces) == stories.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@examples(150)
@given(ids=st.lists(st.integers(0, 1023), max_size=HELD))
def test_any_tokens_stream_what_they_decode_to(novels, ids):
    """Bytes in an order that no text has: nothing is lost, at the end neither."""
    assert "".join(whole_characters(novels, ids)) == novels.decode(ids)


@examples(150)
@given(ids=st.lists(st.integers(0, 511) | st.integers(3, 258), max_size=40))
@example(ids=[3, 131, 259])  # a byte, one that makes nonsense of it, a word
def test_fallback_bytes_that_make_no_text_do_not_stop_the_stream(stories, ids):
    """One wrong byte spoils those before it, which are out already; what does make text comes out as it is."""
    whole = stories.decode(ids)
    streamed = "".join(text_stream(stories.tokenizer, ids))
    assert streamed == whole or "\ufffd" in whole


def test_an_endless_stream_of_nonsense_comes_out(novels, stories):
    """Bytes that no character begins with, and tokens without text, are not kept for ever."""
    for model, token in ((novels, novels.encode("😀", bos=False)[-1]), (stories, 131)):
        streamed = "".join(text_stream(model.tokenizer, [token] * 100))
        assert streamed == "\ufffd" * 100
        silent = [0, 1, 2][model is stories :: 3] * 100 + model.encode("word").tolist()
        assert "".join(whole_characters(model, silent)) == model.decode(silent)


def printed_before_interrupt(tokenizer, ids):
    """What is out when a stream is interrupted after these tokens."""

    def interrupted():
        yield from ids
        raise KeyboardInterrupt

    pieces = []
    with pytest.raises(KeyboardInterrupt):
        for piece in text_stream(tokenizer, interrupted()):
            pieces.append(piece)
    return "".join(pieces)


@examples(60)
@given(text=texts.filter(bool), cut=st.integers(0, 60))
@example(text="Once upon a time", cut=4)
@example(text="😀", cut=2)
def test_a_continuation_joins_what_it_continues(stories, novels, text, cut):
    """The stream after a prompt is what the whole decodes to beyond the prompt, its first space included."""
    for model in (stories, novels):
        ids = model.encode(text)
        prompt, rest = ids[: 1 + cut % len(ids)], ids[1 + cut % len(ids) :]
        before = printed_before_interrupt(model.tokenizer, prompt)
        after = "".join(text_stream(model.tokenizer, rest, after=prompt))
        assert before + after == model.decode(ids)


@pytest.mark.parametrize(
    "text", ["fine.", "a b\ufffd", "\ufffd\ufffd\ufffd", "old caf\ufffd \ufffd\ufffd", "\ufffd then"]
)
def test_the_last_characters_are_not_kept(novels, stories, text):
    """A stream that ends with the sign for no character, or within one, says it all, as a decoding of all does."""
    for model in (novels, stories):
        for ids in (model.encode(text), model.encode(text + "😀")[:-1], model.encode(text + "é")[:-1]):
            assert "".join(whole_characters(model, ids)) == model.decode(ids)


def test_characters_do_not_wait_longer_than_they_must(novels):
    """A piece comes with the token that completes it."""
    ids = novels.encode("é😀a", bos=False).tolist()
    seen = []

    def tokens():
        for token in ids:
            seen.append(token)
            yield token

    for piece in text_stream(novels.tokenizer, tokens()):
        text = novels.decode(seen)
        assert text.endswith(piece) and not text.endswith("\ufffd")
    assert seen == ids


def test_a_special_token_in_a_text_is_text(novels, stories):
    """Characters go in and come out; only the one put first is special, and it is not printed."""
    for model, bos in ((novels, 0), (stories, 1)):
        ids = model.encode("a <s> b").tolist()
        assert ids[0] == bos and bos not in ids[1:]
        assert model.decode(ids) == "a <s> b"
        assert "".join(text_stream(model.tokenizer, ids)) == "a <s> b"
