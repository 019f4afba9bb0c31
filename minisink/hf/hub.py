"""Resolve a hub id to a local folder with huggingface_hub (which tokenizers installs)."""

import re
import sys
from pathlib import Path

from .checkpoint import shards_of
from .fields import CheckpointError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/name
# Those of these that exist; they name the others
FIRST = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
FIRST += ["chat_template.jinja", "special_tokens_map.json", "added_tokens.json"]
FIRST += ["model.safetensors", "model.safetensors.index.json"]


def fetch(hub_id, revision=None):
    """Download the files of a checkpoint, or find them in the hub's own cache.

    ``HF_HUB_OFFLINE`` and ``HF_ENDPOINT`` are honoured; huggingface_hub reads them when it is imported.

    Raise OSError when the hub cannot be reached and the files are not in its cache, or there is no such checkpoint; and
    CheckpointError for an index that names shards outside the checkpoint.
    """
    import huggingface_hub  # takes a quarter of a second: imported only when needed
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
    except Exception as error:  # the HTTP client below changes with the version, and so do its errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(f"{hub_id}: not available from the hub ({reason})") from error
    finally:
        if hide_bars:
            enable_progress_bars()
