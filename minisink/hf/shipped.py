"""The models and the sample text that ship with minisink."""

from pathlib import Path


def _weights_folder() -> Path:
    """Find the folder `weights/`: in the package in a wheel, next to it in an editable install or bare checkout."""
    package = Path(__file__).resolve().parents[1]
    return (package if (package / "weights").is_dir() else package.parent) / "weights"


def shipped_names() -> list[str]:
    """List the shipped models: every folder in `weights/` that holds a `config.json`, sorted.

    >>> "novels" in shipped_names()
    True
    """
    return sorted(config.parent.name for config in _weights_folder().glob("*/config.json"))


def shipped(name: str) -> Path:
    """Return the folder of a shipped model, in Hugging Face layout.

    Raise ValueError if `name` is not a plain name and could lead outside `weights/`, and FileNotFoundError if no such
    model ships.

    >>> sorted(path.name for path in shipped("novels").glob("*.json"))
    ['config.json', 'tokenizer.json']
    """
    if name in ("", ".", "..") or any(c in name for c in "/\\:\0"):  # a colon marks a drive on Windows
        raise ValueError(f"{name!r} is not the plain name of a shipped model")
    folder = _weights_folder() / name
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no shipped model {name!r}; available: {', '.join(shipped_names())}")
    return folder


def sample_text() -> Path:
    """Return the path of the sample text, several thousand words in UTF-8, CC0; raise FileNotFoundError if missing."""
    path = _weights_folder() / "sample.txt"
    if not path.is_file():
        raise FileNotFoundError(f"the sample text {str(path)!r} is missing from this installation")
    return path
