"""Wrong turns of a streaming cache, one step at a time."""

import numpy as np

from .turn import turns


def _rotate(x, position, theta, dtype=np.float64, power=-2.0):
    half = len(x) // 2
    angle = position * float(theta) ** (power * np.arange(half) / len(x))
    cos, sin = np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)
    return np.concatenate((x[:half] * cos - x[half:] * sin, x[half:] * cos + x[:half] * sin)).astype(dtype)


def _as_it_is(x, position, theta):
    return x


def _mix(query, keys, values, power=0.5):
    scores = np.array(keys, np.float64) @ query / len(query) ** power
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ np.array(values, np.float64)


def _out(q, held, theta, places=None, own=None, rotate=_rotate, rotate_query=None, power=0.5):
    """The right end of a step, over (token_index, key, value); keys stand at `places`, the query at its `own`."""
    places = range(len(held)) if places is None else places
    keys = [rotate(key, place, theta) for place, (_, key, _) in zip(places, held, strict=True)]
    query = (rotate_query or rotate)(q, len(held) - 1 if own is None else own, theta)
    return _mix(query, keys, [value for _, _, value in held], power)


def _next(state, k, v):
    held, t = state or ([], 0)
    return [*held, (t, k, v)], t + 1


def _trim(held, n_sinks, n_recent):
    n_recent = max(0, n_recent)
    return held if len(held) <= n_sinks + n_recent else held[:n_sinks] + held[len(held) - n_recent :]


def _rightly_held(state, k, v, n_sinks, window):
    held, t = _next(state, k, v)
    return _trim(held, n_sinks, window), t


# Who is held ----------------------------------------------------------------------------------------


def evicts_after_attending(state, q, k, v, n_sinks, window, theta):
    """The query sees one key too many."""
    held, t = _next(state, k, v)
    return _out(q, held, theta), (_trim(held, n_sinks, window), t)


def evicts_too_early(state, q, k, v, n_sinks, window, theta):
    """A full cache lets one go before it attends: the query sees one key too few."""
    held, t = _next(state, k, v)
    if len(held) >= n_sinks + window and len(held) > n_sinks + 1:
        held = _trim(held, n_sinks, window - 1)
    return _out(q, held, theta), (held, t)


def evicts_nothing(state, q, k, v, n_sinks, window, theta):
    """Dense attention."""
    held, t = _next(state, k, v)
    return _out(q, held, theta), (held, t)


def attends_to_a_crop(state, q, k, v, n_sinks, window, theta):
    """What is attended to is cropped, what is stored is not."""
    held, t = _next(state, k, v)
    return _out(q, _trim(held, n_sinks, window), theta), (held, t)


def minus_zero(state, q, k, v, n_sinks, window, theta):
    """Of the old ones the last window - 1: with a window of one, [-0:] is all of them."""
    held, t = _next(state, k, v)
    if len(held) > n_sinks + window:
        held = held[:n_sinks] + held[n_sinks:-1][-(window - 1) :] + held[-1:]
    return _out(q, held, theta), (held, t)


def minus_zero_from_the_start(state, q, k, v, n_sinks, window, theta):
    """The same, where all of them includes the sinks a second time."""
    held, t = _next(state, k, v)
    if len(held) > n_sinks + window:
        held = held[:n_sinks] + held[:-1][-(window - 1) :] + held[-1:]
    return _out(q, held, theta), (held, t)


def overlapping(state, q, k, v, n_sinks, window, theta):
    """Sinks and window put together without asking whether they overlap."""
    held, t = _next(state, k, v)
    held = held[:n_sinks] + held[-window:]
    return _out(q, held, theta), (held, t)


