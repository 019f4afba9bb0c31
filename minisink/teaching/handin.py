"""What a student handed in: a file, a folder, a zip, or several of these; and which file in it is judged."""

import hashlib
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .gather import MOST_FILES, gather, is_source, is_zip
from .source import Source, absolute, decode, parse, read
from .tasks import TASKS


class HandIn(NamedTuple):
    """Everything that one student handed in."""

    sources: tuple[Source, ...]  # the judged one first, then the others by rank
    beside: dict[str, bytes]  # all files by path in the child's folder, to import and open; {} for a single file
    notes: tuple[str, ...]  # what was skipped
    digest: str  # of all names and bytes

    @property
    def source(self):
        """The file that is judged."""
        return self.sources[0]

    def texts(self, source):
        """Return the text of a source, or its cells, and the texts of the modules beside it."""
        modules = [each for each in _sources(self.beside, []) if not each.notebook and each.stem != source.stem]
        return [*(source.text if source.notebook else [source.text]), *(each.text for each in modules)]


def hand_in(*paths, with_imports=True, tasks=TASKS):
    """Read what one student handed in; for a single file, also the neighbouring modules that it imports."""
    notes: list[str] = []
    if "" in paths:
        raise ValueError("a file's name is empty; give the student's .py file or notebook")
    path = Path(paths[0])
    if len(paths) == 1 and not path.is_dir() and not is_zip(path):
        sources = [read(path)]
        files = {path.name: path.read_bytes()} | (_imported(sources[0], path.parent) if with_imports else {})
    else:
        files = gather(paths, notes)
        sources = _ranked(_sources(files, notes), tasks)
    if not sources:
        found = [f"it holds {', '.join([*files][:3])}"] * bool(files) + notes[:3]
        looked_for = f"no .py file or notebook in it, not even in a zip ({'; '.join(found) or 'it is empty'})"
        raise ValueError(f"{path}: nothing to check: {looked_for}")
    notes += _rivals(tasks, *sources)
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    return HandIn(tuple(sources), _laid_out(sources[0].name, files), tuple(notes), digest)


def readable(name):
    """Return a file's name in a form that can be written anywhere."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sources(files, notes):
    sources = []
    for place, raw in files.items():
        if is_source(place):
            try:
                sources.append(parse(place, raw))
            except ValueError as error:
                notes.append(f"{place} was skipped: {error}")
    return sources


def _ranked(sources, known):
    """Put the file with the most tasks first; among equals, one that is not imported, then the one higher up.

    The template's stubs do not count, and tests come last.
    """
    imported = {stem for source in sources for stem in source.imports - {source.stem}}

    def rank(source):
        name, text = source.name, source.whole
        is_test = re.search(r"(^|/)(tests?/|(test_\w*|conftest|setup|\w+_test)\.)", name) is not None
        n_tasks = sum(map(source.defines, known)) - text.count("raise NotImplementedError")
        n_own = len(re.findall(rf"^(?:async )?(?:def )?(?:{'|'.join(known)})\b\s*[(=]", text, re.M))
        return is_test, -n_tasks, -n_own, source.stem in imported, name.count("/"), source.stem != "student", name

    return sorted(sources, key=rank)


def _rivals(known, first, *others):
    """Name the files that define any of the first one's tasks but neither import it nor are imported by it."""
    tasks = [task for task in known if first.defines(task)]
    apart = [each for each in others if each.stem not in first.imports and first.stem not in each.imports]
    notes = [f"{each.name} was skipped: it has the same tasks" for each in apart if any(map(each.defines, tasks))]
    a_class = "this looks like a whole class; --csv FILE grades one, with a student per entry in the folder"
    return [a_class] * (len(notes) > 3) + notes


def _imported(source, folder):
    """Read the neighbouring modules that a single file imports, directly or not; return bytes by place."""
    files, todo = {}, [source]
    while todo and len(files) < MOST_FILES:
        for name in sorted(todo.pop().imports):
            for path in [folder / f"{name}.py", *sorted((folder / name).glob("*.py"))]:
                place = path.relative_to(folder).as_posix()
                if place not in files and place != source.name and path.is_file() and not path.is_symlink():
                    with suppress(ValueError, OSError):
                        todo.append(read(path))
                        files[place] = path.read_bytes()
    return files


def _laid_out(judged, files):
    """Return the files for the child's folder, which starts at the judged file's folder; {} for a single file."""
    base, found = PurePosixPath(judged).parent, {}
    outside_first = sorted(files, key=lambda place: PurePosixPath(place).is_relative_to(base))
    for place in outside_first if len(files) > 1 else ():
        path, raw = PurePosixPath(place), files[place]
        if path.suffix.lower() == ".py":
            path, text = path.with_suffix(".py"), decode(raw)
            text = absolute(text) if path.parent == base else text
            raw = f"\n\n{text}".encode()  # an encoding is only recognised in the first two lines
        found[str(path.relative_to(base) if path.is_relative_to(base) else path)] = raw
    return found
