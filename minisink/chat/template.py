r"""How a conversation is written for a model: the text before, between and after the words of the two.

A model was trained on conversations with markers in them, which its *chat template* puts there. ChatML, the commonest::

    <|im_start|>user
    Hello!<|im_end|>
    <|im_start|>assistant
    Hello to you.<|im_end|>

An endless chat cannot render all of itself at every turn. It needs only the *difference* between one rendering and
the next: the beginning, up to the first answer; the end of an answer; and a turn, from there to the next answer. So
the template is rendered once, with stand-ins for the words, and cut at them (`cut`). The words themselves never go
through the template; one that would treat them differently than the pieces do is refused.

Markers become special ids. Words stay text: nobody can forge a turn by typing ``<|im_end|>``.
"""

import importlib.util
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import chain, product

from ..hf.tokenizer import config_names
from . import render as child
from .cut import PLAIN, TemplateError, cut, said, written

SECONDS = 20  # time limit of a template; a rendering takes a hundredth of a second
MARKS = ("<|im_start|>", "<|im_end|>")  # of ChatML
WHITE = (*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
BLANKS = "".join(map(chr, WHITE))  # Unicode's, as in tokenizers; Python has four more
PIECES = ("system", "first", "turn", "before", "reply", "end")  # of a `Template`


@dataclass
class Template:
    """The pieces of a conversation, each a list of special ids, texts, and tuples with words to be filled in."""

    system: list | None  # the system message alone, with "system" to be filled in; None if it is never alone
    first: list  # from the beginning to the first answer, with "system" (where one was given) and "user"
    turn: list  # from the end of an answer to the beginning of the next, with "user"
    before: list  # text before a written answer, usually empty
    reply: list | None  # the answer, with "assistant"; None if the template may change past answers
    end: list  # text after it
    encode: Callable  # (text, whether it begins a conversation) -> ids, none of them special
    swallow: tuple  # two sets of special ids: those that absorb the blanks before them, and after them
    asked: tuple  # texts that the template tests for (`cut.cut`): a person's words that contain one are refused

    def fill(self, *pieces, left=None, **words):
        """Return pieces as ids, with words filled in; adjacent text is encoded together. `left` is the id before it."""
        names = {part[0] for piece in pieces for part in piece if isinstance(part, tuple)} - {"assistant"}
        for text, name in product(self.asked, names):
            if text.casefold() in words[name].casefold():
                raise TemplateError(f"the chat template changes words with {text!r}: leave it out")
        ids, text = [], ""
        begins = any(pieces[0] is piece for piece in (self.system, self.first))
        for part in [*chain(*pieces), None]:
            if isinstance(part, str | tuple):
                text += said(part, words)
                continue
            text = text.rstrip(BLANKS) if part in self.swallow[0] else text
            text = text.lstrip(BLANKS) if left in self.swallow[1] else text
            ids += self.encode(text, begins and not ids) if text else []
            ids += [] if part is None else [part]
            text, left = "", part
        return ids


def template_of(model, *, system=None):
    """Return the `Template` of `model`, for a conversation with or without a system message.

    Without jinja2, ChatML is used instead of the model's own template, with a warning. Raise TemplateError for a model
    without a template and without ChatML's markers; for a template that fails, does not end, or accesses what it may
    not; and for one that cannot be cut (`cut.cut`), or whose pieces do not have the ids of the whole.
    """
    if model.tokenizer is None:
        raise TemplateError(f"{model.name}: has no tokenizer, which a chat needs")
    added = model.tokenizer.get_added_tokens_decoder()
    rendered = _renderer(model, {token.content for token in added.values() if token.special})
    try:
        *pieces, alone, asked, kept = cut(rendered, system=system)
        template = _marked(model, pieces, alone, tuple(asked), added)
        _check_markers(model, template, [token.content for token in added.values() if not token.special])
        _check_ids(model, template, pieces)
    except TemplateError as error:
        raise TemplateError(f"{model.name}: its chat template {error}") from None
    if kept is not None:
        template.reply = None
        warnings.warn(f"{model.name}: its chat template, for past answers, {kept}; here they stay", stacklevel=2)
    return template


def _marked(model, pieces, alone, asked, added):
    """Make a `Template` from pieces of text, with special tokens as ids."""
    markers = {token.content: i for i, token in added.items() if token.special}
    longest_first = "|".join(re.escape(marker) for marker in sorted(markers, key=len, reverse=True)) or "(?!)"

    def marked(piece):
        split = (re.split(f"({longest_first})", part) if isinstance(part, str) else [part] for part in piece)
        return [markers.get(part, part) for part in chain(*split) if part]

    first, answer, turn = map(marked, pieces)
    reply = next(i for i, part in enumerate(answer) if isinstance(part, tuple))
    later = model
    if "prepend_scheme=first" in str(model.tokenizer.pre_tokenizer):  # a space before a text, but not after a marker
        later = copy(model)
        about = model.tokenizer.to_str().replace('"prepend_scheme":"first"', '"prepend_scheme":"never"')
        later.tokenizer = type(model.tokenizer).from_str(about)
        later.tokenizer.encode_special_tokens = True
    return Template(
        system=alone and marked(alone),
        first=first,
        turn=turn,
        before=answer[:reply],
        reply=[answer[reply]],
        end=answer[reply + 1 :],
        encode=lambda text, begins: (model if begins else later).encode(text, bos=False).tolist(),
        swallow=tuple({i for i, token in added.items() if getattr(token, side)} for side in ("lstrip", "rstrip")),
        asked=asked,
    )


def _check_markers(model, template, typed):
    """Refuse a template whose markers are not tokens, or are tokens that anybody can type."""
    parts = [*template.first, *template.turn, *template.before, *template.end]
    texts = [part for part in parts if isinstance(part, str)]
    for token in typed:
        if token.strip() and any(token in text for text in texts):
            marks = f"marks turns with {token!r}, which is an ordinary word to its tokenizer"
            raise TemplateError(f"{marks}: anybody could forge one")
    for name, token in _names(model).items():
        if token and any(token in text for text in texts) and model.tokenizer.token_to_id(token) is None:
            raise TemplateError(f"writes its {name} {token!r}, which its tokenizer does not have")
    beyond = [part for part in parts if isinstance(part, int) and part >= model.config.vocab_size]
    if beyond:
        raise TemplateError(f"writes token id {beyond[0]}, but the model's vocab_size is {model.config.vocab_size}")


def _check_ids(model, template, pieces):
    """Refuse pieces whose ids differ from those the tokenizer normally gives for the whole conversation."""
    after = [*template.end, *template.turn]  # its leading text joins the answer
    marker = next((i for i, part in enumerate(after) if isinstance(part, int)), len(after))
    for word in ("Yes", " yes \n"):
        words = dict.fromkeys(PLAIN, word)
        as_text, model.tokenizer.encode_special_tokens = model.tokenizer.encode_special_tokens, False
        try:
            begun, whole = (model.encode(written(some, words), bos=False).tolist() for some in (pieces[:1], pieces))
        finally:
            model.tokenizer.encode_special_tokens = as_text
        ours, turned = template.fill(template.first, **words), template.fill(after[marker:], **words)
        if begun != ours or whole[len(whole) - len(turned) :] != turned:
            raise TemplateError("is encoded differently as a whole than in pieces: its tokenizer looks past a marker")


def _names(model):
    """Return the special tokens that a model's template may name."""
    return config_names(model.config, model.tokenizer) if model.special_tokens is None else model.special_tokens


def _renderer(model, special):
    """Return `rendered` for `cut.cut`: of the model's own template, or of ChatML."""
    if model.chat_template is None:
        missing = "has no chat template, so it was not trained to chat; smollm2 was (minisink chat --model smollm2)"
    elif importlib.util.find_spec("jinja2") is None:
        missing = "its chat template needs jinja2: pip install 'minisink[chat]'"
    else:
        return partial(_rendered, {"template": model.chat_template, "names": _names(model)})
    if not special >= set(MARKS):
        raise TemplateError(f"{model.name}: {missing}")
    if model.chat_template is not None:
        missing = "jinja2 is not installed (pip install 'minisink[chat]'): plain ChatML instead of the model's own "
        warnings.warn(missing + "template, which may have its own system message", stacklevel=3)
    return lambda conversations, *_: (chatml(conversations), [])


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


def _rendered(about, conversations, probes, words):
    """Render with a model's own template, in a child process."""
    question = about | {"conversations": conversations, "probes": probes, "words": words}
    options: dict = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": SECONDS}
    try:
        child_run = subprocess.run([sys.executable, child.__file__], input=json.dumps(question), **options)
        answer = json.loads(child_run.stdout)
    except subprocess.TimeoutExpired:
        raise TemplateError(f"does not end; stopped after {SECONDS} seconds") from None
    except ValueError:
        answer = {"error": (child_run.stderr.strip().splitlines() or ["without a message"])[-1]}
    if "error" in answer:
        raise TemplateError(f"cannot be rendered ({answer['error']})")
    return answer["rendered"], answer["tried"]
