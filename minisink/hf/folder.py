"""Reading a Hugging Face folder as config, arrays and tokenizer, and writing one.

A folder holds ``config.json``, ``model.safetensors`` (or ``model.safetensors.index.json`` and its shards) and
``tokenizer.json``; other tools also write ``generation_config.json``, whose eos ids count too.
"""

import json
import os
from dataclasses import replace
from typing import Any

import numpy as np

from ..system.files import unfinished_folder
from . import falcon, gpt2, gpt_neox, llama, mpt
from . import tokenizer as words
from .arrays import HARMLESS, family_of, from_tensors, tensor_shapes, tensors_of, to_tensors
from .checkpoint import find_tensors, read_tensor, write_tensors
from .fields import brief, naming, read_json, refusing, token_ids
from .relatives import check_relatives

FORMATS: dict[str, Any] = {"llama": llama, "mistral": llama, "qwen2": llama, "qwen3": llama, "gpt2": gpt2}
FORMATS |= {"gpt_neox": gpt_neox, "mpt": mpt, "falcon": falcon, "RefinedWebModel": falcon, "RefinedWeb": falcon}


def config_of(raw):
    """Make a `Config` from a parsed ``config.json``; a ValueError names what is wrong with it."""
    form = FORMATS.get(str(raw.get("model_type")))
    if form is None:
        raise ValueError(f"model_type {brief(raw.get('model_type'))} is not one of {', '.join(FORMATS)}")
    config = form.read_config(raw)
    check_relatives(raw, config)
    return config


def raw_of(config):
    """Undo `config_of`; raise ValueError for a config that no ``config.json`` can express."""
    form = FORMATS[config.model_type]
    raw = {"architectures": [f"{config.model_type.capitalize()}ForCausalLM"], "model_type": config.model_type}
    raw |= {key: getattr(config, field) for field, key in form.KEYS.items()} | form.write_config(config)
    raw |= {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tied, "bos_token_id": config.bos}
    raw["eos_token_id"] = config.eos[0] if len(config.eos) == 1 else list(config.eos) or None
    if config.softmax != "softmax" or config.sink_logit:
        raw["minisink"] = {"softmax": config.softmax, "sink_logit": config.sink_logit}
    return raw


def read(folder, *, dtype):
    """Read a folder; every name and shape is checked before any data is touched, and data is read lazily.

    Return (config, arrays, tokenizer or None, ignored, chat). `arrays` is an iterator over (our name, array)
    for every name in `arrays.shapes`, and reads one tensor at a time; `ignored` lists the tensors that a forward
    pass does not need; `chat` is the template and its names for special tokens, each None if no file has it.
    """
    raw, generation = read_json(folder / "config.json"), read_json(folder / "generation_config.json", {})
    with naming(folder / "config.json"):
        config = config_of(raw)
    with naming(folder / "generation_config.json"):
        more = token_ids(generation, "eos_token_id", config.vocab_size)
    config = replace(config, eos=tuple(dict.fromkeys((*config.eos, *more))))
    tokenizer = words.read_tokenizer(folder, config.vocab_size)
    chat = words.read_chat_template(folder), words.read_special_tokens(folder, tokenizer, config.model_type)
    if tokenizer is not None:
        words.add_words(folder, tokenizer, chat[1] or {}, config.vocab_size)
        words.check_space(folder, tokenizer)
    config = replace(config, bos=words.begin_of_text(folder, tokenizer, config))
    shapes, embed = tensor_shapes(config), tensors_of(config)["embed"].name
    untied = tensor_shapes(replace(config, tied=False))
    rules = {"prefix": embed.partition(".")[0] + ".", "harmless": HARMLESS[family_of(config)]}
    tensors, ignored = find_tensors(folder, shapes, optional=untied, **rules)

    def read(name):
        return read_tensor(name, *tensors[name], dtype=dtype)

    for name in set(tensors) - set(shapes):  # an output matrix, although the config says that it is tied
        if np.array_equal(read(name), read(embed)):
            ignored = sorted([*ignored, name])
        else:
            config = replace(config, tied=False)
    return config, from_tensors(config, read), tokenizer, ignored, chat


def write(folder, config, arrays, tokenizer=None, chat_template=None, special_tokens=None):
    """Write a Hugging Face folder that loads back bit for bit, here and in transformers, or raise CheckpointError.

    `arrays` are on the host, by our names, in any memory layout. Every file is first written elsewhere and moved
    once all are complete. A tokenizer and settings already in the folder belonged to another model and are removed.
    The tokenizer is written so that it begins a text as the model does.
    """
    texts = _texts_of(config, str(next(iter(arrays.values())).dtype), tokenizer, chat_template, special_tokens)
    with refusing(f"{folder}: cannot be written", OSError, ValueError):
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(folder) as half:
            write_tensors(half / "model.safetensors", to_tensors(config, arrays))
            for name, text in texts.items():
                if text is not None:
                    (half / name).write_text(text, encoding="utf-8", newline="")
            for path in sorted(half.iterdir()):
                os.replace(path, folder / path.name)
            for name, text in texts.items():
                if text is None:
                    (folder / name).unlink(missing_ok=True)


def _texts_of(config, dtype, tokenizer, chat_template, special_tokens):
    """Return the text of each file of a folder besides its tensors, or None for a file that it must not have."""
    files = {"config.json": raw_of(config) | {"torch_dtype": dtype}, words.SETTINGS: None, words.NAMES: None}
    if tokenizer is not None and config.bos is not None and config.model_type in ("gpt_neox", "mpt"):
        files[words.SETTINGS] = {"tokenizer_class": "PreTrainedTokenizerFast"}  # transformers' own adds none in front
    if special_tokens is not None:
        files[words.NAMES] = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token")) | special_tokens
    texts = {name: None if about is None else json.dumps(about, indent=2) + "\n" for name, about in files.items()}
    begun = None if tokenizer is None else words.begun_by(tokenizer, config.bos).to_str(pretty=True)
    texts |= {"tokenizer.json": begun, words.TEMPLATE: chat_template}
    return texts | dict.fromkeys((words.ADDED, "generation_config.json"))
