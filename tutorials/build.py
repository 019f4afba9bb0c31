"""Three builds of every lesson from one source, ``tutorials/NN-name.md`` (MyST Markdown, no stored outputs).

::

    python tutorials/build.py student class/       notebooks to hand out: what is to be written is a stub
    python tutorials/build.py solution answers/    the same with the solutions in place
    python tutorials/build.py docs pages/          solutions, executed: notebooks with outputs, for the documentation
    python tutorials/build.py student class/ 04    only the lessons whose names begin so

A lesson keeps to one skeleton, `SECTIONS`, and is refused by name where it does not. What a student has to write stands
in a function of the exercise, between ``### BEGIN SOLUTION`` and ``### END SOLUTION``; no line of it reaches a student.
A cell that needs others names what it needs in its first line, so that one run out of order stops there and says what
to run first. ``COLAB`` becomes a link, and a place such as `minisink/ops.py:softmax` gets its line number.

A file that was changed since it was built, if only by being run, is never overwritten: its digest stands in it, and the
build stops before it has written anything.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import subprocess
import symtable
import sys
import tempfile
from pathlib import Path

from minisink.system.errors import run_command
from minisink.system.files import atomic_write

HERE = Path(__file__).resolve().parent
SECTIONS = [
    "The question",
    "Predict",
    "Run",
    "Why",
    "Exercise",
    "Check",
    "What others got wrong",
    "Milestone",
    "Read on",
]
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = 'raise NotImplementedError("your turn")'
PLACE = re.compile(r"`minisink/([\w/]+\.py):([\w.]+)`")
PAGE = re.compile(r"`(docs/[\w/.-]+)`")
TELLING = 12  # a solution's line of so many letters gives something away; `else:` does not
SECONDS = 60  # a lesson's cell may take as long


def lessons(names=(), folder=HERE, ending="md"):
    """Return the lessons of a folder, in order: all, or those whose names begin with one of `names`."""
    found = sorted(folder.glob(f"[0-9][0-9]-*.{ending}"))
    if not found:
        raise ValueError(f"{folder}: no lessons; python tutorials/build.py docs {folder} makes some")
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            there = ", ".join(path.stem for path in found)
            raise ValueError(f"{folder}: no lesson begins with {name!r}; there are {there}")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def read(path):
    """A lesson as a notebook, its skeleton checked. Text is cut at every heading, so that a section is a cell."""
    try:
        import jupytext
        import nbformat
    except ImportError as error:
        raise ValueError(f"{error.name} is missing, which builds need: pip install -e '.[tutorials]'") from None
    source, cells, section = jupytext.read(path, fmt="md:myst"), [], None
    for cell in source.cells:
        parts = [cell.source] if cell.cell_type == "code" else re.split(r"^(?=## )", cell.source, flags=re.MULTILINE)
        for text in filter(None, map(str.strip, parts)):
            if cell.cell_type == "markdown" and text.startswith("## "):
                section = text.splitlines()[0][3:].strip()
            made = nbformat.v4.new_code_cell(text) if cell.cell_type == "code" else nbformat.v4.new_markdown_cell(text)
            made.id = f"cell-{len(cells)}"
            made.metadata.update(cell.metadata)
            made.metadata["minisink"] = {"section": section}
            cells.append(made)
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata["language_info"] = {"name": "python"}
    book.metadata["minisink"] = {"lesson": Path(path).stem}
    check_skeleton(book)
    return book


def name_of(book):
    """The lesson's name: that of its file, without the ending."""
    return book.metadata["minisink"]["lesson"]


def code_cells(book):
    """Those that run, in order."""
    return [cell for cell in book.cells if cell.cell_type == "code"]


def section_of(cell):
    """Under which heading a cell stands."""
    return cell.metadata["minisink"]["section"]


def check_skeleton(book):
    """Refuse a lesson that does not keep to the skeleton, saying what is missing."""
    name, text = name_of(book), "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+?)\s*$", text, flags=re.MULTILINE)
    if headings != SECTIONS:
        raise ValueError(f"{name}: its sections are {headings}; they must be {SECTIONS}, in this order")
    if not re.match(rf"# {int(name[:2])}\. \S", book.cells[0].source):
        raise ValueError(f"{name}: it must begin with a title, '# {int(name[:2])}. ...'")
    if "](COLAB)" not in text:
        raise ValueError(f"{name}: nowhere a line [Open in Colab](COLAB) for the build to fill")
    solutions = [cut(cell.source, name)[1] for cell in code_cells(book) if section_of(cell) == "Exercise"]
    if not any(solutions):
        raise ValueError(f"{name}: nothing to write; the exercise needs a function with {BEGIN} and {END} in it")


