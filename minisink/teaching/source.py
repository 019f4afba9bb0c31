"""A student's file as it was handed in: a Python file, or the code cells of a notebook.

Magics become Python, as in nbconvert: `%time f()` calls `get_ipython()`, which does next to nothing in the child. They
are read as IPython reads them, but it need not be installed. Text that is already Python is never changed.
"""

import ast
import io
import json
import os
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

from ..system.files import blame
from .loading import BROKEN, JOINED, UNFINISHED

LARGEST_SOURCE = 2 * 2**20


class Source(NamedTuple):
    """A student's file."""

    name: str
    text: str | list[str]  # the code cells of a notebook
    notebook: bool

    @property
    def whole(self):
        """The whole text; for a notebook, all its code cells."""
        return "\n".join(self.text) if self.notebook else self.text

    @property
    def stem(self):
        """The name under which another file imports it."""
        return self.name.rpartition("/")[2].partition(".")[0]

    @property
    def imports(self):
        """The words of its import statements: modules, and names imported from them."""
        return set(re.findall(r"\w+", " ".join(re.findall(r"^\s*(?:from|import)\s+(.+)", self.whole, re.M))))

    def defines(self, task):
        """Whether the text looks as if it defined a task."""
        looks = rf"^(async )?(def {task}\b|{task}\s*=|from (?!minisink).*\b{task}\b)"
        return re.search(looks, self.whole, re.M) is not None


