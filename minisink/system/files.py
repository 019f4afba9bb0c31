"""Files that appear whole or not at all, states that come back as they were, and a look beforehand at what can be."""

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file


def save_state(path, kind, about, arrays):
    """Write what a run goes on from to a safetensors file, whole or not at all, with a digest of it all.

    Parameters
    ----------
    path : str or path
    kind : str
        Whose state it is.
    about : dict
        What JSON can hold.
    arrays : dict of str to numpy.ndarray

    Raises
    ------
    ValueError
        When the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # save_file writes the buffer
    text = json.dumps(about, default=int)  # a NumPy integer counts as a whole number
    try:
        with whole_file(path) as unfinished:
            save_file(arrays, unfinished, metadata={kind: text, "digest": _digest(text, arrays)})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be written ({error})") from error


def load_state(path, kind, what):
    """Read what `save_state` wrote: (about, arrays).

    Raises
    ------
    ValueError
        "`path`: not `what`", for any other file, and for one that was changed or damaged since.
    """
    try:
        if not os.path.isfile(path):  # a pipe would keep us waiting
            raise ValueError("no such file" if not os.path.lexists(path) else "no plain file")
        with safe_open(path, framework="numpy") as file:
            stored = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if kind not in stored:
            raise ValueError("it says so nowhere")
        if stored.get("digest") != _digest(stored[kind], arrays):
            raise ValueError("it was changed or damaged since it was written")
        return json.loads(stored[kind]), arrays
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not {what} ({error})") from error


def _digest(text, arrays):
    """Some digits that any other text, name, dtype, shape or number would change."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


@contextmanager
def whole_file(path):
    """Write a file under another name, and move it into place when it is whole.

    Parameters
    ----------
    path : str or path
        Left as it is when writing fails.

    Yields
    ------
    Path
        What to write to, beside `path` and with its ending.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with suppress(OSError, ValueError):
            unfinished.unlink(missing_ok=True)


def check_picture(path):
    """Refuse a picture that could not be written, before hours of work go into it.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    ValueError
        Without matplotlib, for a folder that is not there, or an ending matplotlib does not know.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("pictures need matplotlib: pip install 'minisink[plot]'") from None
    known = Figure().canvas.get_supported_filetypes()
    ending = Path(path).suffix[1:].lower()
    if ending not in known:
        raise ValueError(f"{path}: a picture ends in one of {', '.join('.' + kind for kind in sorted(known))}")
    if not Path(path).parent.is_dir():
        raise ValueError(f"{path}: there is no folder {Path(path).parent}")
    if Path(path).is_dir():
        raise ValueError(f"{path}: this is a folder; a picture needs the name of a file")
