"""Whose code a file is: the trees of its functions beside minisink's own, the lessons' solutions and other students'.

A function is read as its syntax tree without what a copier changes first: names, docstrings, annotations, comments and
layout. A task is made of its own function and of what that calls in the file, other tasks left out. Short functions
are alike without anybody copying, and a softmax in three lines has 37 words: a task is named where `LEAST` words of its
tree, or `BETWEEN` of two students, and half of them stand elsewhere too; what template and lessons give does not count.
What a file reads at run time cannot be compared; that it does so is said. All of this is told, not punished.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import itertools
import re
import warnings
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .loading import pieces
from .tasks import TASKS
from .template import LOOPS

LEAST, BETWEEN, SHORT = 40, 60, 30  # words of a tree: of minisink's, of students', and beside these in a file
PACKAGE = Path(__file__).parents[1]
REFERENCE = "minisink's own reference"
ORIGINS = {
    "teaching/reference.py": REFERENCE,
    "wrong_turns/right.py": REFERENCE,
    "by_the_book.py": "minisink by the book",
}
ORIGINS |= {name: f"minisink's own {name}" for name in ("ops.py", "positions.py", "attention.py", "loss.py")}
SOLUTIONS = {  # digests of what each lesson asks to write; a test holds them to tutorials/
    1: "1de2b05a4264 78bb46909388",
    2: "ad2de2668b72",
    3: "680752dc5649",
    5: "b8c4d8273786",
    7: "ad873fe3b7ef",
    8: "9dd9cc646345",
    9: "00746fc5653d",
    10: "d1cc2b9184e4",
    11: "8b199a9d9b20",
    12: "e94a396738d3",
}
GIVEN = "e83221a73cab a27c35cd073e"  # and of what a lesson gives for it

DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
SCOPES = (*DEFINES, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NOISE = (ast.Pass, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)
BODIES = {"body", "orelse", "finalbody", "handlers", "cases"}
SKIPPED = {"annotation", "returns", "decorator_list", "type_comment", "type_params", "ctx", "kind", "name"}
RUNS = {"exec", "eval", "compile", "__import__", "importlib.import_module", "import_module"}  # of what is no text
LOADS = {
    "run_path",
    "run_module",
    "find_spec",
    "spec_from_file_location",
    "SourceFileLoader",
    "zipimporter",
    "get_data",
}
LOADS |= {"find_module", "FunctionType", "getsource"}
REACHES = {
    "__globals__",
    "__closure__",
    "__subclasses__",
    "__builtins__",
    "f_back",
    "f_locals",
    "f_globals",
}
OPENS = {
    "open",
    "Path",
    "glob",
    "iglob",
    "rglob",
    "walk",
    "listdir",
    "scandir",
    "ZipFile",
    "files",
    "sys.path.insert",
    "sys.path.append",
}
INNER = re.compile(
    r"minisink\.(teaching\.(?!check_functions|figures)|wrong_turns|conformance|\*)|reference$|by_the_book$"
)
PLACES = re.compile(r"minisink|by_the_book|reference\.py|\.whl\b|site-packages")


# A tree as words ------------------------------------------------------------------------------------


class Names:
    """Numbers the names of a scope in the order they come; what is bound further out is asked for there."""

    def __init__(self, bound, outer=None, imported=None):
        self.bound, self.outer, self.numbers = bound, outer, {}
        self.imported = (imported or {}) if outer is None else outer.imported
        self.count = itertools.count() if outer is None else outer.count

    def __call__(self, name):
        """Return the number of a name of the file's own, or else its full name."""
        if name in self.bound or (self.outer is None and name[-1] == "="):
            if name not in self.numbers:
                self.numbers[name] = f"${next(self.count)}"
            return self.numbers[name]
        return self.imported.get(name, name) if self.outer is None else self.outer(name)


