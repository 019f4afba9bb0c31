"""Where the shipped weights, the sample text and the built pages lie.

One resolver for a wheel, an editable install and a bare checkout: a wheel holds the repository's folder
`weights/` inside the package, in the other two it lies beside the package. So do the pages, once they are built.
"""

from pathlib import Path

__all__ = ["sample_text", "shipped", "shipped_names", "site"]


def _weights_folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights"
    return inside if inside.is_dir() else package.parent / "weights"


def shipped_names() -> list[str]:
    """Names of the models that ship with minisink.

    Returns
    -------
    list of str
        Every folder of the shipped weights that holds a `config.json`, sorted.

    Examples
    --------
    >>> "novels" in shipped_names()
    True
    """
    return sorted(config.parent.name for config in _weights_folder().glob("*/config.json"))


def shipped(name: str) -> Path:
    """Folder of a shipped model.

    Parameters
    ----------
    name : str
        A plain name such as `"novels"`; anything that could leave the folder of shipped weights is refused.

    Returns
    -------
    pathlib.Path
        A folder in Hugging Face layout.

    Raises
    ------
    ValueError
        If `name` is not a plain name.
    FileNotFoundError
        If no model of that name ships.

    Examples
    --------
    >>> sorted(path.name for path in shipped("novels").glob("*.json"))
    ['config.json', 'tokenizer.json']
    """
    if name in ("", ".", "..") or any(c in name for c in "/\\:\0"):  # the colon is a drive on Windows
        raise ValueError(f"{name!r} is not the plain name of a shipped model")
    folder = _weights_folder() / name
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no shipped model {name!r}; there are: {', '.join(shipped_names())}")
    return folder


def sample_text() -> Path:
    """File of the sample text that ships with minisink.

    Returns
    -------
    pathlib.Path
        A UTF-8 text of several thousand words, CC0.

    Raises
    ------
    FileNotFoundError
        If the installation lacks the file.

    Examples
    --------
    >>> sample_text().name
    'sample.txt'
    """
    path = _weights_folder() / "sample.txt"
    if not path.is_file():
        raise FileNotFoundError(f"the sample text {str(path)!r} is missing from this installation")
    return path


def site() -> Path:
    """Folder of the built documentation: `minisink/site` in a wheel of a release, `docs/_build/html` in a clone.

    Returns
    -------
    pathlib.Path
        It holds an `index.html`.

    Raises
    ------
    FileNotFoundError
        If the pages are not there; it says how to build them.
    """
    package = Path(__file__).resolve().parents[1]
    clone = package.parent / "docs"
    in_a_clone = (clone / "conf.py").is_file()
    folder = clone / "_build" / "html" if in_a_clone else package / "site"
    if not (folder / "index.html").is_file():
        build = 'pip install -e ".[docs]" && python -m sphinx -W docs docs/_build/html'
        if in_a_clone:
            raise FileNotFoundError(f"the pages are not built yet; in {str(clone.parent)!r}: {build}")
        raise FileNotFoundError(
            f"this wheel carries no pages, that of a release does; or in a clone of minisink: {build}"
        )
    return folder
