"""Files: read away what is no text, written whole under a name of one's own, by one run at a time."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisink.system import files
from minisink.system.files import (
    check_file,
    check_folder,
    check_picture,
    check_room,
    load_state,
    lock_files,
    read_text,
    save_state,
)

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="locks and pipes of POSIX")


def test_a_byte_order_mark_is_no_text(tmp_path):
    """Only at the start, and only one; what is no UTF-8 is named where it stands in the file."""
    path = tmp_path / "text.txt"
    for text in ("", "ab", "b\ufeffa", "\ufeffa"):
        path.write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
        assert read_text(path) == text
    path.write_bytes(b"a\r\nb\xef\xbb\xbf")
    assert read_text(path) == "a\nb\ufeff"
    path.write_bytes(b"\xef\xbb\xbfabc\xff")
    with pytest.raises(ValueError, match="text.txt: not UTF-8 text .byte 0xff at 6"):
        read_text(path)


def test_two_runs_do_not_take_each_others_file(tmp_path):
    """Each writes under a name of its own; the last to end has its way, with the usual rights."""
    path = tmp_path / "cache.safetensors"
    with files.atomic_write(path) as one, files.atomic_write(path) as other:
        assert one != other and one.parent.parent == other.parent.parent == tmp_path
        assert one.name == other.name == path.name  # matplotlib goes by the ending
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_state_that_cannot_be_opened_is_there(tmp_path, monkeypatch):
    """Too many open files is not "no such file", which is what the library says."""
    save_state(tmp_path / "state", "kind", {}, {"a": np.zeros(2)})

    def too_many(path, *_):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr("builtins.open", too_many)
    with pytest.raises(ValueError, match="state: not a state .*Too many open files"):
        load_state(tmp_path / "state", "kind", "a state")


def test_a_state_that_there_is_no_memory_for_is_named(tmp_path, monkeypatch):
    def no_memory(*_, **__):
        raise MemoryError("Cannot allocate memory")

    save_state(tmp_path / "state", "kind", {}, {"a": np.zeros(2)})
    monkeypatch.setattr(files, "safe_open", no_memory)
    with pytest.raises(MemoryError, match="state: not enough memory to read it .Cannot allocate memory"):
        load_state(tmp_path / "state", "kind", "a state")


KILLED = """
import os, signal, sys
from minisink.system.files import atomic_write
with atomic_write(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_what_a_killed_run_left_goes_with_the_next_write(tmp_path):
    """Never what a running one writes, nor anything else that is hidden there."""
    path = tmp_path / "cache.safetensors"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    (left,) = tmp_path.iterdir()
    assert (left / path.name).read_text() == "half" and re.fullmatch(r"\.saving-\w{8}", left.name)
    (tmp_path / ".saving-my-own").mkdir()
    with files.atomic_write(path) as running:
        running.write_text("whole")
        with files.atomic_write(tmp_path / "other") as other:
            other.write_text("other")
        assert not left.exists() and running.read_text() == "whole"
    assert sorted(each.name for each in tmp_path.iterdir()) == [".saving-my-own", path.name, "other"]
    assert path.read_text() == "whole"


@posix
def test_where_nothing_can_be_locked_nothing_is_taken_away(tmp_path, monkeypatch):
    """Such a file system cannot tell who is running."""

    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    (tmp_path / ".saving-abcdefgh").mkdir()
    with files.atomic_write(tmp_path / "file") as unfinished:
        unfinished.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".saving-abcdefgh", "file"]


