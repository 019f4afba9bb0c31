"""Reading a ``config.json``, value by value, with an error that names the key, the value and the rule."""

import json
import sys
from pathlib import Path


class CheckpointError(ValueError):
    """What is wrong with which file or tensor of a checkpoint."""


def read_json(path):
    """Read a JSON object from a file.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict

    Raises
    ------
    CheckpointError
        When the file is missing, is not valid JSON, or holds something other than an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(value).__name__}, not an object")
    return value


def whole(raw, key, default=None):
    """A whole number of 1 or more.

    Parameters
    ----------
    raw : dict
        The parsed ``config.json``.
    key : str
    default : int, optional
        Taken when the key is absent or null; without one the key is needed.

    Returns
    -------
    int

    Raises
    ------
    ValueError
    """
    value = _present(raw, key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} is {value!r}; it must be a whole number of 1 or more")
    return value


def number(raw, key, default=None):
    """A number above zero, as `whole`."""
    value = _present(raw, key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{key} is {value!r}; it must be a number above 0")
    return float(value)


def flag(raw, key, default):
    """True or false, as `whole`."""
    value = _present(raw, key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}; it must be true or false")
    return value


def one_of(raw, key, known, default=None):
    """One of the values that are supported, as `whole`."""
    value = _present(raw, key, default)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{key} is {value!r}, which is not supported; supported: {', '.join(known)}")
    return value


def section(raw, key):
    """An object within the config; an empty one when absent or null."""
    value = raw.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{key} is {value!r}; it must be an object")
    return value or {}


def token_ids(raw, key, vocab_size):
    """A tuple of token ids below `vocab_size`, from a list, a single one, or none (absent or null)."""
    value = raw.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for i in ids:
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < vocab_size:
            raise ValueError(f"{key} is {value!r}; it must be a token id from 0 to {vocab_size - 1}")
    return tuple(ids)


def token_id(raw, key, vocab_size):
    """The first of `token_ids`, or None."""
    return next(iter(token_ids(raw, key, vocab_size)), None)


def one_or_many(ids):
    """The inverse of `token_ids`: null, a single id, or a list."""
    return None if not ids else ids[0] if len(ids) == 1 else list(ids)


def divides(part, whole_, names):
    """Refuse sizes that do not divide evenly; `names` are the two keys."""
    if whole_ % part:
        raise ValueError(f"{names[1]} is {whole_}, which {names[0]} {part} does not divide")


def refuse(raw, **unsupported):
    """Refuse each key that is set to anything but what is given here (or absent, or null)."""
    for key, harmless in unsupported.items():
        if raw.get(key) not in (None, harmless):
            raise ValueError(f"{key} is {raw[key]!r}, which is not supported")


def _present(raw, key, default):
    value = raw.get(key)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"{key} is missing")
    return value