def bound_in(node):
    """Return the names that a tree binds."""
    inner = list(ast.walk(node))
    names = {each.id for each in inner if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    names |= {each.arg for each in inner if isinstance(each, ast.arg)}
    return names | {each.name for each in inner if isinstance(each, DEFINES)}


def words_of(node, names, deep=True):
    """Return a tree as words; a statement without those in its body unless `deep`."""
    if isinstance(node, list):
        return [word for each in node for word in words_of(each, names, deep)]
    if node is None or isinstance(node, NOISE) or (isinstance(node, ast.Expr) and _says_nothing(node.value)):
        return []
    if isinstance(node, ast.Name):
        return [names(node.id)]
    if isinstance(node, ast.Constant):
        return [repr(node.value)]
    if isinstance(node, ast.AnnAssign):
        return ["Assign", *words_of([node.target, node.value], names)] if node.value else []
    if isinstance(node, ast.Call):
        return _words_of_call(node, names)
    if isinstance(node, SCOPES):
        names = Names(bound_in(node), names)
    words = [type(node).__name__]
    fields = {field: value for field, value in ast.iter_fields(node) if field not in SKIPPED and value is not None}
    for field in sorted(fields, key="generators".__ne__):  # they bind what stands before them
        value = fields[field]
        if isinstance(value, ast.AST) or (isinstance(value, list) and (deep or field not in BODIES)):
            words += words_of(value, names, deep)
        elif not isinstance(value, list):
            words.append(names(f".{value}" if field == "attr" else str(value)))
    if words[0] == "Attribute" and len(words) == 3 and words[1].partition(".")[0] in names.imported.values():
        return [words[1] + words[2]]  # one name, as `exp` from numpy is
    return words


def _words_of_call(node, names):
    """Name the arguments of numpy's functions, and number those of the file's own."""
    function = words_of(node.func, names)
    words = ["Call", *function, *words_of(node.args, names)]
    for keyword in node.keywords:
        is_own = keyword.arg and function[-1][0] == "$"
        words += [str(names(keyword.arg + "=") if is_own else keyword.arg), *words_of(keyword.value, names)]
    return words


def _says_nothing(value):
    prints = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print"
    return prints or isinstance(value, ast.Constant)


def digest(words):
    """Return words as a short hash."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


# A file ---------------------------------------------------------------------------------------------


class File:
    """The functions of a file, each under the names that lead to it."""

    def __init__(self, texts):
        self.statements = [statement for text in texts for statement in statements_of(text)]
        self.nodes = [node for statement in self.statements for node in ast.walk(statement)]
        self.imported: dict[str, str] = {}  # name: the full name of what is not the file's own
        self.functions: dict[str, list] = defaultdict(list)  # name: those that it stands for
        self.others: dict[str, set] = defaultdict(set)  # name: names that its value is made of
        self.own = {name for statement in self.statements for name in bound_in(statement)} - set(dir(builtins))
        for node in self.nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node)
        classes = [node for node in self.nodes if isinstance(node, ast.ClassDef)]
        stored = {
            node.attr for node in self.nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        }
        fields = {each.name for node in classes for each in node.body if isinstance(each, DEFINES)}
        plain = [each for node in classes for each in node.body if not isinstance(each, DEFINES)]
        fields = fields.union(*map(bound_in, plain))
        self.own = self.own - self.imported.keys() | {f".{name}" for name in stored | fields}
        methods = {id(method) for each in classes for method in each.body}
        for node in self.nodes:
            self._add(node, methods)

    def _import(self, node):
        source = getattr(node, "module", None)
        for alias in node.names:
            name = alias.name if source is None else f"{source}.{alias.name}"
            short = alias.asname or (alias.name if source else alias.name.partition(".")[0])
            if getattr(node, "level", 0) or name.partition(".")[0] == "minisink":
                self.own.add(short)  # may stand in a copier's file
            else:
                self.imported[short] = name if alias.asname or source else short

    def _add(self, node, methods):
        if isinstance(node, ast.ClassDef):
            self.functions[node.name] += [each for each in node.body if isinstance(each, ast.FunctionDef)]
            self.others[node.name] |= {each.id for each in node.bases if isinstance(each, ast.Name)}
        elif isinstance(node, ast.FunctionDef) and id(node) not in methods:
            self.functions[node.name].append(node)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_functions":
            for keyword in node.keywords:
                self.others[str(keyword.arg)] |= {getattr(keyword.value, "id", "")}
        elif isinstance(node, ast.Assign) and node in self.statements:
            for target in node.targets:
                if isinstance(target, ast.Name) and isinstance(node.value, ast.Lambda):
                    body: list[ast.stmt] = [ast.Return(node.value.body)]
                    function = ast.FunctionDef(name=target.id, args=node.value.args, body=body, decorator_list=[])
                    self.functions[target.id].append(function)
                elif isinstance(target, ast.Name):
                    self.others[target.id] |= {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}

    def made_of(self, name):
        """Return the functions that a name leads to, other tasks left out."""
        todo, seen, found = [name], {*TASKS} - {name}, []
        while todo:
            each = todo.pop()
            if each in seen:
                continue
            seen.add(each)
            todo += self.others.get(each, ())
            for function in self.functions.get(each, ()):
                found.append(function)
                todo += [node.id for node in ast.walk(function) if isinstance(node, ast.Name)]
        return found

    def names(self):
        """Return a numbering to begin a tree with."""
        return Names(self.own, imported=self.imported)

    def words(self, function):
        """Return how many words a function has, those of inner functions and of the template left out."""
        todo, total = [*function.body], 0
        while todo:
            statement = todo.pop()
            if isinstance(statement, DEFINES):
                continue
            words = words_of(statement, self.names(), deep=False)
            total += 0 if digest(words) in template_lines() else len(words)
            inner = [getattr(statement, field, []) for field in BODIES]
            todo += [each for statements in inner if isinstance(statements, list) for each in statements]
        return total

    def prints(self, function):
        """Return ``{digest: words}`` of a function and those within it, what a lesson gives left out."""
        inner = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef)]
        prints = {digest(words_of(each, self.names())): self.words(each) for each in inner}
        return {print: words for print, words in prints.items() if print not in GIVEN.split()}

    def reads(self):
        """Return ``{node: what}`` of each place that gets at code which is not in the file."""
        found: dict[ast.AST, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).removeprefix("builtins.")
                last = name.rpartition(".")[2]
                texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                places = any(PLACES.search(text) for text in texts if isinstance(text, str))
                runs = name in RUNS and not (node.args and isinstance(node.args[0], ast.Constant))
                if runs or last in LOADS or (places and (name in RUNS or {name, last} & OPENS)):
                    found[node] = name if name in OPENS | RUNS else last
            elif isinstance(node, ast.Attribute) and node.attr in REACHES:
                found[node] = node.attr
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [f"{getattr(node, 'module', '')}.{alias.name}".strip(".") for alias in node.names]
                found |= dict.fromkeys([node] * any(map(INNER.match, names)), names[0])
        return found


def statements_of(text):
    """Return the statements of a text, those that cannot be read left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [statement for statements, _, _ in pieces(text) for statement in statements]


@cache
def template_lines():
    """Return the digests of the lines that the template shows."""
    functions, digests = ("exp", "log", "sqrt", "cos", "sin"), set()
    for line in "".join(LOOPS.values()).split("\n"):
        for source in ("", "math.", "numpy."):
            imported = {name: source + name for name in functions}
            for statement in statements_of(f"{line.strip()} pass" if line.endswith(":") else line.strip()):
                own = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - set(dir(builtins))
                digests.add(digest(words_of(statement, Names(own - imported.keys(), imported=imported), deep=False)))
    return digests


@cache
def origins():
    """Return ``{where it stands: digests}`` of minisink's own functions and the lessons' solutions."""
    found = defaultdict(set)
    for name, origin in ORIGINS.items():
        path = PACKAGE / name
        file = File([path.read_text(encoding="utf-8") if path.is_file() else ""])
        for node in file.nodes:
            if isinstance(node, ast.FunctionDef):
                found[origin].add(digest(words_of(node, file.names())))
    return found | {f"the solution of lesson {number}": set(texts.split()) for number, texts in SOLUTIONS.items()}


# What is said ---------------------------------------------------------------------------------------


class Prints(NamedTuple):
    """What is compared of a file: dicts of texts, as JSON has them."""

    tasks: dict[str, dict[str, int]]  # of each task that the file names {digest: words}
    reads: dict[str, str]  # what gets at code that is not in the file, by task
    names: list[str]  # of the functions and classes that the file defines


def fingerprints(texts):
    r"""Read a file's text, or its cells; what is no Python leaves no prints.

    >>> fingerprints("def survivors(n, s, w):\n    return [i for i in range(n) if i < s or i >= n - w]").tasks
    {'survivors': {'2bdcf8a6374f': 22}}
    """
    try:
        file = File([texts] if isinstance(texts, str) else texts)
        made = {task: functions for task in TASKS if (functions := file.made_of(task))}
        tasks = {task: _merged(map(file.prints, functions)) for task, functions in made.items()}
        reads: dict[str, str] = {}
        for node, what in file.reads().items():
            within = [task for task in made if any(node in ast.walk(function) for function in made[task])]
            reads |= dict.fromkeys(within or TASKS, what)
    except (RecursionError, MemoryError):
        return Prints({}, {}, [])
    return Prints(tasks, reads, [each.name for each in file.statements if isinstance(each, DEFINES)])


def same_as(prints, others=None):
    """Say of each task where it stands elsewhere, or None.

    `others` are prints of other students' files by their names, which are named where it is not minisink's.
    """
    named = _alike(prints.tasks, origins(), LEAST)
    students = {
        name: {print for task in each.tasks.values() for print in task} for name, each in (others or {}).items()
    }
    named = _alike(prints.tasks, students, BETWEEN) | named
    read = {task: f"code read at run time ({what})" for task, what in prints.reads.items()}
    return dict.fromkeys(TASKS) | read | named


def whole(named):
    """Say of a file what is said of its tasks, most often first; None for nothing."""
    return ", ".join(where for where, _ in Counter(filter(None, named)).most_common()) or None


def _merged(several):
    return {name: words for each in several for name, words in each.items()}


def _alike(tasks, known, least):
    """Return the tasks of which half stands elsewhere, and where; beside one that is long, short ones too."""
    found: dict[str, Counter] = defaultdict(Counter)
    for where, digests in known.items():
        shared = {task: sum(words for print, words in made.items() if print in digests) for task, made in tasks.items()}
        halves = {task: words for task, words in shared.items() if 2 * words >= sum(tasks[task].values())}
        if max(halves.values(), default=0) >= least:
            is_whole = 2 * sum(shared.values()) >= sum(sum(made.values()) for made in tasks.values())
            for task, words in halves.items():
                if words >= (SHORT if is_whole else least):
                    found[task][where] = words
    return {
        task: _joined(where for where in words if words[where] == max(words.values())) for task, words in found.items()
    }


def _joined(names, most=3):
    """Return names in one line, a few of them.

    >>> _joined("edcba")
    'a, b, c and 2 more'
    """
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
