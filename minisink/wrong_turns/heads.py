"""Wrong turns within a head: what is rotated, how, and how scores are scaled."""

from ..positions import interleaved_to_split_half, rope_frequencies
from .right import Cache


class Neighbours(Cache, name="neighbouring channels paired", number=8):  # seen in: checkpoints read by the wrong rule
    """neighbouring channels are paired, 2j with 2j + 1; that is how Meta's files have it: here, as in Hugging Face's, a
    pair is j and j + D/2
    """

    def rotated(self, x, positions):
        return super().rotated(interleaved_to_split_half(x), positions)  # scores do not mind the order of channels


class Backwards(Cache, name="rotated backwards"):
    """it rotates backwards; a quarter turn takes (1, 0) to (0, 1): a cos - b sin, b cos + a sin"""

    def rotated(self, x, positions):
        return super().rotated(x, [-position for position in positions])


class OtherTheta(Cache, name="theta not used"):
    """theta is 10000, whatever is given"""

    def frequencies(self, head_dim):
        return rope_frequencies(head_dim, 10000.0)


class SlowsTooLittle(Cache, name="frequencies without the 2"):
    """the frequencies lack the 2; pair j turns by theta ** (-2 j / D)"""

    power = 0.5

    def frequencies(self, head_dim):
        return rope_frequencies(head_dim, self.theta**self.power)


class SlowsTwice(SlowsTooLittle, name="frequencies that fall twice as fast"):
    """the frequencies fall twice as fast; pair j turns by theta ** (-2 j / D), of the whole width"""

    power = 2.0


class NotRotated(Cache, name="nothing rotated"):
    """nothing is rotated; queries and keys come un-rotated, and the cache gives them their positions"""

    def rotated(self, x, positions):
        return x


class KeysNotRotated(Cache, name="keys not rotated"):
    """the query is rotated, the keys are not; each stands at its slot"""

    def attend(self, q, keys, values):
        return self.mix(self.rotated(q[None], [self.own]), keys, values)[0]


class QueryNotRotated(Cache, name="query not rotated"):
    """the keys are rotated, the query is not; it stands at the last slot"""

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


class ScaledTwice(Unscaled, name="scores scaled twice"):
    """scores are divided by D, not by its root; the query was scaled, and scaled_dot_product_attention does it again"""

    power = -0.5
