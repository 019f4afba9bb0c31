"""Read the files of a folder or a zip, and of zips in the folder, once, within limits, and without unpacking them."""

import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .source import LARGEST_SOURCE, size_of

KINDS = r"\.(py|ipynb)(\.txt)?$"  # endings of files that can be judged; a mail program or browser may append .txt
ZIP = ".zip"
PASSED_OVER = {"__MACOSX", "__pycache__", "site-packages", "node_modules"}  # and what begins with a dot
OURS = "minisink/by_the_book.py"  # in a copy of minisink
MOST_FILES, MOST_BYTES, DEEPEST = 1000, 16 * 2**20, 20  # files in a hand-in, their total size, levels of folders


class Found(NamedTuple):
    """A file that has not been read yet."""

    place: str  # its path below what was handed in, with slashes
    size: int
    read: Callable[[], bytes]
    mode: int = 0  # its kind (a link, a pipe, ...) as in `stat`; 0 for a plain file


def is_source(place):
    """Whether a file's name says that it can be judged."""
    return re.search(KINDS, place, re.I) is not None


def is_zip(path):
    """Whether a file's name says that it is a zip."""
    return Path(path).suffix.lower() == ZIP and os.path.isfile(path)


def gather(paths, notes):
    """Read all files at some paths; return bytes by place. Add to `notes` what was skipped; ValueError for too many."""
    found: list[Found] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += islice(_in_folder(path, notes), MOST_FILES + 1)
        elif is_zip(path):
            found += islice(_in_zip(path, notes), MOST_FILES + 1)
        else:
            found.append(Found(path.name, size_of(path), path.read_bytes))
        if len(found) > MOST_FILES:
            raise ValueError(f"{path}: holds more than {MOST_FILES} files; that is not one student's hand-in")
    return _contents(found, notes)


def _in_folder(folder, notes) -> Iterator[Found]:
    """Find the files in a folder and its subfolders, treating zips as folders and following no links."""

    def tell(error):
        notes.append(f"{os.path.relpath(error.filename, folder)} was skipped: it cannot be read ({error.strerror})")

    for root, folders, names in os.walk(folder, onerror=tell):
        below = PurePosixPath(Path(os.path.relpath(root, folder)).as_posix())
        links = [name for name in folders if Path(root, name).is_symlink()]
        folders[:] = sorted(filter(_counts, folders)) if len(below.parts) < DEEPEST else []
        for name in sorted(filter(_counts, [*names, *links])):
            path, place = Path(root, name), below / name
            about = path.lstat()
            if not (stat.S_ISREG(about.st_mode) and is_zip(path)):
                yield Found(str(place), about.st_size, path.read_bytes, about.st_mode)
                continue
            try:
                top = place.with_suffix("")
                yield from [each._replace(place=str(top / each.place)) for each in _in_zip(path, notes)]
            except ValueError as error:
                notes.append(f"{place} was skipped: {str(error).removeprefix(f'{path}: ')}")


def _in_zip(path, notes) -> Iterator[Found]:
    """Find the files in a zip, skipping paths that lead out of it."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path}: not a zip that can be read ({error})") from None
    for entry in archive.infolist():
        place = PurePosixPath(entry.filename.replace("\\", "/"))
        if entry.is_dir() or not place.parts or not all(_counts(part) for part in place.parts if part != ".."):
            continue
        is_outside = place.is_absolute() or re.match(r"[A-Za-z]:", place.parts[0]) or ".." in place.parts
        if is_outside or len(place.parts) > DEEPEST:
            notes.append(f"{entry.filename} was skipped: it leads out of the zip")
        else:
            yield Found(str(place), entry.file_size, partial(archive.read, entry), entry.external_attr >> 16)


def _counts(name):
    """Whether a file or folder with this name is the student's, rather than left behind by a Mac or an editor."""
    return not name.startswith(".") and name not in PASSED_OVER


def _contents(found, notes):
    """Read the files that are small enough, those that can be judged first; return bytes by place."""
    files, left = {}, MOST_BYTES
    ours = tuple(each.place.removesuffix(OURS) + "minisink/" for each in found if each.place.endswith(OURS))
    if ours:
        notes.append(f"{', '.join(ours)} was skipped: this is minisink itself")
        found = [each for each in found if not each.place.startswith(ours)]
    for each in sorted(found, key=lambda each: not is_source(each.place)):
        if stat.S_IFMT(each.mode) not in (0, stat.S_IFREG):
            why = "a link" if stat.S_ISLNK(each.mode) else "not a plain file"
        elif each.size > (min(LARGEST_SOURCE, left) if is_source(each.place) else left):
            why = "too large"
        else:
            try:
                files[each.place] = each.read()
                left -= each.size
                continue
            except Exception as error:  # in a damaged zip, zipfile or a compression module may raise anything
                in_zip = f"damaged in the zip: {error}"
                why = f"it cannot be read ({getattr(error, 'strerror', None) or in_zip})"
        notes.append(f"{each.place} was skipped: {why}")
    return files
