"""Three builds of every lesson from one source, ``tutorials/NN-name.md`` (MyST Markdown, no stored outputs).

::

    python tutorials/build.py student class/       notebooks to hand out, with stubs for what students write
    python tutorials/build.py solution answers/    the same with the solutions in place
    python tutorials/build.py docs pages/          solutions, executed: notebooks with outputs, for the documentation
    python tutorials/build.py student class/ 04    only the lessons whose names begin with 04
    python tutorials/build.py docs pages/ --seconds 3600    for a slow machine: the time a cell may take

A lesson keeps to one skeleton, `SECTIONS`; one that does not is refused by name. What a student has to write is
in a function of the exercise, between ``### BEGIN SOLUTION`` and ``### END SOLUTION``; no line of it reaches a student.
Each exercise has a heading, ``### ...``, and directly below it its minutes and level, ``*10 minutes, easy.*``.
``### Bonus: ...`` begins a harder, optional exercise: running the whole notebook does not stop there.
A cell that needs others names what it needs in its first line, so that out of order it stops there and says what
to run first. A place such as `minisink/ops.py:softmax` gets its line number, and the line
that points readers of the source to `docs/lessons.md` is removed.

A file changed since it was built, if only by being run, is never overwritten: it contains its digest, and the
build stops before it has written anything. (nbgrader cuts solutions at the same marks, but keeps solution lines that
are repeated in a text, and brings a server and a database.)
"""

import argparse
import ast
import hashlib
import json
import os
import re
import symtable
import sys
import tempfile
from pathlib import Path

from minisink.system.errors import run_command
from minisink.system.files import atomic_write

HERE = Path(__file__).resolve().parent
SECTIONS = "The question, Predict, Run, Why, Exercise, Check, What others got wrong, Milestone, Read on".split(", ")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SOLUTION = re.compile(rf"^( *){BEGIN}\n(.*?)\n *{END}$", re.MULTILINE | re.DOTALL)
STUB = 'raise NotImplementedError("your turn")'
TIME = re.compile(r"\*(\d+) minutes, (easy|medium|hard)\.\*")
BONUS = "Bonus: "
PLACE = re.compile(r"`minisink/([\w/]+\.py):([\w.]+)`")
PAGE = re.compile(r"`(docs/[\w/.-]+)`")
FIRST_LINE = (
    "Many cells begin with a line such as `np, model  # run first: The question`. It computes nothing: it lists names "
    "that the cell needs, and the sections that make them. A `NameError` there means that one of these was not run."
)
SLIDE = "<!-- slide -->"  # marks what teacher/slides.py shows; invisible in a page
SHORTEST = 12  # length from which a solution's line gives something away; `else:` does not
SECONDS = 600  # a cell's time limit by default
HOW = "[How to run it](../docs/lessons.md). "  # in the source only; in a notebook it is not needed
INSTALL = 'pip install -e ".[tutorials,gguf,chat]"'  # everything for a class


def lessons(names=(), folder=HERE, ending="md"):
    """Return the lessons of a folder, in order: all, or those whose names begin with one of `names`."""
    found = sorted(folder.glob(f"[0-9][0-9]-*.{ending}"))
    if not found:
        raise ValueError(f"{folder}: no lessons; run python tutorials/build.py docs {folder}")
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            there = ", ".join(path.stem for path in found)
            raise ValueError(f"{folder}: no lesson begins with {name!r}; there are {there}")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def missing(name):
    """Return an error that says how to install a package."""
    return ValueError(f"builds need {name}, which is missing: {INSTALL}")


def read(path):
    """Return a lesson as a notebook, with its skeleton checked and one text cell per section."""
    try:
        import jupytext
        import nbformat
    except ImportError as error:
        raise missing(error.name) from None
    source, cells, section, exercise = jupytext.read(path, fmt="md:myst"), [], None, None
    for cell in source.cells:
        parts = [cell.source] if cell.cell_type == "code" else re.split(r"^(?=## )", cell.source, flags=re.MULTILINE)
        for text in filter(None, map(str.strip, parts)):
            if cell.cell_type == "markdown" and text.startswith("## "):
                section, exercise = text.splitlines()[0][3:].strip(), None
            if cell.cell_type == "markdown":
                exercise = (re.findall(r"^### (.+)", text, re.MULTILINE) or [exercise])[-1]
            made = nbformat.v4.new_code_cell(text) if cell.cell_type == "code" else nbformat.v4.new_markdown_cell(text)
            made.id = f"cell-{len(cells)}"
            made.metadata.update(cell.metadata)
            made.metadata["minisink"] = {"section": section} | ({"exercise": exercise} if exercise else {})
            cells.append(made)
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata["language_info"] = {"name": "python"}
    book.metadata["minisink"] = {"lesson": Path(path).stem}
    check_skeleton(book)
    return book


