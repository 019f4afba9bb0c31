"""Wrong turns of rotary positions."""

import numpy as np

from .turn import turns


def angles(x, positions, theta, power=-2.0, first=0):  # -> (T, D/2)
    """Return what each pair turns by at each position."""
    D = x.shape[-1]
    return np.asarray(positions)[:, None] * float(theta) ** (power * np.arange(first, first + D // 2) / D)


def rotated(x, angles):  # (T, D), (T, D/2) -> (T, D)
    """Rotate rightly, by these angles."""
    (a, b), cos, sin = np.split(x, 2, axis=1), np.cos(angles), np.sin(angles)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=1)


def combined(mix):
    """Return a rotation that makes its halves of ``mix(a cos, a sin, b cos, b sin)``."""

    def rotate(x, positions, theta):
        (a, b), by = np.split(x, 2, axis=1), angles(x, positions, theta)
        return np.concatenate(mix(a * np.cos(by), a * np.sin(by), b * np.cos(by), b * np.sin(by)), axis=1)

    return rotate


def by(angle):
    """Return a rotation by ``angle(x, positions, theta)``."""
    return lambda x, positions, theta: rotated(x, angle(x, positions, theta))


def neighbours(x):
    """Read channels 2j and 2j + 1 as a pair."""
    return np.concatenate((x[:, 0::2], x[:, 1::2]), axis=1)


def neighbours_rotated(x, positions, theta):
    """Rotate channels 2j and 2j + 1, as Meta's checkpoints have it."""
    return rotated(neighbours(x), angles(x, positions, theta)).reshape(len(x), 2, -1).swapaxes(1, 2).reshape(x.shape)


def overwritten(x, positions, theta):
    """Make the second half of the first half that has just been overwritten."""
    a, b = np.split(x, 2, axis=1)
    cos, sin = np.cos(angles(x, positions, theta)), np.sin(angles(x, positions, theta))
    a = a * cos - b * sin
    return np.concatenate((a, b * cos + a * sin), axis=1)


HINTED = {
    """Which two channels are a pair?
    Look at how you split the channels.
    Channel j goes with channel j + D/2, as Hugging Face has it, not 2j with 2j + 1, as Meta has.""": {
        # seen in checkpoints read by the wrong rule
        "neighbouring channels are paired, 2j with 2j + 1 (wrong turn 8)": (
            neighbours_rotated,
            lambda x, positions, theta: rotated(neighbours(x), angles(x, positions, theta)),
        ),
    },
    """Where does (1, 0) go after a quarter turn?
    Look at the signs of the two sines.
    It must go to (0, 1): a cos - b sin, and b cos + a sin.""": {
        "it rotates backwards": combined(lambda ac, as_, bc, bs: (ac + bs, bc - as_)),
        "one of the two signs is wrong": (
            combined(lambda ac, as_, bc, bs: (ac + bs, bc + as_)),
            combined(lambda ac, as_, bc, bs: (ac - bs, bc - as_)),
        ),
    },
    """What is a rotation by position 0?
    Look at which half is multiplied by cos, and which half comes first.
    First a cos - b sin, then b cos + a sin: at position 0, where cos is 1 and sin 0, nothing changes.""": {
        "the halves are swapped": combined(lambda ac, as_, bc, bs: (bc + as_, ac - bs)),
        "cos and sin are swapped": combined(lambda ac, as_, bc, bs: (as_ - bc, bs + ac)),
    },
    """How fast does the last pair turn?
    Look at the exponent of theta.
    It is -2 j / D for pair j, with D the whole width: pair 0 turns one radian per position, later pairs less.""": {
        "the frequencies lack the 2": by(lambda x, at, theta: angles(x, at, theta, -1.0)),
        "the frequencies fall twice as fast": by(lambda x, at, theta: angles(x, at, theta, -4.0)),
        "later pairs turn faster, not slower": by(lambda x, at, theta: angles(x, at, theta, 2.0)),
        "all pairs turn at one speed": by(lambda x, at, theta: angles(x, at, theta, 0.0)),
    },
    """What changes in your answer when theta does?
    Look at where `theta` enters.
    Take the theta that is given, not 10000.""": {
        "theta is 10000, whatever is given": by(lambda x, at, theta: angles(x, at, 10000.0)),
    },
    """How fast does the first pair turn?
    Look at where j begins.
    At 0: pair 0 turns one radian per position, and the last pair is D/2 - 1.""": {
        "pairs are counted from one, not from zero": by(lambda x, at, theta: angles(x, at, theta, first=1)),
    },
    """In which unit do cos and sin take an angle?
    Look at what you make of the angles before you take their cosine.
    In radians: position * theta ** (-2 j / D) is one already.""": {
        "the angles are in degrees": by(lambda x, at, theta: np.deg2rad(angles(x, at, theta))),
    },
    """What are the positions for?
    Look at where `positions` enters.
    Rotate row t to positions[t], which need not be t.""": {
        "the positions are not used": by(lambda x, at, theta: angles(x, range(len(x)), theta)),
        "nothing is rotated": lambda x, positions, theta: x,
    },
    """What is a rotation by position 0?
    Look at what you add to the positions.
    Nothing: row t is rotated to positions[t], and position 0 changes nothing.""": {
        "positions are counted from one": by(lambda x, at, theta: angles(x, np.asarray(at) + 1, theta)),
    },
    """Which numbers does the second half need?
    Look at the order of the two assignments: are the old numbers still there?
    Keep both halves before you write either.""": {
        "the first half is overwritten too early": overwritten,
    },
}
TURNS = turns(HINTED)
