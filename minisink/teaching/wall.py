"""What confines a student's file: several walls, one behind another, each where the system allows it.

- *namespaces*: its own processes, network and shared memory (Linux).
- *user*: if the checker is root, a user id that nobody else has, without any groups.
- *files*: the kernel lets it read only Python's files and write only to its own folder (Landlock, Linux 5.13).
- *limits* on time, memory, the size of a file and the number of processes.
- *hook*: Python refuses whatever it can see of files, processes, the network and C. This is the only wall on other
  systems, and it is not a prison: it stops accidents and tricks, but not somebody who knows Python's internals.

Like `child`, this file runs apart from the package and imports nothing from it.
"""

import contextlib
import ctypes
import math
import os
import select
import signal
import struct
import subprocess  # noqa: F401  (imported so that `watched` can go through it)
import sys

WALLS = ("namespaces", "user", "files", "limits", "hook")


def libc():
    """Return the system's C library, which Python's own modules reach only in part."""
    return ctypes.CDLL(None, use_errno=True)


# Processes ------------------------------------------------------------------------------------------


def one_after_the_other(work, walls, hidden):
    """Call ``work(folder)`` in a new process for each line of standard input; write ``folder/ended`` when it has ended.

    By then everything that it started is gone. Another line, or the end of the input, ends the current work. Only on
    Linux is forking known to be safe, whatever libraries NumPy has loaded; elsewhere there is a single call.
    """
    lines = open(0, "rb", buffering=0)  # unbuffered: a buffer could hide a line from `select`
    if not sys.platform.startswith("linux"):
        work(lines.readline().decode().rstrip("\n"))
        return
    libc().prctl(36, 1)  # orphans become children of this process
    if "namespaces" in walls:
        apart(hidden)
    while line := lines.readline():
        folder = line.decode().rstrip("\n")
        worker = os.fork()
        if worker == 0:
            work(folder)
            os._exit(0)
        done = 0
        while not done:
            done, status = os.waitpid(worker, os.WNOHANG)
            if not done and select.select([0], [], [], 0.002)[0]:
                os.read(0, 4096)
                done, status = worker, signal.SIGKILL
        _end_all()
        with open(os.path.join(folder, "ending"), "w") as file:
            file.write(str(os.waitstatus_to_exitcode(status)))
        os.replace(file.name, os.path.join(folder, "ended"))


def _end_all():
    """End the children of this process, and the orphans that it inherits, until there are none."""
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for pid in filter(str.isdigit, os.listdir("/proc")):
                    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
                        if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():  # its parent
                            os.kill(int(pid), signal.SIGKILL)
                select.select([], [], [], 0.001)


def apart(hidden):
    """Get a private network, shared memory and view of the files, with hidden folders empty, if the system permits."""
    c, user, uid, gid = libc(), 0x10000000, os.getuid(), os.getgid()
    own = 0x40000000 | 0x08000000 | 0x00020000  # CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWNS
    if c.unshare(own) != 0:  # as root
        if uid == 0 or c.unshare(user | own) != 0:  # as anybody; that way, root could not become another user
            return
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    c.mount(None, b"/", None, 1 << 14 | 1 << 18, None)  # MS_REC, MS_PRIVATE: nobody else sees what is mounted
    for path in filter(os.path.isdir, hidden):
        c.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 1, None)


def alone():
    """Get a private process namespace, if the system allows it; return in the process that is to do the work."""
    if libc().unshare(0x20000000) != 0:  # CLONE_NEWPID
        return
    worker = os.fork()  # the first in its namespace: when it ends, so does all that it started
    if worker:
        libc().prctl(1, signal.SIGKILL)  # end when the parent does
        _, status = os.waitpid(worker, 0)
        os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


# The user, and files --------------------------------------------------------------------------------


def another_user(folder, needed, number):
    """If this is root, become a user that nobody else is using, and give it the folder.

    If that user could not read Python or reach the folder, stay root, because correct work would fail.
    """
    if os.geteuid() != 0:
        return
    for uid in (2_000_000_000 + number, 65534):  # some containers have only 65536 users, the last of which is "nobody"
        with contextlib.suppress(OSError):
            os.seteuid(uid)
            ways = [*((path, os.R_OK | os.X_OK) for path in needed), (os.path.dirname(folder), os.X_OK)]
            can_work = all(os.access(path, right, effective_ids=True) for path, right in ways)
            os.seteuid(0)
            if can_work:
                os.chown(folder, uid, uid)
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            return


def without_rights():
    """Give up root's rights for good; end when the parent does."""
    c = libc()
    c.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    c.prctl(1, signal.SIGKILL)  # a change of user would undo it


READS = 1 << 2 | 1 << 3  # a file, a folder's names
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
SYSTEM = [*DEVICES, *"/lib /lib64 /usr/lib /usr/lib64 /usr/share /etc/ld.so.cache /etc/localtime /etc/fonts".split()]
SYSTEM += ["/etc/mime.types", "/proc/cpuinfo", "/proc/meminfo"]


