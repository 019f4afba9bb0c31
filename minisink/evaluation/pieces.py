"""A text of any size in pieces, cut only where the tokens of the pieces are those of the whole text.

A tokenizer first breaks a text into words, and no token crosses from one word into the next. The usual patterns
allow a space only at the start of a word or in a run of spaces, so *between a character and the space after it*
two words always meet, no matter what is farther left or right, and a text may be cut there. `cut_of` works out from
``tokenizer.json`` what holds for a tokenizer; if it cannot tell, the text is encoded as a whole.
"""

import codecs
import json
import re
from collections import deque
from typing import NamedTuple

import numpy as np

from ..hf.gguf_tokenizer import ENDINGS, WORDS
from ..system.files import blame

CHUNK = 1 << 16  # bytes read at a time

# the patterns of Llama 3 and of Qwen2, as published and as llama.cpp has them
SPLITS = [first + WORDS % n for first in ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", ENDINGS) for n in ("{1,3}", "")]

# A piece ends with group 1, and the next begins at the end of the match, as far right as possible.
BEFORE_SPACE_OR_LINE = re.compile(r"(?s)(.*\S)(?=[ \r\n])")
BEFORE_SPACE = re.compile(r"(?s)(.*\S)(?= )")
INSTEAD_OF_SPACE = re.compile(r"(?s)(.*[^\s▁]) (?=[^\s▁])")  # the tokenizer puts a space in front of every text


class Piece(NamedTuple):
    """A part of a text: the byte where it begins, its bytes up to the next part, and its text, with only line feeds."""

    start: int
    raw: bytes
    text: str


def cut_of(tokenizer):
    """Return the pattern that finds where a text may be cut without changing its tokens; None if no place is safe.

    Matched against the start of a text, its group 1 is the longest safe piece, and the next begins after the match.
    """
    about = json.loads(tokenizer.to_str())
    model, normalizer, words = about["model"], about["normalizer"], about["pre_tokenizer"]
    extracted = [t for t in about["added_tokens"] if not (t["special"] and tokenizer.encode_special_tokens)]
    alters = extracted or about["truncation"] or about["padding"] or model.get("dropout")
    if alters or model["type"] not in ("BPE", "WordLevel"):
        return None
    if _prepends_space(normalizer, words):
        vocab = model["vocab"]  # if ▁ begins every token it is in, nothing is merged across a space
        first = model["type"] == "BPE" and "▁" in vocab and not any(re.search("[^▁]▁", token) for token in vocab)
        return INSTEAD_OF_SPACE if first else None
    if normalizer not in (None, {"type": "NFC"}):  # NFC does not join anything to a space
        return None
    steps = words["pretokenizers"] if words and words["type"] == "Sequence" else [words]
    if steps and steps[0] and steps[0]["type"] == "Digits":
        steps = steps[1:]  # digits become separate words, one character at a time
    match steps:
        case [{"type": "Whitespace" | "WhitespaceSplit"}]:
            return BEFORE_SPACE_OR_LINE
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return BEFORE_SPACE_OR_LINE
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if pattern in SPLITS:
            return BEFORE_SPACE  # a line break may end such a word, a space may not
    return None


def _prepends_space(normalizer, words):
    """Return whether the tokenizer writes spaces as ``▁``, and puts one more in front of every text, like Llama 2's."""
    match normalizer, words:
        case {"type": "Sequence", "normalizers": steps}, None:
            prepend = {"type": "Prepend", "prepend": "▁"}
            return steps == [prepend, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
        case None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first" | "always"}:
            return True
    return False


def read_pieces(file, name, cut, *, start=0, size=CHUNK):
    """Read a text as needed, and yield each `Piece`; no more than one piece and `size` bytes are held.

    The binary `file` is at byte `start` of the text: 0, or the start of a piece in an earlier run. `cut` is from
    `cut_of`; without one the text is one piece, as is any stretch without a place to cut. For a text that is empty,
    cannot be read, or is not UTF-8, a ValueError after the last good piece gives its `name` and the bad byte.

    >>> import io
    >>> [piece.text for piece in read_pieces(io.BytesIO(b"It was a dark night."), "a book", BEFORE_SPACE, size=8)]
    ['It was', ' a dark', ' night.']
    """
    decoder, text, n_read = codecs.getincrementaldecoder("utf-8")(), "", start
    chunk, mark = b"-", b""
    while chunk:
        with blame(name, f"cannot be read at byte {n_read}"):
            chunk = file.read(size)
        searched = max(0, len(text) - 2)  # no cut before this, or it would have been found
        try:
            text += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            bad, at = error.object[error.start], n_read + len(chunk) - len(error.object) + error.start
            raise ValueError(f"{name}: not UTF-8 text (byte {bad:#04x} at {at})") from None
        n_read += len(chunk)
        if start == 0 and not mark and text.startswith("\ufeff"):  # a byte-order mark: bytes, but not text
            text, mark = text[1:], codecs.BOM_UTF8
        match = cut.match(text, searched) if cut is not None and chunk else None
        if match:
            raw = mark + text[: match.end()].encode("utf-8")
            yield Piece(start, raw, _lines(text[: match.end(1)]))
            start, text, mark = start + len(raw), text[match.end() :], b""
    if text:
        yield Piece(start, mark + text.encode("utf-8"), _lines(text))
    elif start == 0:
        raise ValueError(f"{name}: empty text")


def _lines(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


class TokenReader:
    """Ids on their way to the model; a piece is kept until all of it is taken in, so that a run can stop at any token.

    `pieces` is an iterator of (byte where it begins, number of its bytes, its ids (T,)); the model has already taken in
    `skip` tokens of the first.
    """

    def __init__(self, pieces, skip=0):
        self._pieces, self._skip = pieces, skip
        self._pending = deque()

    def __iter__(self):
        to_skip = self._skip
        for piece in self._pieces:
            self._pending.append(piece)
            ids = piece[2]
            yield ids[to_skip:]
            to_skip = max(0, to_skip - len(ids))

    def advance(self, n):
        """Count the next `n` tokens as taken in by the model; return the tokens after each of them."""
        targets, missing, skip = [], n, self._skip + 1
        for _, _, ids in self._pending:
            targets.append(ids[skip : skip + missing])
            missing, skip = missing - len(targets[-1]), max(0, skip - len(ids))
        self._skip += n
        while self._pending and self._skip >= len(self._pending[0][2]):
            self._skip -= len(self._pending.popleft()[2])
        return np.concatenate(targets)

    @property
    def place(self):
        """The place of the next token in the text: the byte where its piece begins, and its index in the piece."""
        return self._pending[0][0], self._skip

    @property
    def n_bytes(self):
        """Bytes of the text before the next token; within a piece, estimated from the share of tokens."""
        start, size, ids = self._pending[0]
        return start + size * self._skip // len(ids)
