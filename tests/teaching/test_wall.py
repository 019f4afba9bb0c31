"""Each way out of the checker's child process, against each wall that should close it."""

import dis
import os
import shutil
import stat
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from processes import at_work_in

from minisink.teaching import sandbox, wall
from minisink.teaching.grading import check_source
from minisink.teaching.sandbox import Sandbox
from minisink.teaching.source import Source

OK = """
def survivors(n_slots, n_sinks, window):
    return [s for s in range(n_slots) if s < n_sinks or s >= n_slots - window]
"""
SECRET = "the secret that must not be read"
LINUX = sys.platform.startswith("linux")
LAYERS = {  # which walls there are; the hook on its own is what other systems have
    "all": wall.WALLS,
    "namespaces refused": ("user", "files", "limits", "hook"),
    "the kernel's alone": ("namespaces", "user", "files", "limits"),
    "the hook alone": ("limits", "hook"),
}
CHANGES = {  # what would change something outside; `outside` is a folder, `target` a file in it
    "open": "open(target, 'w')",
    "os.open": "os.open(target, os.O_WRONLY | os.O_TRUNC)",
    "os.open, dir_fd": "os.open('target', os.O_WRONLY | os.O_TRUNC, dir_fd=os.open(outside, os.O_RDONLY))",
    "os.open, O_PATH": "os.open('target', os.O_WRONLY | os.O_TRUNC, dir_fd=os.open(outside, os.O_PATH))",
    "mkdir, dir_fd": "os.mkdir('new', dir_fd=os.open(outside, os.O_RDONLY))",
    "remove, dir_fd": "os.remove('target', dir_fd=os.open(outside, os.O_RDONLY))",
    "rename, dir_fd": "os.rename('target', 'new', src_dir_fd=(d := os.open(outside, 0)), dst_dir_fd=d)",
    "up and up": "os.open('../' * 9 + target, os.O_WRONLY | os.O_TRUNC)",
    "from elsewhere": "os.chdir(outside); os.open('target', os.O_WRONLY | os.O_TRUNC)",
    "through /proc": "open('/proc/self/root' + target, 'w')",
    "rename": "open('x', 'w').close(); os.rename('x', target)",
    "shared memory": "from multiprocessing import shared_memory as m; m.SharedMemory('minisink-' + tag, True, 9)",
    "mkfifo": "os.mkfifo(outside + '/new')",
    "mknod": "os.mknod(outside + '/new')",
    "a link to it": "os.symlink(target, 'x'); open('x', 'w')",
    "a hard link": "os.link(target, 'x'); open('x', 'w')",
    "pathlib": "pathlib.Path(target).unlink()",
    "shutil": "shutil.rmtree(outside)",
    "sqlite": "import sqlite3; sqlite3.connect(outside + '/new').execute('create table t(x)')",
    "sqlite, attached": "import sqlite3; c = sqlite3.connect(':memory:'); c.execute(f\"attach '{outside}/new' as x\"); "
    "c.execute('create table x.t(y)')",
    "numpy": "np.zeros(3).tofile(target)",
    "a memory map": "np.memmap(target, mode='r+', shape=2)[:] = 0",
    "a name that lies": "class Name(str):\n        def startswith(self, other): return True\n"
    "        __str__ = __format__ = startswith\n    open(Name(target), 'w')",
    "a path of another kind": "class Name:\n        def __fspath__(self): return target\n    os.remove(Name())",
    "another isinstance": "import builtins; builtins.isinstance = lambda a, b: False; open(target, 'w')",
    "another realpath": "os.path.realpath = os.getcwd = lambda *a: here; open(target, 'w')",
    "what the hook holds": "try: open(target, 'w')\n    except Exception as error:\n"
    "        frame = error.__traceback__\n        while frame.tb_next: frame = frame.tb_next\n"
    "        for each in list(frame.tb_frame.f_locals.values()) + list(frame.tb_frame.f_globals.values()):\n"
    "            for cell in getattr(each, '__closure__', None) or ():\n"
    "                if isinstance(cell.cell_contents, str): cell.cell_contents = '/'\n"
    "            if isinstance(each, dict): each.clear()\n        open(target, 'w')",
    "posix anew": "sys.modules.pop('posix'); import posix; posix.mkfifo(outside + '/new')",
    "fork_exec": "import subprocess; r, w = os.pipe(); no, rm = [-1] * 6, b'/bin/rm'\n    "
    "subprocess._fork_exec([rm, target.encode()], [rm], True, (), None, None, *no, r, w, False, False, -1, None, None, "
    "None, -1, None, True); time.sleep(1)",
    "an interpreter inside": "import _xxsubinterpreters as i; i.run_string(i.create(), f\"open({target!r}, 'w')\")",
    "ctypes": "import ctypes; ctypes.CDLL(None).unlink(target.encode())",
    "ctypes, a pipe": "import ctypes; ctypes.CDLL(None).mkfifo((outside + '/new').encode(), 0o600)",
}
ATTRIBUTES = {  # what the kernel's wall around files does not know; the user's and the hook do
    "chmod": "os.chmod(target, 0)",
    "utime": "os.utime(target, (1, 1))",
    "setxattr": "os.setxattr(target, 'user.x', b'1')",
    "chown": "os.chown(target, 1, 1)",
}
READS = {  # what would show minisink's own, or another's
    "open": "found = open(own).read()",
    "os.open, dir_fd": "at, name = os.path.split(own); found = os.read(os.open(name, 0, dir_fd=os.open(at, 0)), 9**6)",
    "up and up": "found = open(here + '/..' * 20 + own).read()",
    "through /proc": "found = open('/proc/self/root' + own).read()",
    "FileIO": "import io; found = io.FileIO(own).read()",
    "open_code": "import io; found = io.open_code(own).read()",
    "a link": "os.symlink(own, 'x'); found = open('x').read()",
    "importlib": "import importlib.util as u; found = u.spec_from_file_location('x', own).loader.get_source('x')",
    "linecache": "import linecache; found = linecache.getlines(own)",
    "numpy": "found = np.fromfile(own, np.uint8).tobytes()",
    "ctypes": "import ctypes; c = ctypes.CDLL(None); b = ctypes.create_string_buffer(99999); "
    "c.read(c.open(own.encode(), 0), b, 99999); found = b.value",
}
WAYS = {  # to import minisink once more, past what the child puts in its place
    "installed": "sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(own))))",
    "from a folder": "sys.path.insert(0, outside)",
    "from a wheel": "sys.path.insert(0, outside + '/minisink-1-py3-none-any.whl')",
    "from a zip by another name": "sys.path.insert(0, outside + '/x.zip')",
}
HEAD = """
import os, pathlib, shutil, sys, time
import numpy as np
outside, target, own, here = {outside!r}, {target!r}, {own!r}, os.getcwd()
tag = str(abs(hash(outside)))
found = None
def attack():
    global found
    {attack}
try:
    attack()
except BaseException as error:
    found = repr(error)
"""


