"""Tiny GGUF files, written by the package gguf: arrays as llama.cpp has them, and a tokenizer of 270 words."""

import struct

import numpy as np
import pytest
import tiny

from minisink import llama
from minisink.hf import gguf_model
from minisink.hf.arrays import tensors_of, to_arrays
from minisink.positions import rope_frequencies

gguf = pytest.importorskip("gguf", reason="needs the test extra: gguf")

BYTES = [
    chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))
]  # as ByteLevel has them
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the", "1 2", "Ġ Ġ", "i s"]


def byte_level(**changes):
    """Metadata of a byte-level tokenizer of 271 words."""
    words = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
    about = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(words) - len(SPECIAL)),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return {key: value for key, value in (about | changes).items() if value is not None}


def metadata(config):
    """The keys of a model."""
    arch = gguf_model.arch_of(config)
    about = {
        "general.architecture": arch,
        f"{arch}.block_count": config.n_layers,
        f"{arch}.embedding_length": config.d_model,
        f"{arch}.feed_forward_length": config.d_ff,
        f"{arch}.attention.head_count": config.n_heads,
        f"{arch}.context_length": config.max_positions,
        f"{arch}.vocab_size": config.vocab_size,
    }
    norm = "layer_norm_rms_epsilon" if isinstance(config, llama.Config) else "layer_norm_epsilon"
    about |= {f"{arch}.attention.{norm}": config.norm_eps}
    if arch == "gpt2":
        return about
    if arch == "mpt":
        return about | {"mpt.attention.max_alibi_bias": config.alibi_bias_max}
    if arch == "gptneox":
        about |= {"gptneox.rope.dimension_count": config.rotary_dim, "gptneox.use_parallel_residual": config.parallel}
    about |= {f"{arch}.attention.head_count_kv": config.n_kv_heads, f"{arch}.rope.freq_base": config.rope_theta}
    if isinstance(config, llama.Config):
        about |= {f"{arch}.attention.key_length": config.head_dim, f"{arch}.attention.value_length": config.head_dim}
    if config.rope_scaling and config.rope_scaling["rope_type"] == "linear":
        about |= {f"{arch}.rope.scaling.type": "linear", f"{arch}.rope.scaling.factor": config.rope_scaling["factor"]}
    return about


def permute(rows, n_heads):
    """llama.cpp's convert_hf_to_gguf.py, `LlamaModel.permute`, word for word."""
    return rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def stored(model):
    """Every tensor of a model as a file has it: (out, in), queries and keys of Llama permuted."""
    config, tensors, names = model.config, {}, tensors_of(model.config, "GGUF")
    for name, array in to_arrays(config, model.weights).items():
        rows = np.ascontiguousarray(array.T if array.ndim == 2 and name not in ("embed", "position") else array)
        if config.model_type == "llama" and name.endswith((".wq", ".bq")):
            rows = permute(rows, config.n_heads)
        if config.model_type == "llama" and name.endswith((".wk", ".bk")):
            rows = permute(rows, config.n_kv_heads)
        tensors[names[name].name] = rows
    scaling = isinstance(config, llama.Config) and config.rope_scaling
    if scaling and scaling["rope_type"] == "llama3":
        plain = rope_frequencies(config.head_dim, config.rope_theta)
        factors = plain / rope_frequencies(config.head_dim, config.rope_theta, scaling)
        tensors["rope_freqs.weight"] = factors.astype(np.float32)
    return tensors


def write(path, about, tensors):
    """A GGUF file. A tensor is an array, or (raw bytes as the type has them, type)."""
    writer = gguf.GGUFWriter(path, about.get("general.architecture", "none"))
    for key, value in about.items():
        if key == "general.architecture":
            continue
        if key == "general.alignment":  # the writer keeps to it
            writer.add_custom_alignment(value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, array in tensors.items():
        data, kind = array if isinstance(array, tuple) else (array, None)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenized(path, about):
    """A GGUF file of a tiny Llama with the tokenizer that the metadata describes, which llama.cpp reads as well."""
    model = tiny.make(llama, dtype=np.float32, vocab_size=len(about["tokenizer.ggml.tokens"]))
    return write(path, metadata(model.config) | about, stored(model))


def tensor_changed(content, name, *, n_axes=None, sizes=None, kind=None, offset=None, renamed=None):
    """The bytes of a file in which the header says something else of one tensor."""
    at = content.index(struct.pack("<Q", len(name)) + name.encode()) + 8
    after = at + len(name)
    known = struct.unpack("<I", content[after : after + 4])[0]
    axes = struct.unpack(f"<{known}Q", content[after + 4 : after + 4 + 8 * known])
    end = after + 4 + 8 * known + 12
    old_kind, old_offset = struct.unpack("<IQ", content[end - 12 : end])
    said = (renamed or name).encode() + struct.pack("<I", known if n_axes is None else n_axes)
    said += struct.pack(f"<{known}Q", *(sizes or axes))
    said += struct.pack("<IQ", old_kind if kind is None else kind, old_offset if offset is None else offset)
    return content[:at] + said + content[end:]
