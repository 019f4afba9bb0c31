"""Wrong turns within a head: what is rotated, how, and how scores are scaled."""

from ..positions import interleaved_to_split_half, rope_frequencies
from .right import Cache

RATE = """How fast does the last pair turn?
    Look at the exponent of theta.
    It is -2 j / D for pair j, with D the whole width: pair 0 turns one radian per position, later pairs less."""
ROTATE = """Does the order of the tokens change your answer as it should?
    Look at what you rotate before the scores: the query, the keys, or neither?
    Rotate the query to the last slot and every key to its own."""
SCALE = """How do scores grow with the width?
    Look at what you divide q . k by; does a library divide once more?
    Divide by sqrt(D), once: a sum of D products grows with its root."""


class Neighbours(Cache):
    """neighbouring channels are paired, 2j with 2j + 1; that is how Meta's files have it: here, as in Hugging Face's, a
    pair is j and j + D/2
    """

    name, number = "neighbouring channels paired", 8  # seen in: checkpoints read by the wrong rule
    hints = """Which two channels are a pair?
    Look at how you split the channels.
    Channel j goes with channel j + D/2, as Hugging Face has it, not 2j with 2j + 1, as Meta has."""

    def rotated(self, x, positions):
        return super().rotated(interleaved_to_split_half(x), positions)  # scores do not mind the order of channels


class Backwards(Cache):
    """it rotates backwards; a quarter turn takes (1, 0) to (0, 1): a cos - b sin, b cos + a sin"""

    name = "rotated backwards"
    hints = """Where does (1, 0) go after a quarter turn?
    Look at the signs of the two sines, or of the position.
    It must go to (0, 1): a cos - b sin, and b cos + a sin."""

    def rotated(self, x, positions):
        return super().rotated(x, [-position for position in positions])


class OtherTheta(Cache):
    """theta is 10000, whatever is given"""

    name = "theta not used"
    hints = """What changes in your answer when theta does?
    Look at where `theta` enters.
    Take the theta that is given, not 10000."""

    def frequencies(self, head_dim):
        return rope_frequencies(head_dim, 10000.0)


class SlowsTooLittle(Cache):
    """the frequencies lack the 2; pair j turns by theta ** (-2 j / D)"""

    name, hints = "frequencies without the 2", RATE

    def frequencies(self, head_dim):
        return rope_frequencies(head_dim, self.theta**0.5)


class SlowsTwice(Cache):
    """the frequencies fall twice as fast; pair j turns by theta ** (-2 j / D), of the whole width"""

    name, hints = "frequencies that fall twice as fast", RATE

    def frequencies(self, head_dim):
        return rope_frequencies(head_dim, self.theta**2)


class NotRotated(Cache):
    """nothing is rotated; queries and keys come un-rotated, and the cache gives them their positions"""

    name, hints = "nothing rotated", ROTATE

    def rotated(self, x, positions):
        return x


class KeysNotRotated(Cache):
    """the query is rotated, the keys are not; each stands at its slot"""

    name, hints = "keys not rotated", ROTATE

    def attend(self, q, keys, values):
        return self.mix(self.rotated(q[None], [self.own]), keys, values)[0]


class QueryNotRotated(Cache):
    """the keys are rotated, the query is not; it stands at the last slot"""

    name, hints = "query not rotated", ROTATE

    def attend(self, q, keys, values):
        return self.mix(q[None], self.rotated(keys, self.positions), values)[0]


class ValuesToo(Cache):
    """values are rotated too; a position changes where a query looks, not what it finds"""

    name, number = "values rotated", 10  # seen in: learned positions, which are in the values, moved
    hints = """What does a position change: where one looks, or what one finds?
    Look at what you rotate.
    Rotate queries and keys, not values; with a position in them, as in GPT-2, none can be moved."""

    def mix(self, query, keys, values):
        return super().mix(query, keys, self.rotated(values, self.positions))


class Unscaled(Cache):
    """scores are not divided by sqrt(D)"""

    name, hints = "scores not scaled", SCALE

    def mix(self, query, keys, values):
        return super().mix(query * query.shape[-1] ** 0.5, keys, values)


class ScaledTwice(Cache):
    """scores are divided by D, not by its root; the query was scaled, and scaled_dot_product_attention does it again"""

    name, hints = "scores scaled twice", SCALE

    def mix(self, query, keys, values):
        return super().mix(query / query.shape[-1] ** 0.5, keys, values)
