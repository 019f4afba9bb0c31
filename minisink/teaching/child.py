"""The other side of the checker: a process that runs a student's file, and returns its functions' answers.

It is started as a script, outside the package (``python -I child.py``), and loads NumPy once. Each request gets its own
process, forked from that one. It reads the request, goes behind the walls of `wall.py` and writes one line of JSON per
answer to a file that the student's code can find neither open nor by name. It judges nothing and contains no right
answers, so whatever a file does in here, all it can send is numbers. `answer` also calls live functions in a notebook.
"""

import json
import math
import os
import sys
import types
from copy import copy
from traceback import walk_tb

if __name__ == "__main__":
    sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
    import wall  # type: ignore[import-not-found]

    del sys.path[0]
    sys.path += sys.argv[1:2]  # where the checker found numpy: an isolated Python searches fewer places

import numpy as np

LARGEST = 100_000  # numbers in an answer


class Unusable(ValueError):
    """Raised for an answer that is not numbers."""


def as_array(value):
    """Decode an object in the request: a dict that describes an array becomes one, and any other stays as it is."""
    return np.array(value["array"], value["dtype"]).reshape(value["shape"]) if "array" in value else value


def encode(value):
    """Return an answer as numbers: (shape, kind, numbers)."""
    if value is None:
        raise Unusable("it returned None; is a return missing?")
    try:
        if not hasattr(value, "__array__") and not isinstance(value, (int, float, complex, str, bytes, dict)):
            value = sorted(value) if isinstance(value, (set, frozenset)) else list(value)  # a generator, a range
            value = [list(each) if hasattr(each, "__next__") else each for each in value]  # its rows too
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = np.array(array.tolist(), np.float64)
    except (TypeError, ValueError) as error:
        raise Unusable(f"it returned {type(value).__name__}, which is not an array of numbers ({error})") from None
    if array.dtype.kind not in "biuf":
        of = {"U": "text", "S": "bytes"}.get(array.dtype.kind, array.dtype)
        raise Unusable(f"it returned {type(value).__name__} of {of}; numbers are needed")
    if array.size > LARGEST:
        raise Unusable(f"it returned {array.size} numbers; at most {LARGEST} are compared")
    return list(array.shape), "b" if array.dtype.kind == "b" else "f", array.astype(np.float64).ravel().tolist()


def answer(name, function, args, file=None):
    """Call the function once; return JSON-able ``value``, or ``raised``, ``error`` and ``line``."""
    if name == "step":
        return _stream(function, args, file)
    try:
        return {"value": encode(function(*args))}
    except BaseException as error:
        return _raised(error, file)


def _stream(function, args, file):
    """Run all steps of a text; return the outputs, and the size of the state after each."""
    (q, k, v, *rest), state, outs, sizes, failure = args, None, [], [], {}
    try:
        for t in range(len(q)):
            pair = function(state, *map(copy, (q[t], k[t], v[t])), *rest)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise Unusable(f"it returned {type(pair).__name__}; a pair is needed, (out, state)")
            out, state = pair
            outs.append(_output(out, state, v[t]))
            sizes.append(numbers_in(state))
    except BaseException as error:
        failure = _raised(error, file)
    return failure | {"outs": outs, "sizes": sizes}


def _output(out, state, like):
    """Return an output as numbers; raise Unusable if the state is in its place."""
    try:
        encoded = encode(out)
        if math.prod(encoded[0]) == np.size(like):
            return encoded
    except Unusable:
        encoded = None
    if isinstance(state, (list, tuple, np.ndarray)) and numbers_in(state) == np.size(like):
        raise Unusable("it returned (state, out); the output comes first: (out, state)")
    return encoded or encode(out)


def _raised(error, file):
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    try:
        text = str(error)
    except BaseException:
        text = ""
    inner, outer = (lines[-1], lines[0]) if lines else (None, None)
    return {"raised": type(error).__name__, "error": text[:300], "line": inner, "reached": outer}