def cut(source, name="this cell"):
    """(what comes before, its solution, what comes after) of a code cell, as lines; no solution: all comes before."""
    lines = source.splitlines()
    marks = [(i, line.strip()) for i, line in enumerate(lines) if line.strip() in (BEGIN, END)]
    if not marks:
        return lines, [], []
    if [mark for _, mark in marks] != [BEGIN, END]:
        raise ValueError(f"{name}: a cell needs one {BEGIN} and one {END} after it, or none")
    (begin, _), (end, _) = marks
    return lines[: begin + 1], lines[begin + 1 : end], lines[end:]


def solution_of(source):
    """The lines of a cell that a student has to write."""
    return cut(source)[1]


def stubbed(source):
    """A cell as a student gets it."""
    before, solution, after = cut(source)
    if not solution:
        return source
    indent = before[-1][: len(before[-1]) - len(before[-1].lstrip())]
    return "\n".join([*before[:-1], indent + STUB, *after[1:]])


def solved(source):
    """A cell without its marks."""
    return "\n".join(line for line in source.splitlines() if line.strip() not in (BEGIN, END))


def needs(book):
    """For each code cell a line that fails before all else where another cell was not run; empty if it needs none.

    ``np, layers  # run first: The question, Run``. The error names what is missing, the line where it is made.
    """
    made_in, lines = {}, []
    for cell in code_cells(book):
        made, used = names_in(cell.source)
        wanted = [name for name in made_in if name in used - made]
        sections = dict.fromkeys(made_in[name] for name in wanted)
        lines.append(f"{', '.join(wanted)}  # run first: {', '.join(sections)}" if wanted else "")
        made_in |= dict.fromkeys(sorted(made), section_of(cell))
    return lines


def names_in(source):
    """The names that a cell makes, and those that it uses, its functions included."""
    scopes = [symtable.symtable(source, "cell", "exec")]
    made = {x.get_name() for x in scopes[0].get_symbols() if x.is_assigned() or x.is_imported()}
    used = {x.get_name() for x in scopes[0].get_symbols() if x.is_referenced()}
    while scopes:
        scopes += (inner := scopes.pop()).get_children()
        used |= {x.get_name() for x in inner.get_symbols() if x.is_referenced() and x.is_global()}
    return made, used


def fill(book, repository=None):
    """Put in the Colab link and line numbers; changes the notebook."""
    name, link = name_of(book), "https://colab.research.google.com/"
    how = "upload this file there, and run `!pip install` with the address of minisink first"
    if repository:
        link += f"github/{repository}/blob/main/tutorials/notebooks/{name}.ipynb"
        how = f"run `!pip install git+https://github.com/{repository}` first"
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("[Open in Colab](COLAB)", f"[Open in Colab]({link}) ({how})")
            cell.source = PLACE.sub(lambda found: _place(name, *found.groups()), cell.source)
            for page in PAGE.findall(cell.source):
                if not (HERE.parent / page).is_file():
                    raise ValueError(f"{name}: sends the reader to {page}, which is not there")


def guard(book):
    """Put into each cell the line of `needs`; changes the notebook."""
    for cell, line in zip(code_cells(book), needs(book), strict=True):
        cell.source = f"{line}\n{cell.source}" if line else cell.source


def _place(lesson, file, dotted):
    return f"`minisink/{file}` line {line_of(lesson, file, dotted)} (`{dotted}`)"


def line_of(lesson, file, dotted):
    """Where in a file of minisink a function, class or method begins; a ValueError if it is not there."""
    try:
        node = ast.parse((HERE.parent / "minisink" / file).read_text(encoding="utf-8"))
        for name in dotted.split("."):
            node = next(child for child in node.body if getattr(child, "name", None) == name)  # type: ignore
    except (OSError, StopIteration, AttributeError):
        raise ValueError(f"{lesson}: sends the reader to minisink/{file}, {dotted}, which is not there") from None
    return node.lineno  # type: ignore


def student(path, repository=None):
    """The notebook to hand out."""
    book = read(path)
    solution = {line.strip() for cell in code_cells(book) for line in solution_of(cell.source)}
    fill(book, repository)
    guard(book)
    for cell in code_cells(book):
        cell.source = stubbed(cell.source)
    told = "\n".join(cell.source for cell in book.cells)
    given = [line for line in sorted(solution) if len(line) >= TELLING and line in told]
    if given:
        raise ValueError(f"{name_of(book)}: the student's notebook would hold {given[0]!r}, a line of the solution")
    return book


