"""What a command says when something is wrong."""

import warnings

import pytest

from minisink.commands.parser import main
from minisink.system.errors import run_command


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


def test_the_status_of_a_command_is_kept():
    assert [run_command(lambda status: status, status) for status in (None, 0, 3)] == [0, 0, 3]


@pytest.mark.parametrize("name", ["sink-count", "metric", "sink-tokens"])
def test_an_experiment_says_it_in_one_line_too(name, capsys):
    assert main(["reproduce", name, "--model", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("minisink: error: nowhere")