def numbers_in(state, single=(int, float, np.generic)):
    """Count the numbers in a state of any structure, whether in arrays or individually, as a `single`."""
    visited, todo, total = set(), [state], 0
    while todo and len(visited) < LARGEST:
        item = todo.pop()
        if isinstance(item, single):
            total += 1
        elif id(item) not in visited:
            visited.add(id(item))
            if hasattr(item, "shape") and hasattr(item, "dtype"):
                total += math.prod(item.shape)
            elif isinstance(item, dict):
                todo += item.values()
            elif isinstance(item, (list, tuple, set, frozenset)) or type(item).__name__ == "deque":
                todo += item
            elif not isinstance(item, (str, bytes, type, types.ModuleType)):
                todo += getattr(item, "__dict__", {}).values()
                todo += [getattr(item, slot, 0) for slot in getattr(type(item), "__slots__", ()) or ()]
                todo += [cell.cell_contents for cell in getattr(item, "__closure__", None) or ()]
    return total


def places():
    """Return what a file may read outside its own folder, and which part of that is minisink's."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = [path for path in sys.path if os.path.isdir(path)]
    own = {path: [name for name in os.listdir(path) if "minisink" in name.lower()] for path in folders}
    hidden = {os.path.realpath(os.path.join(path, name)) for path in folders for name in own[path]}
    readable = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.argv[1:2], *wall.SYSTEM}
    return sorted(readable | {path for path in folders if not own[path]}), hidden | {os.path.realpath(package)}


def work(base, walls, readable, hidden):
    """Answer the request in a folder, from behind the walls."""
    with open(os.path.join(base, "request"), "rb") as file:
        request = json.load(file, object_hook=as_array)
    stdout, errors = (os.open(os.path.join(base, name), os.O_WRONLY | os.O_APPEND) for name in ("output", "errors"))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream, to in ((0, nothing), (1, nothing), (2, errors)):
        os.dup2(to, stream)
    dumps, write, leave = json.dumps, os.write, os._exit
    nonce, name, file = request["nonce"], request["task"], request["file"]

    def send(message):
        data = f"{nonce} {dumps(message)}\n".encode()
        while data:
            data = data[write(stdout, data) :]

    enter(walls, os.path.join(base, "work"), readable, hidden, request["limits"])
    sys.argv = [file]  # in place of the child's own, for argparse
    loading = types.ModuleType("loading")
    exec(request["loading"], loading.__dict__)
    student = loading.Student(file, request["tasks"], request["skip"], send)
    sys.meta_path.insert(0, loading.Finder(request["shelf"], student))
    stand_ins = types.ModuleType("reference")
    if request["stand_ins"]:
        exec(request["reference"], stand_ins.__dict__)
    send({"ready": True})
    os.dup2(nothing, 2)
    sys.path[:0] = [os.path.join(os.getcwd(), each) for each in request["path"]]  # files handed in with it
    student.load(request["source"])
    functions = student.functions()
    send({"there": {task: callable(each) for task, each in functions.items()}, "over": student.over})
    student.names.update((task, getattr(stand_ins, task)) for task in request["stand_ins"])
    for i, args in enumerate(request["cases"]):
        reply = answer(name, functions.get(name), args, file) | {"case": i}
        send(reply)
        if reply.get("raised") == "MemoryError":
            leave(1)
    send({"done": len(request["cases"])})
    leave(0)


def enter(walls, folder, readable, hidden, limits):
    """Go behind the named walls, as far as the system allows them."""
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)
    needed, number = (os.path.dirname(os.__file__), *sys.argv[1:2]), os.getppid()
    if not sys.platform.startswith("linux"):
        walls = {"limits", "hook"} & {*walls}
    if "namespaces" in walls:
        wall.alone()
    if "user" in walls:
        wall.another_user(folder, needed, number)
        wall.without_rights()
    if "limits" in walls:
        wall.limit(**limits)
    if "files" in walls:
        wall.fenced(folder, readable, hidden)
    if "hook" in walls:
        wall.watched(folder, readable)


if __name__ == "__main__":
    walls, (readable, hidden) = sys.argv[2:], places()
    wall.one_after_the_other(lambda base: work(base, walls, readable, hidden), walls, hidden)
