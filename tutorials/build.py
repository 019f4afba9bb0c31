"""Three builds of every lesson from one source, ``tutorials/NN-name.md`` (MyST Markdown, no stored outputs).

::

    python tutorials/build.py student class/       notebooks to hand out: what is to be written is a stub
    python tutorials/build.py solution answers/    the same with the solutions in place
    python tutorials/build.py docs pages/          solutions, executed: notebooks with outputs, for the documentation
    python tutorials/build.py student class/ 04    only the lessons whose names begin so
    python tutorials/build.py docs pages/ --seconds 3600    a slow machine: what a cell may take

A lesson keeps to one skeleton, `SECTIONS`, and is refused by name where it does not. What a student has to write stands
in a function of the exercise, between ``### BEGIN SOLUTION`` and ``### END SOLUTION``; no line of it reaches a student.
Each exercise has a heading, ``### ...``, and directly under it its minutes and level, ``*10 minutes, easy.*``.
``### Bonus: ...`` begins what is harder and may be left out: a notebook that is run as a whole does not stop there.
A cell that needs others names what it needs in its first line, so that one run out of order stops there and says what
to run first. A place such as `minisink/ops.py:softmax` gets its line number, and the line
that leads a reader of the source to `docs/lessons.md` is gone.

A file that was changed since it was built, if only by being run, is never overwritten: its digest stands in it, and the
build stops before it has written anything. (nbgrader cuts solutions at the same marks, but leaves a line of one that
stands in a text, and brings a server and a database.)
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
    "that the cell needs, and the sections that make them. A `NameError` there says that one of these has not been run."
)
SLIDE = "<!-- slide -->"  # a line above what teacher/slides.py shows; nobody sees it in a page
SHORTEST = 12  # letters of a solution's line that gives something away; `else:` does not
SECONDS = 600  # that a lesson's cell may take, if nothing is said
HOW = "[How to run it](../docs/lessons.md). "  # in the source; whoever has the notebook open knows
INSTALL = 'pip install -e ".[tutorials,gguf,chat]"'  # everything for a class


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


def missing(name):
    """Return the error that says what installs a package."""
    return ValueError(f"{name} is missing, which builds need: {INSTALL}")


def read(path):
    """Return a lesson as a notebook, its skeleton checked; text is cut at every heading, so a section is a cell."""
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
    """Return those that run, in order."""
    return [cell for cell in book.cells if cell.cell_type == "code"]


def section_of(cell):
    """Return the heading that a cell stands under."""
    return cell.metadata["minisink"]["section"]


def is_bonus(cell):
    """Tell whether a cell may be left out."""
    return cell.metadata["minisink"].get("exercise", "").startswith(BONUS)


def exercises(book):
    """Return ``{title: (minutes, level)}`` of the exercises; raise ValueError for one that does not say them."""
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
    """Refuse a lesson that does not keep to the skeleton, saying what is missing."""
    name = book.metadata.minisink.lesson
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+?)\s*$", text, flags=re.MULTILINE)
    if headings != SECTIONS:
        raise ValueError(f"{name}: its sections are {headings}; they must be {SECTIONS}, in this order")
    if not re.match(rf"# {int(name[:2])}\. \S", book.cells[0].source):
        raise ValueError(f"{name}: it must begin with a title, '# {int(name[:2])}. ...'")
    if HOW not in text:
        raise ValueError(f"{name}: nowhere '{HOW.strip()}', which leads a reader of the source to their own form")
    solutions = [solution_of(cell.source, name) for cell in code_cells(book) if section_of(cell) == "Exercise"]
    if not any(solutions):
        raise ValueError(f"{name}: nothing to write; the exercise needs a function with {BEGIN} and {END} in it")
    exercises(book)


def solution_of(source, name="this cell"):
    """Return the lines of a cell that a student has to write; raise ValueError for a mark without its other."""
    found = SOLUTION.findall(source)
    if not len(found) == source.count(BEGIN) == source.count(END) < 2:
        raise ValueError(f"{name}: a cell needs one {BEGIN} and one {END} after it, or none")
    return found[0][1].splitlines() if found else []


def stubbed(source):
    """Return a cell as a student gets it."""
    return SOLUTION.sub(rf"\1{STUB}", source)


def solved(source):
    """Return a cell without its marks."""
    return SOLUTION.sub(r"\2", source)


def names_in(source):
    """Return the names that a cell makes, and those that it uses, its functions included."""
    scopes = [symtable.symtable(source, "cell", "exec")]
    made = {x.get_name() for x in scopes[0].get_symbols() if x.is_assigned() or x.is_imported()}
    used = {x.get_name() for x in scopes[0].get_symbols() if x.is_referenced()}
    while scopes:
        scopes += (inner := scopes.pop()).get_children()
        used |= {x.get_name() for x in inner.get_symbols() if x.is_referenced() and x.is_global()}
    return made, used


def fill(book):
    """Put in line numbers, and take out how to get this far; changes the notebook."""

    def placed(place):
        return f"`minisink/{place[1]}` line {line_of(name, place[1], place[2])} (`{place[2]}`)"

    name = book.metadata.minisink.lesson
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = PLACE.sub(placed, cell.source.replace(HOW, ""))
            for page in PAGE.findall(cell.source):
                if not (HERE.parent / page).is_file():
                    raise ValueError(f"{name}: sends the reader to {page}, which is not there")


def guard(book):
    """Begin each code cell with a line that fails where a cell that it needs was not run; take the marks of slides out.

    ``np, layers  # run first: The question, Run``. The error names what is missing, the line where it is made, and the
    head of the notebook what such a line is for.
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
    """Return the line of a file of minisink where a function, class or method begins; raise ValueError without one."""
    try:
        node = ast.parse((HERE.parent / "minisink" / file).read_text(encoding="utf-8"))
        for name in dotted.split("."):
            node = next(child for child in node.body if getattr(child, "name", None) == name)
    except (OSError, StopIteration, AttributeError):
        raise ValueError(f"{lesson}: sends the reader to minisink/{file}, {dotted}, which is not there") from None
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
            cell.metadata["tags"] = ["raises-exception"]  # what is run as a whole goes on behind it
    text = "\n".join(cell.source for cell in book.cells)
    given = [line for line in sorted(solution) if len(line) >= SHORTEST and line in text]
    if given:
        raise ValueError(f"{path.stem}: the student's notebook would hold {given[0]!r}, a line of the solution")
    return book


