"""Find out whose code a file is, by comparing it with minisink, the lessons' solutions and other students' files.

Statements are rewritten from their syntax trees, without what a copier changes first (names, annotations, comments,
layout): "x = np.exp(y - m)" becomes "_ = _.exp(_ - _)". A task consists of its function and whatever that calls in the
file, except other tasks. Short functions look alike even if nobody copied (a three-line softmax has 37 words), so a
task is named only if `LEAST` of its words, or `BETWEEN` for two students, are found elsewhere too, and are most of it.
Code given in the template and the lessons does not count. All of this is reported, not punished.
"""

import ast
import builtins
import copy
import hashlib
import re
import warnings
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .loading import DEFINES, made_by, pieces, used_by
from .tasks import TASKS

LEAST, BETWEEN = 40, 70  # shared words: with minisink, with another student
MOST, NEARLY_ALL = 0.75, 0.9  # share of a task: with minisink, with another student
PACKAGE = Path(__file__).parents[1]
REFERENCE = "minisink's own reference"
ORIGINS = {name: f"minisink's own {name}" for name in ("ops.py", "positions.py", "attention.py", "loss.py")}
ORIGINS |= {"teaching/reference.py": REFERENCE, "wrong_turns/right.py": REFERENCE}
ORIGINS |= {"by_the_book.py": "minisink by the book"}
# digests of each lesson's solution, and of the code given in the template and the lessons; a test keeps them current
LESSONS = PACKAGE.joinpath("teaching", "lessons.txt").read_text(encoding="utf-8")
KNOWN = {where: set(digests.split()) for where, _, digests in (line.partition(":") for line in LESSONS.splitlines())}

INNER = ("body", "orelse", "finalbody", "handlers", "cases")  # where a statement holds other statements
UNCOMPARED = (ast.Pass, ast.Import, ast.ImportFrom, *DEFINES)
RUNS = {"exec", "eval", "compile", "__import__", "importlib.import_module", "import_module"}


class Prints(NamedTuple):
    """The part of a file that is compared."""

    tasks: dict[str, dict[str, int]]  # for each task in the file, {digest of a statement: words}
    run_time: str | None  # why there may be code that cannot be compared
    names: list[str]  # of the functions and classes defined in the file


def fingerprints(texts):
    r"""Return the prints of a file's text, or its cells; empty if it is not Python.

    >>> fingerprints("def survivors(n, s, w):\n    return [i for i in range(n) if i < s or i >= n - w]").tasks
    {'survivors': {'cd13a0d9': 20}}
    """
    try:
        statements = read([texts] if isinstance(texts, str) else texts)
        tasks = {task: lines(of) for task in TASKS if (of := made_of(task, statements))}
        names = [each.name for each in statements if isinstance(each, DEFINES)]
        return Prints(tasks, _read_at_run_time(statements), names)
    except (RecursionError, MemoryError):
        return Prints({}, None, [])


def read(texts):
    """Return the statements of texts, as far as they can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [each for text in texts for statements, _, _ in pieces(text) for each in statements]


def made_of(task, statements):
    """Return the functions and classes that a task consists of: what its name leads to, without other tasks."""
    leads: dict[str, list] = defaultdict(list)
    for statement in statements:
        if isinstance(statement, ast.Assign):
            for name in made_by(statement):
                leads[name].append(statement)
        for node in ast.walk(statement):
            if isinstance(node, DEFINES):
                leads[node.name].append(node)
            elif isinstance(node, ast.keyword) and node.arg in TASKS:  # of `check_functions`
                leads[str(node.arg)].append(node)
    todo, visited, found = [task], {*TASKS} - {task}, []
    while todo:
        name = todo.pop()
        if name not in visited:
            visited.add(name)
            found += [lead for lead in leads[name] if isinstance(getattr(lead, "value", lead), (*DEFINES, ast.Lambda))]
            todo += [each for lead in leads[name] for each in used_by(lead)]
    return found


def lines(nodes):
    """Return ``{digest: words}`` of the statements in parts of a file, except those that are given to everybody."""
    found = {}
    for node in (inner for part in nodes for inner in ast.walk(part)):
        is_prose = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not isinstance(node, UNCOMPARED) and not is_prose:
            text = nameless(node)
            found[hashlib.sha256(text.encode()).hexdigest()[:8]] = len(re.findall(r"\w+|[^\s\w().]", text))
    return {digest: n for digest, n in found.items() if digest not in KNOWN["given"]}


def nameless(statement):
    """Return a statement's own text, without annotations or the file's own names, except after a dot.

    >>> nameless(ast.parse("y: list = [np.exp(a - m, out=z) for a in x]").body[0])
    '_ = [_.exp(_ - _, _=_) for _ in _]'
    """
    head = copy.copy(statement)
    vars(head).update({name: [] for name in INNER if hasattr(head, name)})
    head = copy.deepcopy(head)
    if isinstance(head, ast.AnnAssign):
        head = ast.Assign([head.target], head.value or ast.Constant(None), lineno=0)
    for node in ast.walk(head):
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
            node.id = "_"
        elif isinstance(node, (ast.arg, ast.keyword)):
            node.arg = node.arg and "_"
    return ast.unparse(head)


def _read_at_run_time(statements):
    """Say how a file gets at code that is not in it, or None; minisink's own code is not there to import."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    called = RUNS & {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return f"code read at run time ({', '.join(sorted(called))})" if called else None


@cache
def origins():
    """Return ``{origin: digests}`` of minisink's own functions and the lessons' solutions."""
    found = {where: KNOWN[where] for where in KNOWN if where != "given"}
    for name, origin in ORIGINS.items():
        found[origin] = found.get(origin, set()) | lines(read([(PACKAGE / name).read_text(encoding="utf-8")])).keys()
    return found


def same_as(prints, others=None):
    """Say for each task whose code it is, or None: minisink's, or that of `others` (students' prints, by name)."""
    students = {name: set().union(*each.tasks.values()) for name, each in (others or {}).items()}
    named = dict.fromkeys(TASKS, prints.run_time)
    for known, least, share in ((students, BETWEEN, NEARLY_ALL), (origins(), LEAST, MOST)):
        for task, words in prints.tasks.items():
            shared = {where: sum(words[each] for each in words.keys() & known[where]) for where in known}
            most = max(shared.values(), default=0)
            if most >= max(least, share * sum(words.values())):
                places = sorted(where for where in shared if shared[where] == most)
                named[task] = ", ".join(places[:3]) + f" and {len(places) - 3} more" * (len(places) > 3)
    return named


def whole(named):
    """Join what was said about a file's tasks, the most frequent first; None if nothing was."""
    return ", ".join(where for where, _ in Counter(filter(None, named)).most_common()) or None


def by_place(rows):
    """List the origins of a report's rows, each with its tasks unless it applies to all.

    >>> by_place([{"task": "step", "same_as": None}, {"task": "attend", "same_as": REFERENCE}])
    ["minisink's own reference (attend)"]
    """
    places: dict[str, list] = defaultdict(list)
    for row in rows:
        if row["same_as"]:
            places[row["same_as"]].append(row["task"])
    return [f"{where} ({', '.join(of)})" if len(of) < len(rows) else where for where, of in places.items()]
