"""A student's file as it was handed in: a Python file, or the code cells of a notebook."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

LARGEST_SOURCE = 2 * 2**20


class Source(NamedTuple):
    """A student's file."""

    name: str
    text: str | list[str]  # of a notebook the code cells
    notebook: bool

    def defines(self, task):
        """Whether the text looks as if it did; asked only when the file could not be run to its end."""
        texts = [self.text] if isinstance(self.text, str) else self.text
        imports = "from (?!minisink)" if self.notebook else "from "  # a lesson's imports are not the student's
        looks = rf"^(async )?(def {task}\b|{task}\s*=|{imports}.*\b{task}\b)"
        return any(re.search(looks, text, re.M) for text in texts)


def read(path):
    """Read a student's file, or a notebook's code cells.

    Raises
    ------
    ValueError
        For a file that is not there, a folder, a pipe, something too large, or a notebook that is none.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no plain file" if os.path.lexists(path) else "no such file"
        raise ValueError(f"{path}: {what}; give the student's .py file or notebook")
    try:
        raw = path.read_bytes() if path.stat().st_size <= LARGEST_SOURCE else None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if raw is None:
        raise ValueError(f"{path}: larger than {LARGEST_SOURCE >> 20} MiB; that is no student's file")
    if path.suffix == ".ipynb":
        return Source(path.name, _cells(path, raw), True)
    try:
        text = importlib.util.decode_source(raw)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from None
    return Source(path.name, text.removeprefix("\ufeff"), False)


def _cells(path, raw):
    """Return the sources of the code cells, without the lines that only a notebook understands."""
    try:
        notebook = json.loads(raw.decode("utf-8-sig"))
        cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
        texts = ["".join(source) if isinstance(source, list) else str(source) for source in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a notebook of version 4 ({type(error).__name__}: {error})") from None
    texts = [text for text in texts if not text.lstrip().startswith("%%")]
    return [re.sub(r"^([ \t]*)[%!].*$", r"\1pass", text, flags=re.M) for text in texts]
