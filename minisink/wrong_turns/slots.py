"""Wrong turns of `survivors` and `positions_of` that no cache can take: what is returned is another thing."""

from .right import first_and_last as right


def window_first(n_slots, n_sinks, window):
    """Return the window, and then the sinks."""
    slots = right(n_slots, n_sinks, window)
    return slots[n_sinks:] + slots[:n_sinks]


def as_in_a_ring(n_slots, n_sinks, window):
    """Return the newest where the one that left was."""
    ring = {slot if slot < n_sinks else n_sinks + (slot - n_sinks) % window: slot for slot in range(n_slots)}
    return [ring[place] for place in sorted(ring)]


def sinks_shifted_too(token_index, n_sinks, window):
    """Move all that stay down as far as the window."""
    return [int(t) - max(0, int(token_index[-1]) + 1 - n_sinks - window) for t in token_index]


SURVIVORS = {
    """Where is the newest token?
    It always stays: the window is the last slots, not the first.
    [0 .. n_sinks - 1] and [n_slots - window .. n_slots - 1].""": {
        "the slots that leave, not those that stay": lambda n, n_sinks, window: list(range(n_sinks, n - window)),
    },
    """What is the first slot called?
    Slots are numbered from 0 to n_slots - 1.
    Return the numbers of the slots that stay, a list or a mask.""": {
        "slots are counted from one": lambda *sizes: [slot + 1 for slot in right(*sizes)],
        "how many stay, not which": lambda *sizes: len(right(*sizes)),
    },
    """Which of your slots holds the oldest token?
    A place in order tells a position later.
    Return the slots upwards: sinks first, the newest last.""": {
        "the right slots, out of order": (lambda *sizes: right(*sizes)[::-1], window_first, as_in_a_ring),
    },
    """What is kept of two slots, with one sink and a window of two?
    Sinks and window overlap at first.
    While n_sinks + window or fewer are held, all stay, each once.""": {
        "slots that are not filled yet": (
            lambda n, n_sinks, window: sorted({*range(n_sinks), *range(max(0, n - window), n)}),
            lambda n, n_sinks, window: [*range(n_sinks), *range(n - window, n)],
        ),
    },
}
POSITIONS_OF = {
    """Where does the first token stand, however long the text?
    Nothing before a sink leaves.
    Slot 0 is position 0; only what lies behind a token that left moves down.""": {
        "the sinks are shifted with the window": sinks_shifted_too,
    },
    """How many positions do three tokens have?
    One for each token that is held, however large the cache.
    0, 1, ..., len(token_index) - 1.""": {
        "a position for each slot there is room for, filled or not": lambda held, *sizes: list(range(sum(sizes))),
        "a cache that fills up is numbered from its far end": (
            lambda held, *sizes: list(range(sum(sizes) - len(held), sum(sizes)))
        ),
        "how many are held, not where each stands": lambda held, *sizes: len(held),
    },
    """What is the position of a token once one before it has left?
    position := slot.
    What is held is numbered 0, 1, 2, ... without gaps, whatever its place in the text.""": {
        "all stand where the newest does": lambda held, *sizes: [len(held) - 1] * len(held),
        "positions begin at one": lambda held, *sizes: list(range(1, len(held) + 1)),
        "distances instead of positions": lambda held, *sizes: list(range(len(held)))[::-1],
        "the place in a ring, not the order": lambda held, *sizes: [int(t) % sum(sizes) for t in held],
    },
}
