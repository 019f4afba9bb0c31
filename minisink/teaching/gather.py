"""The files of a folder, of a zip and of zips in these, read once, within limits on number, size and depth.

Nothing is unpacked: of a zip only names and bytes are taken. Each file has a place, its path below what was handed in.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .source import LARGEST_SOURCE, size_of

KINDS = r"\.(py|ipynb)(\.txt)?$"  # how a file ends that can be judged; a mail program or browser may append .txt
ZIP = ".zip"
PASSED_OVER = {"__MACOSX", "__pycache__", "site-packages", "node_modules"}  # and what begins with a dot
OURS = "minisink/by_the_book.py"  # where it lies, the rest of minisink does
MOST_FILES = 1000  # in a hand-in
MOST_BYTES = 16 * 2**20  # of all of them
LARGEST_ZIP = 512 * 2**20
DEEPEST = 20  # folders in folders


class Found(NamedTuple):
    """A file that has not been read yet."""

    place: str  # with slashes, below what was handed in
    size: int
    read: Callable[[], bytes]

    @property
    def is_source(self):
        """Whether it can be judged."""
        return is_source(self.place)


def is_source(place):
    """Whether a file can be judged, by its name."""
    return re.search(KINDS, place, re.I) is not None


def is_zip(path):
    """Whether a path is that of a zip, by its name."""
    return Path(path).suffix.lower() == ZIP and os.path.isfile(path)


def gather(paths, notes):
    """Read all files of some paths: bytes by place. `notes` is told what was passed over.

    Raises ValueError for a path that cannot be read, and for too many files.
    """
    found: list[Found] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += _in_folder(path, notes)
        elif is_zip(path):
            found += _in_zip(path, PurePosixPath(), notes)
        else:
            found.append(Found(path.name, size_of(path), path.read_bytes))
    return _contents(found, notes)


def _in_folder(folder, notes) -> Iterator[Found]:
    """Find the plain files of a folder and of those in it, in order, and of zips in it; no link is followed."""

    def tell(error):
        notes.append(f"{os.path.relpath(error.filename, folder)} was passed over: it cannot be read ({error.strerror})")

    n_files = 0
    for root, folders, names in os.walk(folder, onerror=tell):
        below = PurePosixPath(Path(os.path.relpath(root, folder)).as_posix())
        links = [name for name in sorted(folders) if Path(root, name).is_symlink()]
        notes += [f"{below / name} was passed over: a link" for name in links]
        deep = len(below.parts) >= DEEPEST
        folders[:] = [] if deep else sorted(name for name in folders if _counts(name))
        for name in sorted(filter(_counts, names)):
            path, place = Path(root, name), str(below / name)
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode):
                what = "a link" if stat.S_ISLNK(about.st_mode) else "no plain file"
                notes.append(f"{place} was passed over: {what}")
                continue
            n_files += 1
            if n_files > MOST_FILES:
                raise ValueError(f"{folder}: holds more than {MOST_FILES} files; that is no hand-in of one student")
            if path.suffix.lower() == ZIP:
                try:
                    yield from _in_zip(path, below / path.stem, notes)
                except ValueError as error:
                    notes.append(str(error).replace(f"{path}:", f"{place} was passed over:"))
            else:
                yield Found(place, about.st_size, path.read_bytes)


def _in_zip(path, below, notes, inner=None) -> list[Found]:
    """Find the files of a zip, as if they lay in a folder `below`; what would lead out of it is passed over.

    A zip in it is looked into too, given as bytes, `inner`; but none in that.
    """
    try:
        if inner is None and path.stat().st_size > LARGEST_ZIP:
            raise ValueError(f"larger than {LARGEST_ZIP >> 20} MiB")
        archive = zipfile.ZipFile(path if inner is None else io.BytesIO(inner))
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path}: not a zip that can be read ({error})") from None
    found, left = [], MOST_BYTES
    for entry in archive.infolist():
        place = PurePosixPath(entry.filename.replace("\\", "/"))
        if entry.is_dir() or not place.parts or not all(_counts(part) for part in place.parts if part != ".."):
            continue
        has_drive = re.match(r"[A-Za-z]:", place.parts[0])
        if place.is_absolute() or has_drive or ".." in place.parts or len(place.parts) > DEEPEST:
            notes.append(f"{entry.filename} was passed over: it leads out of the zip")
        elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            notes.append(f"{entry.filename} was passed over: a link")
        elif place.suffix.lower() == ZIP and inner is None and entry.file_size <= left:
            left -= entry.file_size
            try:
                found += _in_zip(place, below / place.with_suffix(""), notes, _unpacked(archive, entry))
            except (ValueError, OSError) as error:
                why = getattr(error, "strerror", None) or str(error).removeprefix(f"{place}: ")
                notes.append(f"{place} was passed over: {why}")
        else:
            found.append(Found(str(below / place), entry.file_size, partial(_unpacked, archive, entry)))
    if len(found) > MOST_FILES:
        raise ValueError(f"{path}: holds more than {MOST_FILES} files; that is no hand-in of one student")
    return found


def _unpacked(archive, entry):
    """Read a file of a zip, which gives no more bytes than the size that it says it has."""
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise OSError(0, f"not in the zip as it should be: {error}") from None
    except Exception as error:  # zlib.error, lzma.LZMAError: whatever a module for a compression raises
        raise OSError(0, f"damaged in the zip: {error}") from None


def _counts(name):
    """Whether a file or folder of this name is the student's: not what a Mac or an editor leaves behind."""
    return not name.startswith(".") and name not in PASSED_OVER


def _contents(found, notes):
    """Read files, those that can be judged first, as far as they are small enough: bytes by place."""
    files: dict[str, bytes] = {}
    left = MOST_BYTES
    ours = tuple(each.place.removesuffix(OURS) + "minisink/" for each in found if each.place.endswith(OURS))
    if ours:
        notes.append(f"{', '.join(ours)} was passed over: that is minisink itself")
        found = [each for each in found if not each.place.startswith(ours)]
    for each in sorted(found, key=lambda each: not each.is_source):
        most = min(LARGEST_SOURCE, left) if each.is_source else left
        try:
            raw = each.read() if each.size <= most else None
        except OSError as error:
            notes.append(f"{each.place} was passed over: it cannot be read ({error.strerror})")
            continue
        if raw is None or len(raw) > most:
            notes.append(f"{each.place} was passed over: too large")
            continue
        left -= len(raw)
        files[each.place] = raw
    return files
