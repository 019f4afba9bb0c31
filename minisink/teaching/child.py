"""The other side of the checker: a process that runs a student's file, and returns what its functions answer.

It is started as a script, apart from the package (``python -I child.py``), reads one request from standard input and
writes a line of JSON an answer to what was standard output; the student's code finds both shut. It judges nothing and
knows no right answer: whatever a file does in here, it can only send numbers. `answer` is also what a live function in
a notebook is asked with.

What keeps a file in its place: a folder of its own, limits on time, memory and files, no processes, no network (a
network namespace of its own where the system grants one, and an audit hook everywhere), and the end of it all when the
parent says so.
"""

import contextlib
import json
import math
import os
import signal
import sys
import types

if __name__ == "__main__":
    sys.path += sys.argv[1:]  # where the checker found numpy: an isolated Python looks in fewer places

import numpy as np

LARGEST = 100_000  # numbers in an answer


class Unusable(ValueError):
    """An answer that is no numbers."""


def decode(value):
    """Return an argument as a function gets it: a fresh array, a list or a number."""
    if isinstance(value, dict):
        return np.array(value["array"], value["dtype"]).reshape(value["shape"])
    return value


def encode(value):
    """Return an answer as numbers: (shape, kind, numbers)."""
    if value is None:
        raise Unusable("it returned None; is a return missing?")
    try:
        if not hasattr(value, "__array__") and not isinstance(value, (int, float, complex, str, bytes, dict)):
            value = sorted(value) if isinstance(value, (set, frozenset)) else list(value)  # a generator, a range
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = np.array(array.tolist(), np.float64)
    except (TypeError, ValueError) as error:
        raise Unusable(f"it returned {type(value).__name__}, which is no array of numbers ({error})") from None
    if array.dtype.kind not in "biuf":
        of = {"U": "text", "S": "bytes"}.get(array.dtype.kind, array.dtype)
        raise Unusable(f"it returned {type(value).__name__} of {of}; numbers are needed")
    if array.size > LARGEST:
        raise Unusable(f"it returned {array.size} numbers; {LARGEST} is the most that is looked at")
    kind = "b" if array.dtype.kind == "b" else "f"
    return list(array.shape), kind, array.astype(np.float64).ravel().tolist()


def answer(name, function, args, file=None):
    """Call once; return as JSON can hold it ``value``, or ``raised``, ``error`` and ``line``."""
    if name == "step":
        return _stream(function, args, file)
    try:
        return {"value": encode(function(*map(decode, args)))}
    except BaseException as error:
        return _raised(error, file)


def _stream(function, args, file):
    """Run all steps of a text; return the outputs so far, and how many numbers the state held after each."""
    (q, k, v), rest = map(decode, args[:3]), args[3:]
    state, outs, sizes, failure = None, [], [], {}
    try:
        for t in range(len(q)):
            pair = function(state, _fresh(q[t]), _fresh(k[t]), _fresh(v[t]), *rest)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise Unusable(f"it returned {type(pair).__name__}; a pair is needed, (out, state)")
            out, state = pair
            outs.append(_output(out, state, v[t]))
            sizes.append(numbers_in(state))
    except BaseException as error:
        failure = _raised(error, file)
    return failure | {"outs": outs, "sizes": sizes}


def _output(out, state, like):
    """Return an output as numbers; say so if it is a state instead."""
    try:
        encoded = encode(out)
        if math.prod(encoded[0]) == np.size(like):
            return encoded
    except Unusable:
        encoded = None
    if _size(state) == np.size(like):
        raise Unusable("it returned (state, out); the output comes first: (out, state)")
    return encoded or encode(out)


def _size(state):
    try:
        return np.size(state) if isinstance(state, (list, tuple, np.ndarray)) else None
    except ValueError:  # lists of several lengths
        return None


def _fresh(x):
    return x.copy() if hasattr(x, "copy") else x


def _raised(error, file):
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    try:
        text = str(error)
    except BaseException:
        text = ""
    line, reached = (lines[-1], lines[0]) if lines else (None, None)
    return {"raised": type(error).__name__, "error": text[:300], "line": line, "reached": reached}


