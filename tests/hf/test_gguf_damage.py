"""GGUF files that are cut, changed or none: one line says what is wrong with which file, soon and in little memory."""

import os
import re
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import tiny
from gguf_files import byte_level, gguf, metadata, stored, tensor_changed, tokenized, write
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import CheckpointError, gpt2
from minisink.hf import gguf_file

Q = "blk.1.attn_q.weight"
SENTENCEPIECE = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{i:02X}>" for i in range(256)),
        "▁",
        "t",
        "h",
        "th",
        "<x>",
    ],
    "tokenizer.ggml.scores": [0.0] * 259 + [-1.0, -2.0, -3.0, -0.5, 0.0],
    "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1, 1, 1, 1, 4],
    "tokenizer.ggml.bos_token_id": 1,
}


def sound(path, kind="byte level"):
    """The bytes of a sound file."""
    if kind == "gpt2":
        model = tiny.make(gpt2, dtype=np.float32, vocab_size=len(byte_level()["tokenizer.ggml.tokens"]))
        about = metadata(model.config) | byte_level(**{"tokenizer.ggml.pre": "llama-bpe"})
        return write(path, about, stored(model)).read_bytes()
    return tokenized(path, byte_level() if kind == "byte level" else SENTENCEPIECE).read_bytes()


def refusal(path):
    """What is said of a file that does not load; None of one that does. Neither takes long or much memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a rule with no name, of ids beyond the vocabulary, of NaN
            minisink.load(path)
    except CheckpointError as error:
        said = str(error)
        assert said.startswith(f"{path}: ") and "\n" not in said
        return said
    finally:
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert took < 10 and peak < 20e6
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def files(folder):
    """Sound files: (path, bytes, bytes of the header)."""
    found = []
    for kind in ("byte level", "sentencepiece", "gpt2"):
        path = folder / f"{kind}.gguf"
        content = sound(path, kind)
        assert refusal(path) is None
        _, tensors, *_ = gguf_file.read_header(path)
        found.append((path, content, min(offset for _, _, offset in tensors.values())))
    return found


# Cut short ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cut_at_every_boundary(folder, monkeypatch):
    """Before, at and after the start of every number, text and list of the header, and of every tensor's bytes."""
    path, ends, take = folder / "whole.gguf", {0}, gguf_file.Cursor.take

    def noting(cursor, n_bytes):
        taken = take(cursor, n_bytes)
        ends.add(cursor.file.tell())
        return taken

    with monkeypatch.context() as patched:
        patched.setattr(gguf_file.Cursor, "take", noting)
        content = sound(path)
        _, tensors, *_ = gguf_file.read_header(path)
    ends |= {offset for _, _, offset in tensors.values()}
    cut = folder / "cut.gguf"
    last = max(tensors, key=lambda name: tensors[name][2])
    needed = tensors[last][2] + 4 * np.prod(tensors[last][1])  # after it is padding
    assert len(ends) > 800
    for n in sorted({end + by for end in ends for by in (-1, 0, 1)} & set(range(needed))):
        cut.write_bytes(content[:n])
        with pytest.raises(CheckpointError, match=r"cut\.gguf: (not a readable GGUF file|tensor .* ends at byte)"):
            minisink.load(cut)


@examples(60)
@given(data=st.data())
def test_cut_anywhere(files, folder, data):
    """In the header or in the data, of every kind of file."""
    _, content, header = data.draw(st.sampled_from(files))
    cut = folder / "cut.gguf"
    cut.write_bytes(content[: data.draw(st.integers(0, header) | st.integers(0, len(content) - 65))])
    assert refusal(cut)


# Changed ------------------------------------------------------------------------------------------

NUMBERS = [0, 1, 8, 9, 255, 2**31 - 1, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1]
damages = st.one_of(
    st.binary(min_size=1, max_size=1),
    st.sampled_from(NUMBERS).map(lambda number: struct.pack("<Q", number)),
    st.sampled_from(NUMBERS).map(lambda number: struct.pack("<I", number % 2**32)),
)


