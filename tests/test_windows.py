"""What can be tried of Windows elsewhere: no POSIX modules, its encodings, line ends and paths."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import PureWindowsPath
from types import SimpleNamespace

import pytest
from on_windows import needs_posix
from test_forge import command_of

from minisink.evaluation import jobs
from minisink.hf.checkpoint import shards_of
from minisink.hf.fields import CheckpointError
from minisink.system.files import read_text
from minisink.teaching.gather import gather
from minisink.teaching.handin import hand_in

WITHOUT = """
import os, subprocess, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "readline"):
    sys.modules[name] = None
for name in "fork mkfifo geteuid killpg setsid O_NONBLOCK O_NOFOLLOW sysconf sched_getaffinity".split():
    if hasattr(os, name):
        delattr(os, name)
from minisink.system.errors import fix_streams
from minisink.commands.parser import main
fix_streams()
for words in open("commands.txt", encoding="utf-8"):
    try:
        status = main(words.split())
    except SystemExit as stop:
        status = stop.code
    print(f"= {status} {words}", end="", flush=True)
"""
COMMANDS = {  # and the status of each
    "info --json": 0,
    "ppl crlf.txt --csv loss.csv": 0,
    "ppl crlf.txt --csv nowhere/loss.csv": 2,
    "inspect text": 0,
    "generate --prompt-file crlf.txt --max-new-tokens 4": 0,
    "live --write live.html": 0,
    "check --template student.py": 0,
    "check student.py --task softmax": 1,
    "conformance vectors golden": 0,
    "docs --port -1": 2,
    "train lm crlf.txt --out nowhere/there --steps 1": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "cp437:strict"])
def test_commands_do_without_posix(tmp_path, encoding):
    """Each does its work or says in one line what is wrong; a terminal's old encoding is no reason to end."""
    (tmp_path / "crlf.txt").write_bytes("It was a dark night — “quoted” 日本.\r\n".encode() * 60)
    (tmp_path / "commands.txt").write_text("\n".join(COMMANDS) + "\n", encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": encoding, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    said = run.stdout.decode(encoding.partition(":")[0])
    assert run.returncode == 0 and b"Traceback" not in run.stderr, run.stderr.decode()
    ended = dict(reversed(line[2:].split(" ", 1)) for line in said.splitlines() if line.startswith("= "))
    assert {words: int(status) for words, status in ended.items()} == COMMANDS


def test_a_text_with_line_ends_of_windows_is_the_same_text(tmp_path):
    text = "One line,\nand another.\n\nThe end"
    (tmp_path / "lf.txt").write_bytes(text.encode())
    (tmp_path / "crlf.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_text(tmp_path / "crlf.txt") == read_text(tmp_path / "lf.txt") == text


def test_a_students_file_with_line_ends_of_windows_is_the_same_file(tmp_path):
    code = "def softmax(x):\n    return x\n"
    (tmp_path / "student.py").write_bytes(code.replace("\n", "\r\n").encode())
    assert hand_in(tmp_path / "student.py").source.defines("softmax")


@pytest.mark.parametrize("name", [r"..\out.py", r"C:\out.py", "C:out.py", r"\\host\share\out.py", r"a\..\..\out.py"])
def test_no_name_in_a_zip_leads_out_of_its_folder_on_windows(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        file.writestr("student.py", "x = 1\n")
        file.writestr(name, "x = 2\n")
    folder, notes = PureWindowsPath("C:/base/work"), []
    for place in gather([tmp_path / "in.zip"], notes):
        joined = folder / place
        assert joined.is_relative_to(folder) and ".." not in joined.parts
    assert any("leads out of the zip" in note for note in notes)


@pytest.mark.parametrize(
    "shard", [r"..\out.safetensors", r"C:out.safetensors", r"a\b.safetensors", r"\\h\s.safetensors"]
)
def test_no_shard_lies_elsewhere_on_windows(tmp_path, shard):
    shown = shard.replace("\\", "\\\\")
    (tmp_path / "index.json").write_text(f'{{"weight_map": {{"x": "{shown}"}}}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a plain"):
        shards_of(tmp_path / "index.json")


def test_what_needs_posix_is_known_by_its_source():
    def asks(tmp_path):
        os.mkfifo(tmp_path)

    def asks_not(tmp_path):
        tmp_path.touch()

    assert needs_posix(asks) and needs_posix(asks_not, [asks]) and not needs_posix(asks_not)


@pytest.mark.slow
def test_processes_start_where_signals_have_no_mask(monkeypatch):
    monkeypatch.setattr(jobs, "signal", SimpleNamespace(SIGINT=signal.SIGINT, signal=signal.signal))
    with jobs.processes(2) as pool, jobs.processes(1) as here:
        assert pool.submit(abs, -3).result() == 3 and here is None


def test_git_changes_no_line_end():
    """Digests, golden files and pages count bytes."""
    assert command_of(".gitattributes", "-text") == "* -text"