def solution(path, guarded=True):
    """Return the notebook with everything in place."""
    book = read(path)
    for cell in code_cells(book):
        if solution_of(cell.source):
            cell.metadata["tags"] = ["hide-input"]  # a page shows it when asked
        cell.source = solved(cell.source)
    fill(book)
    if guarded:
        guard(book)
    return book


def docs(path, seconds=SECONDS):
    """Return the same, executed from top to bottom in a kernel of its own."""
    try:
        import nbclient
        from jupyter_client.kernelspec import NoSuchKernel
    except ImportError as error:
        raise missing(error.name) from None
    book = solution(path, guarded=False)  # a page runs in order
    book.metadata["minisink"]["source"] = state(path)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products: see minisink.__main__
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
    """Return a hash of what an executed page depends on: the lesson's source and minisink's."""
    files = [Path(path), *sorted((HERE.parent / "minisink").rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


BUILDS = {"student": student, "solution": solution, "docs": docs}


def digest(book):
    """Return a hash of a notebook, its outputs and metadata included."""
    plain = json.loads(json.dumps(book))
    plain["metadata"]["minisink"].pop("digest", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def untouched(path):
    """Return whether a file is as a build left it, or not there."""
    if not os.path.lexists(path):
        return True
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        return book["metadata"]["minisink"]["digest"] == digest(book)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def build(kind, folder, names=(), seconds=SECONDS, source=HERE):
    """Write one build of the lessons into a folder: all of them, or, where something is wrong, none.

    Raise ValueError for a file that was changed since built or is where the folder would be, and for a wrong lesson.
    """
    folder, paths = Path(folder), lessons(names, source)
    targets = [folder / f"{path.stem}.ipynb" for path in paths]
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{folder}: {place} is a file; name another folder")

    def refuse_changed():
        changed = ", ".join(target.name for target in targets if not untouched(target))
        if changed:
            way = "move what you wrote away, name another folder, or name the lessons you want"
            raise ValueError(f"{folder}: changed since built, and left alone: {changed}; {way}")

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
    parser = argparse.ArgumentParser(description="Build the lessons; what was changed since built is not overwritten.")
    parser.add_argument("kind", choices=BUILDS, help="stubs to hand out, solutions, or solutions executed")
    parser.add_argument("folder", help="where the notebooks go")
    parser.add_argument("names", nargs="*", metavar="NN", help="lessons, by the beginning of their names (all)")
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="N", help="for a cell (%(default)s)")
    args = parser.parse_args(argv)
    if args.seconds < 1:
        raise ValueError(f"--seconds is {args.seconds}; a cell needs 1 at least")
    for target in build(args.kind, args.folder, args.names, args.seconds):
        print(target)


if __name__ == "__main__":
    sys.exit(run_command(run))
