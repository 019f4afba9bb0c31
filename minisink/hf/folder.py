"""A Hugging Face folder to config, arrays and tokenizer, and back.

A folder holds ``config.json``, ``model.safetensors`` (or ``model.safetensors.index.json`` and its shards) and
``tokenizer.json``; by other hands also ``generation_config.json``, whose ends of text count as well. What its config
and its tensors are called is in `llama` and `gpt2`, one architecture a file.
"""

import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import gpt2, llama
from .arrays import shapes
from .checkpoint import find_tensors, read_tensor, write_tensors
from .fields import CheckpointError, is_there, read_json, token_ids
from .tokenizer import TEMPLATE, begin_of_text, begun_by, read_chat_template, read_tokenizer

FORMATS = {"llama": llama, "mistral": llama, "qwen2": llama, "gpt2": gpt2}
FORMER = ("tokenizer_config.json", "generation_config.json")  # said in config.json and tokenizer.json when written
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
    return {form.tensor_name(n): s[::-1] if form.is_transposed(n) else s for n, s in shapes(config).items()}


def from_tensors(config, tensor):
    """Tensors of a checkpoint as arrays by our names, one after the other; matrices become (in, out) views.

    Parameters
    ----------
    config : Config
    tensor : callable
        From Hugging Face's name to the tensor; called for each when it is its turn.

    Yields
    ------
    (str, ndarray)
    """
    form = FORMATS[config.model_type]
    for name in shapes(config):
        array = tensor(form.tensor_name(name))
        yield name, array.T if form.is_transposed(name) else array


def to_tensors(config, arrays):
    """The inverse of `from_tensors`, as dicts."""
    form = FORMATS[config.model_type]
    return {form.tensor_name(n): a.T if form.is_transposed(n) else a for n, a in arrays.items()}


def read(folder, *, dtype):
    """Read a folder; every name and shape is checked before any data is touched, and data is read as it is taken.

    Parameters
    ----------
    folder : Path
    dtype : numpy dtype
        Of the arrays.

    Returns
    -------
    config : Config
    arrays : iterator of (str, ndarray)
        By our names, each of `arrays.shapes`; a tensor is read when it is its turn.
    tokenizer : tokenizers.Tokenizer or None
    ignored : list of str
        Tensors of the files that a forward pass does not need.
    chat_template : str or None

    Raises
    ------
    CheckpointError
        Naming the file, tensor or value that is wrong.
    """
    config = _read_config(folder)
    form = FORMATS[config.model_type]
    tokenizer = read_tokenizer(folder, config.vocab_size)
    config = replace(config, bos=begin_of_text(folder, tokenizer, config))
    wanted, untied = tensor_shapes(config), tensor_shapes(replace(config, tied=False))
    tensors, ignored = find_tensors(
        folder,
        wanted,
        optional={name: shape for name, shape in untied.items() if name not in wanted},
        prefix=form.PREFIX,
        harmless=form.HARMLESS,
    )

    def tensor(name):
        return read_tensor(name, *tensors[name], dtype=dtype)

    for name in set(tensors) - set(wanted):  # an output matrix, though the config says it is the embedding
        if np.array_equal(tensor(name), tensor(form.tensor_name("embed"))):
            ignored = sorted([*ignored, name])
        else:
            config = replace(config, tied=False)
    return config, from_tensors(config, tensor), tokenizer, ignored, read_chat_template(folder)


def _read_config(folder):
    """The config of a folder, with the ends of text of both its files."""
    path = folder / "config.json"
    raw = read_json(path)
    with _naming(path):
        config = config_of(raw)
    path = folder / "generation_config.json"
    raw = read_json(path) if is_there(path) else {}
    with _naming(path):
        more = token_ids(raw, "eos_token_id", config.vocab_size)
    return replace(config, eos=tuple(dict.fromkeys((*config.eos, *more))))


@contextmanager
def _naming(path):
    """Say which file holds what an error is about."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def write(folder, config, arrays, tokenizer=None, chat_template=None):
    """Write a Hugging Face folder that loads again bit for bit, here and in transformers.

    Every file is written in another place first and moved when all are whole. A tokenizer and settings that lay in
    the folder belonged to another model and go. The tokenizer is written so that it begins a text as the model does.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    config : Config
    arrays : dict of str to ndarray
        By our names, on the host, of any memory layout.
    tokenizer : tokenizers.Tokenizer, optional
    chat_template : str, optional

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
            write_tensors(Path(half, "model.safetensors"), tensors)
            Path(half, "config.json").write_text(json.dumps(raw_config, indent=2) + "\n", encoding="utf-8")
            if tokenizer is not None:
                text = begun_by(tokenizer, config.bos).to_str(pretty=True)
                Path(half, "tokenizer.json").write_text(text, encoding="utf-8")
            if chat_template is not None:
                Path(half, TEMPLATE).write_text(chat_template, encoding="utf-8", newline="")
            for path in sorted(Path(half).iterdir()):
                os.replace(path, folder / path.name)
            former = {"tokenizer.json": tokenizer, TEMPLATE: chat_template} | dict.fromkeys(FORMER)
            for name in (name for name, ours in former.items() if ours is None):
                (folder / name).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error
