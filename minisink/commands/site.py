"""Where the built documentation lies: inside the package of a release, in ``docs/_build/html`` of a clone."""

from pathlib import Path


def site() -> Path:
    """Return the folder of the pages, with its `index.html`; raise FileNotFoundError that says how to build them."""
    package = Path(__file__).resolve().parents[1]
    clone = package.parent / "docs"
    in_a_clone = (clone / "conf.py").is_file()
    folder = clone / "_build" / "html" if in_a_clone else package / "site"
    if not (folder / "index.html").is_file():
        build = 'pip install -e ".[docs]" && python -m sphinx -W -c docs . docs/_build/html'
        if in_a_clone:
            raise FileNotFoundError(f"the pages are not built yet; in {str(clone.parent)!r}: {build}")
        raise FileNotFoundError(
            f"this wheel carries no pages, that of a release does; or in a clone of minisink: {build}"
        )
    return folder
