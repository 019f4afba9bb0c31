"""Hugging Face folders of tiny models, written byte by byte: a safetensors file by the book."""

import json
import struct

import numpy as np
import tiny
from tokenizers import AddedToken, Tokenizer, processors
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from minisink import gpt2
from minisink.hf.arrays import to_arrays
from minisink.hf.folder import raw_of, to_tensors

ITEMSIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "F8_E4M3": 1, "BOOL": 1}

# A safetensors file, by the book ------------------------------------------------------------------


def packed(array, kind="F32"):
    """(dtype, shape, bytes) of one tensor; for bfloat16 the upper halves of the float32 numbers."""
    if kind == "BF16":
        return kind, array.shape, (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    names = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    return kind, array.shape, array.astype(names[kind]).tobytes()


def file_of(tensors, **changes):
    """The bytes of a safetensors file: length, header, data. `changes` overwrites parts of header entries."""
    header, data = {}, b""
    for name, (kind, shape, raw) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        header[name].update(changes.get(name, {}))
        data += raw
    return with_header(json.dumps(header).encode(), data)


def with_header(header, data=b"", length=None):
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensors_of(path):
    """The inverse of `file_of`."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    return {name: (x["dtype"], x["shape"], data[slice(*x["data_offsets"])]) for name, x in header.items()}


def words(vocab_size, specials=()):
    """A tokenizer of the words w0, w1, ... with ids up to `vocab_size` - 1."""
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(vocab_size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in specials])
    return tokenizer


def begins_with(tokenizer, *ids):
    """The tokenizer with a template that puts these token ids in front of every text."""
    names = [f"<{i}>" for i in ids]
    known = list(zip(names, ids, strict=True))
    tokenizer.post_processor = processors.TemplateProcessing(single=[*names, "$A"], special_tokens=known)
    return tokenizer


def write(folder, model, kind="F32", tokenizer=None):
    """A Hugging Face folder of a tiny model; returns what its tensors are."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_tensors(model.config, to_arrays(model.config, model.weights))
    (folder / "config.json").write_text(json.dumps(raw_of(model.config)), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(file_of({name: packed(a, kind) for name, a in tensors.items()}))
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    return tensors


def shard(folder, names=("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")):
    """Turn the single file of a folder into shards and an index."""
    tensors = tensors_of(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {tensor: names[i % len(names)] for i, tensor in enumerate(tensors)}
    for name in names:
        content = file_of({tensor: about for tensor, about in tensors.items() if placed[tensor] == name})
        (folder / name).write_bytes(content)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def writable(model):
    """Whether config.json has words for it: a Llama has biases on q, k, v and o or on none of them."""
    return model.arch is gpt2 or model.config.qkv_bias == model.config.o_bias


models = tiny.models().filter(writable)


def same(weights, others):
    """Equal to the last bit, and in the same dtype."""
    for name, array in others.items():
        assert weights[name].dtype == array.dtype
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def tensors(model):
    return to_tensors(model.config, model.arrays())
