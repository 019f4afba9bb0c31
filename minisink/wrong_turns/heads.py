"""Wrong turns within a head: what is rotated, how, and how scores are scaled."""

from ..positions import rope_frequencies
from .right import Cache


class Neighbours(Cache, name="neighbouring channels paired", number=8, interleaved=lambda right, D: True):
    """neighbouring channels are paired, 2j with 2j + 1; that is the layout of Meta's files, but here, as in Hugging
    Face's, a pair is j and j + D/2
    """  # seen in: checkpoints read by the wrong rule


class Backwards(Cache, name="rotated backwards", frequencies=lambda right, D: -right):
    """it rotates backwards; a quarter turn takes (1, 0) to (0, 1): a cos - b sin, b cos + a sin"""


class OtherTheta(Cache, name="theta not used", frequencies=lambda right, D: rope_frequencies(2 * len(right), 10000.0)):
    """theta is 10000, whatever is given"""


class SlowsTooLittle(Cache, name="frequencies without the 2", frequencies=lambda right, D: right**0.5):
    """the frequencies lack the 2; pair j turns by theta ** (-2 j / D)"""


class SlowsTwice(Cache, name="frequencies that fall twice as fast", frequencies=lambda right, D: right**2):
    """the frequencies fall twice as fast; pair j turns by theta ** (-2 j / D), where D is the whole width"""


class NotRotated(Cache, name="nothing rotated", rotated=lambda self, x, positions: x):
    """nothing is rotated; queries and keys arrive un-rotated, and the cache has to give them their positions"""


class KeysNotRotated(Cache, name="keys not rotated"):
    """the query is rotated, but the keys are not; rotate each key to its slot"""

    def attend(self, q, keys, values):
        return self.mix(self.rotated(q[None], [self.own]), keys, values)[0]


class QueryNotRotated(Cache, name="query not rotated"):
    """the keys are rotated, but the query is not; rotate it to the last slot"""

    def attend(self, q, keys, values):
        return self.mix(q[None], self.rotated(keys, self.positions), values)[0]


class ValuesToo(Cache, name="values rotated", number=10):  # seen in: learned positions, which are in the values, moved
    """values are rotated too; a position changes where a query looks, not what it finds"""

    def mix(self, query, keys, values):
        return super().mix(query, keys, self.rotated(values, self.positions))


class Unscaled(Cache, name="scores not scaled"):
    """scores are not divided by sqrt(D)"""

    power = 0.5

    def mix(self, query, keys, values):
        return super().mix(query * query.shape[-1] ** self.power, keys, values)


class ScaledTwice(Unscaled, name="scores scaled twice", power=-0.5):
    """scores are divided by D, not by its root; the query was already scaled, and scaled_dot_product_attention scales
    it again
    """
