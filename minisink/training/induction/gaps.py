"""What each method remembers after a gap: the whole paper in one table.

A segment is read, then `gap` other symbols, then the segment again: what do its symbols cost now? The cache has only a
few slots, so the first reading has been evicted, and the longest texts are many times as long as any in training.
"""

import warnings
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ...loss import token_nll
from ...methods import Dense, Streaming, Window
from ...retrieval import Retrieval
from .segments import CHANCE, SEGMENT, ask
from .toy import LENGTH

GAPS = (0, 20, 200, 1000)
CACHE = 16  # slots: one sink and a window, or nothing but a window
N_BLOCKS, BLOCK = 2, 4


@dataclass(frozen=True)
class RandomBlocks(Retrieval):
    """Retrieval as a control: the fetched blocks are chosen at random."""

    def block_scores(self, query, keys, scores, there, *, layer, t):  # scores (H, N, B) -> (H, N)
        """Shuffle the blocks of each head independently."""
        H, N, _ = scores.shape
        return np.random.default_rng((0, layer, t + 1)).permuted(np.tile(np.arange(N), (H, 1)), axis=1)


def methods(cache=CACHE, n_blocks=N_BLOCKS, block=BLOCK):
    """Return the rows of the table by name, each a method with a cache of this many slots."""
    best = Retrieval(1, cache - 1, n_blocks=n_blocks, block=block)
    return {
        "dense": Dense(),
        "window": Window(cache),
        "streaming": Streaming(1, cache - 1),
        "retrieval": best,
        "retrieval, original": replace(best, positions="original"),
        "retrieval, random": RandomBlocks(1, cache - 1, n_blocks=n_blocks, block=block),
    }


def each(model, *, gaps=GAPS, n_texts=8, seed=0, track=iter, **sizes):
    """Measure a `Toy` model's loss on the second reading, under every method and after every gap.

    Return, for each method with these `sizes`, an array per gap: (n_texts, SEGMENT - 1) nats, float64, for the symbols
    that can be known, in the same texts for every method. `track` shows progress, as tqdm does.
    """
    losses = {name: [] for name in methods(**sizes)}
    with warnings.catch_warnings():  # going beyond the trained length with original positions is the point
        warnings.filterwarnings("ignore", "positions='original'", UserWarning)
        for (name, method), gap in track(list(product(methods(**sizes).items(), gaps))):
            texts = ask(np.random.default_rng([seed, 3]), n_texts, gap)
            nll = [token_nll(model, text, method)[1 - SEGMENT :] for text in texts]
            losses[name].append(np.array(nll, np.float64))
    return losses


def finding(losses, gaps, *, cache=CACHE, n_blocks=N_BLOCKS, block=BLOCK):
    """Describe the table in sentences, one for each method, with its numbers.

    They describe one gap: the first whose texts are longer than those in training, and whose first reading has left the
    cache. They compare it with what a model that sees everything knows within the trained length.

    `losses` maps each method to a list of nats per symbol, one for each gap.
    """
    within = [i for i, gap in enumerate(gaps) if 2 * SEGMENT + gap <= LENGTH]  # the last symbol is only predicted
    beyond = [i for i, gap in enumerate(gaps) if 2 * SEGMENT + gap > LENGTH and gap >= cache]
    if not within or not beyond:
        return [f"No finding: it takes a gap of up to {LENGTH - 2 * SEGMENT} symbols, and a longer one."]
    at = min(beyond, key=lambda i: gaps[i])
    last = max(within, key=lambda i: gaps[i])
    known, dense = losses["dense"][last], losses["dense"][at]
    if CHANCE - known < 0.5:
        return [f"Nothing was learned: {known:.2f} nats at a gap of {gaps[last]}, chance is {CHANCE:.2f}."]
    window, streaming, best, original, random = (losses[name][at] for name in list(losses)[1:])
    kept = (CHANCE - dense) / (CHANCE - known)
    keeps = f"keeps {kept:.0%} of what it knows" if kept > 0.1 else "fails"
    legal = f"; at their original positions {original:.2f}" if abs(original - best) > 0.15 else ""
    back_by_best, back_by_random = (_recalled((streaming - nll) / (streaming - known)) for nll in (best, random))
    return [
        f"Streaming {_vs_chance(streaming, 'forgets', 'remembers something', 'is misled')}: {streaming:.2f} nats, "
        f"where chance is {CHANCE:.2f}. What has left the cache is gone.",
        f"A window without its sink is {_vs_chance(window, 'at', 'better than', 'worse than')} chance: {window:.2f}.",
        f"Dense attention sees everything and {keeps} beyond its trained length of {LENGTH}: {dense:.2f}, compared "
        f"with {known:.2f} within it.",
        f"The {n_blocks * block} right keys at a legal distance bring back {back_by_best}: {best:.2f}{legal}.",
        f"As many keys drawn at random bring back {back_by_random}: {random:.2f}.",
    ]


def _vs_chance(nll, same, below, above):
    return same if abs(nll - CHANCE) <= 0.15 else below if nll < CHANCE else above


def _recalled(share):
    if share <= 0.1:
        return "next to nothing"
    almost = "almost all of what was forgotten ({:.0%})" if share > 0.9 else "{:.0%} of what was forgotten"
    return "all of what was forgotten" if share > 0.995 else almost.format(share)
