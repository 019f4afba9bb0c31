"""Wrong turns of positions: where the tokens that stay stand."""

from .turn import turns


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
    """The place in a ring, not the order."""
    return [int(t) % (n_sinks + window) for t in token_index]


def behind_the_sinks_modulo(token_index, n_sinks, window):
    """The same in a ring that lies behind the sinks."""
    return [int(t) if t < n_sinks else n_sinks + (int(t) - n_sinks) % window for t in token_index]


def shifted_one_too_little(token_index, n_sinks, window):
    """The token that came last is not counted among those seen."""
    return [int(t) - (t >= n_sinks) * max(0, int(token_index[-1]) - n_sinks - window) for t in token_index]


def all_behind_the_end(token_index, n_sinks, window):
    """The same, with the length that the cache had before the eviction."""
    return [min(int(t), n_sinks + window) for t in token_index]


def sinks_shifted_too(token_index, n_sinks, window):
    """So many have left, and all that stay move down as far."""
    return [int(t) - max(0, int(token_index[-1]) + 1 - n_sinks - window) for t in token_index]


def all_that_it_can_hold(token_index, n_sinks, window):
    """A position for every slot, filled or not."""
    return list(range(n_sinks + window))


def at_the_far_end(token_index, n_sinks, window):
    """A cache that is filling up is numbered from its far end."""
    n = len(token_index)
    return list(range(n_sinks + window - n, n_sinks + window))


def how_many(token_index, n_sinks, window):
    """Their number."""
    return len(token_index)


def all_newest(token_index, n_sinks, window):
    """The last slot, for all."""
    return [len(token_index) - 1] * len(token_index)


SLOT = ("What is the position of a token once one before it has left?", "position := slot.",
        "What is held is numbered 0, 1, 2, ... without gaps, whatever its place in the text.")  # fmt: skip
SHIFT = ("Where does the second newest token stand, one step later?",
         "All behind the one that left move one slot down.",
         "Number all of them anew at every step: 0, 1, 2, ...")  # fmt: skip
SINKS = ("Where does the first token stand, however long the text?", "Nobody before a sink leaves.",
         "Slot 0 is position 0; only what lies behind a token that left moves down.")  # fmt: skip
HELD = ("How many positions do three tokens have?", "One a token that is held, however large the cache.",
        "0, 1, ..., len(token_index) - 1.")  # fmt: skip
TURNS = turns(
    ("original positions instead of slots", 14, "ports that blame numerics beyond the trained length", SLOT,
     places_in_the_text),
    ("every recent token stands at one place, the cache's length", 11, "two replications, one a live visualiser", SHIFT,
     all_at_the_end, all_behind_the_end),
    ("the newest is not shifted with the rest", 3, "ports that shift stored keys only", SHIFT, newest_not_shifted),
    ("the sinks are shifted with the window", None, "", SINKS, sinks_shifted_too),
    ("a position for each slot there is room for, filled or not", None, "", HELD, all_that_it_can_hold),
    ("a cache that fills up is numbered from its far end", None, "", HELD, at_the_far_end),
    ("how many are held, not where each stands", None, "", HELD, how_many),
    ("all stand where the newest does", None, "", SLOT, all_newest),
    ("positions begin at one", None, "", SLOT, from_one),
    ("distances instead of positions", None, "", SLOT, backwards),
    ("the window is numbered from zero again", None, "", SLOT, window_from_zero),
    ("the place in a ring, not the order", None, "", SLOT, modulo, behind_the_sinks_modulo),
    ("the window is shifted one place too little", None, "", SHIFT, shifted_one_too_little),
)  # fmt: skip
