"""What is known of a wrong turn of a task."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Any, NamedTuple

import numpy as np


class WrongTurn(NamedTuple):
    """One wrong solution of a task."""

    title: str
    hints: list[str]  # a question, a place to look, and the cure
    function: Callable[..., Any] | None = None  # None for what no single case shows


def turns(hinted):
    """Return a list of wrong turns from ``{hints: {title: function}}``.

    Hints are three lines. A title may stand for several functions, which are wrong in the same way.
    """
    wrong_turns, quiet = [], np.errstate(all="ignore")
    for hints, titled in hinted.items():
        for title, several in titled.items():
            for function in several if isinstance(several, tuple) else (several,):
                wrong_turns.append(WrongTurn(title, cleandoc(hints).splitlines(), quiet(function)))
    return wrong_turns