@examples(200)
@given(data=st.data())
def test_a_damaged_header_ends_well(files, folder, data):
    """Bytes flipped, numbers put in, bytes lost and gained: it loads, or one line says why not."""
    _, content, header = data.draw(st.sampled_from(files))
    for _ in range(data.draw(st.integers(1, 4))):
        at, damage = data.draw(st.integers(0, header)), data.draw(damages)
        lost = data.draw(st.sampled_from([len(damage), len(damage), 0, 3, 8]))
        content = content[:at] + damage + content[at + lost :]
    path = folder / "changed.gguf"
    path.write_bytes(content)
    refusal(path)


@examples(40)
@given(data=st.data())
def test_damaged_numbers_are_numbers(files, folder, data):
    """In the tensors every byte is some number: the file loads."""
    _, content, header = data.draw(st.sampled_from(files))
    at = data.draw(st.integers(header, len(content) - 1))
    path = folder / "changed.gguf"
    path.write_bytes(content[:at] + data.draw(st.binary(min_size=1, max_size=1)) + content[at + 1 :])
    assert refusal(path) is None


ODD = {
    "another type": ({"kind": 999}, f"tensor {Q} is of type 999, which is not known; llama-quantize"),
    "a type that is not read": ({"kind": 15}, f"tensor {Q} is Q8_K, which is not supported; llama-quantize,.* Q8_0"),
    "a type of other blocks": ({"kind": 8}, f"tensor {Q} has rows of 10; Q8_0 comes in blocks of 32"),
    "beyond the file": ({"offset": 2**40}, f"tensor {Q} ends at byte 1,099,5"),
    "beyond all files": ({"offset": 2**64 - 32}, f"tensor {Q} ends at byte 18,446,744,"),
    "no multiple of the alignment": ({"offset": 4}, f"tensor {Q} lies 4 bytes in, not a multiple of 32"),
    "upon another": ({"offset": 0}, "tensor .* begins at byte ([0-9,]+), not .*: it overlaps "),
    "beyond all sizes": ({"sizes": (10, 2**60)}, rf"tensor {Q} has shape \({2**60}, 10\); the metadata asks for"),
    "sizes that overflow": ({"sizes": (2**33, 2**33)}, f"tensor {Q} has shape"),
    "no size": ({"sizes": (0, 24)}, rf"tensor {Q} has shape \(24, 0\)"),
    "swapped": ({"sizes": (24, 10)}, rf"tensor {Q} has shape \(10, 24\); the metadata asks for \(24, 10\)"),
    "no axes": ({"n_axes": 0}, f"tensor {Q} appears twice, or has 0 axes"),
    "many axes": ({"n_axes": 2**32 - 1}, f"tensor {Q} appears twice, or has 4294967295 axes"),
    "twice": ({"renamed": "blk.0.attn_q.weight"}, "tensor blk.0.attn_q.weight appears twice"),
    "a name of no letters": ({"renamed": "blk.1.attn_q.we\tght"}, "is not printable"),
}


