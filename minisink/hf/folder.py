"""A Hugging Face folder to config, arrays and tokenizer, and back.

A folder holds ``config.json``, ``model.safetensors`` (or ``model.safetensors.index.json`` and its shards) and
``tokenizer.json``; other tools also write ``generation_config.json``, whose eos ids count too. The names of keys and
tensors are in `llama`, `gpt2`, `gpt_neox`, `mpt` and `falcon`, one architecture per file.
"""

import json
import os
from dataclasses import replace
from typing import Any

import numpy as np

from ..system.files import unfinished_folder
from . import falcon, gpt2, gpt_neox, llama, mpt
from . import tokenizer as words
from .arrays import by_head, by_kind, other_name, shapes
from .checkpoint import find_tensors, read_tensor, write_tensors
from .fields import brief, is_there, naming, one_or_many, read_json, refusing, token_ids
from .relatives import check_relatives

FORMATS: dict[str, Any] = {"llama": llama, "mistral": llama, "qwen2": llama, "qwen3": llama, "gpt2": gpt2}
FORMATS |= {"gpt_neox": gpt_neox, "mpt": mpt, "falcon": falcon, "RefinedWebModel": falcon, "RefinedWeb": falcon}
# What config.json and tokenizer.json contain when written
FORMER = ("tokenizer_config.json", "added_tokens.json", "generation_config.json")
MOST_LAYERS = 10_000  # far beyond any model: the names alone of 10**12 layers would fill all memory


def config_of(raw):
    """Make a `Config` from a parsed ``config.json``; a ValueError names what is wrong with it."""
    form = FORMATS.get(str(raw.get("model_type")))
    if form is None:
        raise ValueError(f"model_type {brief(raw.get('model_type'))} is not one of {', '.join(FORMATS)}")
    config = form.read_config(raw)
    if config.n_layers > MOST_LAYERS:
        raise ValueError(f"asks for {config.n_layers} layers; {MOST_LAYERS} is the most")
    check_relatives(raw, config)
    return config


def raw_of(config):
    """Undo `config_of`; raise ValueError for biases that no ``config.json`` can express."""
    raw = FORMATS[config.model_type].write_config(config)
    raw |= {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tied}
    raw |= {"bos_token_id": config.bos, "eos_token_id": one_or_many(config.eos)}
    if config.softmax != "softmax" or config.sink_logit:
        raw["minisink"] = {"softmax": config.softmax, "sink_logit": config.sink_logit}
    return raw


def tensor_name(config, name):
    """Translate the name of an array (see `arrays.shapes`) to Hugging Face's.

    >>> config = config_of({"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 3, "vocab_size": 7})
    >>> tensor_name(config, "2.wo"), tensor_name(config, "norm_b")
    ('transformer.h.2.attn.c_proj.weight', 'transformer.ln_f.bias')
    """
    form = FORMATS[config.model_type]
    layer, _, field = name.rpartition(".")
    if not layer:
        return other_name(form.MODEL, field)
    names = form.layer_names(config) if form is falcon else form.LAYER
    return f"{form.PREFIX}{form.LAYERS}.{layer}.{other_name(names, field)}"


def _is_by_head(form, name):
    """Return whether it holds queries, keys and values head by head."""
    return form.BY_HEAD and name.endswith("_qkv")


def tensor_shapes(config):
    """List every tensor a checkpoint must hold: Hugging Face's name and shape, most matrices (out, in)."""
    form = FORMATS[config.model_type]
    return {tensor_name(config, n): s[::-1] if form.is_transposed(n) else s for n, s in shapes(config).items()}


def from_tensors(config, tensor):
    """Yield each array by our name, matrices as (in, out) views; ``tensor(name)`` is called one at a time."""
    form = FORMATS[config.model_type]
    for name in shapes(config):
        array = tensor(tensor_name(config, name))
        array = array.T if form.is_transposed(name) else array
        yield name, by_kind(array, config) if _is_by_head(form, name) else array


def to_tensors(config, arrays):
    """Undo `from_tensors`, as dicts."""
    form = FORMATS[config.model_type]
    arrays = {n: by_head(a, config) if _is_by_head(form, n) else a for n, a in arrays.items()}
    return {tensor_name(config, n): a.T if form.is_transposed(n) else a for n, a in arrays.items()}


