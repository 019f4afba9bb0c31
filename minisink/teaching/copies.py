"""Whose code a file is: the lines of its functions beside minisink's own, the lessons' solutions and other students'.

A line is read as a syntax tree without what a copier changes first: names, docstrings, annotations, comments, layout.
A task is made of its own function and of what that calls in the file, other tasks left out. Short functions are alike
without anybody copying (a softmax in three lines has 37 words, a loss in five 54), so a task is named where `LEAST`
words of it, or `BETWEEN` of two students, stand elsewhere too, and they are most of it: independent work of that size
shared a half at most. What template and lessons give does not count. What a file reads at run time cannot be compared;
that it does so is said. All of this is told, not punished.
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

LEAST, BETWEEN, SHORT = 40, 70, 30  # words: of minisink's, of students', and beside these in the same file
MOST, NEARLY_ALL = 0.75, 0.9  # of a task: of minisink's, of students'
LARGEST = 300_000  # letters of code that are compared
TOO_LONG = "not compared: too long"
PACKAGE = Path(__file__).parents[1]
REFERENCE = "minisink's own reference"
ORIGINS = {
    "teaching/reference.py": REFERENCE,
    "wrong_turns/right.py": REFERENCE,
    "by_the_book.py": "minisink by the book",
}
ORIGINS |= {name: f"minisink's own {name}" for name in ("ops.py", "positions.py", "attention.py", "loss.py")}
SOLUTIONS = {  # digests of the lines that each lesson asks for; a test holds them to tutorials/
    1: "38461e8b 3cd9c53b 52194818 53658cb8 929c4f02 afa51041 bf11208b c9e632d6",
    2: "1102260a 75e6e266 77a9e34e 8e71d972 981b3956 ea96e212",
    3: "0ae5abb9 188ef41e 28bfc962 40f3ff3c 60b3ccaf a3febafe a5601fc7",
    5: "0a832e8a c1595011 ef491a24",
    7: "05e2e545 42f991ca 448215de 46432d27 47e187af 4e9adea7 65903f09 835021f0 8e75943b 98d232cf",
    8: "26345c4e 280762e7 61f621f7 ce075042",
    9: "cb1ea6f1 ea96e212",
    10: "102f7eca 8603e606 db5e1021",
    11: "29a168b1 53f4da1e a80ba49c fbe494c0",
    12: "4a3c017c 8603e606 a5b339ba cc49afaf",
}
# and of those of what a lesson gives for it
GIVEN = "1d9ea55c 3ed14376 4e6bcd2c 706a9d23 7248a57f a8abd231"
GIVEN += " cd1013c1 e907a11f f91599ba fd902483"

BUILTINS = {*dir(builtins)} - {"_"}  # the last answer of a console
DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NOISE = (ast.Pass, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)
BODIES = {"body", "orelse", "finalbody", "handlers", "cases"}
SKIPPED = {"annotation", "returns", "decorator_list", "type_comment", "type_params", "ctx", "kind", "name"}
RUNS = set(
    "exec eval compile __import__ import_module importlib.import_module".split()
)  # what their first argument says
LOADS = set("run_path run_module spec_from_file_location SourceFileLoader zipimporter get_data FunctionType".split())
REACHES = set("_getframe __globals__ __closure__ __subclasses__ __builtins__ f_back f_locals f_globals".split())
OPENS = set("open Path glob iglob rglob walk listdir scandir ZipFile files join joinpath getlines fromfile".split())
HOLDS_CODE = re.compile(r"\b(def|lambda)\b")
INNER = re.compile(r"(minisink\.)?(teaching\.(?!check_functions|figures)|wrong_turns)|(reference|by_the_book|ctypes)\b")
PLACES = re.compile(r"by_the_book|reference\.py|wrong_turns|teaching/|\.whl\b|site-packages")


# A line as words ------------------------------------------------------------------------------------


class Names:
    """Numbers the names of a scope in the order they come; what is bound further out is asked for there."""

    def __init__(self, bound, outer=None, imported=None, methods=()):
        self.bound, self.outer, self.numbers = bound, outer, {}
        self.imported = (imported or {}) if outer is None else outer.imported
        self.methods = methods if outer is None else outer.methods
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


def words_of(node, names):
    """Return a line as words: an expression, or a statement without those in its body."""
    if isinstance(node, list):
        return [word for each in node for word in words_of(each, names)]
    if node is None or isinstance(node, NOISE) or (isinstance(node, ast.Expr) and _says_nothing(node.value)):
        return []
    if isinstance(node, ast.Name):
        return [names(node.id)]
    if isinstance(node, ast.Constant):
        return [repr(node.value)]
    if isinstance(node, ast.Return) and node.value:  # as if it were given a name first
        return [f"Assign ${next(names.count)}", *words_of(node.value, names)]
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
        if isinstance(value, ast.AST) or (isinstance(value, list) and field not in BODIES):
            words += words_of(value, names)
        elif not isinstance(value, list):
            words.append(names(f".{value}" if field == "attr" else str(value)))
    if words[0] == "Attribute" and len(words) == 3 and words[1].partition(".")[0] in names.imported.values():
        return [words[1] + words[2]]  # one name, as `exp` from numpy is
    return words


def _words_of_call(node, names):
    """Name the arguments of numpy's functions, and number those of the file's own."""
    method = f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else ""
    is_own_method = method in names.methods and isinstance(node.func.value, ast.Name)  # one word, as a function is
    function = [names(method)] if is_own_method else words_of(node.func, names)
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
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


# A file ---------------------------------------------------------------------------------------------


class File:
    """The functions of a file, each under the names that lead to it."""

    def __init__(self, texts):
        self.statements = [statement for text in texts for statement in statements_of(text)]
        self.nodes = [node for statement in self.statements for node in ast.walk(statement)]
        prose = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}  # docstrings among it
        for node in list(self.nodes):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in prose else None
            if isinstance(text, str) and HOLDS_CODE.search(text):
                inner = statements_of(text)  # to be run, or written to a module
                self.statements += inner
                self.nodes += [each for statement in inner for each in ast.walk(statement)]
        self.imported: dict[str, str] = {}  # name: the full name of what is not the file's own
        self.functions: dict[str, list] = defaultdict(list)  # name: those that it stands for
        self.others: dict[str, set] = defaultdict(set)  # name: names that its value is made of
        self.own = {name for statement in self.statements for name in bound_in(statement)} - BUILTINS
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
            if id(node) not in methods:
                self._add(node)
        for statement in self.statements:
            if isinstance(statement, ast.Assign):
                self._add_value(statement)

    def _import(self, node):
        source = getattr(node, "module", None)
        for alias in node.names:
            name = alias.name if source is None else f"{source}.{alias.name}"
            short = alias.asname or (alias.name if source else alias.name.partition(".")[0])
            if getattr(node, "level", 0) or name.partition(".")[0] == "minisink":
                self.own.add(short)  # may stand in a copier's file
            else:
                self.imported[short] = name if alias.asname or source else short

    def _add(self, node):
        if isinstance(node, ast.ClassDef):
            for method in [each for each in node.body if isinstance(each, ast.FunctionDef)]:
                self.functions[node.name].append(method)
                self.functions[f".{method.name}"].append(method)
            self.others[node.name] |= {each.id for each in node.bases if isinstance(each, ast.Name)}
        elif isinstance(node, ast.FunctionDef):
            self.functions[node.name].append(node)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_functions":
            for keyword in node.keywords:
                self.others[str(keyword.arg)] |= self._leads_to(keyword.value)

    def _leads_to(self, node):
        """Return the names in a tree; a method that it is stands for itself, not for all of its class."""
        if isinstance(node, ast.Attribute) and f".{node.attr}" in self.functions:
            return {f".{node.attr}"}
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        return names | {f".{each.attr}" for each in ast.walk(node) if isinstance(each, ast.Attribute)}

    def _add_value(self, node):
        names = self._leads_to(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Lambda):
                body: list[ast.stmt] = [ast.Return(node.value.body)]
                function = ast.FunctionDef(name=target.id, args=node.value.args, body=body, decorator_list=[])
                self.functions[target.id].append(function)
            elif isinstance(target, ast.Name):
                self.others[target.id] |= names

    def made_of(self, name):
        """Return the functions that a name leads to, other tasks left out."""
        todo, seen, found = [name], {*TASKS, *(f".{task}" for task in TASKS)} - {name, f".{name}"}, []
        while todo:
            each = todo.pop()
            if each in seen:
                continue
            seen.add(each)
            todo += self.others.get(each, ())
            for function in self.functions.get(each, ()):
                found += [function] * (function not in found)
                todo += self._leads_to(function)
        return found

    def names(self):
        """Return a numbering to begin a tree with."""
        return Names(self.own, imported=self.imported, methods=self.functions.keys())

    def lines(self, function):
        """Return ``{digest: words}`` of the lines of a function, inner ones among them, and what is given left out."""
        todo, found = [*function.body], {}
        while todo:
            statement = todo.pop()
            words = [] if isinstance(statement, DEFINES) else words_of(statement, self.names())
            if isinstance(statement, ast.Return) and all(word[0] == "$" or word == "Call" for word in words[1:]):
                words = []  # a name, or what a helper of the same arguments returns
            if words and digest(words) not in given_lines():
                found[digest(words)] = len(words)
            inner = [getattr(statement, field, None) for field in BODIES]
            todo += [each for statements in inner if isinstance(statements, list) for each in statements]
        return found

    def reads(self):
        """Return ``{node: what}`` of each place that gets at code which is not in the file."""
        found: dict[ast.AST, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).removeprefix("builtins.")
                last = name.rpartition(".")[2]
                args = node.args[:1] if name in RUNS else node.args
                texts = [str(each.value) for arg in args for each in ast.walk(arg) if isinstance(each, ast.Constant)]
                tells = any(PLACES.search(text) or INNER.match(text) for text in texts)
                is_text = bool(args) and all(isinstance(arg, ast.Constant) for arg in args)
                if (name in RUNS or last in LOADS) and (tells or not is_text) or (last in OPENS and tells):
                    found[node] = name if name in RUNS else last
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
def given_lines():
    """Return the digests of the lines that the template shows and the lessons give."""
    functions, digests = ("exp", "log", "sqrt", "cos", "sin"), set(GIVEN.split())
    for line in "".join(LOOPS.values()).split("\n"):
        for source in ("", "math.", "numpy."):
            imported = {name: source + name for name in functions}
            for statement in statements_of(f"{line.strip()} pass" if line.endswith(":") else line.strip()):
                own = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - BUILTINS
                digests.add(digest(words_of(statement, Names(own - imported.keys(), imported=imported))))
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
                found[origin] |= file.lines(node).keys()
    return found | {f"the solution of lesson {number}": set(texts.split()) for number, texts in SOLUTIONS.items()}


# What is said ---------------------------------------------------------------------------------------


class Prints(NamedTuple):
    """What is compared of a file: dicts of texts, as JSON has them."""

    tasks: dict[str, dict[str, int]]  # of each task that the file names {digest of a line: words}
    reads: dict[str, str]  # why it cannot be compared, by task
    names: list[str]  # of the functions and classes that the file defines


def fingerprints(texts):
    r"""Read a file's text, or its cells; what is no Python leaves no prints.

    >>> fingerprints("def survivors(n, s, w):\n    return [i for i in range(n) if i < s or i >= n - w]").tasks
    {'survivors': {'e59c0c55': 22}}
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if sum(map(len, texts)) > LARGEST:
        return Prints({}, dict.fromkeys(TASKS, TOO_LONG), [])
    try:
        file = File(texts)
        made = {task: functions for task in TASKS if (functions := file.made_of(task))}
        tasks = {task: _merged(map(file.lines, functions)) for task, functions in made.items()}
        reads: dict[str, str] = {}
        nodes = {task: {id(node) for each in made[task] for node in ast.walk(each)} for task in made}
        for node, what in file.reads().items():
            within = [task for task in made if id(node) in nodes[task]]
            reads |= dict.fromkeys(within or TASKS, f"code read at run time ({what})")
    except (RecursionError, MemoryError):
        return Prints({}, {}, [])
    return Prints(tasks, reads, [each.name for each in file.statements if isinstance(each, DEFINES)])


