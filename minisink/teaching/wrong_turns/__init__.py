"""The known wrong turns as small wrong solutions, a file a task: whoever gives the same answer has taken the same turn.

Numbers are those of the list in docs/check.md: what was seen in public code and reports. Turns without a number are
those that this task itself invites.
"""

from . import attend, positions_of, retrieve, rotate, softmax, softmax1, step, survivors, token_nll
from .turn import Turn

TURNS = {
    module.__name__.rpartition(".")[2]: module.TURNS
    for module in (softmax, softmax1, attend, rotate, survivors, positions_of, step, token_nll, retrieve)
}

LEFT_OVER = Turn(
    "something is left from an earlier call: alone, the same case comes out otherwise", None, "",
    ("Where does your function keep what it knows?",
     "A global, or a default argument that is a list, lives on when the next text begins; random numbers do too.",
     "Keep everything in the function's own variables, and for the next step in the state: None begins a new text."),
)  # fmt: skip