def read(folder, *, dtype):
    """Read a folder; every name and shape is checked before any data is touched, and data is read lazily.

    Return (config, arrays, tokenizer or None, ignored, chat). `arrays` is an iterator of (name, array) by our names,
    each of `arrays.shapes`, which reads one tensor at a time; `ignored` are names of tensors that a forward
    pass does not need; `chat` is the template and its names for special tokens, each None if no file has it.
    """
    config = _read_config(folder)
    form = FORMATS[config.model_type]
    tokenizer = words.read_tokenizer(folder, config.vocab_size)
    chat = words.read_chat_template(folder), words.read_special_tokens(folder, tokenizer, config.model_type)
    if tokenizer is not None:
        words.add_words(folder, tokenizer, chat[1] or {}, config.vocab_size)
        words.check_space(folder, tokenizer)
    config = replace(config, bos=words.begin_of_text(folder, tokenizer, config))
    shapes, untied = tensor_shapes(config), tensor_shapes(replace(config, tied=False))
    optional = {name: shape for name, shape in untied.items() if name not in shapes}
    rules = {"prefix": form.PREFIX, "harmless": form.HARMLESS}
    tensors, ignored = find_tensors(folder, shapes, optional=optional, **rules)

    def tensor(name):
        return read_tensor(name, *tensors[name], dtype=dtype)

    for name in set(tensors) - set(shapes):  # an output matrix, although the config says it is the embedding
        if np.array_equal(tensor(name), tensor(tensor_name(config, "embed"))):
            ignored = sorted([*ignored, name])
        else:
            config = replace(config, tied=False)
    return config, from_tensors(config, tensor), tokenizer, ignored, chat


def _read_config(folder):
    """Read the config of a folder, with the eos ids of both its files."""
    path = folder / "config.json"
    raw = read_json(path)
    with naming(path):
        config = config_of(raw)
    path = folder / "generation_config.json"
    raw = read_json(path) if is_there(path) else {}
    with naming(path):
        more = token_ids(raw, "eos_token_id", config.vocab_size)
    return replace(config, eos=tuple(dict.fromkeys((*config.eos, *more))))


def write(folder, config, arrays, tokenizer=None, chat_template=None, special_tokens=None):
    """Write a Hugging Face folder that loads again bit for bit, here and in transformers, or raise CheckpointError.

    `arrays` are on the host, by our names, in any memory layout. Every file is first written elsewhere and moved
    when all are complete. A tokenizer and settings already in the folder belonged to another model and are removed.
    The tokenizer is written so that it begins a text as the model does.
    """
    tensors = to_tensors(config, arrays)
    raw_config = raw_of(config) | {"torch_dtype": str(next(iter(arrays.values())).dtype)}
    with refusing(f"{folder}: cannot be written", OSError, ValueError):
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(folder) as half:
            write_tensors(half / "model.safetensors", tensors)
            (half / "config.json").write_text(json.dumps(raw_config, indent=2) + "\n", encoding="utf-8")
            if tokenizer is not None:
                text = words.begun_by(tokenizer, config.bos).to_str(pretty=True)
                (half / "tokenizer.json").write_text(text, encoding="utf-8")
            if chat_template is not None:
                (half / words.TEMPLATE).write_text(chat_template, encoding="utf-8", newline="")
            if special_tokens is not None:
                names = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token")) | special_tokens
                (half / words.NAMES).write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
            if tokenizer is not None and config.bos is not None and config.model_type in ("gpt_neox", "mpt"):
                as_it_is = {"tokenizer_class": "PreTrainedTokenizerFast"}  # transformers' own class puts nothing first
                (half / words.SETTINGS).write_text(json.dumps(as_it_is, indent=2) + "\n", encoding="utf-8")
            written = sorted(path.name for path in half.iterdir())
            for name in written:
                os.replace(half / name, folder / name)
            former = {"tokenizer.json": tokenizer, words.TEMPLATE: chat_template, words.NAMES: special_tokens}
            for name, ours in (former | dict.fromkeys(FORMER)).items():
                if ours is None and name not in written:
                    (folder / name).unlink(missing_ok=True)
