"""Wrong turns of bringing back what was evicted."""

import numpy as np

from .turn import turns


def _rotate(x, position, theta):
    half = len(x) // 2
    angle = position * float(theta) ** (-2.0 * np.arange(half) / len(x))
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate((x[:half] * cos - x[half:] * sin, x[half:] * cos + x[:half] * sin))


def _best(scores, block, k, worth=max):
    worths = [worth(scores[start : start + block]) for start in range(0, len(scores), block)]
    return sorted(sorted(range(len(worths)), key=lambda b: worths[b], reverse=True)[:k])


def unrotated(q, keys, block, k, window, theta):
    """Nothing is rotated, or the keys by as much as the query: they stand where it does."""
    return _best(keys @ q, block, k)


def rotates_keys_forward(q, keys, block, k, window, theta):
    """The keys are rotated by the window instead of the query: they stand in the future."""
    return _best([key @ _rotate(q, -window, theta) for key in keys], block, k)


def places_in_the_store(q, keys, block, k, window, theta):
    """Every key stands at its own place, the query behind them all and the window."""
    query = _rotate(q, len(keys) + window - 1, theta)
    return _best([_rotate(key, i, theta) @ query for i, key in enumerate(keys)], block, k)


def by_mean(q, keys, block, k, window, theta):
    """A block is chosen by the mean of its keys."""
    return _best(keys @ _rotate(q, window, theta), block, k, lambda scores: sum(scores) / len(scores))


def by_sum(q, keys, block, k, window, theta):
    """A block is chosen by the sum of its scores."""
    return _best(keys @ _rotate(q, window, theta), block, k, sum)


