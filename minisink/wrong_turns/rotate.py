"""Wrong turns of rotary positions."""

import numpy as np

from ..positions import interleaved_to_split_half


def angles(x, positions, theta, power=-2.0, first=0):  # -> (T, D/2)
    """Return what each pair turns by at each position."""
    D = x.shape[-1]
    return np.asarray(positions)[:, None] * float(theta) ** (power * np.arange(first, first + D // 2) / D)


def rotation(angles=angles, mix=lambda ac, as_, bc, bs: (ac - bs, bc + as_)):
    """Return a rotation by ``angles(x, positions, theta)``, whose halves are ``mix(a cos, a sin, b cos, b sin)``."""

    def rotate(x, positions, theta):
        (a, b), by = np.split(x, 2, axis=1), angles(x, positions, theta)
        return np.concatenate(mix(a * np.cos(by), a * np.sin(by), b * np.cos(by), b * np.sin(by)), axis=1)

    return rotate


def neighbours_first(x, positions, theta):
    """Read channels 2j and 2j + 1 as a pair, and leave them split."""
    return rotation()(interleaved_to_split_half(x), positions, theta)


def neighbours_rotated(x, positions, theta):
    """Rotate channels 2j and 2j + 1, as in Meta's checkpoints."""
    return neighbours_first(x, positions, theta).reshape(len(x), 2, -1).swapaxes(1, 2).reshape(x.shape)


def overwritten(x, positions, theta):
    a, b = np.split(x, 2, axis=1)
    cos, sin = np.cos(angles(x, positions, theta)), np.sin(angles(x, positions, theta))
    a = a * cos - b * sin
    return np.concatenate((a, b * cos + a * sin), axis=1)


ROTATE = {
    # seen in checkpoints read by the wrong rule
    "neighbouring channels are paired, 2j with 2j + 1 (wrong turn 8)": (neighbours_rotated, neighbours_first),
    "it rotates backwards": rotation(mix=lambda ac, as_, bc, bs: (ac + bs, bc - as_)),
    "one of the two signs is wrong": (
        rotation(mix=lambda ac, as_, bc, bs: (ac + bs, bc + as_)),
        rotation(mix=lambda ac, as_, bc, bs: (ac - bs, bc - as_)),
    ),
    "the halves are swapped": rotation(mix=lambda ac, as_, bc, bs: (bc + as_, ac - bs)),
    "cos and sin are swapped": rotation(mix=lambda ac, as_, bc, bs: (as_ - bc, bs + ac)),
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
    "the first half is overwritten too early": overwritten,
}