def test_what_cannot_be_written_names_the_file_that_was_asked_for(tmp_path):
    """And not the one it was written under."""
    (tmp_path / "folder").mkdir()
    for path, why in ((tmp_path / "none" / "x.png", "No such file"), (tmp_path / "folder", "directory")):
        with (
            pytest.raises(ValueError, match=f"^{path}: cannot be written .*{why}"),
            files.atomic_write(path) as unfinished,
        ):
            unfinished.write_text("")
        with pytest.raises(ValueError, match=f"^{path}: cannot be written"):
            save_state(path, "kind", {}, {"a": np.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@posix
def test_a_folder_that_takes_no_file_is_known_before(tmp_path):
    """/proc is a folder in which nobody can create one, not even root."""
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc")
    for check in (check_room, check_folder, check_picture):
        check(tmp_path / "picture.png")
        with pytest.raises(ValueError, match="^/proc/picture.png: cannot be written"):
            check("/proc/picture.png")
    assert list(tmp_path.iterdir()) == []


@posix
def test_what_is_no_plain_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for name, what in (("folder", "a folder"), ("pipe", "not a plain file")):
        with pytest.raises(ValueError, match=f"{name}: {what}; a file is needed"):
            check_file(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}: not a state"):
            load_state(tmp_path / name, "kind", "a state")
    check_file(tmp_path / "file")
    check_file(tmp_path / "none")


# One run at a time --------------------------------------------------------------------------------

HOLD = "import sys, time; from minisink.system import files\n"
HOLD += "with files.lock_files(*sys.argv[1:]): print('in', flush=True); "


def elsewhere(*paths, then="sys.stdin.read()"):
    """Another process that holds these files until its standard input ends."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", HOLD + then, *map(str, paths)], env=env, **pipes)
    assert process.stdout.readline() == "in\n"
    return process


@posix
@pytest.mark.parametrize("end", ["in order", "killed"])
def test_the_second_run_is_refused_until_the_first_has_ended(tmp_path, end):
    """Whichever of the files they share, by whatever name; a killed run stands in nobody's way."""
    rows, state = tmp_path / "rows.csv", tmp_path / "state"
    (tmp_path / "link").symlink_to(state)
    with elsewhere(rows, state) as first:
        for paths in ([rows], [None, state], [tmp_path / "other", rows], [tmp_path / "link"]):
            with pytest.raises(ValueError, match="another run is writing it"), lock_files(*paths):
                pytest.fail("both are in")
        with lock_files(tmp_path / "other", None):
            pass
        if end == "killed":
            first.kill()
        else:
            first.stdin.close()
        first.wait()
    with lock_files(rows, state):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@posix
def test_a_lock_is_let_go_of_by_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lock_files(tmp_path / "rows.csv"):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_lock_on_a_file_that_was_taken_away_counts_for_nothing(tmp_path, monkeypatch):
    """Between opening and locking it, its owner may end and take it away: the lock is taken on a new one."""
    path, flock, n = tmp_path / "rows.csv", files.fcntl.flock, []

    def late(file, how):
        flock(file, how)
        n.append(1)
        if len(n) == 1:
            (tmp_path / ".rows.csv.lock").unlink()

    monkeypatch.setattr(files.fcntl, "flock", late)
    with lock_files(path):
        assert len(n) == 2
        process = subprocess.run(
            [sys.executable, "-c", HOLD, str(path)], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
        )
        assert b"another run is writing it" in process.stderr


def test_without_locks_nothing_is_refused(tmp_path, monkeypatch):
    """On Windows, on a disk that has none, and where the file beside cannot be made."""
    with lock_files("/proc/rows.csv", tmp_path / "none" / "rows.csv", tmp_path / ("x" * 255)):
        pass
    monkeypatch.setattr(files, "fcntl", None)
    with lock_files(tmp_path / "rows.csv"), lock_files(tmp_path / "rows.csv"):
        assert list(tmp_path.iterdir()) == []


def test_system_knows_nothing_of_the_package():
    """No word of models, methods or lessons stands in these files; the package's own name is read, not written."""
    words = "minisink|model|method|token|attention|sink|lesson|checkpoint|experiment|train|training|loss|nats|cache"
    for path in sorted(Path(files.__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8").replace("nothing to do with attention", "")
        assert re.findall(rf"\b({words})s?\b", text, re.IGNORECASE) == [], path
