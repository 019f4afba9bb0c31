"""How a student's code is run: statement by statement, like a notebook, skipping what fails.

In Jupyter, a failing cell loses only its own content; here the same is true of a statement, even in a file. Plots,
magics and minisink's models do nothing, because they would only take time. Like `child`, to which it is sent with each
request, this file imports nothing from the package.
"""

import __future__

import ast
import builtins
import codeop
import contextlib
import importlib
import importlib.machinery
import re
import sys
import types
from functools import partial

BROKEN = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)  # what parsing a text may raise
UNFINISHED = re.compile("never closed|unterminated triple|EOF")
DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
JOINED = 100  # unindented lines that a quoted or bracketed text may contain
MOST = 1000  # skipped statements that are reported
FOR_SHOW = {"matplotlib", "mpl_toolkits", "pylab", "seaborn", "plotly", "IPython", "ipywidgets"}
FROM_THE_TOP = {"Policy": "minisink.cache"} | dict.fromkeys(("Dense", "Window", "Streaming"), "minisink.methods")


class Student:
    """A student's code: `names` is what it has defined, `over` what was skipped through its own fault."""

    def __init__(self, file, tasks, skip=(), begin=lambda about: None):
        module = types.ModuleType("student")
        module.__file__ = file
        sys.modules["student"] = module  # dataclasses look for it
        self.file, self.tasks, self.skip, self.begin, self.names = file, tasks, skip, begin, module.__dict__
        self.compile = codeop.Compile()  # remembers `__future__` imports
        self.n_statements, self.cell, self.over = 0, None, []
        self.lost, self.unsure = set(), set()  # names that were not defined, and names of what may be incomplete
        self.handed = {}  # functions that it passes to `check_functions`, by task

    def load(self, source):
        """Run a file, or the cells of a notebook."""
        shell = Shell(self)
        vars(builtins).update(get_ipython=lambda: shell, display=lambda *args, **options: None)
        is_file = isinstance(source, str)
        if not is_file:
            self.names["__name__"], sys.modules["__main__"] = "__main__", sys.modules["student"]
        for self.cell, text in [(None, source)] if is_file else enumerate(source, 1):
            self.run(text)

    def run(self, text):
        """Run a text; a part of it that cannot be read is skipped too."""
        for statements, error, line in pieces(text):
            for statement in statements:
                self.statement(statement)
            if error is not None:
                self.note(error, line)

    def statement(self, node):
        """Run one statement; an import of two names is run as two."""
        self.n_statements += 1
        self.begin({"at": self.n_statements, "line": node.lineno, "cell": self.cell})
        if self.n_statements in self.skip:  # last time, the process ended there
            self.lose(node)
            return
        parts = [node]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            parts = [type(node)(**{**vars(node), "names": [alias]}) for alias in node.names]
        for each in parts:
            try:
                exec(self.compile(ast.Module([each], []), self.file, "exec"), self.names)  # type: ignore[arg-type]
            except BaseException as error:
                self.fail(each, error)
            else:
                if self.unsure and self.unsure & used_by(each):
                    self.unsure |= made_by(each) | self.held_by(each)

    def fail(self, node, error):
        """Skip a statement; note why, unless it needs something from minisink, or something that was skipped before.

        A function may still work without its decorators and types, if those are missing.
        """
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.decorator_list = []
            with contextlib.suppress(BaseException):
                flags = self.compile.flags | __future__.annotations.compiler_flag
                exec(compile(ast.Module([node], []), self.file, "exec", flags, dont_inherit=True), self.names)
        used = used_by(node)
        missing = self.lost - self.names.keys() | {name for name in used if is_stand_in(self.names.get(name))}
        missing |= self.unsure
        if not missing & (used | {getattr(error, "name", None)}) and not hasattr(error, "is_of_minisink"):
            self.note(error, node.lineno)
        self.lose(node)

    def lose(self, node):
        """Remember what a statement would have defined or changed, because later ones may fail without it."""
        self.lost |= made_by(node)
        self.unsure |= self.held_by(node)

    def held_by(self, node):
        """Return the names of objects that a statement may change."""
        parts = (each.value for each in ast.walk(node) if isinstance(each, (ast.Attribute, ast.Subscript)))
        names = {part.id for part in parts if isinstance(part, ast.Name)} & self.names.keys()
        return {name for name in names if not isinstance(self.names[name], types.ModuleType)}

    def note(self, error, line):
        """Keep an error for the report."""
        try:
            text = error.msg if isinstance(error, SyntaxError) else str(error)
        except BaseException:
            text = ""
        if len(self.over) < MOST:
            about = {"raised": type(error).__name__, "error": str(text)[:300], "line": line, "cell": self.cell}
            self.over += [about] * (about not in self.over)  # an import of two names is one

    def own(self, names):
        """Return the tasks among some names, except what is minisink's."""
        return {task: names[task] for task in self.tasks if task in names and not is_stand_in(names[task])}

    def functions(self):
        """Return the student's own functions by task."""
        return self.handed | self.own(self.names)

    def check_functions(self, **functions):
        """Take what a lesson's last cell hands in."""
        self.handed |= self.own(functions)
        return True


