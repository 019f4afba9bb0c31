"""Wrong turns of a streaming cache, one step at a time."""

import numpy as np

from .turn import Turn


def _rotate(x, position, theta, dtype=np.float64):
    half = len(x) // 2
    angle = position * float(theta) ** (-2.0 * np.arange(half) / len(x))
    cos, sin = np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)
    return np.concatenate((x[:half] * cos - x[half:] * sin, x[half:] * cos + x[:half] * sin)).astype(dtype)


def _neighbours(x, position, theta):
    order = [*range(0, len(x), 2), *range(1, len(x), 2)]
    out = np.empty_like(x)
    out[order] = _rotate(x[order], position, theta)
    return out


def _mix(query, keys, values, scale=True):
    scores = np.array(keys, np.float64) @ query / (np.sqrt(len(query)) if scale else 1.0)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ np.array(values, np.float64)


def _by_slot(q, held, theta):
    """The right end of a step, over (token_index, key, value)."""
    keys = [_rotate(key, slot, theta) for slot, (_, key, _) in enumerate(held)]
    return _mix(_rotate(q, len(held) - 1, theta), keys, [value for _, _, value in held])


def _next(state, k, v):
    held, t = state or ([], 0)
    return [*held, (t, k, v)], t + 1


def _trim(held, n_sinks, n_recent):
    n_recent = max(0, n_recent)
    return held if len(held) <= n_sinks + n_recent else held[:n_sinks] + held[len(held) - n_recent :]


def evicts_after_attending(state, q, k, v, n_sinks, window, theta):
    """The query sees one key too many."""
    held, t = _next(state, k, v)
    out = _by_slot(q, held, theta)
    return out, (_trim(held, n_sinks, window), t)


def evicts_too_early(state, q, k, v, n_sinks, window, theta):
    """A full cache lets one go before it attends: the query sees one key too few."""
    held, t = _next(state, k, v)
    if len(held) >= n_sinks + window and len(held) > n_sinks + 1:
        held = _trim(held, n_sinks, window - 1)
    return _by_slot(q, held, theta), (held, t)


def evicts_nothing(state, q, k, v, n_sinks, window, theta):
    """Dense attention."""
    held, t = _next(state, k, v)
    return _by_slot(q, held, theta), (held, t)


def attends_to_a_crop(state, q, k, v, n_sinks, window, theta):
    """What is attended to is cropped, what is stored is not."""
    held, t = _next(state, k, v)
    return _by_slot(q, _trim(held, n_sinks, window), theta), (held, t)


def minus_zero(state, q, k, v, n_sinks, window, theta):
    """Of the old ones the last window - 1: with a window of one, [-0:] is all of them."""
    held, t = _next(state, k, v)
    if len(held) > n_sinks + window:
        held = held[:n_sinks] + held[n_sinks:-1][-(window - 1) :] + held[-1:]
    return _by_slot(q, held, theta), (held, t)


def minus_zero_from_the_start(state, q, k, v, n_sinks, window, theta):
    """The same, where all of them includes the sinks a second time."""
    held, t = _next(state, k, v)
    if len(held) > n_sinks + window:
        held = held[:n_sinks] + held[:-1][-(window - 1) :] + held[-1:]
    return _by_slot(q, held, theta), (held, t)


def overlapping(state, q, k, v, n_sinks, window, theta):
    """Sinks and window put together without asking whether they overlap."""
    held, t = _next(state, k, v)
    held = held[:n_sinks] + held[-window:]
    return _by_slot(q, held, theta), (held, t)


def blind_to_itself(state, q, k, v, n_sinks, window, theta):
    """The query sees what was there before it, and not its own key."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [_rotate(key, slot, theta) for slot, (_, key, _) in enumerate(held[:-1])]
    out = _mix(_rotate(q, len(held) - 1, theta), keys, [value for _, _, value in held[:-1]]) if keys else 0.0 * v
    return out, (held, t)


def without_sinks(state, q, k, v, n_sinks, window, theta):
    """The last n_sinks + window: window attention."""
    held, t = _next(state, k, v)
    held = held[-(n_sinks + window) :]
    return _by_slot(q, held, theta), (held, t)


def window_alone(state, q, k, v, n_sinks, window, theta):
    """The last window."""
    held, t = _next(state, k, v)
    return _by_slot(q, held[-window:], theta), (held[-window:], t)


def a_slot_of_zeros(state, q, k, v, n_sinks, window, theta):
    """The cache starts with a slot of zeros, which is attended to."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [np.zeros_like(k), *(_rotate(key, slot, theta) for slot, (_, key, _) in enumerate(held))]
    values = [np.zeros_like(v), *(value for _, _, value in held)]
    return _mix(_rotate(q, len(held) - 1, theta), keys, values), (held, t)


