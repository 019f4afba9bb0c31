"""Wrong turns of rotary positions."""

import numpy as np

from .turn import Turn


def _angles(x, positions, theta, power=2.0):
    D = x.shape[-1]
    return np.asarray(positions)[:, None] * float(theta) ** (-power * np.arange(D // 2) / D)


def pairs_neighbours(x, positions, theta):
    """Channels 2j and 2j + 1, as Meta's checkpoints have it."""
    angles, out = _angles(x, positions, theta), np.empty_like(x)
    a, b = x[:, 0::2], x[:, 1::2]
    out[:, 0::2] = a * np.cos(angles) - b * np.sin(angles)
    out[:, 1::2] = b * np.cos(angles) + a * np.sin(angles)
    return out


def turns_backwards(x, positions, theta):
    """The other way round."""
    angles, half = _angles(x, positions, theta), x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate((a * np.cos(angles) + b * np.sin(angles), b * np.cos(angles) - a * np.sin(angles)), axis=1)


def slows_too_little(x, positions, theta):
    """theta ** (-j / D): the 2 is missing."""
    angles, half = _angles(x, positions, theta, 1.0), x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), axis=1)


def slows_twice(x, positions, theta):
    """theta ** (-2 j / (D / 2)): twice the 2."""
    angles, half = _angles(x, positions, theta, 4.0), x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), axis=1)


def speeds_up(x, positions, theta):
    """theta ** (+2 j / D): later pairs turn ever faster."""
    angles, half = _angles(x, positions, theta, -2.0), x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), axis=1)


def one_speed(x, positions, theta):
    """Every pair by the same angle."""
    angles, half = np.asarray(positions)[:, None] * np.ones(x.shape[1] // 2), x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), axis=1)


def numbers_rows_itself(x, positions, theta):
    """The positions that were given are not used: row t stands at t."""
    angles, half = _angles(x, range(len(x)), theta), x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), axis=1)


def drops_the_cross_term(x, positions, theta):
    """The second half uses the first half that has just been overwritten."""
    angles, half, out = _angles(x, positions, theta), x.shape[1] // 2, x.copy()
    out[:, :half] = out[:, :half] * np.cos(angles) - out[:, half:] * np.sin(angles)
    out[:, half:] = out[:, half:] * np.cos(angles) + out[:, :half] * np.sin(angles)
    return out


PAIRS = ("Which two channels are a pair?", "Hugging Face and Meta disagree; here it is Hugging Face's.",
         "Channel j goes with channel j + D/2, not 2j with 2j + 1.")  # fmt: skip
SIGN = ("Where does (1, 0) go after a quarter turn?", "It must go to (0, 1).", "a cos - b sin, and b cos + a sin.")
RATE = ("How fast does the last pair turn?", "Pair 0 turns one radian a position, the others ever slower.",
        "Pair j of D/2 turns by position * theta ** (-2 j / D).")  # fmt: skip
GIVEN = ("What are the positions for?", "Row t need not stand at t.", "Row t is turned by positions[t].")
OLD = ("Which numbers does the second half need?", "The old ones; are they still there?",
       "Keep both halves before you write either.")  # fmt: skip
TURNS = (
    Turn("neighbouring channels are paired, 2j with 2j + 1", 8, "checkpoints read by the wrong rule", PAIRS,
         pairs_neighbours),
    Turn("it rotates backwards", None, "", SIGN, turns_backwards),
    Turn("the frequencies lack the 2", None, "", RATE, slows_too_little),
    Turn("the frequencies fall twice as fast", None, "", RATE, slows_twice),
    Turn("later pairs turn faster, not slower", None, "", RATE, speeds_up),
    Turn("all pairs turn at one speed", None, "", RATE, one_speed),
    Turn("the positions are not used", None, "", GIVEN, numbers_rows_itself),
    Turn("the first half is overwritten too early", None, "", OLD, drops_the_cross_term),
)  # fmt: skip
