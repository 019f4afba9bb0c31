"""Whose code a file is: its functions' lines compared with minisink's, the lessons' solutions and other students'.

A line is compared without what a copier changes first: names, docstrings, annotations, comments, layout. Python
rewrites it from its syntax tree, without its names: "x = np.exp(y - m)" becomes "_ = numpy.exp(_ - _)".
A task consists of its function and what that calls in the file, without other tasks. Short functions are alike
without copying (a softmax in three lines has 37 words, a loss in five 54), so a task is named only if `LEAST`
of its words, or `BETWEEN` for two students, are found elsewhere too, and are most of it: independent work of that size
shared at most half. Code from the template and the lessons does not count. Code read at run time cannot be compared,
and the report says so. All of this is reported, not punished.
"""

import ast
import builtins
import copy
import hashlib
import re
import warnings
from collections import ChainMap, Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .loading import DEFINES, made_by, pieces
from .tasks import TASKS

LEAST, BETWEEN, SHORT = 40, 70, 25  # shared words: with minisink, with a student, and in the rest of such a file
MOST, NEARLY_ALL = 0.75, 0.9  # share of a task: with minisink, with a student
LARGEST = 300_000  # letters of code that are compared
TOO_LONG = "not compared: too long"
PACKAGE = Path(__file__).parents[1]
REFERENCE = "minisink's own reference"
ORIGINS = {name: f"minisink's own {name}" for name in ("ops.py", "positions.py", "attention.py", "loss.py")}
ORIGINS |= {"teaching/reference.py": REFERENCE, "wrong_turns/right.py": REFERENCE}
ORIGINS |= {"by_the_book.py": "minisink by the book"}
# digests of the lines of each lesson's solution, and of what template and lessons give: a test holds them to these
LESSONS = PACKAGE.joinpath("teaching", "lessons.txt").read_text(encoding="utf-8")
KNOWN = {where: set(digests.split()) for where, _, digests in (line.partition(":") for line in LESSONS.splitlines())}

BUILTINS = {*dir(builtins)} - {"_"}  # which is the last answer in a console
WORD = re.compile(r"\w+|[^\s\w().]")
NOISE = (ast.Pass, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)
LINES = (ast.stmt, ast.excepthandler, ast.match_case)
BODIES = ("body", "orelse", "finalbody", "handlers", "cases")
RUNS = {"exec", "eval", "compile", "__import__", "import_module", "importlib.import_module"}
LOADS = set("run_path run_module spec_from_file_location SourceFileLoader zipimporter get_data FunctionType".split())
REACHES = set("_getframe __globals__ __closure__ __subclasses__ __builtins__ f_back f_locals f_globals".split())
OPENS = set("open Path glob iglob rglob walk listdir scandir ZipFile files join joinpath getlines fromfile".split())
HOLDS_CODE = re.compile(r"\b(def|lambda)\b")
INNER = re.compile(r"(minisink\.)?(teaching\.(?!check_functions|figures)|wrong_turns)|(reference|by_the_book|ctypes)\b")
PLACES = re.compile(r"by_the_book|reference\.py|wrong_turns|teaching/|\.whl\b|site-packages")


class Nameless(ast.NodeTransformer):
    """Removes the names that a file itself gives, and gives everything else its full name."""

    def __init__(self, file):
        self.file = file

    def visit_Name(self, node):
        """Replace a name."""
        return ast.Name(self.file.imported.get(node.id, node.id if node.id in BUILTINS else "_"), node.ctx)

    def visit_arg(self, node):
        """Replace an argument of a lambda."""
        return ast.arg("_")

    def visit_Attribute(self, node):
        """Replace a field or method; numpy's keep their names."""
        return ast.Attribute(self.visit(node.value), "_" if node.attr in self.file.fields else node.attr, node.ctx)

    def visit_Call(self, node):
        """Remove the names of arguments in calls of the file's own functions, and the object before its methods."""
        method = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.attr
        if method and f".{method}" in self.file.leads:
            node.func = ast.Name(f".{method}", ast.Load())
        self.generic_visit(node)
        if ast.unparse(node.func).rpartition(".")[2] == "_":
            for keyword in node.keywords:
                keyword.arg = keyword.arg and "_"
        return node


