"""Wrong turns with encodings other than rotary over the whole head; with that one, each of these caches is right."""

import numpy as np

from ..positions import rope_frequencies
from .right import Cache


def whole_head(right, D):  # (R/2,) -> (D/2,)
    """Return the frequencies of all channels, by the theta of the first R."""
    R = 2 * len(right)
    return rope_frequencies(D, right[-1] ** (-R / (R - 2)) if R > 2 else 10000.0)


def of_a_power(right, D):  # (H,) -> (H,)
    """Return slopes as if their number were a power of two, down to the same last one."""
    return min(right) ** (np.arange(1, len(right) + 1) / len(right))


class Halves(Cache, name="halves paired", interleaved=lambda right, D: False):
    """channels j and j + R/2 are paired, as in Hugging Face's files; here a pair is 2j and 2j + 1"""


class WholeHead(Cache, name="the whole head rotated", frequencies=whole_head):
    """the whole head is rotated; rotate only its first R channels, and leave the rest as they are"""


class WholeWidth(Cache, name="frequencies of the whole head", frequencies=lambda f, D: f ** (2 * len(f) / D)):
    """the frequencies are those of the whole head; where R channels rotate, pair j turns by theta ** (-2 j / R)"""


class LastChannels(Cache, name="the last channels rotated"):
    """the last R channels are rotated; rotate the first R instead"""

    def rotated(self, x, positions):
        R = 2 * len(self.encoding(x.shape[-1]).frequencies) if self.rotates else 0
        return super().rotated(np.roll(x, R, axis=-1), positions)  # scores do not depend on the order of channels


class NoSlope(Cache, name="no slope", slopes=lambda right, D: 0.0 * right):
    """nothing is subtracted for the distance; each head subtracts its slope times the distance from a score"""


class SlopeUpwards(Cache, name="slopes of the wrong sign", slopes=lambda right, D: -right):
    """keys that are far away score higher; slope times distance is subtracted from a score, not added"""


class SlopesReversed(Cache, name="slopes in the wrong order", slopes=lambda right, D: right[::-1]):
    """the heads have each other's slopes; the first has the steepest, 2 ** (-8 / H)"""


class SlopesOfAPower(Cache, name="slopes by the formula of a power of two", slopes=of_a_power):
    """the slopes are 2 ** (-8 i / H), whatever H is; between powers of two they are those of the next power, every
    other one first
    """


class ScaledSlopes(Cache, name="slopes scaled", slopes=lambda right, D: right / D**0.5):
    """the slopes are divided by sqrt(D) along with the scores; subtract them after scaling the scores"""


class SinksWithoutSlope(Cache, name="no slope to the sinks"):
    """the sinks' scores lose nothing for their distance; it is the distance between slots, as for any other key"""

    def bias(self, queries, keys):
        return np.where(np.arange(len(keys)) < self.n_sinks, 0.0, super().bias(queries, keys))