def pieces(text):
    r"""Yield (statements, None, line) for a text, or for each unindented part; ([], error, line) for a bad one.

    >>> [len(statements) for statements, error, line in pieces("x = 1\ny = = 2\nz = 3")]
    [1, 0, 1]
    """
    try:
        yield ast.parse(text).body, None, 1
        return
    except BROKEN:
        lines = [f"{line}\n" for line in text.split("\n")]
    starts = [i for i, line in enumerate(lines) if re.match(r"(?!(else|elif|except|finally)\b)[^\s#)\]}]", line)]
    starts = [i for i in starts if i == 0 or not lines[i - 1].startswith("@")]
    part = 0
    while part < len(starts):
        statements, error, after = _piece(lines, [*starts, len(lines)], part)
        line = starts[part] + (getattr(error, "lineno", None) or 1)
        yield [ast.increment_lineno(each, starts[part]) for each in statements], error, line
        part = after


def _piece(lines, starts, part):
    """Read one part, and continue while quotes or brackets are open; return (statements, error, next part)."""
    first_error = None
    for after in range(part + 1, min(part + JOINED, len(starts))):
        try:
            return ast.parse("".join(lines[starts[part] : starts[after]])).body, None, after
        except BROKEN as error:
            first_error = first_error or error
            if not UNFINISHED.search(str(error)):
                break
    return [], first_error, part + 1


def used_by(node):
    """Return the names that a statement looks up, also within its functions."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def made_by(node):
    """Return the names that a statement would define."""
    inner = list(ast.walk(node))
    names = {each.id for each in inner if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    names |= {(each.asname or each.name).partition(".")[0] for each in inner if isinstance(each, ast.alias)}
    return names | {each.name for each in inner if isinstance(each, DEFINES)}


class StandIn:
    """Anything in minisink or a plotting package: both can be imported, but minisink's refuses to be called."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        if name.startswith("__"):  # Python itself looks for these
            raise AttributeError(name)
        return StandIn(f"{self._name}.{name}")

    def __call__(self, *args, **options):
        """Do nothing, or refuse."""
        if not self._name.startswith("minisink"):
            return self
        error = PermissionError(f"{self._name} is minisink's own; the task is to write it yourself")
        error.is_of_minisink = True  # type: ignore[attr-defined]
        raise error


class Shell:
    """A stand-in for IPython: Python code after a magic is run, and nothing else happens."""

    def __init__(self, student):
        self.student = student

    def __getattr__(self, name):
        return StandIn(name)

    def getoutput(self, *args, **options):
        """Return what a command printed: no lines."""
        return []

    def run_line_magic(self, name, line="", *args, **options):
        """Run the code of `%time`, or a file."""
        if name == "time":
            self.student.run(line)
        elif name == "run":
            with open(line.split()[-1], encoding="utf-8") as file:
                self.student.run(file.read())

    def run_cell_magic(self, name, line, cell):
        """Run the body of a cell, if it is Python, or write it to a file."""
        if name in ("writefile", "file"):
            with open(line.split()[-1], "a" if "-a" in line.split() else "w", encoding="utf-8") as file:
                file.write(cell)
            importlib.invalidate_caches()
        elif name in ("time", "timeit", "capture", "prun"):
            self.student.run(cell)


def is_stand_in(value):
    """Whether something is minisink's or a stand-in, rather than the student's."""
    if isinstance(value, types.ModuleType):
        return value.__name__.partition(".")[0] in FOR_SHOW | {"minisink"}
    if isinstance(value, type) and str(value.__module__).startswith("minisink."):
        return True
    code = getattr(value, "__code__", None)
    return isinstance(value, StandIn) or getattr(code, "co_filename", "").startswith("<minisink.")


class Finder:
    """Finds the stand-ins: for minisink, the modules of `shelf`, by name, and a `StandIn` for everything else."""

    def __init__(self, shelf, student):
        self.shelf, self.student = shelf, student

    def find_spec(self, name, path=None, target=None):
        """Find a module of minisink, or of a plotting package."""
        spec = importlib.machinery.ModuleSpec(name, self, is_package=name not in self.shelf)  # type: ignore[arg-type]
        return spec if name.partition(".")[0] in FOR_SHOW | {"minisink"} else None

    def create_module(self, spec):
        """Return an empty module that answers to every name."""
        module = types.ModuleType(spec.name)
        module.__dict__["__getattr__"] = partial(self.attribute, spec.name)
        if spec.name == "minisink.teaching":
            module.__dict__["check_functions"] = self.student.check_functions
        return module

    def attribute(self, module, name):
        """Return what a missing name of a module stands for."""
        full = f"{module}.{name}"
        if full in self.shelf or full == "minisink.teaching":
            return importlib.import_module(full)
        if module == "minisink" and FROM_THE_TOP.get(name) in self.shelf:
            return getattr(importlib.import_module(FROM_THE_TOP[name]), name)
        return getattr(StandIn(module), name)

    def exec_module(self, module):
        """Run what the shelf has of the module."""
        source, file = self.shelf.get(module.__name__, ""), f"<{module.__name__}>"
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
