"""A wrong turn of a task. Its hints are in `hints.txt`, below its title or the name of the cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


def read_hints(text):
    """Return ``{task: {title: hints}}``: each part begins with [task]; its paragraphs are titles and three hints."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in text.split("\n[")[1:]:
        task, *paragraphs = part.strip().split("\n\n")
        for *titles, question, place, cure in map(str.splitlines, paragraphs):
            hints = [question.strip(), place.strip(), cure.strip()]
            found.setdefault(task.rstrip("]"), {}).update(dict.fromkeys(titles, hints))
    return found


HINTS = read_hints(Path(__file__).with_name("hints.txt").read_text(encoding="utf-8"))


class WrongTurn(NamedTuple):
    """One wrong solution of a task."""

    title: str
    hints: list[str]  # a question, a place to look, and the cure
    function: Callable[..., Any] | None = None  # None if no single case can show it


def turns(task, titled):
    """Return a list of wrong turns from ``{title: function}``; several functions may be wrong in the same way."""
    quiet = np.errstate(all="ignore")
    titled = {title: several if isinstance(several, tuple) else (several,) for title, several in titled.items()}
    return [WrongTurn(title, HINTS[task][title], quiet(each)) for title, several in titled.items() for each in several]
