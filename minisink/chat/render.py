"""The renderer of a chat template: jinja2's sandbox, with the names and settings that transformers gives a template.

A template is a program from a file that somebody else wrote. The sandbox keeps it from files and from the attributes
of Python objects (``__class__``); Ctrl-C ends an endless loop.
"""

import json


def renderer(template, names, now):
    """Return ``render(messages, begin) -> str`` for a template.

    `messages` are dicts with "role" and "content"; with `begin`, the beginning of an answer follows. `names` maps
    ``bos_token`` and the like to special tokens. A template that asks for the time always gets `now`, a datetime.
    """
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
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

    extensions = [Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": now.strftime}
    compiled = environment.from_string(template)
    names = {"tools": None, "documents": None} | names
    return lambda messages, begin: compiled.render(messages=messages, add_generation_prompt=begin, **names)


def chatml(messages, begin):
    r"""Render a conversation as a `renderer` does, in ChatML.

    >>> chatml([{"role": "user", "content": "Hi"}], True)
    '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n'
    """
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return said + "<|im_start|>assistant\n" * begin
