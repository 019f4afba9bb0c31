"""Wrong turns of `survivors` and `positions_of` that no cache can take, because they return something else."""

from .right import first_and_last as right


def window_first(n_slots, n_sinks, window):
    slots = right(n_slots, n_sinks, window)
    return slots[n_sinks:] + slots[:n_sinks]


def as_in_a_ring(n_slots, n_sinks, window):
    """Return the slots with the newest in the place of the evicted one."""
    ring = {slot if slot < n_sinks else n_sinks + (slot - n_sinks) % window: slot for slot in range(n_slots)}
    return [ring[place] for place in sorted(ring)]


def sinks_shifted_too(token_index, n_sinks, window):
    return [int(t) - max(0, int(token_index[-1]) + 1 - n_sinks - window) for t in token_index]


SURVIVORS = {
    "the slots that leave, not those that stay": lambda n, n_sinks, window: list(range(n_sinks, n - window)),
    "slots are counted from one": lambda *sizes: [slot + 1 for slot in right(*sizes)],
    "how many stay, not which": lambda *sizes: len(right(*sizes)),
    "the right slots, out of order": (lambda *sizes: right(*sizes)[::-1], window_first, as_in_a_ring),
    "slots that are not filled yet": (
        lambda n, n_sinks, window: sorted({*range(n_sinks), *range(max(0, n - window), n)}),
        lambda n, n_sinks, window: [*range(n_sinks), *range(n - window, n)],
    ),
}
POSITIONS_OF = {
    "the sinks are shifted with the window": sinks_shifted_too,
    "a position for every slot, filled or not": lambda held, *sizes: list(range(sum(sizes))),
    "how many tokens are held, not the position of each": lambda held, *sizes: len(held),
    "a cache that fills up is numbered from its far end": (
        lambda held, *sizes: list(range(sum(sizes) - len(held), sum(sizes)))
    ),
    "all tokens have the position of the newest": lambda held, *sizes: [len(held) - 1] * len(held),
    "positions begin at one": lambda held, *sizes: list(range(1, len(held) + 1)),
    "distances instead of positions": lambda held, *sizes: list(range(len(held)))[::-1],
    "the place in a ring, not the order": lambda held, *sizes: [int(t) % sum(sizes) for t in held],
}
