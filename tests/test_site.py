"""The site: built without a warning by one command, nothing of it from elsewhere, and no link inside leads nowhere."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("sphinx", "furo", "myst_nb", "sphinxcontrib.katex")


def _there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package that is not there itself
        return False


@pytest.mark.skipif(not all(map(_there, NEEDED)), reason="the site needs pip install 'minisink[docs]'")
def test_the_site_builds_and_needs_no_other_machine(tmp_path):
    """Without running the lessons: they are run elsewhere."""
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "nb_execution_mode=off"]
    built = subprocess.run([*build, "docs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    checked = subprocess.run(
        [sys.executable, "docs/check.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    assert (tmp_path / "tutorials" / "01-softmax-must-spend.html").is_file()
    (tmp_path / "index.html").write_text('<img src="https://example.org/a.png"><a href="nowhere.html">x</a>')
    checked = subprocess.run(
        [sys.executable, "docs/check.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1 and "example.org" in checked.stdout and "nowhere.html" in checked.stdout