def fenced(folder, readable, hidden):
    """Have the kernel let this process read only what is readable and not hidden, and write only in the folder.

    This is Landlock, <https://docs.kernel.org/userspace-api/landlock.html>; its calls have the same numbers everywhere.
    """
    c = libc()
    version = c.syscall(444, None, 0, 1)
    if version < 1:
        return
    everything = (1 << {1: 13, 2: 14}.get(version, 15)) - 1  # the rights it knows: 13, later also moving and truncating
    network = 3 if version >= 4 else 0  # TCP: bind and connect
    others = 3 if version >= 6 else 0  # signals to other processes, and their sockets
    rules = struct.pack("QQQ", everything, network, others)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    c.prctl(38, 1, 0, 0, 0)  # no program that is started may have more rights than this one
    ruleset = c.syscall(444, rules, ctypes.c_size_t(len(rules)), 0)

    def allow(path, rights):
        with contextlib.suppress(OSError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            if not os.path.isdir(path):
                rights &= 1 << 1 | 1 << 2 | 1 << 14  # writing, reading, truncating
            c.syscall(445, ruleset, 1, struct.pack("=Qi", rights & everything, place), 0)
            os.close(place)

    todo = [os.path.realpath(path) for path in readable]
    while todo:
        path = todo.pop()
        if not any((each + os.sep).startswith(path + os.sep) for each in hidden):
            allow(path, READS)
        elif path not in hidden:
            allow(path, 1 << 3)
            with contextlib.suppress(OSError):
                todo += [entry.path for entry in os.scandir(path) if not entry.is_symlink()]
    for path in DEVICES:
        allow(path, 1 << 1 | 1 << 2)
    never = 1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12  # programs, devices, pipes, links
    allow(folder, everything & ~never)
    c.syscall(446, ruleset, 0)
    os.close(ruleset)


def limit(seconds, memory, file_size):
    """Set soft and hard limits on processor time, memory, files and processes, as far as the system supports them."""
    try:
        import resource
    except ImportError:
        return
    limits = {"CPU": math.ceil(seconds) + 1, "AS": memory, "FSIZE": file_size, "CORE": 0, "NPROC": 0, "MEMLOCK": 0}
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


# What Python sees -----------------------------------------------------------------------------------

PROCESSES = """os.fork os.posix_spawn os.spawn os.system os.exec os.kill os.startfile subprocess.Popen pty.spawn
    signal.pthread_kill resource.prlimit""".split()
NETWORK = "socket.connect socket.bind socket.sendto socket.sendmsg socket.getaddrinfo socket.gethostby".split()
CHANGES = """os.remove os.rename os.rmdir os.mkdir os.chmod os.chown os.chflags os.truncate os.utime os.setxattr
    os.removexattr""".split()
INSIDE = ("ctypes.", "sqlite3.connect", "gc.get_", "cpython._PySys_ClearAuditHooks")
REFUSED = (
    (tuple(PROCESSES), "a checked file may not start or stop processes"),
    (tuple(NETWORK), "a checked file has no network access"),
    (("os.link", "os.symlink"), "a checked file may not make links; it may write to its own folder only"),
    (INSIDE, "a checked file may not call C, open a database or inspect Python's internals"),
)
MODULES = """posix nt _posixsubprocess _posixshmem _ctypes _cffi_backend _sqlite3 _gdbm _dbm readline
    _xxsubinterpreters _interpreters _testcapi _testinternalcapi _testlimitedcapi""".split()
SILENT = """mkfifo mknod unshare setns pidfd_open pidfd_send_signal fork_exec _fork_exec memmove memset cast _cast
    _memmove_addr _memset_addr _cast_addr""".split()
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watched(folder, readable):
    """Have Python refuse processes, the network, C, links, files outside the folder and minisink's, from now on."""
    for module in map(sys.modules.get, "os posix signal subprocess _posixsubprocess ctypes _ctypes".split()):
        for name in SILENT:  # calls that raise no audit event
            if hasattr(module, name):
                setattr(module, name, _refused)
    own = os.path.join(os.path.realpath(folder), "")
    places = [os.path.join(way(path), "") for path in readable for way in (os.path.abspath, os.path.realpath)]
    sys.addaudithook(_hook(own, tuple(dict.fromkeys(places))))


def _refused(*args, **options):
    raise PermissionError("a checked file may write to its own folder only, and may not call C or start processes")


def _hook(own, places):
    """Return the hook. It uses only its own arguments, because a file could change what any other name refers to."""
    windows = getattr(sys.modules[os.name], "_getfullpathname", None)
    devices = (*DEVICES, os.path.abspath(os.devnull))
    paths = (own, places, devices, tuple(CHANGES), WRITES, windows, os.getcwd, os.sep)
    names = (REFUSED, tuple(MODULES), isinstance, len, str, bytes, int, PermissionError, ModuleNotFoundError)

    def hook(event, args, paths=paths, names=names):
        own, places, devices, changes, writes, full, cwd, sep = paths
        refused, modules, is_a, length, text, raw, number, denied, missing = names
        for events, why in refused:
            if event.startswith(events):
                raise (missing if event == "ctypes.dlopen" else denied)(f"{event}: {why}")  # as if it did not exist
        if event == "import" and args[0] in modules:
            raise missing(f"{args[0]}: not available in a checked file")
        if event != "open" and not event.startswith(changes):
            return
        changing = event != "open" or args[1] is None or not is_a(args[2], number) or args[2] & writes
        for path in args[: 2 if event == "os.rename" else 1]:
            if is_a(path, number):  # already opened, and so allowed
                continue
            path = raw.decode(path, "utf-8", "surrogateescape") if is_a(path, raw) else text.__str__(path)
            path = full(path) if full else path if path.startswith(sep) else cwd() + sep + path
            is_plain = f"{sep}..{sep}" not in path + sep
            if path in devices or (is_plain and (path + sep).startswith(own)):
                continue
            if changing:
                raise denied(f"{path}: a checked file may write to its own folder only")
            for place in places:
                if is_plain and (path + sep).startswith(place) and "minisink" not in path[length(place) :].lower():
                    break
            else:
                what = "minisink's own; the task is to write it yourself"
                raise denied(f"{path}: {what if 'minisink' in path.lower() else 'a file may read its own folder only'}")

    return hook
