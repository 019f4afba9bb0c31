"""Which parts of minisink work in a checked file: the formulas that lessons import, never the one that is judged."""

import ast
import inspect
from functools import lru_cache, partial
from pathlib import Path

from .. import attention, cache, methods, ops, positions

PACKAGE = Path(__file__).resolve().parents[1]
SHELF = {each.__name__: each for each in (ops, positions, attention, cache, methods)}
NOT_AT_ALL = dict.fromkeys(("survivors", "positions_of"), {"minisink.cache", "minisink.methods"})
WITHHELD = {  # what would solve a task under a different name
    "softmax": {"softmax1", "softmax_with_sink", "log_softmax"},
    "softmax1": {"softmax_with_sink"},
    "attend": {"score", "mix"},
    "rotate": {"unrotated"},
    "step": {"LayerCache", "KVCache"},
    "token_nll": {"log_softmax", "nll_of"},
    "retrieve": {"fetch"},
}


def withheld(task):
    """Return minisink's names for what a task asks for."""
    return WITHHELD.get(task, set()) | {task}


@lru_cache
def shelf(task):
    """Return the sources of the shelf's modules by name, for a file in which `task` is judged.

    >>> ["def softmax(" in shelf(task)["minisink.ops"] for task in ("attend", "softmax")]
    [True, False]
    """
    sources = {}
    for name, module in SHELF.items():
        if name in NOT_AT_ALL.get(task, ()):
            continue
        tree = ast.parse(inspect.getsource(module))
        tree.body = [node for node in tree.body if getattr(node, "name", None) not in withheld(task)]
        tree.body[1:1] = ast.parse("from __future__ import annotations").body  # annotations may name what is withheld
        sources[name] = ast.unparse(tree)
    return sources


def of_minisink(function, task):
    """Return the name of minisink's code if a function is that, or calls it in place of `task`; otherwise None.

    >>> from minisink import ops
    >>> of_minisink(lambda x: ops.softmax(x), "softmax"), of_minisink(lambda x: ops.softmax(x), "attend")
    ('minisink.ops.softmax', None)
    """
    function = _bare(function)
    if _is_ours(function):
        return _name(function)
    try:
        known = inspect.getclosurevars(function)
    except (TypeError, ValueError):  # not a function in Python; a name that is not bound yet
        return None
    names, visited = function.__code__.co_names, set()
    todo = list(map(_bare, [*known.globals.values(), *known.nonlocals.values()]))
    while todo:
        each = todo.pop()
        if id(each) in visited or not _is_ours(each):
            continue
        visited.add(id(each))
        if getattr(each, "__name__", None) in withheld(task):
            return _name(each)
        look = getattr if inspect.ismodule(each) else inspect.getattr_static
        todo += [_bare(look(each, name, None)) for name in names]
    return None


def _bare(function):
    while isinstance(function, partial):
        function = function.func
    return inspect.unwrap(getattr(function, "__func__", function))


def _is_ours(value):
    """Whether a function, class or module, or the class of a value, is defined in a file of minisink."""
    if not (inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value)):
        value = type(value)
    try:
        return PACKAGE in Path(inspect.getfile(value)).resolve().parents
    except (TypeError, OSError):
        return False


def _name(value):
    value = value if hasattr(value, "__name__") else type(value)
    return f"{getattr(value, '__module__', '')}.{value.__name__}".lstrip(".")
