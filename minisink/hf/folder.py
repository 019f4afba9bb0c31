"""A Hugging Face folder to config, arrays and tokenizer, and back.

A folder holds ``config.json``, ``model.safetensors`` (or ``model.safetensors.index.json`` and its shards) and
``tokenizer.json``. What its config and its tensors are called is in `llama` and `gpt2`, one architecture a file.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from . import gpt2, llama
from .checkpoint import read_tensors
from .fields import CheckpointError, read_json
from .tokenizer import read_tokenizer

FORMATS = {"llama": llama, "mistral": llama, "qwen2": llama, "gpt2": gpt2}
MOST_LAYERS = 10_000  # far beyond any model: the names alone of 10**12 layers would fill all memory


def config_of(raw):
    """The `Config` of a parsed ``config.json``; a ValueError names what is wrong with it."""
    form = FORMATS.get(str(raw.get("model_type")))
    if form is None:
        raise ValueError(f"model_type {raw.get('model_type')!r} is not one of {', '.join(FORMATS)}")
    config = form.read_config(raw)
    if config.n_layers > MOST_LAYERS:
        raise ValueError(f"asks for {config.n_layers} layers; {MOST_LAYERS} is the most")
    return config


def raw_of(config):
    """The inverse of `config_of`; a ValueError for biases that no ``config.json`` can express."""
    return FORMATS[config.model_type].write_config(config)


def tensor_shapes(config):
    """Every tensor a checkpoint must hold: Hugging Face's name to Hugging Face's shape, (out, in) for most matrices."""
    form = FORMATS[config.model_type]
    shapes = form.ARCHITECTURE.shapes(config)
    return {form.tensor_name(n): shape[::-1] if form.is_transposed(n) else shape for n, shape in shapes.items()}


def from_tensors(config, tensors):
    """Tensors of a checkpoint as arrays by our names; matrices become (in, out) views."""
    form = FORMATS[config.model_type]
    arrays = {name: tensors[form.tensor_name(name)] for name in form.ARCHITECTURE.shapes(config)}
    return {name: array.T if form.is_transposed(name) else array for name, array in arrays.items()}


def to_tensors(config, arrays):
    """The inverse of `from_tensors`."""
    form = FORMATS[config.model_type]
    return {form.tensor_name(n): a.T if form.is_transposed(n) else a for n, a in arrays.items()}


def read(folder, *, dtype):
    """Read a folder; every name and shape is checked before any data is touched.

    Parameters
    ----------
    folder : Path
    dtype : numpy dtype
        Of the arrays.

    Returns
    -------
    config : Config
    arrays : dict of str to ndarray
        By our names: see `llama.shapes`.
    tokenizer : tokenizers.Tokenizer or None
    ignored : list of str
        Tensors of the files that a forward pass does not need.

    Raises
    ------
    CheckpointError
        Naming the file, tensor or value that is wrong.
    """
    raw = read_json(folder / "config.json")
    try:
        config = config_of(raw)
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    form = FORMATS[config.model_type]
    tokenizer = read_tokenizer(folder, config.vocab_size)
    tensors, ignored = read_tensors(
        folder, tensor_shapes(config), prefix=form.PREFIX, harmless=form.HARMLESS, dtype=dtype
    )
    return config, from_tensors(config, tensors), tokenizer, ignored


def write(folder, config, arrays, tokenizer=None):
    """Write a Hugging Face folder that loads again bit for bit, here and in transformers.

    Every file is written in another place first and moved when all are whole. A tokenizer that lay in the folder
    belonged to another model and goes.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    config : Config
    arrays : dict of str to ndarray
        By our names, on the host, of any memory layout.
    tokenizer : tokenizers.Tokenizer, optional

    Raises
    ------
    CheckpointError
        When the folder cannot be written.
    """
    tensors = to_tensors(config, arrays)
    raw_config = raw_of(config) | {"torch_dtype": str(next(iter(arrays.values())).dtype)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as half:
            # save_file writes the buffer of a transposed view in the wrong order: make each contiguous
            whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
            save_file(whole, f"{half}/model.safetensors", metadata={"format": "pt"})
            Path(half, "config.json").write_text(json.dumps(raw_config, indent=2) + "\n", encoding="utf-8")
            if tokenizer is not None:
                Path(half, "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
            mode = Path(half, "config.json").stat().st_mode  # save_file lets only the owner read
            for path in sorted(Path(half).iterdir()):
                path.chmod(mode)
                os.replace(path, folder / path.name)
            if tokenizer is None:
                (folder / "tokenizer.json").unlink(missing_ok=True)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error
