"""Wrong turns of bringing back what was evicted."""

import numpy as np

from ..positions import interleaved_to_split_half, rope_frequencies, rotate
from .turn import turns


def rotated(x, position, theta):  # (..., D) -> (..., D)
    """Rotate rightly, all by one position."""
    return rotate(x[..., None, :], position, rope_frequencies(x.shape[-1], theta))[..., 0, :]


def scores_of(q, keys, window, theta):  # (D,), (N, D) -> (N,)
    """Score every key as if it stood `window` places back."""
    return keys @ rotated(q, window, theta)


def best_blocks(scores, block, k, best=max):
    """Return the k blocks with the best key, or by another rule."""
    by_block = [best(scores[start : start + block]) for start in range(0, len(scores), block)]
    return sorted(sorted(range(len(by_block)), key=lambda b: by_block[b], reverse=True)[:k])


def scored(scores_of):
    """Return a retrieval that scores the keys by ``scores_of(q, keys, window, theta)``."""
    return lambda q, keys, block, k, window, theta: best_blocks(scores_of(q, keys, window, theta), block, k)


def query_at(position):
    """Return a retrieval that rotates the query to ``position(n_keys, window)``."""
    return scored(lambda q, keys, window, theta: scores_of(q, keys, position(len(keys), window), theta))


def by(rule):
    """Return a retrieval that rates a block by a rule of its scores."""
    return chosen(lambda scores, block, k: best_blocks(scores, block, k, rule))


def chosen(choose):
    """Return a retrieval that makes ``choose(scores, block, k)`` of the right scores."""
    return lambda q, keys, block, k, window, theta: choose(scores_of(q, keys, window, theta), block, k)


def ranked(scores, k):
    """Return the k best keys."""
    return np.argsort(-scores)[:k]


def each_in_its_place(query_at):
    """Return a retrieval that rotates keys to their places, and the query to ``query_at(n_keys, window)``."""

    def scores(q, keys, window, theta):
        return rotated(keys, range(len(keys)), theta) @ rotated(q, query_at(len(keys), window), theta)

    return scored(scores)


def pairs_neighbours(q, keys, window, theta):
    """Rotate channels 2j and 2j + 1."""
    return interleaved_to_split_half(keys) @ rotated(interleaved_to_split_half(q), window, theta)


HINTED = {
    """How far back does a stored key seem to stand?
    Look at the position that the query is rotated to, and at what you do with the keys.
    Rotate the query by `window`, and leave the keys as they are, at position 0.""": {
        "query and keys stand at one place: neither is rotated, or both by the same": query_at(lambda n, window: 0),
        "rotated the wrong way: the keys stand in the future": query_at(lambda n, window: -window),
        "every stored key stands at its own place": (
            each_in_its_place(lambda n, window: n + window - 1),
            each_in_its_place(lambda n, window: window),
        ),
        "one place too far: the query is rotated by window + 1": query_at(lambda n, window: window + 1),
        "one place too near: the query is rotated by window - 1": query_at(lambda n, window: window - 1),
        "the query is rotated by the number of keys, not by the window": query_at(lambda n, window: n),
    },
    """What changes in your answer when theta does?
    Look at where `theta` enters.
    Take the theta that is given, not 10000.""": {
        "theta is 10000, whatever is given": (
            scored(lambda q, keys, window, theta: scores_of(q, keys, window, 10000.0))
        ),
    },
    """Which two channels are a pair?
    Look at how your rotation splits the channels.
    Channel j goes with channel j + D/2, as Hugging Face has it, not 2j with 2j + 1, as Meta has.""": {
        # seen in checkpoints read by the wrong rule
        "neighbouring channels are paired, 2j with 2j + 1 (wrong turn 8)": scored(pairs_neighbours),
    },
    """One key in a block fits well, three do not: is the block worth looking at?
    Look at how the scores of a block become one.
    A block is as good as its best key: take the largest of its scores.""": {
        "a block is worth its mean": by(np.mean),
        "a block is worth its sum": by(sum),
        "a block is worth its sum of exp, the weight of all its keys": by(lambda scores: np.exp(scores).sum()),
        "a block is worth its first key": by(lambda scores: scores[0]),
    },
    """What does a score of -5 say?
    Look at how you compare two scores.
    That the key fits badly: compare the scores themselves, not how far they are from zero.""": {
        "a score far below zero is taken for a large one": by(lambda scores: max(abs(scores))),
    },
    """Which of the blocks that you chose has the largest score?
    Look at the order of the blocks when you take the first k.
    Sort them by their scores, largest first, and take k.""": {
        "the oldest blocks, not the best": chosen(lambda scores, block, k: range(min(k, -(-len(scores) // block)))),
        "the newest blocks, not the best": chosen(
            lambda scores, block, k: best_blocks(np.arange(len(scores)), block, k)
        ),
        "the worst blocks": by(lambda scores: -max(scores)),
    },
    """In which block are the last keys?
    Look at how many blocks you count.
    The last block may hold fewer keys: round up, and keep it.""": {
        "the last block is left out": (
            chosen(lambda scores, block, k: best_blocks(scores[: len(scores) // block * block], block, k))
        ),
    },
    """Does k count keys or blocks?
    Look at what you sort.
    Blocks: rate each block by its best key, and return the numbers of the k best.""": {
        "keys are returned, not blocks": chosen(lambda scores, block, k: ranked(scores, k)),
        "the k best keys, whose blocks may be fewer": (
            chosen(lambda scores, block, k: sorted({int(i) // block for i in ranked(scores, k)})),
            chosen(lambda scores, block, k: ranked(scores, k) // block),
        ),
    },
    """How many blocks are wanted?
    Look at how many you take of the sorted ones.
    k of them, or all if there are fewer.""": {
        "one block, not k": chosen(lambda scores, block, k: best_blocks(scores, block, 1)),
        "k + 1 blocks, not k": chosen(lambda scores, block, k: best_blocks(scores, block, k + 1)),
    },
    """Which number has the first block, and which the second?
    Look at what stands in the list that you return.
    Return numbers of blocks, 0, 1, 2, ...: block b holds the keys from b * block on.""": {
        "blocks are counted from one": chosen(lambda scores, block, k: [b + 1 for b in best_blocks(scores, block, k)]),
        "where the blocks begin, not their numbers": (
            chosen(lambda scores, block, k: [b * block for b in best_blocks(scores, block, k)])
        ),
        "what the blocks are worth, not their numbers": (
            chosen(lambda scores, block, k: sorted(np.maximum.reduceat(scores, range(0, len(scores), block)))[-k:])
        ),
    },
}
TURNS = turns(HINTED)