class File:
    """The functions of a file, each under the names that lead to it."""

    def __init__(self, texts):
        self.statements, self.nodes = [], []
        self._add([statement for text in texts for statement in statements_of(text)])
        prose = {node.value for node in self.nodes if isinstance(node, ast.Expr)}  # docstrings among it
        for node in self.nodes:  # which grows: a text may hold another, to be run, or written to a module
            text = node.value if isinstance(node, ast.Constant) and node not in prose else None
            if isinstance(text, str) and HOLDS_CODE.search(text):
                self._add(statements_of(text))
        self.imported: dict[str, str] = {}  # name: the full name of what is not the file's own
        self.fields: set[str] = set()  # names behind a dot that the file gives
        self.leads: dict[str, list] = defaultdict(list)  # name, or .name: functions, classes and values it stands for
        methods: set[ast.stmt] = set()
        for node in self.nodes:  # a class comes before what is in it
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                self.fields.add(node.attr)
            elif isinstance(node, ast.ClassDef):
                self.fields |= {name for each in node.body for name in _made_by(each)}
                methods |= {*node.body}
            if isinstance(node, DEFINES):
                self.leads["." * (node in methods) + node.name].append(node)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_functions":
                for keyword in node.keywords:
                    self.leads[str(keyword.arg)].append(keyword.value)
        for statement in self.statements:
            if isinstance(statement, ast.Assign):
                for name in _made_by(statement):
                    self.leads[name].append(statement.value)

    def _add(self, statements):
        self.statements += statements
        self.nodes += [node for statement in statements for node in ast.walk(statement)]

    def _import(self, node):
        source = getattr(node, "module", None)
        for alias in node.names:
            name = alias.name if source is None else f"{source}.{alias.name}"
            short = alias.asname or (alias.name if source else alias.name.partition(".")[0])
            if not getattr(node, "level", 0) and name.partition(".")[0] != "minisink":  # may be in a copier's file
                self.imported[short] = name if alias.asname or source else short

    def made_of(self, name):
        """Return the functions that a name leads to, without other tasks."""
        todo, seen, found = [name], {*TASKS, *(f".{task}" for task in TASKS)} - {name, f".{name}"}, []
        while todo:
            each = todo.pop()
            for lead in self.leads.get(each, []) if each not in seen else ():
                found += [lead] * isinstance(lead, (*DEFINES, ast.Lambda))
                todo += self._names_in(lead)
            seen.add(each)
        return found

    def _names_in(self, node):
        """Return the names in a tree; if it is a method, only its own, not those of the whole class."""
        is_method = isinstance(node, ast.Attribute) and f".{node.attr}" in self.leads
        inner = [node] if is_method else list(ast.walk(node))
        names = {each.id for each in inner if isinstance(each, ast.Name)}
        return names | {f".{each.attr}" for each in inner if isinstance(each, ast.Attribute)}

    def words(self, node):
        """Return a statement without its body as words; a returned value reads as if it were given a name first."""
        returned = node.body if isinstance(node, ast.Lambda) else node.value if isinstance(node, ast.Return) else None
        if returned:
            node = ast.Assign([ast.Name("", ast.Store())], returned, lineno=0)
        elif isinstance(node, ast.AnnAssign):
            node = ast.Assign([node.target], node.value, lineno=0) if node.value else ast.Pass()
        value = node.value if isinstance(node, ast.Expr) else None
        prints = isinstance(value, ast.Call) and getattr(value.func, "id", "") == "print"
        if prints or isinstance(value, ast.Constant) or isinstance(node, (*NOISE, *DEFINES)):
            return []
        line = copy.copy(node)
        vars(line).update({field: [] for field in BODIES if hasattr(line, field)})
        words = WORD.findall(ast.unparse(Nameless(self).visit(copy.deepcopy(line))))  # as Python would write it
        return [] if returned and all(word in "_," for word in words[2:]) else words  # a name, or a helper's answer

    def lines(self, function):
        """Return ``{digest: words}`` of a function's lines, inner functions included, without what is given."""
        lines = [self.words(each) for each in ast.walk(function) if isinstance(each, LINES) or each is function]
        found = {digest(words): len(words) for words in lines if words}
        return {print: found[print] for print in found.keys() - KNOWN["given"]}

    def reads(self):
        """Return ``{node: what}`` of each place that reaches code outside the file."""
        found: dict[ast.AST, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).removeprefix("builtins.")
                last = name.rpartition(".")[2]
                args = node.args[:1] if name in RUNS else node.args  # the others of `exec` are namespaces
                texts = [str(each.value) for arg in args for each in ast.walk(arg) if isinstance(each, ast.Constant)]
                tells = any(PLACES.search(text) or INNER.match(text) for text in texts)
                is_text = bool(args) and all(isinstance(arg, ast.Constant) for arg in args)
                if (name in RUNS or last in LOADS) and (tells or not is_text) or (last in OPENS and tells):
                    found[node] = name if name in RUNS else last
            elif isinstance(node, ast.Attribute) and node.attr in REACHES:
                found[node] = node.attr
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [f"{getattr(node, 'module', '')}.{alias.name}".strip(".") for alias in node.names]
                if any(map(INNER.match, names)):
                    found[node] = names[0]
        return found