def the_newest(q, keys, block, k, window, theta):
    """The last blocks, whatever is in them."""
    n = -(-len(keys) // block)
    return list(range(max(0, n - k), n))


def the_worst(q, keys, block, k, window, theta):
    """Sorted upwards."""
    scores = keys @ _rotate(q, window, theta)
    worths = [max(scores[start : start + block]) for start in range(0, len(scores), block)]
    return sorted(sorted(range(len(worths)), key=lambda b: worths[b])[:k])


def whole_blocks_only(q, keys, block, k, window, theta):
    """The last block is left out when it is not full."""
    n = len(keys) // block * block
    return _best((keys @ _rotate(q, window, theta))[:n], block, k)


def keys_not_blocks(q, keys, block, k, window, theta):
    """The best keys, without their blocks."""
    return np.argsort(-(keys @ _rotate(q, window, theta)))[:k]


def best_one_twice(q, keys, block, k, window, theta):
    """The blocks of the k best keys, which may be one and the same."""
    order = np.argsort(-(keys @ _rotate(q, window, theta)))[:k]
    return sorted({int(i) // block for i in order})


def one_place_too_far(q, keys, block, k, window, theta):
    """window + 1."""
    return _best(keys @ _rotate(q, window + 1, theta), block, k)


def one_place_too_near(q, keys, block, k, window, theta):
    """window - 1, as for the window's own slots."""
    return _best(keys @ _rotate(q, window - 1, theta), block, k)


def theta_of_its_own(q, keys, block, k, window, theta):
    """10000, whatever is given."""
    return _best(keys @ _rotate(q, window, 10000.0), block, k)


def pairs_neighbours(q, keys, block, k, window, theta):
    """Channels 2j and 2j + 1 are rotated."""
    order = [*range(0, len(q), 2), *range(1, len(q), 2)]
    query = np.empty(len(q))
    query[order] = _rotate(q[order], window, theta)
    return _best(keys @ query, block, k)


def by_all_of_them(q, keys, block, k, window, theta):
    """A block is chosen by the sum of exp."""
    return _best(np.exp(keys @ _rotate(q, window, theta)), block, k, sum)


def places_and_no_window(q, keys, block, k, window, theta):
    """Every key stands at its own place, the query at the window."""
    query = _rotate(q, window, theta)
    return _best([_rotate(key, i, theta) @ query for i, key in enumerate(keys)], block, k)


def behind_them_all(q, keys, block, k, window, theta):
    """The query is rotated by the number of keys."""
    return _best(keys @ _rotate(q, len(keys), theta), block, k)


def by_the_first(q, keys, block, k, window, theta):
    """A block is chosen by its first key."""
    return _best(keys @ _rotate(q, window, theta), block, k, lambda scores: scores[0])


def by_the_size(q, keys, block, k, window, theta):
    """A score far below zero is large."""
    return _best(abs(keys @ _rotate(q, window, theta)), block, k)


def the_oldest(q, keys, block, k, window, theta):
    """The first blocks, whatever is in them."""
    return list(range(min(k, -(-len(keys) // block))))


def _right(q, keys, block, k, window, theta):
    return _best(keys @ _rotate(q, window, theta), block, k)


def one_block(q, keys, block, k, window, theta):
    """The best alone."""
    return _right(q, keys, block, 1, window, theta)


def one_block_more(q, keys, block, k, window, theta):
    """k + 1."""
    return _right(q, keys, block, k + 1, window, theta)


def counts_from_one(q, keys, block, k, window, theta):
    """The first block is called 1."""
    return [b + 1 for b in _right(q, keys, block, k, window, theta)]


def where_they_begin(q, keys, block, k, window, theta):
    """The first key of each."""
    return [b * block for b in _right(q, keys, block, k, window, theta)]


def what_they_are_worth(q, keys, block, k, window, theta):
    """Their scores."""
    scores = keys @ _rotate(q, window, theta)
    return sorted(max(scores[start : start + block]) for start in range(0, len(scores), block))[-k:]


def a_block_twice(q, keys, block, k, window, theta):
    """The block of each of the k best keys."""
    return np.argsort(-(keys @ _rotate(q, window, theta)))[:k] // block


BACK = ("How far back does a stored key seem to stand?", "Stored keys are un-rotated, all at position 0.",
        "Rotate the query by `window`, and leave the keys as they are.")  # fmt: skip
PAIRS = ("Which two channels are a pair?", "Hugging Face and Meta disagree; here it is Hugging Face's.",
         "Channel j goes with channel j + D/2.")  # fmt: skip
THETA = ("How fast does the last pair turn?", "The larger theta, the slower; it is an argument.",
         "Pair j of D/2 turns by window * theta ** (-2 j / D).")  # fmt: skip
SIZE = (
    "What does a score of -5 say?",
    "That the key fits badly.",
    "Compare the scores, not how far they are from zero.",
)
BEST = ("One key in a block fits well, three do not: is the block worth looking at?", "A block is worth its best key.",
        "max over the scores in the block.")  # fmt: skip
CHOOSE = ("Which blocks have the largest scores?", "Largest first.", "The k blocks with the largest maximum.")
PART = ("Where are the last keys?", "The last block may be part empty.", "Keep it, however few keys are in it.")
BLOCK = ("How many blocks are wanted?", "k counts blocks, not keys.", "Number the blocks, rate each, take k.")
NUMBER = (
    "Which number has the first block?",
    "Blocks are numbered 0, 1, 2, ...",
    "Block b holds keys b * block and on.",
)
TURNS = turns(
    ("query and keys stand at one place: neither is rotated, or both by the same", None, "", BACK, unrotated),
    ("rotated the wrong way: the keys stand in the future", None, "", BACK, rotates_keys_forward),
    ("every stored key stands at its own place", None, "", BACK, places_in_the_store),
    ("one place too far: the query is rotated by window + 1", None, "", BACK, one_place_too_far),
    ("one place too near: the query is rotated by window - 1", None, "", BACK, one_place_too_near),
    ("theta is 10000, whatever is given", None, "", THETA, theta_of_its_own),
    ("every stored key stands at its own place", None, "", BACK, places_and_no_window),
    ("neighbouring channels are paired, 2j with 2j + 1", 8, "checkpoints read by the wrong rule", PAIRS,
     pairs_neighbours),
    ("the query is rotated by the number of keys, not by the window", None, "", BACK, behind_them_all),
    ("a block is worth its mean", None, "", BEST, by_mean),
    ("a block is worth its sum", None, "", BEST, by_sum),
    ("a block is worth its sum of exp, the weight of all its keys", None, "", BEST, by_all_of_them),
    ("a block is worth its first key", None, "", BEST, by_the_first),
    ("a score far below zero is taken for a large one", None, "", SIZE, by_the_size),
    ("the oldest blocks, not the best", None, "", CHOOSE, the_oldest),
    ("the newest blocks, not the best", None, "", CHOOSE, the_newest),
    ("the worst blocks", None, "", CHOOSE, the_worst),
    ("the last block is left out", None, "", PART, whole_blocks_only),
    ("keys are returned, not blocks", None, "", BLOCK, keys_not_blocks),
    ("the k best keys, whose blocks may be fewer", None, "", BLOCK, best_one_twice, a_block_twice),
    ("one block, not k", None, "", BLOCK, one_block),
    ("k + 1 blocks, not k", None, "", BLOCK, one_block_more),
    ("blocks are counted from one", None, "", NUMBER, counts_from_one),
    ("where the blocks begin, not their numbers", None, "", NUMBER, where_they_begin),
    ("what the blocks are worth, not their numbers", None, "", NUMBER, what_they_are_worth),
)  # fmt: skip
