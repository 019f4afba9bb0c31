"""A text in pieces has the tokens of the whole text, for every tokenizer that is said to allow it."""

import io
import json

import pytest
from folders import words
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from minisink.evaluation import pieces as texts
from minisink.evaluation.pieces import BEFORE_SPACE, BEFORE_SPACE_OR_LINE, INSTEAD_OF_SPACE, cut_of, read_pieces
from minisink.hf.shipped import sample_text, shipped

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES_ONLY = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), BYTES_ONLY])


DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])
WORDS = {  # pre-tokenizer, and what it splits at
    "gpt2": (BYTES, BEFORE_SPACE_OR_LINE),
    "digits": (DIGITS, BEFORE_SPACE_OR_LINE),
    "whitespace": (pre_tokenizers.Whitespace(), BEFORE_SPACE_OR_LINE),
    "whitespace split": (pre_tokenizers.WhitespaceSplit(), BEFORE_SPACE_OR_LINE),
    **{f"llama 3 or qwen 2, {i}": (split(pattern), BEFORE_SPACE) for i, pattern in enumerate(texts.SPLITS)},
}
CLASSES = ["a", "é", "7", ".", "'", "'s", "\u0301", "\x1c", "\x85", "\u3000", "文", " ", "\n", "\r", "▁", "<s>"]
ALPHABET = [
    *CLASSES,
    "  ",
    "\n\n",
    "\r\n",
    "\t",
    "'re",
    "'LL",
    "b",
    "Th",
    "٣",
    "🙂",
    "\u0958",
    "\u200b",
    "_",
    " a ",
    "<x>",
]
nasty = st.lists(st.sampled_from(ALPHABET) | st.characters(exclude_categories=["Cs"]), max_size=40).map("".join)
some = examples(150)


def trained(words, normalizer=None):
    """A BPE tokenizer that has merged whatever it was allowed to merge, with a special token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if words is not None:
        tokenizer.pre_tokenizer = words
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>"], show_progress=False)
    sample = sample_text().read_text("utf-8")[:20000]
    marks = " ".join(ALPHABET)
    tokenizer.train_from_iterator([sample, *sample.split("\n"), "  \n\n a.\n\n 's  'Th \n", marks], trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def pieces(tokenizer, text, size):
    """Ids of a text read `size` bytes at a time, and how many pieces it made."""
    raw = text.encode("utf-8")
    read = list(read_pieces(io.BytesIO(raw), "a text", cut_of(tokenizer), size=size))
    assert b"".join(piece.raw for piece in read) == raw
    assert [piece.start for piece in read] == [len(b"".join(p.raw for p in read[:i])) for i in range(len(read))]
    ids = [i for piece in read for i in tokenizer.encode(piece.text, add_special_tokens=False).ids]
    return ids, len(read)


def whole(tokenizer, text):
    """Ids of a text at once, its lines ended as Python reads them."""
    with io.TextIOWrapper(io.BytesIO(text.encode("utf-8")), encoding="utf-8") as file:
        return tokenizer.encode(file.read(), add_special_tokens=False).ids


class Named(dict):
    """Shows its names only, when a test fails."""

    def __repr__(self):
        return ", ".join(self)


@pytest.fixture(scope="module")
def tokenizers(novels_folder):
    """Those that may be cut, by name."""
    found = Named()
    found |= {name: trained(splitter) for name, (splitter, _) in WORDS.items()}
    found["nfc"] = trained(split(texts.SPLITS[1]), normalizers.NFC())
    found["metaspace"] = trained(pre_tokenizers.Metaspace(prepend_scheme="first", split=True))
    about = json.loads(found["metaspace"].to_str())
    about["pre_tokenizer"]["split"] = False
    found["metaspace of a whole text"] = Tokenizer.from_str(json.dumps(about))
    about |= {"pre_tokenizer": None, "normalizer": json.loads(trained(BYTES, PREPEND).to_str())["normalizer"]}
    found["prepend"] = Tokenizer.from_str(json.dumps(about))  # words merged within, and no word boundary but ▁
    found["words"] = words(17)
    found["novels"] = Tokenizer.from_file(str(novels_folder / "tokenizer.json"))
    for tokenizer in found.values():
        tokenizer.encode_special_tokens = True
    return found


NAMES = [*WORDS, "nfc", "metaspace", "metaspace of a whole text", "prepend", "words", "novels"]


@some
@given(nasty.filter(lambda text: text.removeprefix("\ufeff")), st.integers(1, 30))
@example("\ufeffa b  c", 1)
@example("a b  c\n\nd 's e\r\nf", 1)
@example("a ▁b a  b said.\n\nThe .\r\n", 1)
@pytest.mark.parametrize("name", NAMES)
def test_pieces_have_the_tokens_of_the_whole(tokenizers, name, text, size):
    """Any text but a byte-order mark, read in steps of any size, for every tokenizer that may be cut."""
    tokenizer = tokenizers[name]
    assert cut_of(tokenizer) is not None
    assert pieces(tokenizer, text, size)[0] == whole(tokenizer, text.removeprefix("\ufeff"))


@pytest.mark.parametrize("name", NAMES)
def test_a_book_comes_in_small_pieces(tokenizers, name):
    """The sample text: the same tokens, and never a piece of much more than was read at once."""
    text = sample_text().read_text("utf-8")[:30000]
    ids, n = pieces(tokenizers[name], text, 64)
    assert ids == whole(tokenizers[name], text)
    assert n > len(text) / 64 / 2


def test_the_real_tokenizers(shared, stories_folder):
    """Llama 2's kind, whose text has no words but one: a space in front of every piece."""
    for folder in (shipped("novels-gpt2"), stories_folder):
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.encode_special_tokens = True
        text = sample_text().read_text("utf-8")[:30000]
        ids, n = pieces(tokenizer, text, 64)
        assert ids == whole(tokenizer, text) and n > 200
    assert cut_of(tokenizer) is INSTEAD_OF_SPACE


