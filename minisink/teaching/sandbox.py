"""The checker's side of the child process: a file's source goes out with the arguments, and numbers come back.

Replies are believed only as far as they can be read: lines with the right nonce, one for each case, in order. The right
answers are computed only after the child has ended.
"""

import contextlib
import inspect
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from . import child, loading, reference
from .shelf import shelf
from .tasks import TASKS, in_style
from .wall import WALLS

SECONDS = 10  # for all cases of a task, once the process has started
STARTING = 60  # seconds until then
MEMORY = 2 * 2**30
MOST_ENDS = 4  # top-level statements of a file that may end the process, once each
FILE_SIZE = 16 * 2**20
LARGEST_ANSWER = 64 * 2**20
NUMPY = os.path.dirname(os.path.dirname(os.path.abspath(np.__file__)))


class Answers(NamedTuple):
    """What a child sent."""

    answers: list  # one dict per case, as far as it got
    there: dict | None  # the tasks that the file defines, and whether they can be called; None if it never got that far
    over: list  # what was skipped in the file, a dict each
    died: str | None  # how the process ended, unless it answered everything


class Sandbox:
    """Asks a file for answers, behind those of `wall.WALLS` that are in `walls`."""

    def __init__(self, source, seconds=SECONDS, tasks=TASKS, *, beside=None, stop=None, walls=WALLS):
        self.source, self.seconds, self.tasks, self.walls = source, seconds, tasks, walls
        self.beside, self.stop = beside or {}, stop
        self.over: list = []  # what was skipped when the file was first run
        self.ends: dict = {}  # statements at which the process ended, by number: skipped from then on
        self._process = None  # started when it is needed, for one question after another

    def ask(self, name, cases, style="arrays", stand_ins=()):
        """Ask for the answers to cases in a style of `tasks.in_style`, with the reference's functions for `stand_ins`.

        A statement that ends the process while the file is loaded is skipped from then on.
        """
        while True:
            answers, at = self._ask(name, cases, style, stand_ins)
            if answers.there is not None or at is None or at["at"] in self.ends or len(self.ends) == MOST_ENDS:
                return answers._replace(over=[*answers.over, *self.ends.values()])
            self.ends[at["at"]] = {"raised": answers.died, "error": "", "line": at["line"], "cell": at["cell"]}

    def _ask(self, name, cases, style, stand_ins):
        """Ask once, in a new process: (answers, the last statement of the file that was begun)."""
        nonce = secrets.token_hex(16)
        modules = {os.path.dirname(place) for place in self.beside if place.endswith(".py")}
        request = {"nonce": nonce, "task": name, "file": self.source.name, "source": self.source.text}
        request |= {"loading": inspect.getsource(loading), "tasks": list(self.tasks), "skip": list(self.ends)}
        request |= {"cases": [in_style(self.tasks[name], case, style) for case in cases], "shelf": shelf(name)}
        request |= {"stand_ins": list(stand_ins), "reference": _sources(stand_ins), "path": sorted({"", *modules})}
        request |= {"limits": {"seconds": self.seconds, "memory": MEMORY, "file_size": FILE_SIZE}}
        base = Path(tempfile.mkdtemp(prefix="check-")).resolve()
        try:
            base.chmod(0o711)  # so that the child, whichever user it is, can reach its own folder
            (base / "work").mkdir(mode=0o700)
            _lay_out(base / "work", self.beside)
            for part, content in (("request", json.dumps(request, default=_as_json)), ("output", ""), ("errors", "")):
                (base / part).touch(mode=0o600)
                (base / part).write_text(content, encoding="utf-8")
            ended = self._run(base)
            with open(base / "output", "rb") as file:
                output = file.read(LARGEST_ANSWER)
            if f'{nonce} {{"ready"'.encode() not in output:
                last = (base / "errors").read_text("utf-8", "replace").strip().rpartition("\n")[2]
                raise OSError(f"the checker's own process did not start ({last or ended}); nothing was judged")
        finally:
            clear(base)
        return _read_back(output, nonce, len(cases), ended)

    def _run(self, base):
        """Let the child work in a folder for at most `seconds`; return how it ended, or None if normally."""
        if self._process is None:
            self._process = _start(base / "errors", self.walls)
            self._end = weakref.finalize(self, _end, self._process)
        with contextlib.suppress(OSError):  # it may have ended already, and said why
            os.write(self._process.stdin.fileno(), f"{base}\n".encode())
        stop, ready, status = time.monotonic() + STARTING, False, None
        try:
            while status is None and time.monotonic() < stop:
                if not ready and (base / "output").stat().st_size:  # a busy machine may take a while to start it
                    stop, ready = time.monotonic() + self.seconds, True
                if self.stop is not None and self.stop.is_set():  # another thread ends it
                    raise KeyboardInterrupt
                time.sleep(0.002)
                left = self._process.poll()
                status = int((base / "ended").read_text()) if (base / "ended").exists() else left
        finally:  # Ctrl-C too
            if status is None or self._process.poll() is not None:
                self._end()
                self._process = None
        return f"no answer within {self.seconds if ready else STARTING:g} s" if status is None else _ending(status)


