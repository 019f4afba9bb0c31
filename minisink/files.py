"""Files that appear whole or not at all, and a look before long work whether they can."""

import os
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file


def save_arrays(arrays, path, metadata):
    """Write arrays to a safetensors file, whole or not at all.

    Parameters
    ----------
    arrays : dict of str to numpy.ndarray
        Contiguous.
    path : str or path
    metadata : dict of str to str

    Raises
    ------
    ValueError
        When the file cannot be written.
    """
    try:
        with whole_file(path) as unfinished:
            save_file(arrays, unfinished, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be written ({error})") from error


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
