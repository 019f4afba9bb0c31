"""What is known of a wrong turn."""

from collections.abc import Callable
from typing import NamedTuple


class Turn(NamedTuple):
    """One wrong solution."""

    name: str
    number: int | None  # in the list of docs/check.md
    seen: str  # where
    hints: tuple[str, str, str]  # a question, a place to look, and nearly the answer
    function: Callable | None = None  # none for what no single case shows

    @property
    def title(self):
        """Its name, and its number if it has one."""
        return self.name if self.number is None else f"{self.name} (wrong turn {self.number})"


def turns(*rows):
    """A `Turn` for each function of each row: (name, number, seen, hints, function, ...)."""
    return tuple(
        Turn(name, number, seen, hints, function)
        for name, number, seen, hints, *functions in rows
        for function in functions
    )
