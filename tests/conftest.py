"""What every test may ask for: hypothesis profiles, the shipped model, and the models beside the repository."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from minisink import CheckpointError, load
from minisink.hf.package import installed
from minisink.system.resources import shipped

collect_ignore = ["golden/make.py", "golden/make_ids.py"]  # scripts: they need torch and llama.cpp

# A first call loads a model, and CI machines are slow: a deadline would only make tests flicker.
settings.register_profile("default", deadline=None)
# CI draws the same cases every time, so that it is never red for another reason than the change.
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def shared():
    """The folder `../shared` beside the repository: corpora and models for tests, never copied in."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared beside the repository")
    return folder


@pytest.fixture(scope="session")
def novels_folder():
    """The shipped model, trained with one sink token."""
    return shipped("novels")


@pytest.fixture(scope="session")
def stories_folder(shared):
    """A real Llama made elsewhere: grouped-query, tied embeddings, no sink."""
    folder = shared / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("needs ../shared/models/stories260K")
    return folder


@pytest.fixture(scope="session")
def smollm2():
    """A real model from the package index, if it is installed."""
    try:
        installed("smollm2")
    except CheckpointError as error:
        pytest.skip(str(error))
    return load("smollm2")


@pytest.fixture(scope="module")
def interrupts_are_heard():
    """Ctrl-C here and in programs started here: a test run in the background may ignore it, and what it starts too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; returns (exit status, stdout, stderr)."""
    from minisink.commands.parser import main

    monkeypatch.chdir(tmp_path)

    def call(*argv):
        try:
            status = main([str(word) for word in argv])
        except SystemExit as stop:  # how argparse ends
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