def blind_to_itself(state, q, k, v, n_sinks, window, theta):
    """The query sees what was there before it, and not its own key."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    out = _out(q, held[:-1], theta, own=len(held) - 1) if len(held) > 1 else 0.0 * v
    return out, (held, t)


def without_sinks(state, q, k, v, n_sinks, window, theta):
    """The last n_sinks + window: window attention."""
    held, t = _next(state, k, v)
    held = held[-(n_sinks + window) :]
    return _out(q, held, theta), (held, t)


def window_alone(state, q, k, v, n_sinks, window, theta):
    """The last window."""
    held, t = _next(state, k, v)
    return _out(q, held[-window:], theta), (held[-window:], t)


def sinks_within_the_window(state, q, k, v, n_sinks, window, theta):
    """The window is taken for the capacity."""
    held, t = _next(state, k, v)
    if len(held) > max(window, n_sinks + 1):
        del held[n_sinks]
    return _out(q, held, theta), (held, t)


def nothing_new_comes_in(state, q, k, v, n_sinks, window, theta):
    """A full cache lets the newest go."""
    held, t = _next(state, k, v)
    held = held[: n_sinks + window]
    return _out(q, held, theta), (held, t)


def begins_anew(state, q, k, v, n_sinks, window, theta):
    """What was held is not in the state that comes back, or not taken from it."""
    return _out(q, [(0, k, v)], theta), None


def unequally(state, q, k, v, n_sinks, window, theta):
    """The keys are trimmed, the values are the first that ever came."""
    (keys, values), t = state or (([], []), 0)
    keys, values = _trim([*keys, k], n_sinks, window), [*values, v][: n_sinks + window]
    return _out(q, [(0, key, value) for key, value in zip(keys, values, strict=True)], theta), ((keys, values), t + 1)


def values_without_sinks(state, q, k, v, n_sinks, window, theta):
    """Keys are evicted behind the sinks, values at the front."""
    (keys, values), t = state or (([], []), 0)
    keys, values = _trim([*keys, k], n_sinks, window), [*values, v][-(n_sinks + window) :]
    return _out(q, [(0, key, value) for key, value in zip(keys, values, strict=True)], theta), ((keys, values), t + 1)


def a_slot_of_zeros(state, q, k, v, n_sinks, window, theta):
    """Before the tokens there is a slot of zeros, which is attended to."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    zeros = (0, np.zeros_like(k), np.zeros_like(v))
    return _out(q, [zeros, *held], theta, places=range(-1, len(held)), own=len(held) - 1), (held, t)


def starts_with_zeros(state, q, k, v, n_sinks, window, theta):
    """The cache begins with a slot of zeros, which counts as a token."""
    held, t = _rightly_held(state or ([(0, 0.0 * k, 0.0 * v)], 1), k, v, n_sinks, window)
    return _out(q, held, theta), (held, t)


def slots_that_are_not_filled(state, q, k, v, n_sinks, window, theta):
    """All n_sinks + window slots are attended to from the first token on."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    room = [(0, 0.0 * k, 0.0 * v)] * (n_sinks + window - len(held))
    return _out(q, held + room, theta, own=len(held) - 1), (held, t)


# Where they stand -----------------------------------------------------------------------------------


def _never_shifted(state, q, k, v, n_sinks, window, theta, key_at, query_at):
    held, t = _next(state, k, v)
    held[-1] = (t - 1, _rotate(k, min(t - 1, key_at), theta), v)
    held = _trim(held, n_sinks, window)
    query = _rotate(q, min(t - 1, query_at), theta)
    return _mix(query, [key for _, key, _ in held], [value for _, _, value in held]), (held, t)


def never_shifted(state, q, k, v, n_sinks, window, theta):
    """Keys are rotated to their slot once, when they come, and never again."""
    last = n_sinks + window - 1
    return _never_shifted(state, q, k, v, n_sinks, window, theta, last, last)


def never_shifted_from_the_capacity(state, q, k, v, n_sinks, window, theta):
    """The same, with the length that the cache had before the eviction."""
    last = n_sinks + window
    return _never_shifted(state, q, k, v, n_sinks, window, theta, last, last)


def never_shifted_and_the_query_is(state, q, k, v, n_sinks, window, theta):
    """The same for keys; the query has the last slot."""
    last = n_sinks + window
    return _never_shifted(state, q, k, v, n_sinks, window, theta, last, last - 1)


def keys_as_they_came(state, q, k, v, n_sinks, window, theta):
    """Keys keep the place in the text that they were rotated to, the query has a slot."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    return _out(q, held, theta, places=[place for place, _, _ in held]), (held, t)


