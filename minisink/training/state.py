"""Everything a training needs to go on as if nothing had happened, in one file.

``state.safetensors`` holds three vectors (weights and both moments) and, in its header, a JSON text with the
step, the random generator, the losses since the last row of the log, and what the training is of: config, recipe,
texts. One file, written under another name and moved into place: there is always a whole one.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cache import check_whole
from ..system.files import blame, check_room, load_state, reading, save_state
from . import log

FILE, STATE, WHAT = "state.safetensors", "minisink", "a sound training state"
VECTORS = ("weights", "m", "v")


@dataclass
class State:
    """What changes while training."""

    vectors: dict  # the arrays "weights", "m" and "v", each of shape (P,)
    step: int  # steps done
    seconds: float  # time spent, pauses left out
    random: dict  # state of the generator that draws samples
    losses: list  # of the steps since the last row of the log


def save(folder, state, identity):
    """Write the state; the one before stays until this one is whole.

    `identity` is config, recipe and texts: what a training must have in common with the file to continue from it.
    """
    about = {"step": state.step, "seconds": state.seconds, "random": state.random, "losses": state.losses}
    save_state(folder / FILE, STATE, about | {"identity": identity}, state.vectors)


def load(folder, identity, size=None):
    """Read a state of this training, of `size` weights; ValueError for none, a damaged one, or that of another."""
    path = Path(folder) / FILE
    if not path.exists():
        raise ValueError(f"{path}: no such file, so there is nothing to resume")
    with reading(path, WHAT):
        about, vectors = load_state(path, STATE, WHAT)
        saved = about.pop("identity")
        for part, values in identity.items():
            for key, value in values.items():
                old = saved.get(part, {}).get(key)
                if old != value:
                    raise ValueError(f"{path}: comes from another {part}: {key} is {old!r} there and {value!r} here")
        state = State(vectors, **about)
        _check(state, size)
    return state


def _check(state, size):
    """Raise ValueError (or TypeError) for a state that no training could have left."""
    check_whole("step", state.step, 0)
    vectors = state.vectors
    alike = {(vector.shape, vector.dtype) for vector in vectors.values()}
    if vectors.keys() != set(VECTORS) or alike != {((size or vectors["m"].size,), np.dtype(np.float32))}:
        raise ValueError(f"it holds {', '.join(f'{name} {vector.shape}' for name, vector in vectors.items())}")
    if not all(map(math.isfinite, [state.seconds, *state.losses])):
        raise ValueError(f"it took {state.seconds} seconds, with losses of {state.losses}")
    random_from(state.random)


def check_writable(folder, *, resume):
    """Make the output folder; ValueError for one that holds a model, or a training that is not to go on (`resume`)."""
    with blame(folder, "cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
    check_room(folder / FILE)
    if resume:
        return
    if (folder / FILE).exists():
        raise ValueError(f"{folder}: holds a training already; --resume continues it, or give another --out")
    for name, what in (("config.json", "a model"), (log.FILE, "the log of a training")):
        if (folder / name).exists():
            raise ValueError(f"{folder}: holds {what} already; give another --out")


def random_from(state):
    """Make a random generator that continues where one stopped: at its ``bit_generator.state``."""
    random = np.random.default_rng(0)
    random.bit_generator.state = state
    return random
