"""Wrong turns of bringing back what was evicted."""

import numpy as np

from ..positions import interleaved_to_split_half, rope_frequencies, rotate


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


RETRIEVE = {
    "query and keys stand at one place: neither is rotated, or both by the same": query_at(lambda n, window: 0),
    "rotated the wrong way: the keys stand in the future": query_at(lambda n, window: -window),
    "every stored key stands at its own place": (
        each_in_its_place(lambda n, window: n + window - 1),
        each_in_its_place(lambda n, window: window),
    ),
    "one place too far: the query is rotated by window + 1": query_at(lambda n, window: window + 1),
    "one place too near: the query is rotated by window - 1": query_at(lambda n, window: window - 1),
    "the query is rotated by the number of keys, not by the window": query_at(lambda n, window: n),
    "theta is 10000, whatever is given": (scored(lambda q, keys, window, theta: scores_of(q, keys, window, 10000.0))),
    # seen in checkpoints read by the wrong rule
    "neighbouring channels are paired, 2j with 2j + 1 (wrong turn 8)": scored(pairs_neighbours),
    "a block is worth its mean": by(np.mean),
    "a block is worth its sum": by(sum),
    "a block is worth its sum of exp, the weight of all its keys": by(lambda scores: np.exp(scores).sum()),
    "a block is worth its first key": by(lambda scores: scores[0]),
    "a score far below zero is taken for a large one": by(lambda scores: max(abs(scores))),
    "the oldest blocks, not the best": chosen(lambda scores, block, k: range(min(k, -(-len(scores) // block)))),
    "the newest blocks, not the best": chosen(lambda scores, block, k: best_blocks(np.arange(len(scores)), block, k)),
    "the worst blocks": by(lambda scores: -max(scores)),
    "the last block is left out": (
        chosen(lambda scores, block, k: best_blocks(scores[: len(scores) // block * block], block, k))
    ),
    "keys are returned, not blocks": chosen(lambda scores, block, k: ranked(scores, k)),
    "the k best keys, whose blocks may be fewer": (
        chosen(lambda scores, block, k: sorted({int(i) // block for i in ranked(scores, k)})),
        chosen(lambda scores, block, k: ranked(scores, k) // block),
    ),
    "one block, not k": chosen(lambda scores, block, k: best_blocks(scores, block, 1)),
    "k + 1 blocks, not k": chosen(lambda scores, block, k: best_blocks(scores, block, k + 1)),
    "blocks are counted from one": chosen(lambda scores, block, k: [b + 1 for b in best_blocks(scores, block, k)]),
    "where the blocks begin, not their numbers": (
        chosen(lambda scores, block, k: [b * block for b in best_blocks(scores, block, k)])
    ),
    "what the blocks are worth, not their numbers": (
        chosen(lambda scores, block, k: sorted(np.maximum.reduceat(scores, range(0, len(scores), block)))[-k:])
    ),
}
