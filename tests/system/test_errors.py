"""What a command says when something is wrong."""

import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from minisink.commands.parser import main
from minisink.system.errors import run_command, tell


def fails(error):
    """A command that meets an error."""

    def run():
        raise error

    return run


@pytest.mark.parametrize(
    "error", [ValueError("of no\nuse"), FileNotFoundError("of no use"), OverflowError("of no use")]
)
def test_what_a_user_can_mend_is_one_line(error, capsys):
    assert run_command(fails(error)) == 2
    assert capsys.readouterr().err == "minisink: error: of no use\n"


def test_an_error_without_words_has_a_name(capsys):
    assert run_command(fails(MemoryError())) == 2
    assert capsys.readouterr().err == "minisink: error: MemoryError\n"


def test_ctrl_c_has_its_status(capsys):
    assert run_command(fails(KeyboardInterrupt("after 3 tokens"))) == 130
    assert capsys.readouterr().err == "minisink: interrupted after 3 tokens\n"


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(fails(ZeroDivisionError()))


def test_a_warning_is_a_line_and_work_goes_on(capsys):
    assert run_command(warnings.warn, "look out", UserWarning) == 0
    assert capsys.readouterr().err == "minisink: warning: look out\n"


def test_on_a_terminal_no_word_is_broken(capsys, monkeypatch):
    """A file or a pipe gets one line, however long."""
    said = "nothing was evicted " * 10
    run_command(warnings.warn, said, UserWarning)
    assert capsys.readouterr().err == f"minisink: warning: {said}\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run_command(fails(ValueError(said))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 79
    assert " ".join(lines) == f"minisink: error: {said.strip()}"


HOSTILE = "\x1b[31mRED\x1b]0;title\x07\x9b\u202e"


@pytest.mark.parametrize("terminal", [False, True])
def test_no_message_drives_a_terminal(terminal, capsys, monkeypatch):
    """What a file spelled into an error, a warning or an option is shown, wherever it goes."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    run_command(fails(ValueError(HOSTILE)))
    run_command(warnings.warn, HOSTILE, UserWarning)
    with pytest.raises(SystemExit, match="2"):
        main(["info", "--model", "novels", HOSTILE])
    err = capsys.readouterr().err
    assert err.count(r"\x1b[31mRED\x1b]0;title\x07\x9b\u202e") == 3 and err.isascii() and "\x1b" not in err


def python(*argv, **options):
    return subprocess.run([sys.executable, "-m", "minisink", *argv], capture_output=True, timeout=60, **options)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "ascii:surrogateescape", "latin-1"])
def test_a_character_that_an_encoding_lacks_is_shown_by_its_number(tmp_path, encoding):
    """In a report and in an error, on any encoding; and the status is what it would be."""
    source = "def softmax(scores):\n    raise ValueError('\u65e5\u672c')\n"
    (tmp_path / "student.py").write_text(source, encoding="utf-8")
    done = python("check", "student.py", cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 1 and b"\\u65e5\\u672c" in done.stdout and done.stderr == b""
    done = python("check", "\u65e5.py", cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 2 and done.stderr.startswith(b"minisink: error: \\u65e5.py")


@pytest.mark.slow
def test_an_ascii_locale_loses_no_report(tmp_path):
    """As a container without a locale has it, and Python told to leave it so."""
    (tmp_path / "student.py").write_text("def softmax(scores):\n    raise ValueError('\xe9')\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = python("check", "student.py", cwd=tmp_path, env=os.environ | ascii_only)
    assert done.returncode == 1 and b"\\xe9" in done.stdout and done.stderr == b""


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize(
    "seconds", [0.1, pytest.param(0.2, marks=pytest.mark.slow), pytest.param(0.4, marks=pytest.mark.slow)]
)
def test_ctrl_c_in_the_first_second_is_no_traceback(seconds):
    """While numpy is imported: the words and the status of any other Ctrl-C."""
    begin = (
        "import sys, time, minisink.__main__ as m; print(1, flush=True); sys.argv = ['minisink', 'info']; m.console()"
    )
    run = subprocess.Popen([sys.executable, "-c", begin], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.readline()
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    if out:  # it had said all, and was about to end; Python lets go of its handlers a moment before
        assert (run.returncode in (0, 130, -signal.SIGINT)) and b"Traceback" not in err
    else:
        assert (run.returncode, err) == (130, b"minisink: interrupted\n")


def test_the_status_of_a_command_is_kept():
    assert [run_command(lambda status: status, status) for status in (None, 0, 3)] == [0, 0, 3]


@pytest.mark.parametrize("name", ["sink-count", "metric", "sink-tokens"])
def test_an_experiment_says_it_in_one_line_too(name, capsys):
    assert main(["reproduce", name, "--model", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("minisink: error: nowhere")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_for_what_is_said_ends_no_run(monkeypatch):
    """A warning that cannot be written is lost, and the run goes on."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run_command(lambda: warnings.warn("careful", stacklevel=1)) == 0
        tell("again")
