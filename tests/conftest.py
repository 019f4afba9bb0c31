"""What every test may ask for: the fast run or the full one, the shipped model, the models beside the repository."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

# One BLAS thread for each process, as a command of minisink takes: there is a process for each core. A variable that is
# set wins. Before numpy is imported, which reads it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import profiles
import pytest
from hypothesis import settings
from on_windows import needs_posix

from minisink import CheckpointError, load
from minisink.hf.package import installed
from minisink.hf.shipped import shipped

collect_ignore = ["golden/make.py", "golden/make_ids.py"]  # scripts: they need torch and llama.cpp

APART = ("slow", "lessons", "real")  # markers of what the fast run leaves out
SAMPLE = 5  # of a test marked `sampled` the fast run takes every fifth case


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help=f"every test ({', '.join(APART)} too), and all drawn cases")


def pytest_configure(config):
    """Choose how many cases are drawn, before any test is imported.

    A first call loads a model, and CI machines are slow: a deadline would only make tests flicker. CI draws the same
    cases every time, so that it is never red for another reason than the change.
    """
    if config.getoption("--full"):
        os.environ[profiles.FULL] = "1"
    n = 100 if profiles.FULL in os.environ else 10
    settings.register_profile("default", deadline=None, max_examples=n)
    settings.register_profile("ci", deadline=None, max_examples=n, print_blob=True, derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_modifyitems(config, items):
    """Leave out slow tests and most of the sampled cases, unless all are asked for, or some by marker or name."""
    for item in items if sys.platform == "win32" else ():
        defined = getattr(item, "_fixtureinfo", None)
        fixtures = [each[-1].func for each in defined.name2fixturedefs.values()] if defined else ()
        if hasattr(item, "function") and needs_posix(item.function, fixtures):
            item.add_marker(pytest.mark.skip(reason="needs POSIX"))
    if config.getoption("--full") or config.getoption("-m") or any("::" in arg for arg in config.args):
        return
    apart, n_cases = set(), Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled") and n_cases[item.function] % SAMPLE
        if sampled or any(item.get_closest_marker(name) for name in APART):
            apart.add(item)
        n_cases[getattr(item, "function", None)] += 1
    config.hook.pytest_deselected(items=list(apart))
    items[:] = [item for item in items if item not in apart]


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


@pytest.fixture(scope="module")
def novels(novels_folder):
    """The shipped model, loaded."""
    return load(novels_folder)


@pytest.fixture(scope="module")
def stories(stories_folder):
    """The Llama made elsewhere, loaded."""
    return load(stories_folder)


@pytest.fixture(scope="session")
def smollm2():
    """A real model from the package index, if it is installed."""
    try:
        installed("smollm2")
    except CheckpointError as error:
        pytest.skip(str(error))
    return load("smollm2")


@pytest.fixture(scope="module")
def interrupts_arrive():
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
