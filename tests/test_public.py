"""What ``import minisink`` offers: every public name, the files by their own, and nothing else."""

import subprocess
import sys

import pytest

import minisink


def test_every_public_name_is_there():
    """The classes and functions themselves, each from the file that the reference names."""
    for name in minisink.__all__:
        assert getattr(minisink, name).__module__.startswith("minisink."), name
        assert name in dir(minisink)
    assert sorted(minisink.__all__) == minisink.__all__
    assert minisink.CheckpointError.__mro__[1] is ValueError


def test_a_name_that_is_not_there_is_said():
    with pytest.raises(AttributeError, match="module 'minisink' has no attribute 'keep_sinks'"):
        minisink.keep_sinks  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute '_private'"):
        minisink._private  # noqa: B018


def test_nothing_is_imported_before_it_is_asked_for():
    """A command chooses its BLAS threads before numpy is there; `minisink.cache` then needs no import of its own."""
    code = (
        "import sys, minisink; assert 'numpy' not in sys.modules and 'load' in dir(minisink);"
        "assert minisink.cache.Policy is minisink.Policy; assert not {'tokenizers', 'asyncio'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
