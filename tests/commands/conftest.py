"""What the tests of the commands share."""

import pytest

from minisink.commands.parser import main


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        try:
            status = main([str(word) for word in argv])
        except SystemExit as stop:  # how argparse ends
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
