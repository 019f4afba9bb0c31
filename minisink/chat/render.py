"""A child process that renders conversations with a chat template, so that no template can harm or hold up the chat.

A template is a program from a file that somebody else wrote. jinja2's sandbox keeps it from the attributes of Python
objects (``__class__``) but does not stop an endless loop, so the parent ends this process. JSON comes in on
standard input and goes out on standard output; `template` is the parent.
"""

import json
import os
import sys
from contextlib import suppress
from datetime import datetime
from itertools import islice

MEMORY = 1 << 30  # most bytes, if the system can limit them
WORD = "\ue002"  # placeholder in a conversation for the words that a template is tried with
LONGEST = 100_000  # longest such word


def environment():
    """Make the environment that chat templates expect: jinja2's sandbox, with transformers' settings."""
    from jinja2 import ext, nodes
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """``{% generation %} ... {% endgeneration %}`` marks what a model wrote, for training; here it is a block."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    tags = [Generation, ext.loopcontrols]
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=tags)
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = datetime.now().strftime  # the same time in all renderings
    return made


def render(template, conversations, **names):
    """Render conversations, each a list of ``{"role", "content"}`` and whether the beginning of an answer follows them.

    `names` are other names that a template may use: ``bos_token``, ``eos_token`` and the like.
    """
    compiled, names = environment().from_string(template), {"tools": None, "documents": None} | names
    return [compiled.render(messages=m, add_generation_prompt=begin, **names) for m, begin in conversations]


def words_of(template):
    """Return words that reveal whether a template tests its input, and the template's text in each, if any."""
    from jinja2 import nodes

    constants = {node.value for node in environment().parse(template).find_all(nodes.Const)}
    texts = {text for text in constants if isinstance(text, str)}
    letters = {letter for text in texts for letter in text if not letter.isalnum()}
    lengths = {n + more for n in constants if type(n) is int and 0 < n < LONGEST for more in (0, 1)}
    words: dict = {"x" * n: None for n in lengths}
    for text in sorted(texts | letters):
        words |= dict.fromkeys((text, f"{text}x{text}y{text}"), text if len(text) > 1 else None)
    return {word: text for word, text in words.items() if word.strip()}


def with_word(messages, word):
    """Return messages with a word in place of `WORD`."""
    return [{**m, "content": word if m["content"] == WORD else m["content"]} for m in messages]


def answer(question):
    """Render the conversations of a question, and its probes with its words and those of the template."""
    template, talks, probes = question["template"], question["conversations"], question.get("probes", [])
    words = {word: None for word in question["words"]} | words_of(template) if probes else {}
    tried = [(with_word(messages, word), begin) for word in words for messages, begin in probes]
    texts = iter(render(template, [*talks, *tried], **question["names"]))
    rendered = [*islice(texts, len(talks))]
    return {"rendered": rendered, "tried": [(*word, [*islice(texts, len(probes))]) for word in words.items()]}


def main():
    """Answer one question: as `answer` does, or ``{"error": "..."}``."""
    chat = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != chat]  # ours are not top-level names
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    question = json.load(sys.stdin)
    try:
        said = answer(question)
    except Exception as error:  # whatever a template can raise
        said = {"error": f"{type(error).__name__}: {error}"}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
