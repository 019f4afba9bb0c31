"""Wrong turns of eviction: which slots stay."""

from .turn import turns


def one_too_many(n_slots, n_sinks, window):
    """The window is counted without the query: one more stays."""
    return [slot for slot in range(n_slots) if slot < n_sinks or slot >= n_slots - window - 1]


def one_too_few(n_slots, n_sinks, window):
    """The newest is counted twice: one less stays."""
    slots = list(range(n_slots))
    if n_slots <= n_sinks + window:
        return slots
    return slots[:n_sinks] + slots[n_slots - (window - 1) :]


def minus_zero(n_slots, n_sinks, window):
    """The newest apart, and of the rest the last window - 1: with a window of one, [-0:] is all of them."""
    slots = list(range(n_slots))
    if n_slots <= n_sinks + window:
        return slots
    old, newest = slots[n_sinks:-1], slots[-1:]
    return slots[:n_sinks] + old[-(window - 1) :] + newest


def minus_zero_from_the_start(n_slots, n_sinks, window):
    """The same, where all of them includes the sinks a second time."""
    slots = list(range(n_slots))
    if n_slots <= n_sinks + window:
        return slots
    return slots[:n_sinks] + slots[:-1][-(window - 1) :] + slots[-1:]


def overlapping(n_slots, n_sinks, window):
    """Sinks and window put together without asking whether they overlap."""
    slots = list(range(n_slots))
    return slots[:n_sinks] + slots[-window:]


def who_leaves(n_slots, n_sinks, window):
    """The slots that are evicted."""
    return list(range(n_sinks, n_slots - window))


def one_at_a_time(n_slots, n_sinks, window):
    """One token leaves, however many came: a chunk overshoots the window."""
    slots = list(range(n_slots))
    if n_slots > n_sinks + window:
        del slots[n_sinks]
    return slots


def everything(n_slots, n_sinks, window):
    """Nothing is ever evicted."""
    return list(range(n_slots))


def window_alone(n_slots, n_sinks, window):
    """The last n_sinks + window, and no sinks."""
    return list(range(max(0, n_slots - n_sinks - window), n_slots))


def window_with_sinks_in_it(n_slots, n_sinks, window):
    """The window is taken for the capacity: the sinks are counted within."""
    slots = list(range(n_slots))
    recent = max(0, window - n_sinks)
    return slots if n_slots <= window else slots[:n_sinks] + slots[n_slots - recent :]


def forgets_the_sinks(n_slots, n_sinks, window):
    """The window alone."""
    return list(range(max(0, n_slots - window), n_slots))


def the_first_ones(n_slots, n_sinks, window):
    """The cache is full, and nothing new comes in."""
    return list(range(min(n_slots, n_sinks + window)))


def one_sink_too_many(n_slots, n_sinks, window):
    """slot <= n_sinks."""
    return [slot for slot in range(n_slots) if slot <= n_sinks or slot >= n_slots - window]


def counts_from_one(n_slots, n_sinks, window):
    """The first slot is called 1."""
    return [slot + 1 for slot in _right(n_slots, n_sinks, window)]


def how_many(n_slots, n_sinks, window):
    """Their number."""
    return min(n_slots, n_sinks + window)


def newest_first(n_slots, n_sinks, window):
    """Backwards."""
    return _right(n_slots, n_sinks, window)[::-1]


def window_first(n_slots, n_sinks, window):
    """The window, and then the sinks."""
    slots = _right(n_slots, n_sinks, window)
    return slots[n_sinks:] + slots[:n_sinks]


def as_in_a_ring(n_slots, n_sinks, window):
    """The newest lies where the one that left was."""
    ring = {slot if slot < n_sinks else n_sinks + (slot - n_sinks) % window: slot for slot in range(n_slots)}
    return [ring[place] for place in sorted(ring)]


def sinks_that_are_not_there(n_slots, n_sinks, window):
    """n_sinks sinks, however few slots are filled."""
    return sorted({*range(n_sinks), *range(max(0, n_slots - window), n_slots)})


def below_the_first(n_slots, n_sinks, window):
    """window slots, and n_sinks, however few are filled."""
    return list(range(n_sinks)) + list(range(n_slots - window, n_slots))


def _right(n_slots, n_sinks, window):
    return [slot for slot in range(n_slots) if slot < n_sinks or slot >= n_slots - window]


COUNT = ("How many keys may a query see?", "The current token counts.",
         "n_sinks + window keys at most, and the newest is one of the window.")  # fmt: skip
ZERO = ("What is slots[-0:]?", "Try a window of one.", "[-0:] is [0:], everything; slice from len - n instead.")
TWICE = ("What is kept of two slots, with one sink and a window of two?", "Sinks and window overlap at first.",
         "While n_sinks + window or fewer are held, all stay, each once.")  # fmt: skip
MANY = ("How many must leave?", "A chunk may bring more than one token at once.",
        "As many leave as are too many, not one.")  # fmt: skip
NOTHING = ("Who has left?", "With more than n_sinks + window slots somebody must.",
           "Without an eviction nothing was measured: the first n_sinks and the last window stay.")  # fmt: skip
SINKS = ("Where are the sinks?", "The first n_sinks slots stay for good, beside the window.",
         "[0 .. n_sinks - 1] and [n_slots - window .. n_slots - 1].")  # fmt: skip
NEWEST = ("Where is the newest token?", "It always stays: the window is the last slots, not the first.",
          "[0 .. n_sinks - 1] and [n_slots - window .. n_slots - 1].")  # fmt: skip
SLOTS = ("What is the first slot called?", "Slots are numbered from 0 to n_slots - 1.",
         "Return the numbers of the slots that stay, a list or a mask.")  # fmt: skip
ORDER = ("Which of your slots holds the oldest token?", "A place in order tells a position later.",
         "Return the slots upwards: sinks first, the newest last.")  # fmt: skip
TURNS = turns(
    ("one too many stays: the newest is not counted in the window", 17, "does 128 include the query?", COUNT,
     one_too_many),
    ("one too few stay in the window", 12, "caches that evict before the newcomer is in", COUNT, one_too_few),
    ("[-0:] keeps everything", 5, "slices with a computed length", ZERO, minus_zero, minus_zero_from_the_start),
    ("sinks are kept twice while the cache is not full", None, "", TWICE, overlapping),
    ("the slots that leave, not those that stay", None, "", NEWEST, who_leaves),
    ("a chunk overshoots the window: only one token is evicted", 15, "prompts longer than the window", MANY,
     one_at_a_time),
    ("nothing is evicted", 19, "a report that took unchanged perplexity for success", NOTHING, everything),
    ("no sinks: the last n_sinks + window", None, "", SINKS, window_alone),
    ("no sinks: the window alone", None, "", SINKS, forgets_the_sinks),
    ("the sinks are counted within the window", None, "", COUNT, window_with_sinks_in_it),
    ("the oldest stay and nothing new comes in", None, "", NEWEST, the_first_ones),
    ("one sink too many: slot <= n_sinks", None, "", SINKS, one_sink_too_many),
    ("slots are counted from one", None, "", SLOTS, counts_from_one),
    ("how many stay, not which", None, "", SLOTS, how_many),
    ("the right slots, out of order", None, "", ORDER, newest_first, window_first, as_in_a_ring),
    ("slots that are not filled yet", None, "", TWICE, sinks_that_are_not_there, below_the_first),
)  # fmt: skip
