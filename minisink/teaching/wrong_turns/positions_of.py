"""Wrong turns of positions: where the tokens that stay stand."""

from .turn import Turn


def places_in_the_text(token_index, n_sinks, window):
    """Original positions: with a gap, and soon beyond what was trained."""
    return [int(t) for t in token_index]


def all_at_the_end(token_index, n_sinks, window):
    """Every token got position = cache length when it came, and kept it."""
    return [min(int(t), n_sinks + window - 1) for t in token_index]


def newest_not_shifted(token_index, n_sinks, window):
    """All are numbered by slot but for the newest, which keeps its place in the text."""
    return [*range(len(token_index) - 1), int(token_index[-1])]


def from_one(token_index, n_sinks, window):
    """Counted from one."""
    return [slot + 1 for slot in range(len(token_index))]


def backwards(token_index, n_sinks, window):
    """How far back each token is."""
    return list(range(len(token_index)))[::-1]


def window_from_zero(token_index, n_sinks, window):
    """The window begins again at zero."""
    return [slot if slot < n_sinks else slot - n_sinks for slot in range(len(token_index))]


def modulo(token_index, n_sinks, window):
    """The place in the ring, not the order."""
    return [int(t) % (n_sinks + window) for t in token_index]


SLOT = ("Where does the encoding hear of an eviction?", "position := slot.",
        "What is held is numbered 0, 1, 2, ... without gaps, whatever its place in the text.")  # fmt: skip
SHIFT = ("Where does the second newest token stand, one step later?", "All that stay move up when one leaves.",
         "Number all of them anew at every step: 0, 1, 2, ...")  # fmt: skip
TURNS = (
    Turn("original positions instead of slots", 14, "ports that blame numerics beyond the trained length", SLOT,
         places_in_the_text),
    Turn("every recent token stands at one place, the cache's length", 11, "two replications, one a live visualiser",
         SHIFT, all_at_the_end),
    Turn("the newest is not shifted with the rest", 3, "ports that shift stored keys only", SHIFT, newest_not_shifted),
    Turn("positions begin at one", None, "", SLOT, from_one),
    Turn("distances instead of positions", None, "", SLOT, backwards),
    Turn("the window is numbered from zero again", None, "", SLOT, window_from_zero),
    Turn("the place in a ring, not the order", None, "", SLOT, modulo),
)  # fmt: skip
