"""What of minisink works in a checked file: the formulas that lessons import, but never the one that is judged."""

from __future__ import annotations

import ast
import inspect
from functools import lru_cache

from .. import attention, cache, methods, ops, positions

SHELF = {each.__name__: each for each in (ops, positions, attention, cache, methods)}
NOT_AT_ALL = {
    "survivors": {"minisink.cache", "minisink.methods"},
    "positions_of": {"minisink.cache", "minisink.methods"},
}
WITHHELD = {  # beside what has the task's own name: what would do it all the same
    "softmax": {"softmax1", "softmax_with_sink", "log_softmax"},
    "softmax1": {"softmax_with_sink"},
    "attend": {"score", "mix"},
    "rotate": {"unrotated"},
    "step": {"LayerCache", "KVCache"},
    "token_nll": {"log_softmax", "nll_of"},
    "retrieve": {"fetch"},
}


def withheld(task):
    """Return the names of minisink that are, or would do, what a task asks for."""
    return WITHHELD.get(task, set()) | {task}


@lru_cache
def shelf(task):
    """Return the sources of these modules, by name, for a file in which `task` is judged.

    >>> ["def softmax(" in shelf(task)["minisink.ops"] for task in ("attend", "softmax")]
    [True, False]
    """
    sources = {}
    for name, module in SHELF.items():
        if name in NOT_AT_ALL.get(task, ()):
            continue
        tree = ast.parse(inspect.getsource(module))
        tree.body = [node for node in tree.body if getattr(node, "name", None) not in withheld(task)]
        sources[name] = ast.unparse(tree)
    return sources
