"""Resolve what `load` is asked for: turn model names into folders or files, and dtype names into dtypes."""

import os
import re
import sys
from pathlib import Path

import numpy as np

from .checkpoint import shards_of
from .fields import CheckpointError, is_there
from .gguf_file import begins_as_gguf
from .package import PACKAGES, installed
from .shipped import shipped, shipped_names

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/name
# The files to fetch first, if they exist; the index names the others
FIRST = """config.json generation_config.json tokenizer.json tokenizer_config.json chat_template.jinja
    special_tokens_map.json added_tokens.json model.safetensors model.safetensors.index.json""".split()


def check_dtype(dtype, device):
    """Return the numpy dtype with that name; raise ValueError if arithmetic in it makes no sense on the device."""
    try:
        result = None if dtype is None else np.dtype(dtype)
    except TypeError:
        result = None
    if result not in (np.float32, np.float64) and not (result == np.float16 and device != "cpu"):
        raise ValueError(f"dtype {dtype!r} on {device!r}: use 'float32' or 'float64' ('float16' on a GPU only)")
    return result


def find(name_or_path, revision=None):
    """Return the folder or GGUF file that a name, path or hub id refers to; raise CheckpointError if there is none."""
    name = str(name_or_path)
    if name in shipped_names():
        return shipped(name)
    if name in PACKAGES:
        return installed(name)
    path = Path(name_or_path)
    if os.path.isdir(path):  # unlike Path.is_dir, false for a name that is too long
        if is_there(path / "config.json"):
            return path
        if is_there(path / "adapter_config.json"):
            raise CheckpointError(f"{path}: holds an adapter, not a model; merge it with peft, and save the result")
        raise CheckpointError(f"{path}: this folder has no config.json{_contents(path)}")
    is_gguf = path.suffix.lower() == ".gguf"
    if (is_gguf and is_there(path)) or (os.path.isfile(path) and begins_as_gguf(path)):
        return path
    if os.path.lexists(path):
        raise CheckpointError(f"{name}: is not a folder; a model is a folder with a config.json, or a GGUF file")
    beside = "" if path.parent == Path() else _contents(path.parent)
    if is_gguf:
        raise CheckpointError(f"{name}: no such file{beside}")
    if not HUB_ID.fullmatch(name):
        what = f"not a shipped model ({', '.join([*shipped_names(), *PACKAGES])}) or a hub id 'owner/name'"
        raise CheckpointError(f"{name}: no such folder, and {what}{beside}")
    try:
        return fetch(name, revision)
    except OSError as error:
        raise CheckpointError(f"{error}, and there is no folder {name}{beside}") from error


def _contents(folder):
    """List the contents of a folder for a message: a name that was not found may be one of these, mistyped."""
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return ""
    more = f" and {len(names) - 9} more" if len(names) > 9 else ""
    return f"; {folder} holds {', '.join(names[:9]) or 'nothing'}{more}"


def fetch(hub_id, revision=None):
    """Download the files of a checkpoint, or find them in the hub's own cache; return their folder.

    huggingface_hub reads ``HF_HUB_OFFLINE`` and ``HF_ENDPOINT`` when it is imported. Raise OSError if no such
    checkpoint can be reached, and CheckpointError for an index that names shards outside the folder.
    """
    import huggingface_hub  # takes a quarter of a second, so it is imported only when needed
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide_bars = not (sys.stderr and sys.stderr.isatty()) and not are_progress_bars_disabled()
    if hide_bars:
        disable_progress_bars()
    try:
        folder = Path(huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=FIRST))
        index = folder / "model.safetensors.index.json"
        if index.is_file() and not (folder / "model.safetensors").is_file():
            shards = sorted(set(shards_of(index).values()))
            huggingface_hub.snapshot_download(hub_id, revision=folder.name, allow_patterns=shards)  # the same commit
        return folder
    except CheckpointError:
        raise
    except Exception as error:  # which HTTP client it uses, and so which errors, depends on the version
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OSError(f"{hub_id}: not available from the hub ({reason})") from error
    finally:
        if hide_bars:
            enable_progress_bars()
