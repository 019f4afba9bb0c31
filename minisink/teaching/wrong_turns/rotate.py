"""Wrong turns of rotary positions."""

import numpy as np

from .turn import turns


def _angles(x, positions, theta, power=-2.0, first=0):
    D = x.shape[-1]
    return np.asarray(positions)[:, None] * float(theta) ** (power * np.arange(first, first + D // 2) / D)


def _halves(x):
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]


def _by(x, angles):
    """Rightly rotated, by angles (T, D/2)."""
    (a, b), cos, sin = _halves(x), np.cos(angles), np.sin(angles)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=1)


def pairs_neighbours(x, positions, theta):
    """Channels 2j and 2j + 1, as Meta's checkpoints have it."""
    out = np.empty_like(x)
    out[:, 0::2], out[:, 1::2] = _halves(neighbours_into_halves(x, positions, theta))
    return out


def neighbours_into_halves(x, positions, theta):
    """Channels 2j and 2j + 1 are read, j and j + D/2 written."""
    return _by(np.concatenate((x[:, 0::2], x[:, 1::2]), axis=1), _angles(x, positions, theta))


def turns_backwards(x, positions, theta):
    """The other way round."""
    return _by(x, -_angles(x, positions, theta))


def one_sign(x, positions, theta):
    """Plus in both halves."""
    (a, b), angles = _halves(x), _angles(x, positions, theta)
    return np.concatenate((a * np.cos(angles) + b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), axis=1)


def other_sign(x, positions, theta):
    """Minus in both."""
    (a, b), angles = _halves(x), _angles(x, positions, theta)
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) - a * np.sin(angles)), axis=1)


def swaps_the_halves(x, positions, theta):
    """The second half is written first."""
    return np.roll(_by(x, _angles(x, positions, theta)), x.shape[1] // 2, axis=1)


def swaps_cos_and_sin(x, positions, theta):
    """Sine for cosine."""
    (a, b), angles = _halves(x), _angles(x, positions, theta)
    return np.concatenate((a * np.sin(angles) - b * np.cos(angles), b * np.sin(angles) + a * np.cos(angles)), axis=1)


def slows_too_little(x, positions, theta):
    """theta ** (-j / D): the 2 is missing."""
    return _by(x, _angles(x, positions, theta, -1.0))


def slows_twice(x, positions, theta):
    """theta ** (-2 j / (D / 2)): twice the 2."""
    return _by(x, _angles(x, positions, theta, -4.0))


def speeds_up(x, positions, theta):
    """theta ** (+2 j / D): later pairs turn ever faster."""
    return _by(x, _angles(x, positions, theta, 2.0))


def one_speed(x, positions, theta):
    """Every pair by the same angle."""
    return _by(x, np.asarray(positions)[:, None] * np.ones(x.shape[1] // 2))


def theta_of_its_own(x, positions, theta):
    """10000, as in Llama, whatever is given."""
    return _by(x, _angles(x, positions, 10000.0))


def pairs_from_one(x, positions, theta):
    """j from 1 to D/2."""
    return _by(x, _angles(x, positions, theta, first=1))


def degrees(x, positions, theta):
    """Angles in degrees."""
    return _by(x, np.deg2rad(_angles(x, positions, theta)))


def numbers_rows_itself(x, positions, theta):
    """The positions that were given are not used: row t stands at t."""
    return _by(x, _angles(x, range(len(x)), theta))


def stays(x, positions, theta):
    """As it came."""
    return x


def positions_from_one(x, positions, theta):
    """One place too far."""
    return _by(x, _angles(x, np.asarray(positions) + 1, theta))


def drops_the_cross_term(x, positions, theta):
    """The second half uses the first half that has just been overwritten."""
    angles, half, out = _angles(x, positions, theta), x.shape[1] // 2, x.copy()
    out[:, :half] = out[:, :half] * np.cos(angles) - out[:, half:] * np.sin(angles)
    out[:, half:] = out[:, half:] * np.cos(angles) + out[:, :half] * np.sin(angles)
    return out


PAIRS = ("Which two channels are a pair?", "Hugging Face and Meta disagree; here it is Hugging Face's.",
         "Channel j goes with channel j + D/2, not 2j with 2j + 1.")  # fmt: skip
SIGN = ("Where does (1, 0) go after a quarter turn?", "It must go to (0, 1).", "a cos - b sin, and b cos + a sin.")
HALVES = ("What is a rotation by position 0?", "Nothing changes: cos is 1, sin 0, each half stays in its place.",
          "First half: a cos - b sin. Second half: b cos + a sin.")  # fmt: skip
RATE = ("How fast does the last pair turn?", "Pair 0 turns one radian a position, the others ever slower.",
        "Pair j = 0 ... D/2 - 1 turns by position * theta ** (-2 j / D) radians, with the given theta.")  # fmt: skip
GIVEN = (
    "What are the positions for?",
    "Row t need not stand at t, nor one further.",
    "Row t is rotated to positions[t].",
)
OLD = ("Which numbers does the second half need?", "The old ones; are they still there?",
       "Keep both halves before you write either.")  # fmt: skip
TURNS = turns(
    ("neighbouring channels are paired, 2j with 2j + 1", 8, "checkpoints read by the wrong rule", PAIRS,
     pairs_neighbours, neighbours_into_halves),
    ("it rotates backwards", None, "", SIGN, turns_backwards),
    ("one of the two signs is wrong", None, "", SIGN, one_sign, other_sign),
    ("the halves are swapped", None, "", HALVES, swaps_the_halves),
    ("cos and sin are swapped", None, "", HALVES, swaps_cos_and_sin),
    ("the frequencies lack the 2", None, "", RATE, slows_too_little),
    ("the frequencies fall twice as fast", None, "", RATE, slows_twice),
    ("later pairs turn faster, not slower", None, "", RATE, speeds_up),
    ("all pairs turn at one speed", None, "", RATE, one_speed),
    ("theta is 10000, whatever is given", None, "", RATE, theta_of_its_own),
    ("pairs are counted from one, not from zero", None, "", RATE, pairs_from_one),
    ("the angles are in degrees", None, "", RATE, degrees),
    ("the positions are not used", None, "", GIVEN, numbers_rows_itself),
    ("nothing is rotated", None, "", GIVEN, stays),
    ("positions are counted from one", None, "", GIVEN, positions_from_one),
    ("the first half is overwritten too early", None, "", OLD, drops_the_cross_term),
)  # fmt: skip
