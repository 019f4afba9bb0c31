r"""How a conversation is written for a model: what stands before, between and after the words of the two.

A model was trained on conversations with markers in them, which its *chat template* puts there. ChatML, the commonest::

    <|im_start|>system
    You are kind.<|im_end|>
    <|im_start|>user
    Hello!<|im_end|>
    <|im_start|>assistant
    Hello to you.<|im_end|>

A chat that goes on for ever cannot render all of it at every turn. It needs three pieces only, the *difference* of one
rendering and the next: what begins it, up to the first answer; what ends an answer; and a turn, from there to the next
answer. So the template is rendered once, over stand-ins for the words, and cut at them. The words themselves never meet
the template, and a template whose renderings do not continue one another is refused.

Markers become special ids. Words stay text, whatever they spell: nobody can forge a turn by typing ``<|im_end|>``.
"""

import importlib.util
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ..hf.tokenizer import config_names
from . import render as child

SECONDS = 20  # that a template may take: a rendering takes a hundredth of one
MARKS = ("<|im_start|>", "<|im_end|>")  # of ChatML
STAND_IN = re.compile("\ue000(\\w+)\ue001")  # private use: in no template


class TemplateError(ValueError):
    """A chat template that cannot be used, and why."""


@dataclass
class Template:
    """The pieces of a conversation, each a list of special ids, texts, and the names of the words to be filled in.

    Attributes
    ----------
    system : list or None
        The system message alone, with "system" to be filled in; None if there is none, or not by itself.
    first : list
        From the beginning to the first answer, with "system" (where one was given) and "user" to be filled in.
    turn : list
        From the end of an answer to the beginning of the next, with "user".
    before, end : list
        What stands before a written answer, mostly nothing, and after it.
    encode : callable
        From a text to the ids of it, in which nothing is special.
    """

    system: list | None
    first: list
    turn: list
    before: list
    end: list
    encode: Callable

    def fill(self, *pieces, **words):
        """Return pieces, with words in their places, as ids.

        Text that stands together is encoded together, as it is when a whole conversation is.
        """
        ids, text = [], ""
        for part in [part for piece in pieces for part in piece]:
            if isinstance(part, int):
                ids += [*self._ids(text), part]
                text = ""
            else:
                text += words[part[0]] if isinstance(part, tuple) else part
        return ids + self._ids(text)

    def _ids(self, text):
        return [int(i) for i in self.encode(text)] if text else []


def template_of(model, *, system=None):
    """Return the `Template` of `model`, for a conversation with or without a system message.

    Without jinja2, ChatML is used instead of the model's own template, with a warning. Raises TemplateError for a model
    without a template and without ChatML's markers; and for a template that raises, does not end, reaches where it may
    not, or whose renderings do not continue one another.
    """
    if model.tokenizer is None:
        raise TemplateError(f"{model.name}: has no tokenizer, and a chat needs one")
    added = model.tokenizer.get_added_tokens_decoder()
    markers = {token.content: i for i, token in added.items() if token.special}
    if model.chat_template is None or importlib.util.find_spec("jinja2") is None:
        if not markers.keys() >= set(MARKS):
            what = "its chat template needs jinja2: pip install 'minisink[chat]'"
            if model.chat_template is None:
                what = (
                    "has no chat template, so it was not trained to chat; smollm2 was (minisink chat --model smollm2)"
                )
            raise TemplateError(f"{model.name}: {what}")
        if model.chat_template is not None:
            warnings.warn(
                "jinja2 is not installed (pip install 'minisink[chat]'): plain ChatML instead of the model's own "
                "template, which may have a system message of its own",
                stacklevel=2,
            )
        rendered = chatml
    else:
        rendered = _template_renderer(model)
    try:
        template = cut(rendered, partial(model.encode, bos=False), markers, with_system=system is not None)
        _check_forgery(template, [token.content for token in added.values() if not token.special])
        return template
    except TemplateError as error:
        raise TemplateError(f"{model.name}: its chat template {error}") from None