@pytest.fixture(params=LAYERS)
def walls(request):
    names = LAYERS[request.param]
    if "hook" not in names and not kernel_keeps_files():
        pytest.skip("this kernel has no Landlock, and Python can be read by this user only")
    return names


def kernel_keeps_files():
    return LINUX and wall.libc().syscall(444, None, 0, 1) >= 1


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "target").write_text(SECRET)
    (folder / "target").chmod(0o666)
    folder.chmod(0o777)
    return folder


def state(folder):
    """All that can be seen of a folder: names, kinds, modes, times, contents."""
    seen = {}
    for path in [folder, *sorted(folder.iterdir())]:
        about = path.lstat()
        xattrs = os.listxattr(path) if hasattr(os, "listxattr") else []
        content = path.read_bytes() if stat.S_ISREG(about.st_mode) else None
        seen[path.name] = (about.st_mode, about.st_uid, about.st_mtime, about.st_nlink, content, xattrs)
    return seen


def ask(text, walls, seconds=20, task="survivors"):
    return next(check_source(Sandbox(Source("student.py", text, False), seconds, walls=walls), [task]))


def attack(code, outside, own=None):
    return HEAD.format(outside=str(outside), target=str(outside / "target"), own=str(own), attack=code)


@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in CHANGES.items()])
def test_nothing_outside_changes(code, walls, outside):
    before, shared = state(outside), Path("/dev/shm")
    row = ask(attack(code, outside) + OK, walls)
    assert state(outside) == before and not list(shared.glob("minisink-*"))
    assert row["status"] == "passed" or "ended" in row["message"], row["message"]


