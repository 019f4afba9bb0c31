"""A child process that renders conversations with a chat template, so that no template can harm or hold up the chat.

A template is a program out of a file that somebody else wrote. jinja2's sandbox keeps it from the attributes of Python
objects (``__class__``); nothing in it ends a loop without end, so the parent ends this process. JSON comes in on
standard input and goes out on standard output; `template` is the parent.
"""

import json
import os
import sys
from datetime import datetime

MEMORY = 1 << 30  # bytes that it may take, where the system can say so


def render(template, conversations, **names):
    """Render conversations as the makers of chat templates expect: jinja2's sandbox, with transformers' settings.

    A conversation is a list of ``{"role", "content"}``, and whether the words that begin an answer follow them; `names`
    are more that a template may use, ``bos_token`` and ``eos_token``.
    """
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    compiled = environment.from_string(template)
    return [compiled.render(messages=m, add_generation_prompt=begin, **names) for m, begin in conversations]


def main():
    """Answer one question: ``{"rendered": [...]}``, or ``{"error": "..."}``."""
    chat = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != chat]  # ours are no top-level names
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):  # Windows has no such limit
        pass
    question = json.load(sys.stdin)
    try:
        answer = {"rendered": render(question["template"], question["conversations"], **question["names"])}
    except Exception as error:  # whatever a template can raise
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