def same_as(prints, others=None):
    """Say of each task where it stands elsewhere, or None.

    `others` are prints of other students' files by their names, which are named where it is not minisink's.
    """
    students = {
        name: {print for task in each.tasks.values() for print in task} for name, each in (others or {}).items()
    }
    named = dict(prints.reads)
    named |= _alike(prints.tasks, students, BETWEEN, NEARLY_ALL) | _alike(prints.tasks, origins(), LEAST, MOST)
    return dict.fromkeys(TASKS) | named


def whole(named):
    """Say of a file what is said of its tasks, most often first; None for nothing."""
    return ", ".join(where for where, _ in Counter(filter(None, named)).most_common()) or None


def by_place(rows):
    """Say of a report's rows which tasks stand elsewhere, a text for each place; without their names where all do.

    >>> by_place([{"task": "step", "same_as": None}, {"task": "attend", "same_as": REFERENCE}])
    ["minisink's own reference (attend)"]
    """
    places: dict[str, list] = defaultdict(list)
    for row in rows:
        places[row["same_as"] or ""].append(row["task"])
    texts = {
        where: f"{where} ({', '.join(tasks)})" if len(tasks) < len(rows) else where for where, tasks in places.items()
    }
    return [texts[where] for where in texts if where]


def _merged(several):
    return {digest: words for each in several for digest, words in each.items()}


def _alike(tasks, known, least, share):
    """Return the tasks that stand elsewhere, and where; beside one that is long, short ones too."""
    found: dict[str, Counter] = defaultdict(Counter)
    words = {task: sum(lines.values()) for task, lines in tasks.items()}
    for where, digests in known.items():
        shared = {task: sum(lines[print] for print in lines if print in digests) for task, lines in tasks.items()}
        alike = {task: n for task, n in shared.items() if n and n >= share * words[task]}
        if max(alike.values(), default=0) >= least:
            is_whole = 2 * sum(shared.values()) >= sum(words.values())
            for task, n in alike.items():
                if n >= (SHORT if is_whole else least):
                    found[task][where] = n
    return {task: _joined(where for where in of if of[where] == max(of.values())) for task, of in found.items()}


def _joined(names, most=3):
    """Return names in one line, a few of them.

    >>> _joined("edcba")
    'a, b, c and 2 more'
    """
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