@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WORDS)
def test_no_character_moves_a_cut(name, step):
    """Every character there is, before and after the gap: the words left and right are those of the whole."""
    splitter, cut = WORDS[name]
    characters = [*map(chr, [*range(0xD800), *range(0xE000, 0x3134F), *range(0xE0000, 0xE0200)])]
    characters = characters[:0x250] + characters[0x250::step]
    gaps = [(" ", characters), *((gap, map(chr, range(0x250))) for gap in ("\n", "\r", "\r\n", "\t", "\u3000"))]
    for gap, character in ((gap, character) for gap, several in gaps for character in several):
        left, right = f"a 'r{character}", f"{gap}{character}b"
        if not cut.match(left + right, len(left) - 1):
            assert gap != " " or character.isspace()
            continue
        shifted = [(word, (i + len(left), j + len(left))) for word, (i, j) in splitter.pre_tokenize_str(right)]
        assert splitter.pre_tokenize_str(left + right) == splitter.pre_tokenize_str(left) + shifted, (gap, character)


def test_what_cannot_be_shown_is_not_cut():
    """Another pattern, normaliser or model, a token taken out of the text, or one that reaches across a space."""
    strange = [trained(splitter) for splitter in (split(r"\S+\s"), pre_tokenizers.ByteLevel(add_prefix_space=True))]
    strange += [trained(BYTES, normalizers.Lowercase()), trained(BYTES), trained(BYTES), trained(BYTES_ONLY)]
    strange += [trained(pre_tokenizers.Sequence([]))]
    strange[3].add_tokens([AddedToken("a b")])
    strange[4].enable_truncation(8)
    listening = trained(BYTES)
    listening.encode_special_tokens = False  # "<s>" in a text is a token then
    dropping = json.loads(trained(BYTES).to_str())
    dropping["model"]["dropout"] = 0.5
    wordless = trained(BYTES)
    wordless.pre_tokenizer = pre_tokenizers.Sequence([])
    unigram = Tokenizer(models.Unigram([("a", -1.0), (" ", -2.0)], unk_id=0, byte_fallback=False))
    across = Tokenizer(models.BPE({"a": 0, "▁": 1, "a▁": 2}, [("a", "▁")]))
    across.normalizer = PREPEND
    for tokenizer in [*strange, listening, Tokenizer.from_str(json.dumps(dropping)), unigram, across, wordless]:
        assert cut_of(tokenizer) is None
    assert len(list(read_pieces(io.BytesIO(b"a b c d"), "a text", None, size=1))) == 1


