"""The tensors of a folder, with every name and shape checked before any data is touched.

A safetensors file holds eight bytes of header length, a JSON header with each tensor's dtype, shape and byte range, and
the data. The safetensors library checks the header; the data is read and written one tensor at a time.
"""

import io
import json
import re
import warnings
from functools import lru_cache

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from .fields import CheckpointError, brief, is_there, loading, parse, read_json, refusing

# safetensors' name for a dtype -> how numpy reads the bytes (bfloat16 has no numpy dtype: two raw bytes)
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
PACKED = "model.safetensors.xz"  # a release's wheel has this instead of model.safetensors
MOST_PACKED = 2**26  # the most bytes it may have when unpacked
# Endings of other weight files; several are pickles, which can run arbitrary code when loaded
OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")


def widen(raw, dtype):
    """Make a float array from floats, or from the uint16 of bfloat16: the upper half of a float32.

    >>> widen(np.array([0x3F80, 0xC000], np.uint16), np.float32).tolist()
    [1.0, -2.0]
    """
    if raw.dtype == np.uint16:
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # too large for `dtype` becomes infinity: see `read_tensor`
        return raw.astype(dtype)


def find_files(folder):
    """Find ``model.safetensors``, or the shards of its index, each with the set of tensors listed for it."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    for path in (single, folder / PACKED):
        if is_there(path):
            return {path: set()}
    if not is_there(index):
        neither = f"{folder}: has neither model.safetensors nor model.safetensors.index.json"
        others = sorted(path.name for path in folder.iterdir() if path.suffix in OTHERS)
        if others:
            neither += f"; {others[0]}{and_more(others)} is not read: have transformers load the folder and save it"
        elif named := sorted(path.name for path in folder.glob("*.safetensors")):
            neither += f"; {named[0]}{and_more(named)} is not read under this name"
        raise CheckpointError(neither)
    files = {}
    for tensor, shard in shards_of(index).items():
        if not is_there(folder / shard):
            raise CheckpointError(f"{folder / shard}: missing, though the index names it for {tensor}")
        files.setdefault(folder / shard, set()).add(tensor)
    return files


def shards_of(index):
    """Read which file holds each tensor; only plain names are allowed, since an index may come from anywhere."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{index}: has no weight_map")
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", shard):
            raise CheckpointError(f"{index}: {tensor} is in {shard!r}, which is not a plain *.safetensors file name")
    return shards


def read_header(path):
    """Return where each tensor is in a safetensors file, by name: (dtype such as "F32", shape, offset in bytes)."""
    with loading(path):
        open(path, "rb").close()  # says why it cannot be opened; the library only says that it does not exist
        with refusing(f"{path}: not a valid safetensors file", SafetensorError, ValueError, OverflowError):
            if path.name == PACKED:
                deserialize(unpacked(path))
            else:
                with safe_open(path, framework="numpy"):
                    pass  # opening checks the header against the file
            with io.BytesIO(unpacked(path)) if path.name == PACKED else open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = parse(file.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    return {name: (x["dtype"], tuple(x["shape"]), start + x["data_offsets"][0]) for name, x in header.items()}


@lru_cache(maxsize=1)
def unpacked(path):
    """Return the bytes of a packed file; any beyond `MOST_PACKED` are cut off, so reading the tensors fails."""
    with refusing(f"{path}: cannot be unpacked", Exception):  # a damaged file, or a Python without lzma
        from lzma import open as open_xz

        with open_xz(path) as file:
            return file.read(MOST_PACKED)


def find_tensors(folder, shapes, *, optional, prefix, harmless):
    """Find every tensor that a config needs, and account for every one in the files.

    `shapes` are required and `optional` may be present: dicts of Hugging Face's names to shapes. Most names start with
    `prefix` ("model."), which some files leave out; `harmless` is a pattern for the rest of a name that may be ignored.
    Return where each tensor is (the arguments of `read_tensor`) and the ignored names. Raise CheckpointError for a
    missing, extra, duplicate, misshapen or non-float tensor.
    """
    tensors = {}  # name -> (path, dtype, shape, offset)
    for path, promised in find_files(folder).items():
        header = read_header(path)
        for name in sorted(promised - header.keys()):
            raise CheckpointError(f"{path}: has no tensor {name}, though the index says it does")
        for name, where in header.items():
            if name in tensors:
                raise CheckpointError(f"{path}: tensor {name} is in {tensors[name][0].name} as well")
            tensors[name] = (path, *where)
    if not any(name.startswith(prefix) for name in tensors):
        known = shapes | optional  # the output matrix never has the prefix
        tensors = {name if name in known else prefix + name: where for name, where in tensors.items()}

    shapes = shapes | {name: shape for name, shape in optional.items() if name in tensors}
    stored = {name: (path, shape) for name, (path, _, shape, _) in tensors.items()}
    extra = account_for(folder, stored, shapes, "config", re.compile(f"({re.escape(prefix)})?({harmless})"))
    for name in shapes:
        if tensors[name][1] not in FLOATS:
            path, kind, *_ = tensors[name]
            raise CheckpointError(f"{path}: tensor {name} is {kind}; supported: {', '.join(FLOATS)}")
    return {name: tensors[name] for name in shapes}, extra


def account_for(source, stored, shapes, asks, harmless=None):
    """Refuse a tensor that is missing, extra, or has a shape other than `asks` requires; list the harmless extra ones.

    `stored` maps names to (file, shape), `shapes` is what a model needs, and `harmless` is a compiled pattern.
    """
    missing, extra = sorted(set(shapes) - set(stored)), sorted(set(stored) - set(shapes))
    if missing:
        raise CheckpointError(f"{source}: tensor {missing[0]} is missing{and_more(missing)}")
    unknown = [name for name in extra if not (harmless and harmless.fullmatch(name))]
    if unknown:
        path, _ = stored[unknown[0]]
        raise CheckpointError(f"{path}: tensor {unknown[0]} has no place in this model{and_more(unknown)}")
    for name, shape in shapes.items():
        path, found = stored[name]
        if found != shape:
            raise CheckpointError(f"{path}: tensor {name} has shape {brief(found)}; the {asks} asks for {shape}")
    return extra


def and_more(names):
    """Say how many names there are besides the first, which the message already gives."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def read_tensor(name, path, kind, shape, offset, *, dtype):
    """Read one of the tensors found, through a memory map that is closed before the next is opened."""
    with loading(f"{path}: tensor {name}"):
        if path.name == PACKED:
            raw = np.ndarray(shape, FLOATS[kind], unpacked(path), offset)
        else:
            raw = np.memmap(path, FLOATS[kind], "r", offset, shape)
        array = np.asarray(widen(raw, dtype))  # the memmap subclass is no longer needed
    if not np.isfinite(array).all():
        warnings.warn(f"{path}: tensor {name} holds NaN or infinity", stacklevel=2)
    return array


def write_tensors(path, tensors, **metadata):
    """Write a safetensors file of float or int arrays in any memory layout, with string `metadata`.

    The library needs contiguous copies of all tensors at once; here they are copied one at a time.
    """
    header: dict = {"__metadata__": {"format": "pt"} | metadata}
    stop = 0
    for name, array in tensors.items():
        start, stop = stop, stop + array.nbytes
        kind = f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (start, stop)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so numbers begin at a multiple of their size
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.asarray(array, array.dtype.newbyteorder("<"), order="C").data)