@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in ATTRIBUTES.items()])
def test_no_attribute_outside_changes(code, walls, outside):
    if "hook" not in walls:
        pytest.skip("only another user, and the hook, keep what belongs to this one")
    before = state(outside)
    ask(attack(code, outside) + OK, walls)
    assert state(outside) == before


@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in READS.items()])
@pytest.mark.parametrize("whose", ["minisink's", "another's"])
def test_nothing_outside_is_read(code, whose, walls, outside):
    own = Path(wall.__file__).with_name("reference.py") if whose == "minisink's" else outside / "target"
    sign = "def survivors" if whose == "minisink's" else SECRET
    tell = f"\ndef survivors(*a): raise ValueError('READ' if {sign!r} in str(found) else 'not: ' + str(found))\n"
    assert "ValueError: not: " in ask(attack(code, outside, own) + tell, walls)["message"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_reference_is_not_imported(way, walls, outside):
    package = Path(wall.__file__).parents[1]
    shutil.copytree(package, outside / "minisink", ignore=shutil.ignore_patterns("__pycache__"))
    with zipfile.ZipFile(outside / "x.zip", "w") as wheel:
        for path in (outside / "minisink").rglob("*.py"):
            wheel.write(path, path.relative_to(outside))
    shutil.copy(outside / "x.zip", outside / "minisink-1-py3-none-any.whl")
    code = f"sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'Finder']\n    {WAYS[way]}\n"
    code += "    from minisink.teaching import reference; found = reference.survivors"
    tell = "\ndef survivors(*a): return found(*a) if callable(found) else [7.5]\n"
    row = ask(attack(code, outside, package / "teaching" / "reference.py") + tell, walls)
    assert row["status"] == "failed" and row["case"]["got"] == [7.5]


@pytest.mark.parametrize("name", ["_posixshmem", "_ctypes", "_sqlite3", "_posixsubprocess", "readline", "posix"])
def test_no_module_leads_past_the_hook(name):
    """Not even one that a file takes out of `sys.modules` first; a library that can do without it does."""
    with pytest.raises(ModuleNotFoundError, match=name):
        wall._hook("/own/", ())("import", (name, None, None, None, None))


def test_the_hook_uses_no_name_that_a_file_could_change():
    asked = {each.opname for each in dis.get_instructions(wall._hook("/own/", ()))}
    assert not asked & {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLOSURE", "IMPORT_NAME"}


# Processes ------------------------------------------------------------------------------------------

GRANDCHILD = """
import os, time
def survivors(*a):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir({outside!r})
            while True:
                time.sleep(0.2)
                open("target", "w").write("full marks")
        os._exit(0)
    time.sleep({seconds})
    return [0]
"""


@pytest.mark.skipif(not LINUX, reason="other systems leave the hook to refuse it")
@pytest.mark.parametrize("seconds", [0, pytest.param(99, marks=pytest.mark.slow)])
@pytest.mark.parametrize("names", [(), pytest.param(("namespaces",), marks=pytest.mark.slow)])
def test_no_process_outlives_its_question(names, seconds, outside):
    """Even where a file may do what it likes, and whether it answers or its time is up."""
    row = ask(GRANDCHILD.format(outside=str(outside), seconds=seconds), names, seconds=1)
    assert row["status"] == "failed"
    (outside / "target").write_text("as it was judged")
    time.sleep(0.5)
    assert (outside / "target").read_text() == "as it was judged" and at_work_in(outside.parent) == []


@pytest.mark.skipif(not LINUX, reason="other systems leave the hook to refuse it")
def test_the_checker_goes_on_after_its_helper_was_ended(outside):
    """A file that may end the process beside it loses its own task, and no other."""
    ender = "\nimport os\ndef softmax(*a): os.kill(os.getppid(), 9); import time; time.sleep(9)\n"
    rows = list(check_source(Sandbox(Source("s.py", OK + ender, False), 2, walls=()), ["softmax", "survivors"]))
    assert [row["status"] for row in rows] == ["failed", "passed"]


@pytest.mark.slow
@pytest.mark.parametrize("names", [wall.WALLS, LAYERS["namespaces refused"]])
@pytest.mark.parametrize("call", ["os.kill(os.getppid(), 9)", "os.fork()", "signal.pidfd_send_signal(1, 9)"])
def test_a_file_starts_and_stops_no_process(call, names):
    assert "processes" in ask(f"import os, signal\ndef survivors(*a): {call}\n", names)["message"]


# What a file leaves behind --------------------------------------------------------------------------

LEFT = {
    "deep": "for i in range(1000):\n    os.mkdir('d'); os.chdir('d')",
    "closed": "os.makedirs('a/b/c'); open('a/b/c/x', 'w').close()\n"
    "for each in ('a/b/c', 'a/b', 'a'): os.chmod(each, 0)\nos.chmod('.', 0)",
    "many": "for i in range(2000): open(str(i), 'w').close()",
    "names": "for name in (b'\\xff', b'\\n', b'-rf', b'moved-1', b'ended'):\n"
    "    os.mkdir(name); open(name + b'/x', 'w').close()",
    "links": "os.symlink({outside!r}, 'a'); os.symlink('.', 'b'); os.symlink({outside!r} + '/target', 'c')",
    "pipes": "os.mkfifo('a'); import socket; socket.socket(socket.AF_UNIX).bind('b')",
}


MANY = [pytest.param(what, marks=pytest.mark.slow) for what in ("deep", "many")]


@pytest.mark.parametrize("what", [*MANY, "closed", "names", "links", "pipes"])
@pytest.mark.parametrize("names", [("limits",), pytest.param(("user", "limits", "hook"), marks=pytest.mark.slow)])
def test_what_a_file_leaves_behind_is_taken_away(what, names, outside, tmp_path, monkeypatch):
    """And the report comes; what a link leads to stays."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = state(outside)
    row = ask("import os\n" + LEFT[what].replace("{outside!r}", repr(str(outside))) + OK, names)
    assert os.listdir(tmp_path / "tmp") == [] and state(outside) == before
    assert row["status"] == "passed" or "hook" in names


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="only root can become another")
def test_where_the_checker_is_root_a_file_runs_as_nobody_else():
    """With no group and no rights, and in a folder of its own; a Python that it could not read it does not run."""
    tell = "import os\ndef survivors(*a): raise ValueError((os.getresuid(), os.stat('.').st_uid, os.getgroups()))\n"
    said = ask(tell, ("user",))["message"]
    needed = (os.path.dirname(os.__file__), sandbox.NUMPY)
    readable = all(os.stat(place).st_mode & 1 for path in needed for place in (path, *Path(path).parents))
    user = int(said.partition("((")[2].partition(",")[0])
    assert (user > 60000) == readable and f"(({user}, {user}, {user}), {user}, []" in said or not readable