def code_cells(book):
    """Return the code cells, in order."""
    return [cell for cell in book.cells if cell.cell_type == "code"]


def section_of(cell):
    """Return the heading above a cell."""
    return cell.metadata["minisink"]["section"]


def is_bonus(cell):
    """Return whether a cell is optional."""
    return cell.metadata["minisink"].get("exercise", "").startswith(BONUS)


def exercises(book):
    """Return ``{title: (minutes, level)}`` of the exercises; raise ValueError if either is missing."""
    found = {}
    for cell in book.cells:
        if cell.cell_type == "markdown" and section_of(cell) == "Exercise":
            for title, below in re.findall(r"^### (.+)\n?(.*)", cell.source, re.MULTILINE):
                if not (time := TIME.fullmatch(below.strip())):
                    form = "its minutes and level, such as *10 minutes, easy.* (or medium, or hard)"
                    raise ValueError(
                        f"{book.metadata.minisink.lesson}: '### {title}' needs {form} below it, not {below!r}"
                    )
                found[title] = int(time[1]), time[2]
    return found


def check_skeleton(book):
    """Raise ValueError, saying what is missing, for a lesson that does not keep to the skeleton."""
    name = book.metadata.minisink.lesson
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+?)\s*$", text, flags=re.MULTILINE)
    if headings != SECTIONS:
        raise ValueError(f"{name}: its sections are {headings}; they must be {SECTIONS}, in this order")
    if not re.match(rf"# {int(name[:2])}\. \S", book.cells[0].source):
        raise ValueError(f"{name}: it must begin with a title, '# {int(name[:2])}. ...'")
    if HOW not in text:
        raise ValueError(f"{name}: it lacks '{HOW.strip()}', which tells readers of the source how to run it")
    solutions = [solution_of(cell.source, name) for cell in code_cells(book) if section_of(cell) == "Exercise"]
    if not any(solutions):
        raise ValueError(f"{name}: nothing to write; the exercise needs a function with {BEGIN} and {END}")
    exercises(book)


def solution_of(source, name="this cell"):
    """Return the lines of a cell that a student has to write; raise ValueError for an unpaired mark."""
    found = SOLUTION.findall(source)
    if not len(found) == source.count(BEGIN) == source.count(END) < 2:
        raise ValueError(f"{name}: a cell needs one {BEGIN} and one {END} after it, or none")
    return found[0][1].splitlines() if found else []


def stubbed(source):
    """Return a cell as students get it."""
    return SOLUTION.sub(rf"\1{STUB}", source)


def solved(source):
    """Return a cell without its marks."""
    return SOLUTION.sub(r"\2", source)


def names_in(source):
    """Return the names that a cell makes, and those that it and its functions use."""
    scopes = [symtable.symtable(source, "cell", "exec")]
    made = {x.get_name() for x in scopes[0].get_symbols() if x.is_assigned() or x.is_imported()}
    used = {x.get_name() for x in scopes[0].get_symbols() if x.is_referenced()}
    while scopes:
        scopes += (inner := scopes.pop()).get_children()
        used |= {x.get_name() for x in inner.get_symbols() if x.is_referenced() and x.is_global()}
    return made, used


def fill(book):
    """Insert line numbers, and remove how to run it; changes the notebook."""

    def placed(place):
        return f"`minisink/{place[1]}` line {line_of(name, place[1], place[2])} (`{place[2]}`)"

    name = book.metadata.minisink.lesson
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = PLACE.sub(placed, cell.source.replace(HOW, ""))
            for page in PAGE.findall(cell.source):
                if not (HERE.parent / page).is_file():
                    raise ValueError(f"{name}: sends the reader to {page}, which does not exist")


def guard(book):
    """Begin each code cell with a line that fails if a cell it needs was not run; remove the marks of slides.

    ``np, layers  # run first: The question, Run``. The error names what is missing, the line says where it is made, and
    the head of the notebook explains such lines.
    """
    book.cells[0].source += f"\n\n{FIRST_LINE}"
    for cell in book.cells:
        cell.source = cell.source.replace(f"{SLIDE}\n", "")
    made_in = {}
    for cell in code_cells(book):
        made, used = names_in(cell.source)
        needed = [name for name in made_in if name in used - made]
        if needed:
            sections = dict.fromkeys(made_in[name] for name in needed)
            cell.source = f"{', '.join(needed)}  # run first: {', '.join(sections)}\n{cell.source}"
        made_in |= dict.fromkeys(sorted(made), section_of(cell))


def line_of(lesson, file, dotted):
    """Return the line of a file of minisink where a function, class or method begins; raise ValueError if none does."""
    try:
        node = ast.parse((HERE.parent / "minisink" / file).read_text(encoding="utf-8"))
        for name in dotted.split("."):
            node = next(child for child in node.body if getattr(child, "name", None) == name)
    except (OSError, StopIteration, AttributeError):
        raise ValueError(f"{lesson}: sends the reader to minisink/{file}, {dotted}, which does not exist") from None
    return node.lineno