def read(path):
    """Read a student's file, or a notebook's code cells; ValueError if it is not one, too large, or unreadable."""
    path = Path(path)
    if size_of(path) > LARGEST_SOURCE:
        raise ValueError(f"{path}: larger than {LARGEST_SOURCE >> 20} MiB; that is not a student's file")
    with blame(path, "cannot be read"):
        raw = path.read_bytes()
    try:
        return parse(path.name, raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def size_of(path):
    """Return the size of a plain file; refuse anything else, which might never end."""
    try:
        if path.is_file():
            return path.stat().st_size
        what = "a folder" if path.is_dir() else "not a plain file" if os.path.lexists(path) else "no such file"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    raise ValueError(f"{path}: {what}; give the student's .py file or notebook")


def parse(name, raw):
    """Read the bytes of a student's file; ValueError for a bad notebook, or a file that is not text."""
    text = decode(raw)
    if not re.search(r"\.ipynb(\.txt)?$", name, re.I):
        if "\0" in text:
            raise ValueError("not a text (it contains zero bytes); give the student's .py file or notebook")
        return Source(name, absolute(as_python_file(text)), False)
    try:
        cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        texts = ["".join(source) if isinstance(source, list) else str(source) for source in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a notebook of version 4 ({type(error).__name__}: {error})") from None
    return Source(name, list(map(as_python, texts)), True)


def absolute(text):
    r"""Return a text that imports its neighbours by name, because it is in no package in the child's folder.

    >>> absolute("from .helpers import keep\nfrom . import more")
    'from helpers import keep\nimport more'
    """
    text = re.sub(r"(?m)^([ \t]*from[ \t]+)\.+(?=\w)", r"\1", text)
    return re.sub(r"(?m)^([ \t]*)from[ \t]+\.+[ \t]+(?=import\b[^(\n]*$)", r"\1", text)


def decode(raw):
    """Decode a text: UTF-8, UTF-16 or UTF-32 with a mark, the encoding named in its first lines, or else Latin-1."""
    mark = json.detect_encoding(raw)
    marked = mark if mark in ("utf-8-sig", "utf-16", "utf-32") else None
    try:
        text = raw.decode(marked or tokenize.detect_encoding(io.BytesIO(raw).readline)[0])
    except (SyntaxError, UnicodeDecodeError, LookupError):
        text = raw.decode(marked or "latin-1", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


RUN_THEIR_BODY = {"time", "timeit", "capture", "prun", "debug", "memit", "snakeviz", "scalene"}  # cell magics
OTHER_LANGUAGES = set("! HTML R SVG bash cmd cpp cython file html javascript js julia latex markdown perl".split())
OTHER_LANGUAGES |= set("pypy python python2 python3 ruby script sh sql svg sx system".split())
CELL = re.compile(r"^(?=# In ?\[|# ?%%|%%)", re.M)  # where a cell begins in a file that was a notebook
COMMENTED = re.compile(r"^# Commented out IPython magic.*\n((?:#.*\n)+)", re.M)  # by Colab, with its whole cell


def fault(text):
    """Return why a text cannot be read as Python, or None."""
    try:
        ast.parse(text)
    except BROKEN as error:
        return error
    return None


def as_python_file(text):
    """Return a file that may have been a notebook as Python, cell by cell."""

    def uncommented(found):
        lines = found[1].splitlines(keepends=True)
        return "\n" + "".join(re.sub(r"^# ?", "", line) for line in lines) if lines[0].startswith("# %%") else found[0]

    text = COMMENTED.sub(uncommented, text)
    return "".join(map(as_python, CELL.split(text))) if fault(text) else text


def as_python(text):
    """Return a cell as Python; the child skips what cannot be read."""
    if not fault(text):
        return text
    magic = re.match(r"(?:[ \t]*(?:#.*)?\n)*%%(\S+)[^\n]*", text)
    if not magic:
        return read_magics(text)
    if magic[1] in ("writefile", "file"):
        line, body = magic[0].partition(magic[1])[2].strip(), text[magic.end() + 1 :]
        return f"get_ipython().run_cell_magic('writefile', {line!r}, {body!r})" + "\n" * text.count("\n")
    captured = re.search(r"%%capture.*?([^\W\d]\w*)$", magic[0])
    kept = f"{captured[1]} = get_ipython()" if captured else ""
    body = as_python("\n" * magic[0].count("\n") + kept + text[magic.end() :])
    is_ours = magic[1] not in OTHER_LANGUAGES and (magic[1] in RUN_THEIR_BODY or not fault(body))
    return body if is_ours else "\n" * text.count("\n")


LINE = re.compile(r"(?:[^\n]*\\\n)*[^\n]*\n?")  # with its continuation lines
MAGIC = re.compile(r"(\s*)(?!\s)([^=!<>#'\"]*[^=!<>#'\":+*/-]=[ \t]*)?(%|!!?)(.*)", re.S)
ASKS = re.compile(r"(\s*)(\?\??[ \t]*[%\w.*]+|%{0,2}(?!\d)[\w.*\[\]]+\?\??|[,;/][ \t]*\w.*)[ \t]*$", re.S)
PROMPT = re.compile(r"^(?:>>>|\.\.\.|In \[\d+\]:|[ ]*\.\.\.:) ?", re.M)


def read_magics(text):
    r"""Return a cell as IPython would read it: line by line, except inside brackets or quotes.

    >>> print(read_magics("x = (5\n  % 3)\nfiles = !ls\n%time y = 1\nx?"))
    x = (5
      % 3)
    files = get_ipython().getoutput('ls')
    get_ipython().run_line_magic('time', 'y = 1')
    pass
    """
    if re.match(r"\s*(>>>|In \[\d+\]:)", text):
        text = PROMPT.sub("", text)
    if indent := re.match(r"(?:[ \t]*\n)*([ \t]+)", text):
        text = re.sub(f"^{indent[1]}", "", text, flags=re.M)
    made, begun = [], ""  # the result, and the lines of an unfinished statement
    for line in LINE.findall(text):
        called = None if begun else _called(line.removesuffix("\n"))
        made.append(line if called is None else called + "\n" * line.count("\n"))
        begun = begun + line if called is None and _goes_on(begun + line) else ""
    return "".join(made)


def _called(line):
    """Return the call that a line of magic stands for, or None for Python."""
    found = MAGIC.match(line)
    if not found:
        found = ASKS.match(line)
        return found and f"{found[1]}pass"
    indent, to, sign, rest = (part or "" for part in found.groups())
    rest = rest.replace("\\\n", " ").strip()
    name, _, behind = rest.partition(" ")
    call = f"run_line_magic({name!r}, {behind.strip()!r})"
    if sign != "%":
        call = f"{'getoutput' if to or sign == '!!' else 'system'}({rest!r})"
    return f"{indent}{to}get_ipython().{call}"


def _goes_on(statement):
    """Whether quotes or brackets are still open."""
    return UNFINISHED.search(str(fault(statement.lstrip()))) is not None and statement.count("\n") < JOINED
