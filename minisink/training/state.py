"""Everything a training run needs to continue as if nothing had happened, in one file.

``state.safetensors`` holds three vectors (weights and both moments) and, in its header, a JSON text with the step, the
random generator, the losses since the last row of the log, and what is trained: config, recipe, texts. It is written
under a temporary name and moved into place, so there is always a complete one.
"""

import math
from pathlib import Path

import numpy as np

from ..cache import check_whole
from ..system.files import blame, check_room, load_state, reading
from . import log

FILE, STATE, WHAT = "state.safetensors", "minisink", "a sound training state"


def load(folder, identity, size):
    """Read a state of this training run, with `size` weights: (JSON-able metadata, vectors).

    The metadata has the ``"step"``, the ``"seconds"`` without pauses, the state of the ``"random"`` generator, and the
    ``"losses"`` since the last row of the log. ValueError if the file is missing, damaged, or has another `identity`.
    """
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
        if about.keys() != {"step", "seconds", "random", "losses"}:
            raise ValueError(f"it holds {', '.join(about)}")
        check_whole("step", about["step"], 0)
        alike = {(vector.shape, vector.dtype) for vector in vectors.values()}
        if vectors.keys() != {"weights", "m", "v"} or alike != {((size,), np.dtype(np.float32))}:
            raise ValueError(f"it holds {', '.join(f'{name} {vector.shape}' for name, vector in vectors.items())}")
        if not all(map(math.isfinite, [about["seconds"], *about["losses"]])):
            raise ValueError(f"it took {about['seconds']} seconds, with losses of {about['losses']}")
        random_from(about["random"])
    return about, vectors


def check_writable(folder, *, resume):
    """Make the output folder; ValueError if it holds a model, or a training and `resume` is false."""
    with blame(folder, "cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
    check_room(folder / FILE)
    holds = {FILE: "a training", "config.json": "a model", log.FILE: "the log of a training"}
    for name, what in holds.items() if not resume else ():
        if (folder / name).exists():
            or_resume = "--resume continues it, or " if name == FILE else ""
            raise ValueError(f"{folder}: holds {what} already; {or_resume}give another --out")


def random_from(state):
    """Make a random generator that continues from the ``bit_generator.state`` of an earlier one."""
    random = np.random.default_rng(0)
    random.bit_generator.state = state
    return random
