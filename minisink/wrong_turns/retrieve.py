"""Wrong turns in retrieving what was evicted."""

import numpy as np

from ..positions import interleaved_to_split_half, rope_frequencies, rotate


def rotated(x, position, theta):  # (..., D) -> (..., D)
    """Rotate everything by the same position, as it should be."""
    return rotate(x[..., None, :], position, rope_frequencies(x.shape[-1], theta))[..., 0, :]


def scores_of(q, keys, window, theta):  # (D,), (N, D) -> (N,)
    """Score every key as if it were `window` places back."""
    return keys @ rotated(q, window, theta)


def best_blocks(scores, block, k, best=max):
    """Return the k blocks with the best key, or the best by a different rule."""
    by_block = [best(scores[start : start + block]) for start in range(0, len(scores), block)]
    return sorted(sorted(range(len(by_block)), key=lambda b: by_block[b], reverse=True)[:k])


def chosen(choose=best_blocks, scores=scores_of):
    """Return a retrieval that computes ``choose(scores(q, keys, window, theta), block, k)``."""
    return lambda q, keys, block, k, window, theta: choose(scores(q, keys, window, theta), block, k)


def query_at(position):
    """Return a retrieval that rotates the query to ``position(n_keys, window)``."""
    return chosen(scores=lambda q, keys, window, theta: scores_of(q, keys, position(len(keys), window), theta))


def by(rule):
    """Return a retrieval that rates a block by applying a rule to its scores."""
    return chosen(lambda scores, block, k: best_blocks(scores, block, k, rule))


def in_its_place(q, keys, position, theta):
    """Rotate the keys to their places, and the query to a position."""
    return rotated(keys, range(len(keys)), theta) @ rotated(q, position, theta)


def pairs_neighbours(q, keys, window, theta):
    return interleaved_to_split_half(keys) @ rotated(interleaved_to_split_half(q), window, theta)


RETRIEVE = {
    "query and keys have the same position: neither is rotated, or both are, equally": query_at(lambda n, window: 0),
    "rotated the wrong way: the keys are in the future": query_at(lambda n, window: -window),
    "every stored key is at its own place": (
        chosen(scores=lambda q, keys, window, theta: in_its_place(q, keys, len(keys) + window - 1, theta)),
        chosen(scores=in_its_place),
    ),
    "one place too far: the query is rotated by window + 1": query_at(lambda n, window: window + 1),
    "one place too near: the query is rotated by window - 1": query_at(lambda n, window: window - 1),
    "the query is rotated by the number of keys, not by the window": query_at(lambda n, window: n),
    "theta is 10000, whatever is given": chosen(
        scores=lambda q, keys, window, theta: scores_of(q, keys, window, 10000.0)
    ),
    # seen in checkpoints read by the wrong rule
    "neighbouring channels are paired, 2j with 2j + 1 (wrong turn 8)": chosen(scores=pairs_neighbours),
    "a block is scored by its mean": by(np.mean),
    "a block is scored by its sum": by(sum),
    "a block is scored by its sum of exp, the weight of all its keys": by(lambda scores: np.exp(scores).sum()),
    "a block is scored by its first key": by(lambda scores: scores[0]),
    "a score far below zero is mistaken for a large one": by(lambda scores: max(abs(scores))),
    "the oldest blocks, not the best": chosen(lambda scores, block, k: range(min(k, -(-len(scores) // block)))),
    "the newest blocks, not the best": chosen(lambda scores, block, k: best_blocks(np.arange(len(scores)), block, k)),
    "the worst blocks": by(lambda scores: -max(scores)),
    "the last block is left out": (
        chosen(lambda scores, block, k: best_blocks(scores[: len(scores) // block * block], block, k))
    ),
    "keys are returned, not blocks": chosen(lambda scores, block, k: np.argsort(-scores)[:k]),
    "the k best keys, whose blocks may be fewer": (
        chosen(lambda scores, block, k: sorted({int(i) // block for i in np.argsort(-scores)[:k]})),
        chosen(lambda scores, block, k: np.argsort(-scores)[:k] // block),
    ),
    "one block, not k": chosen(lambda scores, block, k: best_blocks(scores, block, 1)),
    "k + 1 blocks, not k": chosen(lambda scores, block, k: best_blocks(scores, block, k + 1)),
    "blocks are counted from one": chosen(lambda scores, block, k: [b + 1 for b in best_blocks(scores, block, k)]),
    "where the blocks begin, not their numbers": (
        chosen(lambda scores, block, k: [b * block for b in best_blocks(scores, block, k)])
    ),
    "the scores of the blocks, not their numbers": chosen(
        lambda scores, block, k: sorted(np.maximum.reduceat(scores, range(0, len(scores), block)))[-k:]
    ),
}