def statements_of(text):
    """Return the statements of a text that can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [statement for each, _, _ in pieces(text) for statement in each]


def digest(words):
    """Return words as a short hash."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


def _made_by(statement):
    """Return the names that a statement makes, without those inside a function."""
    return {statement.name} if isinstance(statement, DEFINES) else made_by(statement)


@cache
def origins():
    """Return ``{origin: digests}`` of minisink's own functions and the lessons' solutions."""
    found = defaultdict(set)
    for name, origin in ORIGINS.items():
        path = PACKAGE / name
        file = File([path.read_text(encoding="utf-8") if path.is_file() else ""])
        for node in file.nodes:
            if isinstance(node, ast.FunctionDef):
                found[origin] |= file.lines(node).keys()
    return found | {where: KNOWN[where] for where in KNOWN if where != "given"}


class Prints(NamedTuple):
    """The part of a file that is compared."""

    tasks: dict[str, dict[str, int]]  # of each task that the file names {digest of a line: words}
    reads: dict[str, str]  # why it cannot be compared, by task
    names: list[str]  # of the functions and classes that the file defines


def fingerprints(texts):
    r"""Read a file's text, or its cells; without Python there are no prints.

    >>> fingerprints("def survivors(n, s, w):\n    return [i for i in range(n) if i < s or i >= n - w]").tasks
    {'survivors': {'c9c65c1b': 21}}
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if sum(map(len, texts)) > LARGEST:
        return Prints({}, dict.fromkeys(TASKS, TOO_LONG), [])
    try:
        file = File(texts)
        made = {task: functions for task in TASKS if (functions := file.made_of(task))}
        tasks = {task: dict(ChainMap(*map(file.lines, functions))) for task, functions in made.items()}
        reads: dict[str, str] = {}
        nodes = {task: {node for each in made[task] for node in ast.walk(each)} for task in made}
        for node, what in file.reads().items():
            within = [task for task in made if node in nodes[task]]
            reads |= dict.fromkeys(within or TASKS, f"code read at run time ({what})")
    except (RecursionError, MemoryError):
        return Prints({}, {}, [])
    return Prints(tasks, reads, [each.name for each in file.statements if isinstance(each, DEFINES)])


def same_as(prints, others=None):
    """Say of each task whose code it is, or None: minisink's, or of which of the `others`, students' prints by name."""
    students = {name: set().union(*each.tasks.values()) for name, each in (others or {}).items()}
    named = prints.reads | _alike(prints.tasks, students, BETWEEN, NEARLY_ALL)
    return dict.fromkeys(TASKS) | named | _alike(prints.tasks, origins(), LEAST, MOST)


def whole(named):
    """Join what is said of a file's tasks, the most frequent first; None for nothing."""
    return ", ".join(where for where, _ in Counter(filter(None, named)).most_common()) or None


def by_place(rows):
    """List the origins of a report's rows, each with its tasks unless all have it.

    >>> by_place([{"task": "step", "same_as": None}, {"task": "attend", "same_as": REFERENCE}])
    ["minisink's own reference (attend)"]
    """
    places: dict[str, list] = defaultdict(list)
    for row in rows:
        if row["same_as"]:
            places[row["same_as"]].append(row["task"])
    return [f"{where} ({', '.join(of)})" if len(of) < len(rows) else where for where, of in places.items()]


def _alike(tasks, known, least, share):
    """Return the tasks that are found elsewhere, and where; next to a long one also short ones."""
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
    """Return a few of the names in one line.

    >>> _joined("edcba")
    'a, b, c and 2 more'
    """
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