def never_shifted(state, q, k, v, n_sinks, window, theta):
    """Keys are rotated to their slot once, when they come, and never again."""
    held, t = _next(state, k, v)
    place = min(t - 1, n_sinks + window - 1)
    held[-1] = (t - 1, _rotate(k, place, theta), v)
    held = _trim(held, n_sinks, window)
    return _mix(_rotate(q, place, theta), [key for _, key, _ in held], [value for _, _, value in held]), (held, t)


def never_shifted_from_the_capacity(state, q, k, v, n_sinks, window, theta):
    """The same, with the length that the cache had before the eviction."""
    held, t = _next(state, k, v)
    place = min(t - 1, n_sinks + window)
    held[-1] = (t - 1, _rotate(k, place, theta), v)
    held = _trim(held, n_sinks, window)
    return _mix(_rotate(q, place, theta), [key for _, key, _ in held], [value for _, _, value in held]), (held, t)


def keys_as_they_came(state, q, k, v, n_sinks, window, theta):
    """Keys keep the place in the text that they were rotated to, the query has a slot."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [_rotate(key, place, theta) for place, key, _ in held]
    return _mix(_rotate(q, len(held) - 1, theta), keys, [value for _, _, value in held]), (held, t)


def query_behind_the_cache(state, q, k, v, n_sinks, window, theta):
    """The query stands one place behind its own key."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [_rotate(key, slot, theta) for slot, (_, key, _) in enumerate(held)]
    return _mix(_rotate(q, len(held), theta), keys, [value for _, _, value in held]), (held, t)


def newest_not_shifted(state, q, k, v, n_sinks, window, theta):
    """The old keys stand at their slots, the new one and its query at their place in the text."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    places = [*range(len(held) - 1), t - 1]
    keys = [_rotate(key, place, theta) for place, (_, key, _) in zip(places, held, strict=True)]
    return _mix(_rotate(q, t - 1, theta), keys, [value for _, _, value in held]), (held, t)


def query_not_shifted(state, q, k, v, n_sinks, window, theta):
    """Keys stand at their slots, the query at its place in the text."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [_rotate(key, slot, theta) for slot, (_, key, _) in enumerate(held)]
    return _mix(_rotate(q, t - 1, theta), keys, [value for _, _, value in held]), (held, t)


def original_positions(state, q, k, v, n_sinks, window, theta):
    """Places in the text."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [_rotate(key, place, theta) for place, key, _ in held]
    return _mix(_rotate(q, t - 1, theta), keys, [value for _, _, value in held]), (held, t)


def rotated_again(state, q, k, v, n_sinks, window, theta):
    """Rotated keys are stored, and rotated again to their slot at every step."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    held = [(index, _rotate(key, slot, theta), value) for slot, (index, key, value) in enumerate(held)]
    return _mix(_rotate(q, len(held) - 1, theta), [key for _, key, _ in held], [value for _, _, value in held]), (
        held,
        t,
    )


def drifts(state, q, k, v, n_sinks, window, theta):
    """Stored keys are turned one place back at every eviction, in half precision."""
    held, t = _next(state, k, v)
    held[-1] = (t - 1, _rotate(k, len(held) - 1, theta, np.float16), v)
    if len(held) > n_sinks + window:
        del held[n_sinks]
        moved = [(index, _rotate(key, -1, theta, np.float16), value) for index, key, value in held[n_sinks:]]
        held[n_sinks:] = moved
    query = _rotate(q, len(held) - 1, theta)
    return _mix(query, [key for _, key, _ in held], [value for _, _, value in held]), (held, t)


def unequally(state, q, k, v, n_sinks, window, theta):
    """The keys are trimmed, the values are the first that ever came."""
    (keys, values), t = state or (([], []), 0)
    keys, values = _trim([*keys, k], n_sinks, window), [*values, v][: n_sinks + window]
    rotated = [_rotate(key, slot, theta) for slot, key in enumerate(keys)]
    return _mix(_rotate(q, len(keys) - 1, theta), rotated, values), ((keys, values), t + 1)


def values_too(state, q, k, v, n_sinks, window, theta):
    """The position goes into the values as well."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys, values = ([_rotate(one[i], slot, theta) for slot, one in enumerate(held)] for i in (1, 2))
    return _mix(_rotate(q, len(held) - 1, theta), keys, values), (held, t)


def neighbours_paired(state, q, k, v, n_sinks, window, theta):
    """Channels 2j and 2j + 1 are rotated."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [_neighbours(key, slot, theta) for slot, (_, key, _) in enumerate(held)]
    return _mix(_neighbours(q, len(held) - 1, theta), keys, [value for _, _, value in held]), (held, t)


