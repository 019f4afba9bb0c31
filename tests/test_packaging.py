"""What ships, and that it is found from a wheel, an editable install and a bare checkout."""

import ast
import configparser
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import minisink
from minisink.hf import shipped as resources

ROOT = Path(__file__).resolve().parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def lines(section, key):
    return SETUP[section][key].strip().splitlines()


def test_every_sub_package_is_listed():
    inits = (init.parent.relative_to(ROOT).parts for init in (ROOT / "minisink").rglob("__init__.py"))
    on_disk = {".".join(parts) for parts in inits if "weights" not in parts}
    assert set(lines("options", "packages")) == on_disk | {"minisink.weights"}


def test_every_import_is_declared():
    """No third-party module is imported by `minisink` that setup.cfg does not name."""
    imported = set()
    for path in (ROOT / "minisink").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.partition(".")[0])
    needed = {line.partition(">")[0] for line in lines("options", "install_requires")}
    optional = {"matplotlib", "cupy", "distributed", "gguf", "jinja2"}
    ours = {"minisink", "wall"}  # the checker's child, a script of its own, finds its wall beside it
    assert imported - set(sys.stdlib_module_names) - ours <= needed | optional


def test_the_installed_version_is_the_one_of_the_package():
    """A stale installation shows here."""
    try:
        installed = metadata.version("minisink")
    except metadata.PackageNotFoundError:
        pytest.skip("minisink is not installed here")
    assert installed == minisink.__version__


def test_the_sample_text_is_a_text_of_4000_words():
    assert len(resources.sample_text().read_text(encoding="utf-8").split()) >= 4000


@pytest.mark.parametrize("name", ["", ".", "..", "../weights", "novels/..", "/etc", "novels/config.json", "a\\b", "c:"])
def test_no_name_leaves_the_folder(name):
    with pytest.raises(ValueError, match="plain name") as caught:
        resources.shipped(name)
    assert repr(name) in str(caught.value)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="'nowels'.*novels"):
        resources.shipped("nowels")


def test_a_missing_sample_text_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_weights_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"sample\.txt"):
        resources.sample_text()
    assert resources.shipped_names() == []


@pytest.mark.parametrize("layout", ["wheel", "checkout"])
def test_files_are_found_from_another_directory(layout, tmp_path):
    """A copy laid out as a wheel or a checkout has it finds its own files, whatever else is installed."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(ROOT / "minisink", home / "minisink", ignore=shutil.ignore_patterns("__pycache__"))
    weights = home / ("minisink/weights" if layout == "wheel" else "weights")
    shutil.copytree(ROOT / "weights", weights, ignore=shutil.ignore_patterns("__pycache__"))
    find = "from minisink.hf.shipped import *; print(shipped('novels'), sample_text(), sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", find],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    weights = weights.resolve()
    assert [Path(line) for line in run.stdout.splitlines()] == [weights / "novels", weights / "sample.txt"]


def test_package_data_takes_every_file_of_the_weights_folder():
    patterns = SETUP["options.package_data"]["minisink.weights"].replace(",", " ").split()
    weights = ROOT / "weights"
    taken = {path for pattern in patterns for path in weights.glob(pattern)}
    files = {path for path in weights.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files <= taken


@pytest.mark.parametrize("wing", ["teaching", "wrong_turns"])
def test_package_data_takes_every_text(wing):
    """A student without a checkout has the template and the hints."""
    folder = ROOT / "minisink" / wing
    texts = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert texts and texts <= set(folder.glob(SETUP["options.package_data"][f"minisink.{wing}"]))


def test_package_data_takes_every_golden_vector():
    """An engineer without a checkout has them."""
    folder = ROOT / "minisink" / "conformance"
    taken = set(folder.glob(SETUP["options.package_data"]["minisink.conformance"]))
    vectors = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert len(vectors) == 9 and vectors <= taken