def query_too_far(state, q, k, v, n_sinks, window, theta):
    """The query stands one place after its own key."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    return _out(q, held, theta, own=len(held)), (held, t)


def query_too_near(state, q, k, v, n_sinks, window, theta):
    """The query stands one place before its own key."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    return _out(q, held, theta, own=len(held) - 2), (held, t)


def query_at_the_end(state, q, k, v, n_sinks, window, theta):
    """The query stands in the last slot of a full cache, however few are held."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    return _out(q, held, theta, own=n_sinks + window - 1), (held, t)


def newest_not_shifted(state, q, k, v, n_sinks, window, theta):
    """The old keys stand at their slots, the new one and its query at their place in the text."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    return _out(q, held, theta, places=[*range(len(held) - 1), t - 1], own=t - 1), (held, t)


def query_not_shifted(state, q, k, v, n_sinks, window, theta):
    """Keys stand at their slots, the query at its place in the text."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    return _out(q, held, theta, own=t - 1), (held, t)


def original_positions(state, q, k, v, n_sinks, window, theta):
    """Places in the text."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    return _out(q, held, theta, places=[place for place, _, _ in held], own=t - 1), (held, t)


def places_in_a_ring(state, q, k, v, n_sinks, window, theta):
    """A token stands where it lies in the ring, not where it comes in the order."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    places = [i if i < n_sinks else n_sinks + (i - n_sinks) % window for i, _, _ in held]
    return _out(q, held, theta, places), (held, t)


def window_from_zero(state, q, k, v, n_sinks, window, theta):
    """The window begins again at zero."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    places = [slot if slot < n_sinks else slot - n_sinks for slot in range(len(held))]
    return _out(q, held, theta, places, own=places[-1]), (held, t)


# How they are rotated -------------------------------------------------------------------------------


