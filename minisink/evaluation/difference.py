"""How much two losses of the same tokens differ, and how certain that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STRETCH = 50  # neighbouring tokens, which may be alike
SURE = 3  # standard errors by which a difference must exceed a bound


@dataclass(frozen=True)
class Difference:
    """A mean difference of two losses of the same tokens, in nats per token, and its standard error."""

    mean: float
    error: float

    def above(self, bound: float) -> bool:
        """Return whether the difference is more than three standard errors above `bound`."""
        return self.mean - SURE * self.error > bound

    def below(self, bound: float) -> bool:
        """Return whether the difference is more than three standard errors below `bound`."""
        return self.mean + SURE * self.error < bound

    def within(self, bound: float) -> bool:
        """Return whether -bound and bound are more than three standard errors away on either side.

        This is stronger than finding no difference, because the measurement must also be precise enough.
        """
        return self.above(-bound) and self.below(bound)

    def __str__(self):
        return f"{self.mean:+.4f} ± {self.error:.4f}"


def paired(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Difference:
    """Return how far losses `a` are above losses `b` of the same tokens, both (N,) in nats, with the standard error.

    A hard token is hard for both, and that cancels in ``a - b``. Independent tokens have the error
    ``std(a - b) / sqrt(N)``. Neighbours may be alike, so it is also computed from whole stretches; the larger counts.

    >>> price = paired([2.0, 5.0, 3.0, 4.0], [1.0, 4.0, 2.5, 3.0])
    >>> print(price)
    +0.8750 ± 0.1250
    >>> price.above(0), price.above(0.6)
    (True, False)
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"compare losses of the same tokens, two or more, not shapes {a.shape} and {b.shape}")
    difference = a - b
    n, mean = len(difference), difference.mean()
    stretch = max(1, min(STRETCH, n // 4))
    total = np.concatenate(([0.0], np.cumsum(difference - mean)))
    of_stretches = np.sqrt(np.mean((total[stretch:] - total[:-stretch]) ** 2) / (stretch * n))
    return Difference(float(mean), float(max(difference.std(ddof=1) / np.sqrt(n), of_stretches)))
