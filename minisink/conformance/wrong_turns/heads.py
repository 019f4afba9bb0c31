"""Wrong turns within a head: what is rotated, how, which key head is read, and how scores are scaled."""

import numpy as np

from ...positions import interleaved_to_split_half
from .right import Cache


class Neighbours(Cache):
    """channels 2j and 2j + 1 are rotated together, as in Meta's files: here, as in Hugging Face's, a pair is j and j +
    D/2
    """

    name = "neighbouring channels paired"

    def rotated(self, x, positions):
        return super().rotated(interleaved_to_split_half(x), positions)  # scores do not mind the order of channels


class RotatesGPT2(Cache):
    """keys are rotated where nothing rotates: with theta=None positions are in the embedding already, and cannot be
    moved
    """

    name = "learned positions rotated"

    def __init__(self, *, n_sinks, window, theta):
        super().__init__(n_sinks=n_sinks, window=window, theta=10000.0 if theta is None else theta)


class NotRotated(Cache):
    """nothing is rotated: queries and keys come un-rotated, and the cache gives them their positions"""

    name = "nothing rotated"

    def rotated(self, x, positions):
        return x


class ValuesToo(Cache):
    """values are rotated too: a position changes where a query looks, not what it finds"""

    name = "values rotated"

    def attend(self, q, keys, values):
        return super().attend(q, keys, self.rotated(values, self.positions))


class OtherTheta(Cache):
    """angles have the base 10,000 whatever theta is given"""

    name = "theta not used"

    def __init__(self, *, n_sinks, window, theta):
        super().__init__(n_sinks=n_sinks, window=window, theta=None if theta is None else 10000.0)


class WrongGroup(Cache):
    """query head h reads key head h % K: neighbours share one, h // (H / K), so repeat each key head, not the whole
    row of them
    """

    name = "wrong key head"

    def attend(self, q, keys, values):
        H, K = len(q), keys.shape[1]
        own = np.arange(H) % K
        return super().attend(q, keys[:, own], values[:, own])


class Unscaled(Cache):
    """scores are not divided by sqrt(D)"""

    name = "scores not scaled"

    def attend(self, q, keys, values):
        return super().attend(q * q.shape[-1] ** 0.5, keys, values)


class ScaledTwice(Cache):
    """scores are divided by sqrt(D) twice: the query was scaled, and scaled_dot_product_attention does it again"""

    name = "scores scaled twice"

    def attend(self, q, keys, values):
        return super().attend(q / q.shape[-1] ** 0.5, keys, values)