def rotated_again(state, q, k, v, n_sinks, window, theta):
    """Rotated keys are stored, and rotated again to their slot at every step."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    held = [(index, _rotate(key, slot, theta), value) for slot, (index, key, value) in enumerate(held)]
    return _out(q, held, theta, places=[0] * len(held)), (held, t)


def rotated_on_entry_too(state, q, k, v, n_sinks, window, theta):
    """A key is rotated when it comes, and the stored one again at every step."""
    place = len(state[0]) if state else 0
    held, t = _rightly_held(state, _rotate(k, place, theta), v, n_sinks, window)
    return _out(q, held, theta), (held, t)


def drifts(state, q, k, v, n_sinks, window, theta):
    """Stored keys are turned one place back at every eviction, in half precision."""
    held, t = _next(state, k, v)
    held[-1] = (t - 1, _rotate(k, len(held) - 1, theta, np.float16), v)
    if len(held) > n_sinks + window:
        del held[n_sinks]
        moved = [(index, _rotate(key, -1, theta, np.float16), value) for index, key, value in held[n_sinks:]]
        held[n_sinks:] = moved
    return _out(q, held, theta, places=[0] * len(held)), (held, t)


def values_too(state, q, k, v, n_sinks, window, theta):
    """The position goes into the values as well."""
    held, t = _rightly_held(state, k, v, n_sinks, window)
    rotated = [(index, key, _rotate(value, slot, theta)) for slot, (index, key, value) in enumerate(held)]
    return _out(q, rotated, theta), (held, t)


def _rotating_by(rotate, rotate_query=None, power=0.5):
    """A step that is right but for its rotation or its scale."""

    def step(state, q, k, v, n_sinks, window, theta):
        held, t = _rightly_held(state, k, v, n_sinks, window)
        return _out(q, held, theta, rotate=rotate, rotate_query=rotate_query, power=power), (held, t)

    return step


def _neighbours(x, position, theta):
    order = [*range(0, len(x), 2), *range(1, len(x), 2)]
    out = np.empty_like(x)
    out[order] = _rotate(x[order], position, theta)
    return out


neighbours_paired = _rotating_by(_neighbours)
turns_backwards = _rotating_by(lambda x, position, theta: _rotate(x, -position, theta))
slows_too_little = _rotating_by(lambda x, position, theta: _rotate(x, position, theta, power=-1.0))
slows_twice = _rotating_by(lambda x, position, theta: _rotate(x, position, theta, power=-4.0))
theta_of_its_own = _rotating_by(lambda x, position, theta: _rotate(x, position, 10000.0))
not_rotated = _rotating_by(_as_it_is)
keys_not_rotated = _rotating_by(_as_it_is, _rotate)
query_not_rotated = _rotating_by(_rotate, _as_it_is)
not_scaled = _rotating_by(_rotate, power=0.0)
scaled_by_width = _rotating_by(_rotate, power=1.0)


COUNT = ("How many keys does this query see?", "n_sinks + window at most, the current token among them.",
         "Append, then evict, then attend; in that order.")  # fmt: skip
EARLY = ("How many keys does a query see once the cache is full?", "A cache that is just full evicts nobody.",
         "Evict only when more than n_sinks + window are held, after the new token has been appended.")  # fmt: skip
NOTHING = ("Who has left?", "A loss that eviction does not change was measured without one.",
           "When more than n_sinks + window are held, the oldest that is no sink leaves.")  # fmt: skip
MEMORY = ("How large is your state after a thousand tokens?", "What is not attended to any more is still there.",
          "Put what survives into the state you return, not what you started from.")  # fmt: skip
ZERO = ("What is held[-0:]?", "Try a window of one.", "[-0:] is [0:], everything; slice from len - n instead.")
TWICE = ("What is held after one token, with one sink and a window of two?", "Sinks and window overlap at first.",
         "While n_sinks + window or fewer are held, all stay, each once.")  # fmt: skip
OWN = ("Which keys does the first token see?", "The current token counts: it sees itself.",
       "Append the new key and value first, then attend to all that is held.")  # fmt: skip
SINKS = ("Where is the first token?", "The first n_sinks stay for good, beside the window.",
         "Evict at index n_sinks, not at index 0.")  # fmt: skip
NEWEST = ("Who leaves a full cache?", "Neither a sink nor the newcomer.", "Evict at index n_sinks, not at the end.")
STATE = ("What does your function know at the second token?", "Only what is in the state that you returned.",
         "Begin with what `state` holds (nothing, if it is None), append, and return all that is held.")  # fmt: skip
SLOT0 = ("What do your weights add up to over the tokens that are there?",
         "A slot of zeros has a score too, zero, and takes weight; softmax1 for softmax does the same.",
         "Start with an empty cache, and attend to slots that hold a token, no others.")  # fmt: skip
SHIFT = ("Where does a key stand after an eviction?", "All behind the one that left move one slot down.",
         "Store keys un-rotated, and rotate each to its slot at every step.")  # fmt: skip
NEW = ("Where does the newest token stand?", "It has a slot too: the last that is filled.",
       "Query and newest key stand at len(held) - 1, once the new key is in and the old one out.")  # fmt: skip
TEXT = ("What happens at token 100,000?", "position := slot.", "Number what is held 0, 1, 2, ... at every step.")
AGAIN = ("How often has the oldest key been rotated?", "A rotation of a rotation is a larger rotation.",
         "Store the key as it came, un-rotated, and rotate a copy.")  # fmt: skip
HALF = ("What happens to a rounding error that is made again at every step?", "Half precision has three digits.",
        "Rotate the stored, un-rotated key afresh instead of shifting the last result.")  # fmt: skip
UNEQUAL = ("Does the value in slot 3 belong to the key in slot 3?", "Both lose the same token, in every layer.",
           "Keep pairs (key, value), or cut both lists at the same places.")  # fmt: skip
VALUES = ("What does a position change: where one looks, or what one finds?", "Only scores depend on positions.",
          "Rotate queries and keys, not values; with a position in them, as in GPT-2, none can be moved.")  # fmt: skip
PAIRS = ("Which two channels are a pair?", "Hugging Face and Meta disagree; here it is Hugging Face's.",
         "Channel j goes with channel j + D/2.")  # fmt: skip
SIGN = ("Where does (1, 0) go after a quarter turn?", "It must go to (0, 1).", "a cos - b sin, and b cos + a sin.")
RATE = ("How fast does the last pair turn?", "Pair 0 turns one radian a position, the others ever slower.",
        "Pair j of D/2 turns by slot * theta ** (-2 j / D), with the theta that is given.")  # fmt: skip
SCALE = ("How do scores grow with the width?", "There is a square root in the formula.", "q . k / sqrt(D).")
ROTATE = ("Does the order of the tokens change your answer as it should?", "Positions enter by rotation.",
          "Rotate the query to the last slot and every key to its own.")  # fmt: skip
TURNS = turns(
    ("the query sees one key too many: evicted after attending, or before the new one was in", 1, "the authors' code",
     COUNT, evicts_after_attending),
    ("evicts before attending: the query sees one key too few", 12, "ports", EARLY, evicts_too_early),
    ("nothing is evicted", 19, "a report that took unchanged perplexity for success", NOTHING, evicts_nothing),
    ("attention is cropped, memory is not", 18, "ports", MEMORY, attends_to_a_crop),
    ("[-0:] keeps everything", 5, "slices with a computed length", ZERO, minus_zero, minus_zero_from_the_start),
    ("sinks are kept twice while the cache is not full", None, "", TWICE, overlapping),
    ("the query does not see its own key", None, "", OWN, blind_to_itself),
    ("no sinks: the last n_sinks + window", None, "", SINKS, without_sinks),
    ("no sinks: the window alone", None, "", SINKS, window_alone),
    ("the sinks are counted within the window", None, "", EARLY, sinks_within_the_window),
    ("the newest leaves: nothing new comes in", None, "", NEWEST, nothing_new_comes_in),
    ("every step begins anew: only the newest token is held", None, "", STATE, begins_anew),
    ("keys and values are evicted unequally", 13, "a cache whose layer 0 was never trimmed", UNEQUAL, unequally,
     values_without_sinks),
    ("one more slot, of zeros", 2, "a decode loop that started a slot late", SLOT0, a_slot_of_zeros, starts_with_zeros),
    ("slots of zeros, not yet filled, are attended to", 2, "buffers of a fixed size", SLOT0, slots_that_are_not_filled),
    ("every new key is rotated to the cache's length and never shifted", 11, "two replications, one a live visualiser",
     SHIFT, never_shifted, never_shifted_from_the_capacity, never_shifted_and_the_query_is),
    ("keys stay rotated to their place in the text, the query has a slot", 3, "ports that cache rotated keys", SHIFT,
     keys_as_they_came),
    ("the query's position is one more than its own key's", None, "", NEW, query_too_far),
    ("the query's position is one less than its own key's", None, "", NEW, query_too_near),
    ("the query stands in the last slot of a full cache before it is full", None, "", NEW, query_at_the_end),
    ("the newest key and query stand at their place in the text, not at their slot", 3,
     "ports that shift stored keys only", NEW, newest_not_shifted),
    ("the query stands at its place in the text, the keys at their slots", 3, "ports that shift stored keys only", NEW,
     query_not_shifted),
    ("original positions instead of slots", 14, "ports that blame numerics beyond the trained length", TEXT,
     original_positions),
    ("the place in a ring, not the order", None, "", SHIFT, places_in_a_ring),
    ("the window is numbered from zero again", None, "", TEXT, window_from_zero),
    ("rotated keys are rotated again", 16, "ports", AGAIN, rotated_again, rotated_on_entry_too),
    ("stored keys are shifted again and again in half precision", 7, "15 % after 1,000 shifts, lesson 3", HALF, drifts),
    ("values are rotated too", 10, "learned positions, which are in the values, moved", VALUES, values_too),
    ("neighbouring channels are paired, 2j with 2j + 1", 8, "checkpoints read by the wrong rule", PAIRS,
     neighbours_paired),
    ("it rotates backwards", None, "", SIGN, turns_backwards),
    ("the frequencies lack the 2", None, "", RATE, slows_too_little),
    ("the frequencies fall twice as fast", None, "", RATE, slows_twice),
    ("theta is 10000, whatever is given", None, "", RATE, theta_of_its_own),
    ("scores are not divided by sqrt(D)", None, "", SCALE, not_scaled),
    ("scores are divided by D, not by its root", None, "", SCALE, scaled_by_width),
    ("nothing is rotated", None, "", ROTATE, not_rotated),
    ("the query is rotated, the keys are not", None, "", ROTATE, keys_not_rotated),
    ("the keys are rotated, the query is not", None, "", ROTATE, query_not_rotated),
)  # fmt: skip