def solution(path, repository=None):
    """The notebook with everything in place."""
    book = _solved(path, repository)
    guard(book)
    return book


def _solved(path, repository):
    book = read(path)
    for cell in code_cells(book):
        if solution_of(cell.source):
            cell.metadata["tags"] = ["hide-input"]  # a page shows it when asked
        cell.source = solved(cell.source)
    fill(book, repository)
    return book


def docs(path, repository=None):
    """The same, executed from top to bottom in a kernel of its own."""
    try:
        import nbclient
        from jupyter_client.kernelspec import NoSuchKernel
    except ImportError as error:
        raise ValueError(f"{error.name} is missing, which executes lessons: pip install -e '.[tutorials]'") from None
    book = _solved(path, repository)  # a page runs in order
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products: see minisink.__main__
    try:
        with tempfile.TemporaryDirectory() as empty:
            place, quiet = {"metadata": {"path": empty}}, ["--log-level=ERROR"]
            client = nbclient.NotebookClient(book, timeout=SECONDS, resources=place, record_timing=False)
            client.extra_arguments = quiet
            client.execute()
    except NoSuchKernel:
        raise ValueError("ipykernel is missing, which executes lessons: pip install -e '.[tutorials]'") from None
    except nbclient.exceptions.CellExecutionError as error:
        failed = next(cell for cell in code_cells(book) if any(out.output_type == "error" for out in cell.outputs))
        where = f'under "{section_of(failed)}"'
        raise ValueError(f"{name_of(book)}: a cell {where} fails: {error.ename}: {error.evalue}") from None
    except nbclient.exceptions.CellTimeoutError:
        raise ValueError(f"{name_of(book)}: a cell takes longer than {SECONDS} s") from None
    return book


BUILDS = {"student": student, "solution": solution, "docs": docs}


def digest(book):
    """Some digits that any change of a notebook changes, its outputs and metadata included."""
    plain = json.loads(json.dumps(book))
    plain["metadata"]["minisink"].pop("digest", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def untouched(path):
    """Whether a file is as a build left it, or not there."""
    if not os.path.lexists(path):
        return True
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        return book["metadata"]["minisink"]["digest"] == digest(book)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def build(kind, folder, names=(), repository=None, source=HERE):
    """Write one build of the lessons into a folder: all of them, or, where something is wrong, none.

    Raises
    ------
    ValueError
        For a file that was changed since built or is where the folder would be, and for a lesson that is not right.
    """
    folder, paths = Path(folder), lessons(names, source)
    targets = [folder / f"{path.stem}.ipynb" for path in paths]
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{folder}: {place} is a file; name another folder")

    def refuse_changed():
        changed = [target.name for target in targets if not untouched(target)]
        if changed:
            them = "it" if len(changed) == 1 else "them"
            way = f"move {them} away, name another folder, or name the lessons you want"
            raise ValueError(f"{folder}: changed since built, and left alone: {', '.join(changed)}; {way}")

    refuse_changed()
    books = [BUILDS[kind](path, repository) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    refuse_changed()  # executing takes minutes
    for book, target in zip(books, targets, strict=True):
        book.metadata["minisink"]["build"] = kind
        book.metadata["minisink"]["digest"] = digest(book)
        with atomic_write(target) as unfinished:
            unfinished.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return targets


def github():
    """OWNER/NAME of this checkout on GitHub, where Colab would open a notebook; None elsewhere."""
    try:
        url = subprocess.run(["git", "remote", "get-url", "origin"], cwd=HERE, capture_output=True, text=True).stdout
    except OSError:
        return None
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?$", url.strip())
    return found and found[1]


def run(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Build the lessons.", epilog="A file that was changed since it was built is never overwritten."
    )
    parser.add_argument("kind", choices=BUILDS, help="stubs to hand out, solutions, or solutions executed")
    parser.add_argument("folder", help="where the notebooks go")
    parser.add_argument("names", nargs="*", metavar="NN", help="lessons, by the beginning of their names (all)")
    parser.add_argument(
        "--repository",
        default=github(),
        metavar="OWNER/NAME",
        help="on GitHub, for the Colab links: its tutorials/notebooks/ holds the student notebooks",
    )
    args = parser.parse_args(argv)
    for target in build(args.kind, args.folder, args.names, args.repository):
        print(target)


if __name__ == "__main__":
    sys.exit(run_command(run))