@pytest.mark.parametrize("changes, said", ODD.values(), ids=ODD)
def test_what_the_header_says_of_a_tensor(changes, said, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(tensor_changed(sound(path), Q, **changes))
    with pytest.raises(CheckpointError, match=said) as caught:
        minisink.load(path)
    assert str(caught.value).startswith(f"{path}: ") and refusal(path)


@examples(100)
@given(data=st.data())
def test_a_place_that_nobody_could_mean(files, folder, data):
    """Any tensor anywhere else: in another's bytes, off the alignment, beyond a gap. The line names a tensor."""
    path, content, header = data.draw(st.sampled_from(files))
    _, tensors, *_ = gguf_file.read_header(path)
    name = data.draw(st.sampled_from(sorted(tensors)))
    places = sorted({place - header + by for *_, place in tensors.values() for by in (0, 1, 4, 32, 4096)})
    offset = data.draw(st.sampled_from([place for place in places if place != tensors[name][2] - header]))
    moved = folder / "moved.gguf"
    moved.write_bytes(tensor_changed(content, name, offset=offset) + bytes(99_999))
    assert re.search(r"tensor \S+ (lies \S+ bytes in, not a .* 32|begins at byte \S+, not \S+: it )", refusal(moved))


@pytest.mark.parametrize("align", [8, 64, 4096])
def test_another_alignment_is_kept_to(align, tmp_path):
    """Of each tensor, by gguf's own writer; said otherwise in the file, they lie elsewhere."""
    path = tmp_path / "model.gguf"
    content = tokenized(path, byte_level(**{"general.alignment": align})).read_bytes()
    assert refusal(path) is None
    at = content.index(b"general.alignment") + len("general.alignment") + 4
    path.write_bytes(content[:at] + struct.pack("<I", align * 8) + content[at + 4 :])
    assert "tensor " in refusal(path)


def test_nan_is_said_once(tmp_path):
    """A scale of a block that is no number: a line of ours names the tensor, NumPy has none beside it."""
    model = tiny.make(dtype=np.float32, d_model=32, n_heads=4, head_dim=8)
    tensors, kind = stored(model), gguf.GGMLQuantizationType.Q8_0
    raw = gguf.quants.quantize(tensors[Q], kind)
    raw[0] = [*np.array([np.inf], "<f2").tobytes(), *[0] * 32]  # infinity times 0 is NaN, of which NumPy warns
    path = write(tmp_path / "model.gguf", metadata(model.config), tensors | {Q: (raw, kind)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        minisink.load(path)
    assert [str(warning.message) for warning in caught] == [f"{path}: tensor {Q} holds NaN or infinity"]


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_no_memory_names_the_file(tied, tmp_path):
    """A sparse file of 20 GB, two matrices of the words, in a process that may take 4."""
    model, n = tiny.make(dtype=np.float32, vocab_size=1, tied=tied), 250_000_000
    large = ["token_embd.weight"] if tied else ["token_embd.weight", "output.weight"]
    tensors = stored(model)
    tensors |= {name: tensors.pop(name) for name in large}  # the last, so that they can grow
    path = write(tmp_path / "model.gguf", metadata(model.config) | {"llama.vocab_size": n}, tensors)
    _, places, start, _ = gguf_file.read_header(path)
    for i, name in enumerate(large):
        offset = places[large[0]][2] - start + i * 40 * n
        path.write_bytes(tensor_changed(path.read_bytes(), name, sizes=(10, n), offset=offset))
    os.truncate(path, 20_100_000_000)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); "
    run = [sys.executable, "-c", limited + "from minisink.__main__ import console as c; c()", "info", "--model", path]
    said = subprocess.run(run, capture_output=True, text=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    assert said.returncode == 2
    what = "no memory left" if tied else "tensor output.weight cannot be read .* allocate memory"
    assert re.search(f"error: {path}: {what}", said.stderr)


def test_a_name_that_is_no_text(tmp_path):
    """Bytes that are not UTF-8, in the name of a key, of a tensor, in a word."""
    path = tmp_path / "model.gguf"
    content = sound(path)
    for name in (b"general.architecture", Q.encode(), b"<|im_start|>"):
        assert name in content
        path.write_bytes(content.replace(name, b"\xff" + name[1:]))
        assert "can't decode byte 0xff" in refusal(path)


# None at all --------------------------------------------------------------------------------------


def header(version=3, n_tensors=0, n_keys=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + rest


def key(*value):
    """One key "k" with a value: the number of its type, then the bytes."""
    kind, content = value
    return struct.pack("<QcI", 1, b"k", kind) + content


FOREIGN = {
    "empty": (b"", "does not begin with GGUF"),
    "an archive": (b"PK\3\4" + bytes(60), "does not begin with GGUF"),
    "a page that asks to log in": (b"<!DOCTYPE html>" + bytes(60), "does not begin with GGUF"),
    "a pointer to the file": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "nothing but the magic": (b"GGUF", "does not begin with GGUF"),
    "version 0": (header(0) + bytes(60), "of version 0; only little-endian versions 2 and 3 are read"),
    "version 1": (header(1) + bytes(60), "of version 1; only little-endian versions 2 and 3 are read"),
    "version 4": (header(4) + bytes(60), "of version 4; only little-endian versions 2 and 3 are read"),
    "a version from the future": (header(2**31) + bytes(60), "versions 2 and 3 are read"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(60), "it is big-endian; only little-endian"),
    "no counts": (header()[:20], "ends 4 bytes too early"),
    "nothing in it": (header() + bytes(60), "general.architecture is missing"),
    "2^60 tensors": (header(n_tensors=2**60), "ends 8 bytes too early"),
    "2^60 keys": (header(n_keys=2**60), "ends 8 bytes too early"),
    "2^60 keys, and zeros": (header(n_keys=2**60, rest=bytes(9999)), "appears twice"),
    "2^60 tensors, and zeros": (header(n_tensors=2**60, rest=bytes(9999)), "or has 0 axes"),
    "a name of 2^60 letters": (header(n_keys=1, rest=struct.pack("<Q", 2**60) + bytes(60)), "bytes too early"),
    "a text of 2^60 letters": (header(n_keys=1, rest=key(8, struct.pack("<Q", 2**60))), "bytes too early"),
    "2^62 numbers": (header(n_keys=1, rest=key(9, struct.pack("<IQ", 4, 2**62))), "bytes too early"),
    "2^64 numbers": (header(n_keys=1, rest=key(9, struct.pack("<IQ", 12, 2**64 - 1))), "bytes too early"),
    "2^62 texts": (header(n_keys=1, rest=key(9, struct.pack("<IQ", 8, 2**62))), "bytes too early"),
    "texts that are not there": (header(n_keys=1, rest=key(9, struct.pack("<IQ", 8, 40)) + bytes(90)), "too early"),
    "a list of lists": (header(n_keys=1, rest=key(9, struct.pack("<IQ", 9, 1)) + bytes(90)), "type 9 is not known"),
    "another type": (header(n_keys=1, rest=key(99, bytes(60))), "type 99 is not known"),
    "a key twice": (header(n_keys=2, rest=2 * key(7, b"\1")), "k appears twice"),
    "a key with a line break": (header(n_keys=1, rest=struct.pack("<QcIB", 1, b"\n", 7, 1)), "not printable"),
}


@pytest.mark.parametrize("content, said", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused(content, said, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert said in refusal(path)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [(4, 0, "is 0"), (4, 48, "is 48"), (5, 2**32 - 1, "is -1"), (7, 1, "is True"), (6, 0, "is 0.0")],
)
def test_an_alignment_that_is_none(kind, value, said, tmp_path):
    """The tensors would lie elsewhere."""
    path, name = tmp_path / "model.gguf", b"general.alignment"
    size = {7: "B"}.get(kind, "I")
    path.write_bytes(header(n_keys=1, rest=struct.pack(f"<Q{len(name)}sI{size}", len(name), name, kind, value)))
    assert f"general.alignment {said}; it must be a power of 2" in refusal(path)


def test_an_alignment_beyond_the_file(tmp_path):
    path = tmp_path / "model.gguf"
    content = tokenized(path, byte_level(**{"general.alignment": 32})).read_bytes()
    assert refusal(path) is None
    at = content.index(b"general.alignment") + len("general.alignment") + 4
    path.write_bytes(content[:at] + struct.pack("<I", 2**31) + content[at + 4 :])
    assert "ends at byte 2,147," in refusal(path)


def test_what_is_no_file(tmp_path):
    """A folder, a pipe, nothing at the end of a link, and a file that may not be read."""
    (tmp_path / "folder.gguf").mkdir()
    assert "this folder has no config.json" in refusal(tmp_path / "folder.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "must be a file, but is a pipe" in refusal(tmp_path / "pipe.gguf")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "nowhere.gguf")
    assert "a broken link" in refusal(tmp_path / "link.gguf")
    assert "no such file" in refusal(tmp_path / "none.gguf")


def test_version_2_is_read_alike(tmp_path):
    """The third only brought big-endian files."""
    path = tmp_path / "model.gguf"
    content = sound(path)
    logits = minisink.load(path).forward([5, 6, 7])
    path.write_bytes(content[:4] + struct.pack("<I", 2) + content[8:])
    np.testing.assert_array_equal(minisink.load(path).forward([5, 6, 7]), logits)


def test_the_name_may_be_in_capitals(tmp_path):
    sound(tmp_path / "MODEL.GGUF")
    assert refusal(tmp_path / "MODEL.GGUF") is None
