"""A chat template cut into pieces: rendered with stand-ins for the words, then tried with revealing words.

A template is a program, so it is tested before anybody chats. Do the renderings of longer and longer conversations
continue one another? Does each contain the words of each message once, unchanged or only trimmed at their ends? The
last is tried with words of many kinds, and with every text and number in the template: one that tests for
``'</think>' in message.content`` must contain that text. Words that contain such a text are refused, and no others.
"""

import re
from contextlib import suppress
from itertools import product
from os.path import commonprefix

from .render import WORD

STAND_IN = re.compile("\ue000(\\w+)\ue001")  # private use: not in any template
PLAIN = {role: f"\ue000{role}\ue001" for role in ("system", "user", "assistant")}
TRIMS = ((), ("strip",), ("lstrip",), ("rstrip",))
BLANK = [" \n\u2003x y\t\n ", "\n \n(x)\n\t\n", "\t\x0bx\xa0", "  x"]  # ends of every kind
WORDS = [*BLANK, "Two  words\n\n\n  and\tlines.\r\n1. more"]
WORDS += ['"It\'s" <b>1 &lt; 2</b> & {{ x }} {% y %} \\n `z` http://example.org/?a=b#c']
WORDS += ["ONE two Three É ß ﬁ e\u0301 \u0130 漢字 🙂\u200d🙂 \u202e"]
WORDS += ["0", "None", "[1, 'a']", "x" * 300, "A sentence of some words. " * 800]


class TemplateError(ValueError):
    """A chat template that cannot be used, and why."""


def cut(rendered, *, system=None):
    """Return (first, answer, turn, alone, asked, kept), the pieces of a template and what its tests showed.

    A piece is a list of texts, and of names of words to be filled in, each in a tuple with the method that trims it, if
    any. `alone` is that of the system message, or None if impossible; `asked`, the texts that the template tests for
    (it changes a person's words that contain one); `kept`, a TemplateError that says why a past answer is not always
    written as it was given, or None. `rendered(conversations, probes, words)` renders conversations, and the probes
    once for each word, with that word in place of `render.WORD`.

    Raise TemplateError if renderings do not continue one another, or words are changed or not there exactly once.
    """
    told = system is not None
    talks = [_talk(n, told) for n in range(1, 7)] + [_talk(1, told, PLAIN | {"system": system})]
    asked, known = {"system": WORD, "user": WORD}, {"assistant": WORD}
    probes = [_talk(n, told, PLAIN | words) for n, words in ((1, asked), (3, asked), (3, known))]
    (*texts, begun), tried = rendered(talks, probes, WORDS)
    first, answer, turn = _pieces(texts, told)
    begins, goes_on, has_answered = (
        [(PLAIN | dict.fromkeys(names, word), texts[i], own) for word, own, texts in tried]
        for i, names in enumerate((asked, asked, known))
    )
    first = _trimmed(first, lambda piece: [piece], begins)
    _check([first], [(PLAIN | {"system": system}, begun, None)] * told)
    asked_for: list = []
    _check([first], begins, asked_for)
    turn = _trimmed(turn, lambda piece: [first, answer, piece], goes_on)
    _check([first, answer, turn], goes_on, asked_for)
    answer, kept = _trimmed(answer, lambda piece: [first, piece, turn], has_answered), None
    try:
        _check([first, answer, turn], has_answered)
    except TemplateError as error:
        kept = error
    return first, answer, turn, _alone(rendered, first) if told else None, asked_for, kept


def said(part, words):
    """Return a text of a piece, or the words for it, trimmed as the template trims them."""
    if isinstance(part, str):
        return part
    name, *trim = part
    return getattr(words[name], trim[0])() if trim else words[name]


def written(pieces, words):
    """Return the text that the template writes for pieces."""
    return "".join(said(part, words) for piece in pieces for part in piece)


def _talk(n, told, words=None):
    """Return the first n messages of a conversation, and whether the beginning of an answer follows them."""
    said = [("system", 0)] * told + [(role, i) for i in range(3) for role in ("user", "assistant")][:n]
    words = words or {}
    return [{"role": role, "content": words.get(role, f"\ue000{role}{i}\ue001")} for role, i in said], n % 2 == 1


def _pieces(texts, told):
    """Return what each message adds to the text before it: the first, an answer, and a turn."""
    pieces = []
    for n, (earlier, text) in enumerate(zip(["", *texts], texts, strict=False), 1):
        if not text.startswith(earlier):
            raise TemplateError(f"rewrites earlier text when message {n} is added: a stream cannot be undone")
        pieces.append(_parts(text[len(earlier) :], ["system"] * (told and n == 1) + [("assistant", "user")[n % 2]]))
    first, answer, turn = pieces[:3]
    if pieces[3:] != [answer, turn, answer]:
        raise TemplateError("does not write every turn alike")
    return first, answer, turn


def _parts(text, names):
    """Split a rendered text at the stand-ins for words; each of `names` must occur once."""
    parts = [part if i % 2 == 0 else (part.rstrip("0123456789"),) for i, part in enumerate(STAND_IN.split(text))]
    if (present := [part[0] for part in parts if isinstance(part, tuple)]) != names:
        has = ", ".join(present) or "none"
        raise TemplateError(f"should write the words of {' and '.join(names)} once; it has {has}")
    return [part for part in parts if part]


def _trimmed(piece, whole, tried):
    """Return a piece with its words trimmed as the template trims those of `BLANK`; `whole` adds its neighbours."""
    for trims in product(TRIMS, repeat=sum(isinstance(part, tuple) for part in piece)):
        trim = iter(trims)
        made = [(*part, *next(trim)) if isinstance(part, tuple) else part for part in piece]
        if all(written(whole(made), words) == text for words, text, _ in tried[: len(BLANK)]):
            return made
    return piece


def _check(pieces, tried, asked=None):
    """Refuse pieces that do not give the template's own text for the words it was `tried` with.

    If only words that contain a text of the template differ, that text goes into `asked`.
    """
    for words, text, own in sorted(tried, key=lambda one: one[2] is None):
        wanted, word = written(pieces, words), next(word for name, word in words.items() if word != PLAIN[name])
        if wanted == text or any(part in word for part in asked or ()):
            continue
        if own is None or asked is None:
            at = len(commonprefix([wanted, text]))
            makes = f"of {word[:60]!r} it makes {text[at : at + 20]!r}, not {wanted[at : at + 20]!r}"
            raise TemplateError(f"changes words, or tests what they are: {makes}")
        asked.append(own)


def _alone(rendered, first):
    """Return the piece of a system message alone; None if a conversation does not begin with it."""
    with suppress(TemplateError):  # some write it into the first turn
        (text,), _ = rendered([_talk(0, True)], [], [])
        system = next(part for part in first if isinstance(part, tuple))
        piece = [system if isinstance(part, tuple) else part for part in _parts(text, ["system"])]
        return piece if written([first], PLAIN).startswith(written([piece], PLAIN)) else None
    return None