def numbers_in(state, single=(int, float, np.generic)):
    """Count the numbers that a state holds, in arrays or each a `single`, whatever it is made of."""
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


# Its place ------------------------------------------------------------------------------------------

NO_PROCESS: tuple[str, ...] = (
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.exec",
    "subprocess.Popen",
    "pty.spawn",
)
NO_PROCESS += ("os.kill", "os.startfile", "signal.pthread_kill")
NO_NETWORK: tuple[str, ...] = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")
NO_NETWORK += ("socket.gethostby",)
CHANGES: tuple[str, ...] = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "os.truncate",
    "os.link",
)
CHANGES += ("os.symlink", "os.utime", "shutil.rmtree", "shutil.move", "sqlite3.connect")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(folder, hidden):
    """Refuse processes, the network, files outside the folder, and a look at what is hidden, from here on."""
    realpath, fsdecode, sep, nothing = os.path.realpath, os.fsdecode, os.sep, os.devnull
    inside, hidden = realpath(folder), realpath(hidden)

    def check(path, reads=False):
        if isinstance(path, (str, bytes)):
            place = realpath(fsdecode(path))
            if reads and (place + sep).startswith(hidden + sep):
                raise PermissionError(f"{place}: minisink's own; the task is to write it yourself")
            if not reads and not (place + sep).startswith(inside + sep) and place != nothing:
                raise PermissionError(f"{place}: a checked file writes to its own folder only")

    def hook(event, args):
        if event == "open":
            check(args[0], reads=not (isinstance(args[2], int) and args[2] & WRITES))
        elif event.startswith(NO_PROCESS):
            raise PermissionError(f"{event}: a checked file starts and stops no processes")
        elif event.startswith(NO_NETWORK):
            raise PermissionError(f"{event}: a checked file has no network")
        elif event.startswith(CHANGES):
            for path in args:
                check(path)

    sys.addaudithook(hook)


def alone(checker):
    """Take a network and processes of its own, where the system grants them; return in the process that is to work."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        user, uid, gid = 0x10000000, os.getuid(), os.getgid()
        libc = ctypes.CDLL(None, use_errno=True)
        granted = libc.unshare(user | 0x40000000 | 0x20000000) == 0  # a user, processes, a network
        libc.prctl(1, signal.SIGKILL)  # end when the checker does, however that ends; unshare would undo it
        if os.getppid() != checker:  # it has ended already
            os._exit(1)
        if not granted:
            return
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        worker = os.fork()  # the first in its namespace: when it ends, all that it started ends
    except (ImportError, OSError, AttributeError, TypeError):
        return
    if worker == 0:
        libc.prctl(1, signal.SIGKILL)
        return
    _, status = os.waitpid(worker, 0)
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def limit(seconds, memory, file_size):
    """Soft and hard limits on processor time, memory, files and processes; what the system has not is passed over."""
    try:
        import resource
    except ImportError:
        return
    limits = {"CPU": math.ceil(seconds) + 1, "AS": memory, "FSIZE": file_size, "CORE": 0, "NPROC": 0, "MEMLOCK": 0}
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def main():
    """Answer one request."""
    request = json.loads(sys.stdin.buffer.read())
    stdout = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    dumps, write, leave = json.dumps, os.write, os._exit
    nonce, name, file = request["nonce"], request["task"], request["file"]

    def send(message):
        data = f"{nonce} {dumps(message)}\n".encode()
        while data:
            data = data[write(stdout, data) :]

    alone(request["checker"])
    loading = types.ModuleType("loading")
    exec(request["loading"], loading.__dict__)
    student = loading.Student(file, request["tasks"], request["skip"], send)
    sys.meta_path.insert(0, loading.Finder(request["shelf"], student))
    stand_ins = types.ModuleType("reference")
    if request["stand_ins"]:
        exec(request["reference"], stand_ins.__dict__)
    limit(**request["limits"])
    watch(os.getcwd(), request["hidden"])
    send({"ready": True})
    os.dup2(nothing, 2)
    sys.path[:0] = [os.path.join(os.getcwd(), each) for each in request["path"]]  # what was handed in beside it
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


if __name__ == "__main__":
    main()
