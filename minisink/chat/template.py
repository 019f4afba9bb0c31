r"""How a conversation is written for a model: the text before, between and after what the two speakers say.

A chat model was trained on conversations with markers, which its *chat template* puts there: see `render.chatml`.

An endless chat cannot render all of itself at every turn. It needs only the *difference* between one rendering and
the next. So a conversation of stand-ins is rendered once, to see what the template writes around the words; and each
turn is rendered after a short conversation of stand-ins, to see what it does to these very words. It may trim
their ends; a template that does anything else to them is refused.

Markers become special ids. Words stay text: nobody can forge a turn by typing ``<|im_end|>``.
"""

import importlib.util
import re
from contextlib import suppress
from copy import copy
from datetime import datetime
from functools import cached_property
from itertools import chain, pairwise, product
from os.path import commonprefix

from ..hf.tokenizer import config_names
from ..system.errors import warn_caller
from .render import chatml, renderer

ROLES = ("user", "assistant")
STAND_IN = "\ue000%s\ue001"  # private use: not in any template
TRIMS: tuple = (str, str.strip, str.lstrip, str.rstrip)
MARKS = ("<|im_start|>", "<|im_end|>")  # of ChatML
WHITE = (*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
BLANKS = "".join(map(chr, WHITE))  # Unicode's white space, as in tokenizers; Python's has four more


class TemplateError(ValueError):
    """Why a chat template cannot be used, or cannot be used for these words."""


class Template:
    """What a model's chat template writes for each turn, as token ids.

    `system` is the system message, or None; `now`, the time for a template that writes the date.

    Without jinja2, ChatML is used instead of the model's own template, with a warning. Raise TemplateError for a model
    with neither a template nor ChatML's markers; for a template that fails, whose renderings do not continue one
    another, or whose ids differ from those of the whole conversation; and later for words that it changes.
    """

    def __init__(self, model, system=None, now=None):
        if model.tokenizer is None:
            raise TemplateError(f"{model.name}: has no tokenizer, which a chat needs")
        self.model, self.system, self.now = model, system, now or datetime.now()
        added = model.tokenizer.get_added_tokens_decoder()
        self.markers = {token.content: i for i, token in added.items() if token.special}
        self.names = {i: name for name, i in self.markers.items()}
        self.swallow = [{i for i, token in added.items() if getattr(token, side)} for side in ("lstrip", "rstrip")]
        longest_first = "|".join(map(re.escape, sorted(self.markers, key=len, reverse=True))) or "(?!)"
        self.marker = f"({longest_first})"
        self.later = _without_first_space(model)
        # a piece is what a message adds to the text before it: ids of markers, texts, and names of words in tuples
        self.first, self.answer, self.turn = self._pieces()
        self.end = self.answer[self.answer.index(("assistant",)) + 1 :]
        self._check_markers([token.content for token in added.values() if not token.special])
        self._check_ids()

    def first_ids(self, user):
        """Return the ids from the beginning to the first answer."""
        return self._ids(self._said(self.first, self._added(0, user), user=user), begins=True)

    def turn_ids(self, user):
        """Return the ids from the end of an answer to the beginning of the next."""
        return self._ids([*self.end, *self._said(self.turn, self._added(2, user), user=user)])

    def reply_ids(self, words, left):
        """Return the ids of a written answer without its end; `left` is the id before it."""
        text = self._added(1, words, STAND_IN % "user")  # as a past answer, from which some templates cut the reasoning
        said = self._said([*self.answer, *self.turn], text, assistant=words)
        return self._ids(said[: self.answer.index(("assistant",)) + 1], left)

    def end_ids(self):
        """Return the ids after an answer."""
        return self._ids(self.end)

    def system_ids(self):
        """Return the ids of the system message alone; None if a conversation does not begin with it."""
        with suppress(TemplateError):  # some templates write it into the first turn
            piece = self._parts(self._render(_talk(0, STAND_IN % "system")), ["system"])
            if self._written(self.first).startswith(self._written(piece)):
                return self._ids(self._said(piece, self._render(_talk(0, self.system))), begins=True)
        return None

    def n_system_tokens(self):
        """Return the number of tokens of the system message; ValueError if it cannot be pinned."""
        if self.system is None:
            raise ValueError("pinning a system message needs a message, and a method with sinks")
        if (ids := self.system_ids()) is None:
            raise self._error("writes no separate system message to pin")
        return len(ids)

    @property
    def end_markers(self):
        """The special ids after an answer."""
        return [part for part in self.end if isinstance(part, int)]

    def _pieces(self):
        """Return the pieces of the first message, an answer, and a turn, from a conversation of stand-ins."""
        system = None if self.system is None else STAND_IN % "system"
        pieces, talks = [], [[], *(_talk(n, system) for n in range(1, 7))]
        for n, (earlier, talk) in enumerate(pairwise(talks), 1):
            names = [message["role"] for message in talk[len(earlier) :]]
            pieces.append(self._parts(self._rendered_after(earlier, talk, f"message {n}"), names))
        if pieces[3:] != [pieces[1], pieces[2], pieces[1]]:
            raise self._error("does not write every turn the same way")
        return pieces[:3]

    def _parts(self, text, names):
        """Split a rendered text at the stand-ins for words; each of `names` must occur once."""
        split = re.split(STAND_IN % r"(\w+?)\d*", text)
        if split[1::2] != names:
            has = ", ".join(split[1::2]) or "none"
            raise self._error(f"should write the words of {' and '.join(names)} once; it has {has}")
        parts = ([(part,)] if i % 2 else re.split(self.marker, part) for i, part in enumerate(split))
        return [self.markers.get(part, part) for part in chain(*parts) if part]

    def _written(self, parts):
        """Return the text of a piece, or of one with its words filled in."""
        return "".join(self.names[part] if isinstance(part, int) else "".join(part) for part in parts)

    def _added(self, n, *words):
        """Render what the next messages add to a conversation of `n` stand-ins."""
        earlier = _talk(n, self.system) if n else []
        return self._rendered_after(earlier, _talk(n, self.system, *words), f"{words[-1]!r:.60}")

    def _rendered_after(self, earlier, talk, what):
        """Render a conversation, and return what comes after its `earlier` messages; `what` describes the rest."""
        before, text = self._render(earlier) if earlier else "", self._render(talk)
        if not text.startswith(before):
            raise self._error(f"rewrites earlier text when {what} is added: a stream cannot be undone")
        return text[len(before) :]

    def _said(self, piece, text, **words):
        """Fill in the words of a piece, trimmed as they are in `text`, the template's own; refuse any other change."""
        words = {name: STAND_IN % name for name in ROLES} | {"system": self.system} | words
        for trims in product(TRIMS, repeat=sum(isinstance(part, tuple) for part in piece)):
            trim = iter(trims)
            said = [(next(trim)(words[part[0]]),) if isinstance(part, tuple) else part for part in piece]
            if self._written(said) == text:
                return said
        unchanged = self._written((words[part[0]],) if isinstance(part, tuple) else part for part in piece)
        at = len(commonprefix([unchanged, text]))
        makes = f"it writes {text[at : at + 20]!r}, not {unchanged[at : at + 20]!r}"
        raise self._error(f"changes these words, or tests what they are: {makes}")

    def _ids(self, said, left=None, begins=False):
        """Encode a filled piece: markers as their ids, adjacent text together. `left` is the id before it."""
        ids, text = [], ""
        for part in said:
            if not isinstance(part, int):
                text += "".join(part)
                continue
            ids += [*self._encode(text, left, part, begins and not ids), part]
            text, left = "", part
        return ids + self._encode(text, left, None, begins and not ids)

    def _encode(self, text, left, right, begins):
        """Encode a text between two markers, which may absorb its blanks."""
        text = text.rstrip(BLANKS) if right in self.swallow[0] else text
        text = text.lstrip(BLANKS) if left in self.swallow[1] else text
        return (self.model if begins else self.later).encode(text, bos=False).tolist() if text else []

    def _check_markers(self, typed):
        """Refuse a template whose markers are not tokens, or are tokens that anybody can type."""
        parts = [*self.first, *self.answer, *self.turn]
        texts = [part for part in parts if isinstance(part, str)]
        for token in typed:
            if token.strip() and any(token in text for text in texts):
                marks = f"marks turns with {token!r}, which is an ordinary word to its tokenizer"
                raise self._error(f"{marks}: anybody could forge one")
        for name, token in _names(self.model).items():
            if token and any(token in text for text in texts) and self.model.tokenizer.token_to_id(token) is None:
                raise self._error(f"writes its {name} {token!r}, which its tokenizer does not have")
        vocab_size, last = self.model.config.vocab_size, max((i for i in parts if isinstance(i, int)), default=0)
        if last >= vocab_size:
            raise self._error(f"writes token id {last}, but the model's vocab_size is {vocab_size}")

    def _check_ids(self):
        """Refuse a template whose turns are encoded differently alone than within the conversation."""
        for word in ("Yes", " yes \n"):
            begun = self._encode_whole(self._added(0, word))
            whole = self._encode_whole(self._added(0, word, word, word))
            turn = self.turn_ids(word)  # its leading text joins the answer
            after = next((i for i, token in enumerate(turn) if token in self.names), len(turn))
            if begun != self.first_ids(word) or whole[len(whole) - len(turn) + after :] != turn[after:]:
                raise self._error("is encoded differently as a whole than in pieces: its tokenizer looks past a marker")

    def _encode_whole(self, text):
        """Encode a text in which the names of markers are markers."""
        tokenizer = self.model.tokenizer
        as_text, tokenizer.encode_special_tokens = tokenizer.encode_special_tokens, False
        try:
            return self.model.encode(text, bos=False).tolist()
        finally:
            tokenizer.encode_special_tokens = as_text

    @cached_property
    def renderer(self):
        """The renderer of the model's own template, or of ChatML."""
        model = self.model
        if model.chat_template is None:
            missing = "has no chat template, so it was not trained to chat; smollm2 was (minisink chat --model smollm2)"
        elif importlib.util.find_spec("jinja2") is None:
            missing = "its chat template needs jinja2: pip install 'minisink[chat]'"
        else:
            return renderer(model.chat_template, _names(model), self.now)
        if not set(self.markers) >= set(MARKS):
            raise TemplateError(f"{model.name}: {missing}")
        if model.chat_template is not None:
            missing = "jinja2 is not installed (pip install 'minisink[chat]'): using ChatML instead of the model's own "
            warn_caller(missing + "template, which may have its own system message")
        return chatml

    def _render(self, talk):
        try:
            return self.renderer(talk, talk[-1]["role"] == "user")  # then an answer begins
        except TemplateError:
            raise
        except Exception as error:  # a template can raise anything
            raise self._error(f"cannot be rendered ({type(error).__name__}: {error})") from None

    def _error(self, why):
        return TemplateError(f"{self.model.name}: its chat template {why}")


def template_of(model, *, system=None, now=None):
    """Return the `Template` of a model, for a conversation with or without a system message."""
    return Template(model, system, now)


def _talk(n, system, *words):
    """Return a conversation: the system message unless None, stand-ins for `n` messages, and then these words."""
    contents = [*(STAND_IN % f"{ROLES[i % 2]}{i}" for i in range(n)), *words]
    talk = [{"role": ROLES[i % 2], "content": content} for i, content in enumerate(contents)]
    return talk if system is None else [{"role": "system", "content": system}, *talk]


def _without_first_space(model):
    """Return the model for text after a marker, where tokenizers that put a space before a text put none."""
    if "prepend_scheme=first" not in str(model.tokenizer.pre_tokenizer):
        return model
    later = copy(model)
    about = model.tokenizer.to_str().replace('"prepend_scheme":"first"', '"prepend_scheme":"never"')
    later.tokenizer = type(model.tokenizer).from_str(about)
    later.tokenizer.encode_special_tokens = True
    return later


def _names(model):
    return config_names(model.config, model.tokenizer) if model.special_tokens is None else model.special_tokens