def _as_json(array):
    """Return an array in a form that JSON can hold; `child.as_array` reads it."""
    return {"array": array.ravel().tolist(), "shape": array.shape, "dtype": str(array.dtype)}


def _lay_out(folder, files):
    """Write the files handed in, readable by any user whatever the umask; leave out names that the system refuses."""
    for up in sorted({str(up) for place in files for up in PurePosixPath(place).parents} - {"."}):
        with contextlib.suppress(OSError, ValueError):
            Path(folder, up).mkdir()
            Path(folder, up).chmod(0o755)
    for place, raw in files.items():
        with contextlib.suppress(OSError, ValueError):
            Path(folder, place).write_bytes(raw)
            Path(folder, place).chmod(0o644)


def _sources(stand_ins):
    """Return the source of these reference functions and of those they call, and so never that of the judged one."""
    tasks = [each for each in TASKS if any(each in (part, *TASKS[part].needs) for part in stand_ins)]
    sources = [inspect.getsource(getattr(reference, each)) for each in tasks]
    return "\n\n".join(["import math", "import numpy as np", *sources])


def _start(errors, walls):
    keep = {"SYSTEMROOT", "PATH", "LD_LIBRARY_PATH", "LANG"} & os.environ.keys()
    environment = {name: os.environ[name] for name in keep} | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-B", os.path.abspath(child.__file__), NUMPY, *walls]
    options: dict = {"cwd": tempfile.gettempdir(), "env": environment, "start_new_session": True}
    with open(errors, "ab") as stderr:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, **options)


def _end(process):
    """End a process and everything that it started."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    if sys.platform.startswith("linux"):  # it sees the end of its input, and ends what it has started
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    with contextlib.suppress(OSError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()


def _ending(status):
    """Say how a process ended, given its exit status; None if normally."""
    if status == 0:
        return None
    number = -status if status < 0 else status - 128
    if number in (9, getattr(signal, "SIGXCPU", None)):
        return f"the system ended it (signal {number}); too much time or memory?"
    return f"it ended the process (status {status})" if number <= 0 or number > 64 else f"it crashed (signal {number})"


def clear(folder):
    """Remove a folder and all that a student's file left in it, even a thousand folders deep or closed to everybody."""
    found = [folder]  # no link is followed, and paths stay short because inner folders are first moved to the top
    for place in found:
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)
            for entry in list(os.scandir(place)):
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                        continue
                    os.chmod(entry.path, 0o700)  # otherwise it could not be moved
                    found.append(os.path.join(folder, f"moved-{len(found)}"))
                    os.rename(entry.path, found[-1])
    for place in reversed(found):
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _read_back(output, nonce, n_cases, ended):
    """Sort what a child sent; believe it up to the first line that cannot be read or is repeated."""
    answers, there, over, at, is_complete = [], None, [], None, False
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        for line in output.decode("utf-8", "replace").split("\n"):
            head, _, text = line.partition(" ")
            if head != nonce:
                continue
            match json.loads(text):
                case {"ready": _}:
                    pass
                case {"at": _} as item:
                    at = {key: int(item[key] or 0) for key in ("at", "line", "cell")}
                case {"there": dict(named), "over": list(skipped)} if there is None:
                    over = [{key: each[key] for key in ("raised", "error", "line", "cell")} for each in skipped]
                    there = {str(name): answer is True for name, answer in named.items()}
                case {"case": number} as item if there is not None and number == len(answers) < n_cases:
                    answers.append(item)
                case {"done": number} if there is not None and number == n_cases == len(answers):
                    is_complete = True
                case _:
                    break
    died = None if is_complete else ended or "it ended the process (status 0)"
    return Answers(answers, there, over, died), at
