"""Wrong turns of rotary positions."""

import numpy as np

from ..positions import interleaved_to_split_half, split_half_to_interleaved


def angles(x, positions, theta, power=-2.0, first=0):  # -> (T, D/2)
    """Return the angle that each pair turns by at each position."""
    D = x.shape[-1]
    return np.asarray(positions)[:, None] * float(theta) ** (power * np.arange(first, first + D // 2) / D)


def rotation(angles=angles, mix=lambda a, b, cos, sin: (a * cos - b * sin, b * cos + a * sin)):
    """Return a rotation by ``angles(x, positions, theta)`` that turns halves a, b into ``mix(a, b, cos, sin)``."""

    def rotate(x, positions, theta):
        by = angles(x, positions, theta)
        return np.concatenate(mix(*np.split(x, 2, axis=1), np.cos(by), np.sin(by)), axis=1)

    return rotate


def neighbours_first(x, positions, theta):
    """Read channels 2j and 2j + 1 as a pair, and leave them split."""
    return rotation()(interleaved_to_split_half(x), positions, theta)


def neighbours_rotated(x, positions, theta):
    """Rotate channels 2j and 2j + 1, as in Meta's checkpoints."""
    return split_half_to_interleaved(neighbours_first(x, positions, theta))


ROTATE = {
    # seen in checkpoints read by the wrong rule
    "neighbouring channels are paired, 2j with 2j + 1 (wrong turn 8)": (neighbours_rotated, neighbours_first),
    "it rotates backwards": rotation(mix=lambda a, b, cos, sin: (a * cos + b * sin, b * cos - a * sin)),
    "one of the two signs is wrong": (
        rotation(mix=lambda a, b, cos, sin: (a * cos + b * sin, b * cos + a * sin)),
        rotation(mix=lambda a, b, cos, sin: (a * cos - b * sin, b * cos - a * sin)),
    ),
    "the halves are swapped": rotation(mix=lambda a, b, cos, sin: (b * cos + a * sin, a * cos - b * sin)),
    "cos and sin are swapped": rotation(mix=lambda a, b, cos, sin: (a * sin - b * cos, b * sin + a * cos)),
    "the frequencies lack the 2": rotation(lambda x, at, theta: angles(x, at, theta, -1.0)),
    "the frequencies fall twice as fast": rotation(lambda x, at, theta: angles(x, at, theta, -4.0)),
    "later pairs turn faster, not slower": rotation(lambda x, at, theta: angles(x, at, theta, 2.0)),
    "all pairs turn at the same speed": rotation(lambda x, at, theta: angles(x, at, theta, 0.0)),
    "theta is 10000, whatever is given": rotation(lambda x, at, theta: angles(x, at, 10000.0)),
    "pairs are counted from one, not from zero": rotation(lambda x, at, theta: angles(x, at, theta, first=1)),
    "the angles are in degrees": rotation(lambda x, at, theta: np.deg2rad(angles(x, at, theta))),
    "the positions are not used": rotation(lambda x, at, theta: angles(x, range(len(x)), theta)),
    "nothing is rotated": lambda x, positions, theta: x,
    "positions are counted from one": rotation(lambda x, at, theta: angles(x, np.asarray(at) + 1, theta)),
    "the first half is overwritten too early": rotation(
        mix=lambda a, b, cos, sin: (a * cos - b * sin, b * cos + (a * cos - b * sin) * sin)
    ),
}
