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
    """Which of these slots stay, and which leave?
    Look at the range that you return: it lies between the sinks and the window.
    Return the others: 0 .. n_sinks - 1 and n_slots - window .. n_slots - 1.""": {
        "the slots that leave, not those that stay": lambda n, n_sinks, window: list(range(n_sinks, n - window)),
    },
    """Which number has the first slot?
    Look at where you begin to count.
    Slots are numbered from 0 to n_slots - 1.""": {
        "slots are counted from one": lambda *sizes: [slot + 1 for slot in right(*sizes)],
    },
    """Is your answer a number, or a list of slots?
    Look at what you return.
    Return which slots stay, a list or a mask, not how many.""": {
        "how many stay, not which": lambda *sizes: len(right(*sizes)),
    },
    """Which of your slots holds the oldest token?
    Look at the order in which you put the slots together.
    Return them upwards: sinks first, the newest last; the order tells the positions later.""": {
        "the right slots, out of order": (lambda *sizes: right(*sizes)[::-1], window_first, as_in_a_ring),
    },
    """Are all of your slots filled?
    Look at the sinks, and at where the window begins, while the cache is not full.
    While n_sinks + window or fewer are held, all stay, each once: 0 .. n_slots - 1.""": {
        "slots that are not filled yet": (
            lambda n, n_sinks, window: sorted({*range(n_sinks), *range(max(0, n - window), n)}),
            lambda n, n_sinks, window: [*range(n_sinks), *range(n - window, n)],
        ),
    },
}
POSITIONS_OF = {
    """Where does the first token stand, however long the text?
    Look at which tokens you move down: are the sinks among them?
    Nothing before a sink leaves: slot 0 is position 0, and only what lies behind a token that left moves down.""": {
        "the sinks are shifted with the window": sinks_shifted_too,
    },
    """How many positions do three tokens have?
    Look at how many numbers you return.
    One for each token that is held, however large the cache: 0, 1, ..., len(token_index) - 1.""": {
        "a position for each slot there is room for, filled or not": lambda held, *sizes: list(range(sum(sizes))),
        "how many are held, not where each stands": lambda held, *sizes: len(held),
    },
    """Where does the first token of a text stand, before the cache is full?
    Look at the number that you begin with.
    At 0, and the next at 1: a cache is filled from its first slot on.""": {
        "a cache that fills up is numbered from its far end": (
            lambda held, *sizes: list(range(sum(sizes) - len(held), sum(sizes)))
        ),
    },
    """Can two tokens stand at one position?
    Look at what your answer takes of each token.
    position := slot: what is held is numbered 0, 1, 2, ... in order, the newest last.""": {
        "all stand where the newest does": lambda held, *sizes: [len(held) - 1] * len(held),
    },
    """At which position does the first token stand?
    Look at the number that you begin with.
    Begin at 0: 0, 1, ..., len(token_index) - 1.""": {
        "positions begin at one": lambda held, *sizes: list(range(1, len(held) + 1)),
    },
    """Which token has the largest position, the oldest or the newest?
    Look at the direction in which you count.
    Number upwards from the oldest, 0, 1, 2, ...; distances are differences of these.""": {
        "distances instead of positions": lambda held, *sizes: list(range(len(held)))[::-1],
    },
    """Which token comes right behind the sinks?
    Look at the remainder, %: it gives a place in memory.
    Number by age: behind the sinks the oldest of the window, and the newest last.""": {
        "the place in a ring, not the order": lambda held, *sizes: [int(t) % sum(sizes) for t in held],
    },
}
