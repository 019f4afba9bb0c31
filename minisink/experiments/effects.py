"""Whether a run supports the claim: the size of an effect, and how certain a text of this length makes it.

Methods are compared token by token. The bootstrap (Efron, 1979) finds how much the mean difference would vary with
other tokens: it redraws them, with replacement, a thousand times, and takes the mean of each draw. Neighbouring tokens
are alike and would make the interval too narrow, so it draws whole stretches (Kunsch, 1989: the block bootstrap).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from ..evaluation.difference import STRETCH

DRAWS = 1000


@dataclass(frozen=True)
class Effect:
    """A number that a claim is about."""

    what: str  # in words, with its unit
    size: float
    low: float  # the interval that holds 95 % of the draws; NaN for none
    high: float
    above: float | None = None  # the claimed bounds
    below: float | None = None

    @property
    def shown(self) -> bool:
        """Whether the whole interval is within the claimed bounds."""
        return (self.above is None or self.low > self.above) and (self.below is None or self.high < self.below)

    def __str__(self):
        sides = [f"{sign} {x:g}" for sign, x in ((">", self.above), ("<", self.below)) if x is not None]
        interval = f" [{self.low:.3g}, {self.high:.3g}]" if self.low < self.high else ""
        judged = "not judged" if math.isnan(self.low) else "yes" if self.shown else "no"
        return f"{self.what} {self.size:.3g}{interval} ({' and '.join(sides)}: {judged})"


def effect(what, values, *, above=None, below=None, stretch=STRETCH, of=np.mean, seed=0) -> Effect:
    """Return a statistic of some values, `of`, with its interval; `what` describes it.

    The `values`, (N,) or (N, ...), are one per token, head, text or seed: whatever would vary in another run. The claim
    is that the statistic is `above` a number, `below` another, or both. `stretch` neighbours are drawn together, 1 for
    independent values. A single value has no interval and is not judged; nor is an empty list, or one with a NaN.

    >>> print(effect("difference", [1.0, 2.0, 3.0, 2.0], above=0, stretch=1))
    difference 2 [1.25, 2.75] (> 0: yes)
    >>> print(effect("difference", [1.0], above=0))
    difference 1 (> 0: not judged)
    """
    values = np.asarray(values, np.float64)
    n, low, high = len(values), math.nan, math.nan
    if n > 1 and np.isfinite(values).all():
        stretch = max(1, min(stretch, n // 4))  # at least four stretches, even in a short text
        starts = np.random.default_rng(seed).integers(0, n - stretch + 1, (DRAWS, -(-n // stretch)))
        drawn = [of(values[(row[:, None] + np.arange(stretch)).ravel()[:n]]) for row in starts]
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Effect(what, float(of(values)) if n else math.nan, low, high, above, below)


def by(rows: Sequence[dict], *keys: str) -> dict:
    """Group rows by their value in a column, or by a tuple of values in several, in order of appearance.

    >>> by([{"a": 2, "b": 0}, {"a": 1, "b": 0}, {"a": 2, "b": 3}], "a")[2]
    [{'a': 2, 'b': 0}, {'a': 2, 'b': 3}]
    """
    groups: dict = {}
    for row in rows:
        groups.setdefault(itemgetter(*keys)(row), []).append(row)
    return groups


def gather(rows: Sequence[dict], key: str, column: str) -> dict:
    """Return the values in `column`, as a list for each value of `key`."""
    return {name: [row[column] for row in group] for name, group in by(rows, key).items()}


def pivot(rows: Sequence[dict], key: str, column: str, cell: Callable) -> tuple[list, dict]:
    """Return the columns of a table, and the cells of each line by its key.

    >>> pivot([{"a": 1, "b": "x", "c": 5}, {"a": 1, "b": "y", "c": 6}], "a", "b", lambda row: row["c"])
    (['x', 'y'], {1: [5, 6]})
    """
    columns, lines = [*by(rows, column)], {}
    for name, group in by(rows, key).items():
        cells = {row[column]: cell(row) for row in group}
        lines[name] = [cells.get(value, "") for value in columns]
    return columns, lines


def must_evict(n_tokens: int, cache: int) -> None:
    """Refuse a text that fits in the cache, because it says nothing about eviction."""
    if n_tokens <= cache + 1:  # the last one is only predicted
        what = f"the text has {n_tokens:,} tokens and the cache holds {cache:,}"
        raise ValueError(f"{what}: nothing is evicted")


def must_hold(cache: int, n_sinks: int) -> None:
    """Refuse a cache without room for its sinks and a window."""
    if not 0 <= n_sinks < cache:
        raise ValueError(f"a cache of {cache} tokens cannot hold {n_sinks} sinks and a window of at least 1")


def must_learn(model, caches: Sequence[int]) -> None:
    """Refuse positions that a GPT-2 has not learned."""
    trained = model.config.max_positions
    if model.config.learned_positions and max(caches) > trained:
        raise ValueError(f"{model.name} has learned {trained} positions, and a cache of {max(caches)} needs more")


def exactly(what: str, size: float, *, above: float | None = None, below: float | None = None) -> Effect:
    """Return a deterministic number as an `Effect`."""
    return Effect(what, size, size, size, above, below)


def verdict(effects: Sequence[Effect]) -> str:
    """Return the joint verdict of the effects.

    >>> verdict([exactly("a", 1, above=0), exactly("b", 1, below=0)])
    'in part'
    """
    shown = [effect.shown for effect in effects]
    if not shown:
        return "nothing to judge by"
    if all(math.isnan(effect.low) for effect in effects):
        return "not judged"
    return "yes" if all(shown) else "in part" if any(shown) else "no"
