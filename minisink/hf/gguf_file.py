"""The bytes of a GGUF file, llama.cpp's format: its metadata, and its tensors as floats.

Magic "GGUF", a version, two counts; keys with typed values; for each tensor its name, sizes (innermost first), type and
offset; padding; the bytes. The header is read here: the package ``gguf`` takes two seconds for a vocabulary of 49,152
words, and hangs on a corrupt count; but only that package can decode quantised blocks.
"""

import os
import warnings
from contextlib import suppress
from math import prod

import numpy as np

from .fields import CheckpointError, refusing

STRING, ARRAY = 8, 9
# GGUF's number for a value type -> how numpy reads the bytes
NUMBERS = dict(enumerate("<u1 <i1 <u2 <i2 <u4 <i4 <f4 ?".split())) | {10: "<u8", 11: "<i8", 12: "<f8"}
UNREADABLE = (OSError, ValueError, OverflowError, MemoryError)
REMEDY = "llama-quantize, a tool of llama.cpp, converts it to type F16 or Q8_0"


def begins_as_gguf(path):
    """Return whether a file's first bytes say that it is GGUF; its name may not (Ollama's are sha256-...)."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(4) == b"GGUF"
    return False


class Cursor:
    """A file read from its start, one value at a time; raises ValueError if it ends too early."""

    def __init__(self, file):
        self.file = file
        self.left = os.fstat(file.fileno()).st_size

    def take(self, n_bytes):
        """Read the next bytes."""
        if n_bytes > self.left:
            raise ValueError(f"it ends {n_bytes - self.left:,} bytes too early")
        self.left -= n_bytes
        return self.file.read(n_bytes)

    def integer(self, n_bytes):
        """Read the next whole number, of 4 or 8 bytes."""
        return int.from_bytes(self.take(n_bytes), "little")

    def string(self):
        """Read the next string."""
        return self.take(self.integer(8)).decode("utf-8")

    def name(self):
        """Read the next string, the name of a key or tensor, which may appear in a message."""
        name = self.string()
        if not name.isprintable():
            raise ValueError(f"the name {name!r} is not printable")
        return name

    def value(self):
        """Read the next value, which comes after its type."""
        kind = self.integer(4)
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, count = self.integer(4), self.integer(8)
            if kind != STRING:
                return self.numbers(kind, count).tolist()
            if 8 * count > self.left:  # each string takes at least eight bytes
                raise ValueError(f"it ends {8 * count - self.left:,} bytes too early")
            return [self.string() for _ in range(count)]
        (number,) = self.numbers(kind, 1)
        # 1e-5 as intended, not the nearest float32
        return float(str(number)) if number.dtype == np.float32 else number.item()

    def numbers(self, kind, count):
        """Read the next `count` numbers of a type."""
        if kind not in NUMBERS:
            raise ValueError(f"value type {kind} is not known")
        dtype = np.dtype(NUMBERS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)


def read_header(path):
    """Read the metadata of a GGUF file, and where its tensors are: (about, tensors, start, align).

    `about` is its metadata by key; `tensors` maps names to (GGUF's number for the type, shape with the outermost axis
    first, offset in the file). The first tensor must begin at `start`, and all others a multiple of `align` after it.
    """
    with refusing(f"{path}: not a readable GGUF file", *UNREADABLE), open(path, "rb") as file:
        cursor = Cursor(file)
        if cursor.left < 8 or cursor.take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = cursor.integer(4)
        if version not in (2, 3):
            what = "big-endian" if version and not version & 0xFFFF else f"of version {version}"
            raise ValueError(f"it is {what}; only little-endian versions 2 and 3 are read")
        n_tensors, n_keys = cursor.integer(8), cursor.integer(8)
        about, tensors = {}, {}
        for _ in range(n_keys):
            key = cursor.name()
            if key in about:
                raise ValueError(f"{key} appears twice")
            about[key] = cursor.value()
        for _ in range(n_tensors):
            name, n_axes = cursor.name(), cursor.integer(4)
            if name in tensors or not 1 <= n_axes <= 4:
                raise ValueError(f"tensor {name} appears twice, or has {n_axes} axes")
            shape = tuple(cursor.integer(8) for _ in range(n_axes))[::-1]
            tensors[name] = (cursor.integer(4), shape, cursor.integer(8))
        align = about.get("general.alignment", 32)
        if type(align) is not int or align < 1 or align & (align - 1):
            raise ValueError(f"general.alignment is {align!r}; it must be a power of 2")
        start = -(-file.tell() // align) * align
    return about, {name: (*what, start + offset) for name, (*what, offset) in tensors.items()}, start, align


def check_tensors(path, tensors, start, align):
    """Refuse a tensor of an unsupported type, or one whose bytes do not begin where the previous tensor ends."""
    size, spans = os.path.getsize(path), []
    for name, (kind, shape, offset) in tensors.items():
        spans.append((offset, offset + prod(_stored(path, name, kind, shape)[1]), name))
        if spans[-1][1] > size:
            raise CheckpointError(f"{path}: tensor {name} ends at byte {spans[-1][1]:,}; the file has {size:,}")
        if (offset - start) % align:
            raise CheckpointError(f"{path}: tensor {name} lies {offset - start:,} bytes in, not a multiple of {align}")
    before = "the header"
    for offset, end, name in sorted(spans):
        if offset != start:
            what = "overlaps" if offset < start else "leaves a gap after"
            raise CheckpointError(f"{path}: tensor {name} begins at byte {offset:,}, not {start:,}: it {what} {before}")
        start, before = -(-end // align) * align, name


def _stored(path, name, kind, shape):
    """Return how a tensor is quantised, and the shape of its bytes; refuse an unsupported type."""
    quants = library()
    try:
        quant = quants.GGMLQuantizationType(kind)
        block, n_bytes = quants.GGML_QUANT_SIZES[quant]
        quants.dequantize(np.zeros((1, n_bytes), "u1"), quant)  # the library knows some types only by name
    except ValueError:
        raise CheckpointError(f"{path}: tensor {name} is of type {kind}, which is not known; {REMEDY}") from None
    except NotImplementedError:
        raise CheckpointError(f"{path}: tensor {name} is {quant.name}, which is not supported; {REMEDY}") from None
    if shape[-1] % block:
        raise CheckpointError(f"{path}: tensor {name} has rows of {shape[-1]}; {quant.name} comes in blocks of {block}")
    return quant, (*shape[:-1], shape[-1] // block * n_bytes)


def read_tensor(path, name, kind, shape, offset, *, dtype):
    """Read one checked tensor as floats, through a memory map that is closed before the next one."""
    quant, shape_of_bytes = _stored(path, name, kind, shape)
    with refusing(f"{path}: tensor {name} cannot be read", OSError):  # also raised if there is no room for the map
        rows = np.memmap(path, "u1", "r", offset, shape_of_bytes)
    raw = np.asarray(rows)  # the library cuts it into thousands of slices; slicing a memmap costs far more
    with np.errstate(all="ignore"):  # NaN and infinity are reported below
        array = library().dequantize(raw, quant)
        array = array.astype(dtype, copy=array.base is not None)  # a float32 tensor is still the map itself
    if not np.isfinite(array).all():
        warnings.warn(f"{path}: tensor {name} holds NaN or infinity", stacklevel=2)
    return array


def library():
    """Import ``gguf.quants``, which is needed only to read GGUF files."""
    try:
        from gguf import quants
    except ImportError as error:
        raise CheckpointError(f"a GGUF file needs the package gguf ({error}): pip install 'minisink[gguf]'") from None
    return quants
