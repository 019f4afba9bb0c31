"""Atomic writes, saved states, locks, and early checks that a path can be written."""

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from . import PACKAGE
from .terminal import in_a_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SAVING = ".saving-"  # prefix of the folder for unfinished files; eight letters follow


@contextmanager
def blame(path, what):
    """Turn an OSError, or what safetensors makes of one, into a ValueError: "`path`: `what` (the reason)"."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: {what} ({getattr(error, 'strerror', None) or error})") from error


def read_text(path, newline=None):
    """Read a UTF-8 text, without its byte-order mark; a ValueError names the file and the first bad byte."""
    try:
        with blame(path, "cannot be read"), open(path, encoding="utf-8", newline=newline) as file:
            return file.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.object[error.start]:#04x} at {error.start})") from None


FORMAT = "1"  # the format of every saved state; it changes when older states can no longer be read


def save_state(path, kind, about, arrays):
    """Write a state of some `kind`, a JSON-able dict and arrays by name, to a safetensors file, with a digest.

    The file is written whole or not at all; raise ValueError if that fails.
    """
    arrays = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}  # save_file writes the buffer
    text = json.dumps(about, default=int)  # NumPy integers are written as integers
    with atomic_write(path) as unfinished:
        save_file(arrays, unfinished, metadata={kind: text, "format": FORMAT, "digest": digest_of(text, arrays)})


def load_state(path, kind, what):
    """Read what `save_state` wrote: (about, arrays).

    Raise ValueError ("`path`: not `what`") for any other file, and for one changed or damaged since.
    """
    with reading(path, what):
        if not os.path.isfile(path):  # opening a pipe would block
            raise ValueError("not a plain file" if os.path.lexists(path) else "no such file")
        open(path, "rb").close()  # says why it cannot be opened
        with safe_open(path, framework="numpy") as file:
            stored = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if kind not in stored:
            raise ValueError("it is not marked as one")
        if stored.get("format", FORMAT) != FORMAT:
            raise ValueError(f"a state of format {stored['format']}, but this version of {PACKAGE} reads {FORMAT}")
        if stored.get("digest") != digest_of(stored[kind], arrays):
            raise ValueError("it was changed or damaged since it was written")
        return json.loads(stored[kind]), arrays


@contextmanager
def reading(path, what):
    """Turn any error while a state is read, checked and restored into a ValueError: "`path`: not `what`".

    A ValueError that already names the file is kept; text from the state is kept to one line.
    """
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        is_named = str(error).startswith(f"{path}: ")
        raise ValueError(in_a_line(error if is_named else f"{path}: not {what} ({error})")) from error
    except MemoryError as error:
        raise MemoryError(f"{path}: not enough memory to read it ({error})") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        why = f"its structure is different: {type(error).__name__}: {error}"
        raise ValueError(in_a_line(f"{path}: not {what} ({why})")) from error


def digest_of(text, arrays):
    """Hash a text and arrays, in order: any change to a name, dtype, shape or number changes the hash."""
    digest = hashlib.sha256(text.encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextmanager
def atomic_write(path):
    """Yield a Path to write to, with the same name in another folder; move the file to `path` when it is complete.

    If writing fails, `path` is left unchanged, and a ValueError names it.
    """
    path = Path(path)
    with blame(path, "cannot be written"), unfinished_folder(path.parent) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


@contextmanager
def unfinished_folder(folder):
    """Make a folder within `folder` for files that are moved when complete; remove what killed runs left there."""
    for path in Path(folder).glob(f"{SAVING}????????") if fcntl else ():
        with ExitStack() as locks, suppress(OSError):
            if _hold(path, locks):  # no running process uses it
                shutil.rmtree(path)
    with ExitStack() as locks:
        while True:
            made = tempfile.TemporaryDirectory(dir=folder, prefix=SAVING, ignore_cleanup_errors=True)
            unfinished = locks.enter_context(made)
            try:
                if not fcntl or _hold(unfinished, locks):
                    break
            except BlockingIOError:  # another process is removing it right now
                continue
            except OSError:  # no locks on this system, so nothing removes it
                break
        yield Path(unfinished)


def _hold(path, locks):
    """Lock a file or folder until `locks` closes, or raise BlockingIOError if it is taken; False if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would block
        locks.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def lock_files(*paths):
    """Make this the only run that writes these files (None is ignored); raise ValueError if another is writing one.

    A file next to each is locked until the process ends, however it ends. Systems without such locks refuse nothing.
    """
    with ExitStack() as locks:
        for path in filter(None, paths if fcntl else ()):
            target = Path(os.path.realpath(path))
            lock = target.with_name(f".{target.name}.lock")
            try:
                open(lock, "a").close()
                while not _hold(lock, locks):  # its last owner has just removed it
                    open(lock, "a").close()
                locks.callback(lock.unlink, missing_ok=True)  # while it is still locked
            except BlockingIOError:
                wrong = f"{path}: another run is writing it; wait until it ends, or give another name"
                raise ValueError(wrong) from None
            except OSError:  # no locks on this system
                pass
        yield


def check_file(path):
    """Refuse a folder, and a pipe, which would block."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: {'a folder' if os.path.isdir(path) else 'not a plain file'}; a file is needed here")


def check_room(path):
    """Refuse a file whose folder is not writable."""
    with blame(path, "cannot be written"), tempfile.NamedTemporaryFile(dir=Path(path).parent, prefix="."):
        pass


def check_folder(path):
    """Refuse a file that could not be written; None is ignored."""
    if path is not None:
        check_file(path)
        check_room(path)


def check_picture(path):
    """Refuse a picture that could not be drawn or written; None is ignored."""
    if path is None:
        return
    try:
        import matplotlib.figure
    except ImportError:
        raise ValueError(f"pictures need matplotlib: pip install '{PACKAGE}[plot]'") from None
    formats = matplotlib.figure.Figure().canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: a picture's name ends in one of {', '.join('.' + kind for kind in sorted(formats))}")
    check_folder(path)