def student(path):
    """Return the notebook to hand out."""
    book = read(path)
    solution = {line.strip() for cell in code_cells(book) for line in solution_of(cell.source)}
    fill(book)
    guard(book)
    for cell in code_cells(book):
        cell.source = stubbed(cell.source)
        if is_bonus(cell):
            cell.metadata["tags"] = ["raises-exception"]  # a full run continues after it
    text = "\n".join(cell.source for cell in book.cells)
    given = [line for line in sorted(solution) if len(line) >= SHORTEST and line in text]
    if given:
        raise ValueError(f"{path.stem}: the student's notebook would hold {given[0]!r}, a line of the solution")
    return book


def solution(path, guarded=True):
    """Return the notebook with its solutions."""
    book = read(path)
    for cell in code_cells(book):
        if solution_of(cell.source):
            cell.metadata["tags"] = ["hide-input"]  # a page shows it on request
        cell.source = solved(cell.source)
    fill(book)
    if guarded:
        guard(book)
    return book


def docs(path, seconds=SECONDS):
    """Return the solution, executed from top to bottom in its own kernel."""
    try:
        import nbclient
        from jupyter_client.kernelspec import NoSuchKernel
    except ImportError as error:
        raise missing(error.name) from None
    book = solution(path, guarded=False)  # a page runs in order
    book.metadata["minisink"]["source"] = state(path)
    try:
        with tempfile.TemporaryDirectory() as empty:
            client = nbclient.NotebookClient(book, timeout=seconds, record_timing=False)
            client.resources["metadata"] = {"path": empty}
            client.extra_arguments = ["--log-level=ERROR"]
            client.execute()
    except NoSuchKernel:
        raise missing("ipykernel") from None
    except nbclient.exceptions.CellExecutionError as error:
        failed = next(cell for cell in code_cells(book) if any(out.output_type == "error" for out in cell.outputs))
        where = f'{path.stem}: a cell under "{section_of(failed)}"'
        raise ValueError(f"{where} fails: {error.ename}: {error.evalue}") from None
    except nbclient.exceptions.CellTimeoutError:
        raise ValueError(f"{path.stem}: a cell takes longer than {seconds} s; --seconds N gives it more") from None
    return book


def state(path):
    """Return a hash of what an executed page depends on: the source of the lesson and of minisink."""
    files = [Path(path), *sorted((HERE.parent / "minisink").rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


BUILDS = {"student": student, "solution": solution, "docs": docs}


def digest(book):
    """Return a hash of a notebook, including outputs and metadata."""
    plain = json.loads(json.dumps(book))
    plain["metadata"]["minisink"].pop("digest", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def untouched(path):
    """Return whether a file is as a build left it, or does not exist."""
    if not os.path.lexists(path):
        return True
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        return book["metadata"]["minisink"]["digest"] == digest(book)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def build(kind, folder, names=(), seconds=SECONDS, source=HERE):
    """Write one build of the lessons into a folder: all of them, or none if something is wrong.

    Raise ValueError for a file that was changed since built or is in the folder's place, and for an invalid lesson.
    """
    folder, paths = Path(folder), lessons(names, source)
    targets = [folder / f"{path.stem}.ipynb" for path in paths]
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{folder}: {place} is a file; name another folder")

    def refuse_changed():
        changed = ", ".join(target.name for target in targets if not untouched(target))
        if changed:
            way = "move your work away, name another folder, or name the lessons you want"
            raise ValueError(f"{folder}: changed since they were built, and left alone: {changed}; {way}")

    refuse_changed()
    options = {"seconds": seconds} if kind == "docs" else {}
    books = [BUILDS[kind](path, **options) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    refuse_changed()  # executing takes minutes
    for book, target in zip(books, targets, strict=True):
        book.metadata["minisink"]["build"] = kind
        book.metadata["minisink"]["digest"] = digest(book)
        with atomic_write(target) as unfinished:
            unfinished.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return targets


def run(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the lessons; files changed since then are not overwritten.")
    parser.add_argument("kind", choices=BUILDS, help="stubs to hand out, solutions, or solutions executed")
    parser.add_argument("folder", help="where the notebooks go")
    parser.add_argument("names", nargs="*", metavar="NN", help="lessons, by the start of their names (all)")
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="N", help="time limit of a cell (%(default)s)")
    args = parser.parse_args(argv)
    if args.seconds < 1:
        raise ValueError(f"--seconds is {args.seconds}; a cell needs 1 at least")
    for target in build(args.kind, args.folder, args.names, args.seconds):
        print(target)


if __name__ == "__main__":
    sys.exit(run_command(run))