def not_scaled(state, q, k, v, n_sinks, window, theta):
    """Without 1 / sqrt(D)."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    keys = [_rotate(key, slot, theta) for slot, (_, key, _) in enumerate(held)]
    return _mix(_rotate(q, len(held) - 1, theta), keys, [value for _, _, value in held], scale=False), (held, t)


def not_rotated(state, q, k, v, n_sinks, window, theta):
    """No positions at all."""
    held, t = _next(state, k, v)
    held = _trim(held, n_sinks, window)
    return _mix(q, [key for _, key, _ in held], [value for _, _, value in held]), (held, t)


COUNT = ("How many keys does this query see?", "n_sinks + window at most, the current token among them.",
         "Append, then evict, then attend; in that order.")  # fmt: skip
EARLY = ("How many keys does a query see once the cache is full?", "A cache that is just full evicts nobody.",
         "Evict only when n_sinks + window are exceeded, after the new token has been appended.")  # fmt: skip
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
SLOT0 = ("What do your weights add up to over the tokens that are there?", "A slot of zeros has a score too: zero.",
         "Start with an empty cache; every slot that is attended to must hold a token.")  # fmt: skip
SHIFT = ("Where does a key stand after an eviction?", "All that stay move up by one place.",
         "Store keys un-rotated, and rotate each to its slot at every step.")  # fmt: skip
NEW = ("Where does the newest token stand?", "It has a slot too: the last one.",
       "Query and new key stand at len(held) - 1, not at the number of tokens seen.")  # fmt: skip
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
SCALE = ("How do scores grow with the width?", "There is a square root in the formula.", "q . k / sqrt(D).")
ROTATE = ("Does the order of the tokens change your answer?", "Positions enter by rotation.",
          "Rotate the query to the last slot and every key to its own.")  # fmt: skip
TURNS = (
    Turn("evicts after attending: the query sees one key too many", 1, "the authors' code", COUNT,
         evicts_after_attending),
    Turn("evicts before attending: the query sees one key too few", 12, "ports", EARLY, evicts_too_early),
    Turn("nothing is evicted", 19, "a report that took unchanged perplexity for success", NOTHING, evicts_nothing),
    Turn("attention is cropped, memory is not", 18, "ports", MEMORY, attends_to_a_crop),
    Turn("[-0:] keeps everything", 5, "slices with a computed length", ZERO, minus_zero),
    Turn("[-0:] keeps everything", 5, "slices with a computed length", ZERO, minus_zero_from_the_start),
    Turn("sinks are kept twice while the cache is not full", None, "", TWICE, overlapping),
    Turn("the query does not see its own key", None, "", OWN, blind_to_itself),
    Turn("no sinks: the last n_sinks + window", None, "", SINKS, without_sinks),
    Turn("no sinks: the window alone", None, "", SINKS, window_alone),
    Turn("one more slot, of zeros", 2, "a decode loop that started a slot late", SLOT0, a_slot_of_zeros),
    Turn("every new key is rotated to the cache's length and never shifted", 11,
         "two replications, one a live visualiser", SHIFT, never_shifted),
    Turn("every new key is rotated to the cache's length and never shifted", 11,
         "two replications, one a live visualiser", SHIFT, never_shifted_from_the_capacity),
    Turn("keys stay rotated to their place in the text, the query has a slot", 3, "ports that cache rotated keys",
         SHIFT, keys_as_they_came),
    Turn("the query stands one place behind its own key", None, "", NEW, query_behind_the_cache),
    Turn("the newest is not shifted with the rest", 3, "ports that shift stored keys only", NEW, newest_not_shifted),
    Turn("the query is not shifted with the keys", 3, "ports that shift stored keys only", NEW, query_not_shifted),
    Turn("original positions instead of slots", 14, "ports that blame numerics beyond the trained length", TEXT,
         original_positions),
    Turn("rotated keys are rotated again", 16, "ports", AGAIN, rotated_again),
    Turn("stored keys are shifted again and again in half precision", 7, "5 % after 1000 shifts", HALF, drifts),
    Turn("keys and values are evicted unequally", 13, "a cache whose layer 0 was never trimmed", UNEQUAL, unequally),
    Turn("values are rotated too", 10, "learned positions, which are in the values, moved", VALUES, values_too),
    Turn("neighbouring channels are paired, 2j with 2j + 1", 8, "checkpoints read by the wrong rule", PAIRS,
         neighbours_paired),
    Turn("scores are not divided by sqrt(D)", None, "", SCALE, not_scaled),
    Turn("nothing is rotated", None, "", ROTATE, not_rotated),
)  # fmt: skip
