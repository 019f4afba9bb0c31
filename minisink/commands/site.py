"""Where the built documentation lies: inside the package of a release, in ``docs/_build/html`` of a clone."""

import shlex
import sys
from pathlib import Path

BUILD = "-m sphinx -W -q -D nb_execution_mode=off -c docs . docs/_build/html"  # the lessons are not run


def site() -> Path:
    """Return the folder of the pages, with its `index.html`; raise FileNotFoundError that says how to build them."""
    package = Path(__file__).resolve().parents[1]
    clone = package.parent / "docs"
    in_a_clone = (clone / "conf.py").is_file()
    folder = clone / "_build" / "html" if in_a_clone else package / "site"
    if not (folder / "index.html").is_file():
        if in_a_clone:
            python = shlex.quote(sys.executable)
            build = f'cd {shlex.quote(str(clone.parent))} && {python} -m pip install -e ".[docs]" && {python} {BUILD}'
            raise FileNotFoundError(f"the pages are not built yet; this does it in a minute: {build}")
        build = f'pip install -e ".[docs]" && python {BUILD}'
        none = "this wheel carries no pages, that of a release does"
        raise FileNotFoundError(f"{none}; or in a clone of minisink: {build}")
    return folder