def test_a_stretch_without_a_cut_is_one_piece():
    """Right before fast: what cannot be cut is held until it can, and only the new part of it is looked at."""
    text = "a" * 999 + " b " + "c" * 999
    assert [piece.text for piece in read_pieces(io.BytesIO(text.encode()), "a text", BEFORE_SPACE, size=10)] == [
        "a" * 999,
        " b",
        " " + "c" * 999,
    ]


def test_a_long_text_is_read_as_it_is_asked_for():
    """Of a text without end no more is read than the next piece needs."""

    class Endless:
        n = 0

        def read(self, size):
            self.n += size
            return b"It was a dark night. "[: size % 21] + b"word " * (size // 5)

    file = Endless()
    for n, _ in zip(range(1, 50), read_pieces(file, "a text", BEFORE_SPACE, size=1000), strict=False):
        assert file.n == 1000 * n


@given(st.integers(1, 9), st.integers(0, 30), st.sampled_from([b"\xe9", b"\xff", b"\xed\xa0\x80", b"\xe2\x82"]))
def test_a_byte_that_is_not_utf8_is_named(size, n, bad):
    """By its value and its place in the file, wherever reading stopped in between; also a character cut short."""
    for rest in (b"", b" and more"):
        with pytest.raises(ValueError, match=f"a text: not UTF-8 text .byte {bad[0]:#04x} at {2 * n}.$"):
            list(read_pieces(io.BytesIO("é".encode() * n + bad + rest), "a text", BEFORE_SPACE, size=size))


def test_a_text_that_is_not_there():
    """Nothing in it, or a disk that fails: after what came before."""
    with pytest.raises(ValueError, match="a text: empty text"):
        list(read_pieces(io.BytesIO(b""), "a text", BEFORE_SPACE))

    class Failing(io.BytesIO):
        def read(self, size):
            if self.tell() == 8:
                raise OSError(5, "Input/output error")
            return super().read(size)

    read = []
    with pytest.raises(ValueError, match="a text: cannot be read at byte 8 .Input/output error."):
        for piece in read_pieces(Failing(b"one two three"), "a text", BEFORE_SPACE, size=4):
            read.append(piece.text)
    assert read == ["one", " two"]


@pytest.mark.parametrize("cut", [BEFORE_SPACE, BEFORE_SPACE_OR_LINE, INSTEAD_OF_SPACE, None])
@pytest.mark.parametrize("text", ["It was a dark night", " It", "I\ufeff was \ufeffa", "\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_byte_order_mark_is_bytes_and_no_text(cut, text, size):
    """The pieces are those of the text without it; the first begins before it, and all bytes are in one of them."""
    raw = "\ufeff".encode() + text.encode()
    marked = list(read_pieces(io.BytesIO(raw), "a text", cut, size=size))
    plain = list(read_pieces(io.BytesIO(text.encode()), "a text", cut, size=size))
    for read in (marked, plain):
        assert "".join(piece.text for piece in read).replace(" ", "") == text.replace(" ", "")
    assert b"".join(piece.raw for piece in marked) == raw
    assert [raw[piece.start :][: len(piece.raw)] for piece in marked] == [piece.raw for piece in marked]
    for piece in marked[1:]:  # from the middle: the same pieces, whatever they begin with
        (first, *_) = read_pieces(io.BytesIO(raw[piece.start :]), "a text", cut, start=piece.start, size=100)
        assert first.text.startswith(piece.text)


@pytest.mark.parametrize("size", [1, 100])
def test_a_second_byte_order_mark_is_text(size):
    raw = "\ufeff\ufeff It was".encode()
    for cut in (BEFORE_SPACE, None):
        assert (
            "".join(piece.text for piece in read_pieces(io.BytesIO(raw), "a text", cut, size=size)) == "\ufeff It was"
        )


@pytest.mark.parametrize("size", [1, 100])
def test_nothing_but_a_byte_order_mark_is_an_empty_text(size):
    with pytest.raises(ValueError, match="a text: empty text"):
        list(read_pieces(io.BytesIO("\ufeff".encode()), "a text", BEFORE_SPACE, size=size))
