"""The models and the sample text that ship with minisink.

It works in a wheel, an editable install and a bare checkout: a wheel has the repository's folder
`weights/` inside the package, the other two have it next to the package.
"""

from pathlib import Path


def _weights_folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights"
    return inside if inside.is_dir() else package.parent / "weights"


def shipped_names() -> list[str]:
    """List the shipped models: every folder of the weights that holds a `config.json`, sorted.

    >>> "novels" in shipped_names()
    True
    """
    return sorted(config.parent.name for config in _weights_folder().glob("*/config.json"))


def shipped(name: str) -> Path:
    """Return the folder of a shipped model, in Hugging Face layout.

    Raise ValueError if `name` is not a plain name, such as `"novels"`: one that could leave the folder of weights;
    and FileNotFoundError if no model of that name ships.

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
    """Return the file of the sample text, several thousand words in UTF-8, CC0; raise FileNotFoundError without it.

    >>> sample_text().name
    'sample.txt'
    """
    path = _weights_folder() / "sample.txt"
    if not path.is_file():
        raise FileNotFoundError(f"the sample text {str(path)!r} is missing from this installation")
    return path