def _check_forgery(template, typed):
    """Refuse a template whose markers are tokens that anybody writes by typing them."""
    texts = [part for piece in (template.first, template.turn, template.before, template.end) for part in piece]
    for token in typed:
        if token.strip() and any(token in text for text in texts if isinstance(text, str)):
            raise TemplateError(
                f"marks turns with {token!r}, which its tokenizer has as a word: anybody could forge one"
            )


def chatml(conversations):
    r"""Render conversations, as `render.render` does, in ChatML.

    >>> chatml([([{"role": "user", "content": "Hi"}], True)])
    ['<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n']
    """
    start, end = MARKS
    return [
        "".join(f"{start}{m['role']}\n{m['content']}{end}\n" for m in messages) + f"{start}assistant\n" * begin
        for messages, begin in conversations
    ]


def _template_renderer(model):
    """Return a function like `chatml` that renders the template of a model, in a child process."""
    names = config_names(model.config, model.tokenizer) if model.special_tokens is None else model.special_tokens

    def rendered(conversations):
        question = {"template": model.chat_template, "conversations": conversations, "names": names}
        try:
            options: dict = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": SECONDS}
            child_run = subprocess.run([sys.executable, child.__file__], input=json.dumps(question), **options)
            answer = json.loads(child_run.stdout)
        except subprocess.TimeoutExpired:
            raise TemplateError(f"does not end: stopped after {SECONDS} seconds") from None
        except ValueError:
            reason = (child_run.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise TemplateError(f"cannot be rendered ({reason})") from None
        if "error" in answer:
            raise TemplateError(f"cannot be rendered ({answer['error']})")
        return answer["rendered"]

    return rendered


def cut(rendered: Callable, encode: Callable, markers, *, with_system=False):
    """Render conversations over stand-ins, and cut them into the pieces of a `Template`.

    `rendered` is a function like `chatml`, `markers` are special tokens by their text. Raises TemplateError when the
    renderings do not continue one another, or a word appears twice or not at all.
    """
    turns = [_message(role, i) for i in range(3) for role in ("user", "assistant")]
    system = [_message("system")] if with_system else []
    texts = rendered([(system + turns[:n], n % 2 == 1) for n in range(1, len(turns) + 1)])
    pieces = []
    for n, (earlier, text) in enumerate(zip(["", *texts], texts, strict=False), 1):
        if not text.startswith(earlier):
            raise TemplateError(
                f"writes what came before anew when message {n} is added: a stream cannot be taken back"
            )
        names = ["system"] * (with_system and n == 1) + [turns[n - 1]["role"]]
        pieces.append(_parts(text[len(earlier) :], names, markers))
    first, answer, turn = pieces[:3]
    if pieces[3:] != [answer, turn, answer]:
        raise TemplateError("does not write every turn alike")
    reply, system_piece = answer.index(("assistant",)), None
    if with_system:
        with suppress(TemplateError):  # some write it into the first turn
            system_piece = _parts(rendered([(system, False)])[0], ["system"], markers)
        if system_piece and first[: len(system_piece) - 1] != system_piece[:-1]:
            system_piece = None
    return Template(system_piece, first, turn, answer[:reply], answer[reply + 1 :], encode)


def _message(role, i=""):
    return {"role": role, "content": f"\ue000{role}{i}\ue001"}


def _parts(text, names, markers):
    """Split a rendered text into special ids, texts, and names in tuples; each of `names` must stand in it once."""
    longest_first = sorted(markers, key=len, reverse=True)
    stand_in = STAND_IN.pattern.replace("(", "(?:")
    parts = []
    for part in filter(None, re.split(f"({'|'.join([stand_in, *map(re.escape, longest_first)])})", text)):
        match = STAND_IN.fullmatch(part)
        parts.append((match[1].rstrip("0123456789"),) if match else markers.get(part, part))
    present = [part[0] for part in parts if isinstance(part, tuple)]
    if present != names:
        raise TemplateError(
            f"should say the words of {' and '.join(names)} once; it has {', '.join(present) or 'none'}"
        )
    return parts
