"""Tokens that were kept in a file: the ids, or one line that names the file, whatever is in it."""

import io
import os
import struct

import numpy as np
import pytest

from minisink.training import tokens

IDS = np.arange(7, 507).astype(np.uint16)


def refuse():
    pytest.fail("the text was encoded")


def saved(*arrays, save=np.save):
    file = io.BytesIO()
    save(file, *arrays)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<u4", ">u4", "<u8"])
@pytest.mark.parametrize("n", [1, 2, 250])
def test_kept_ids_are_read(tmp_path, dtype, n):
    ids = np.arange(n).astype(dtype)
    (tmp_path / "ids.npy").write_bytes(saved(ids))
    kept = tokens.remembered(tmp_path / "ids.npy", refuse)
    assert (kept.dtype, kept.tolist()) == (ids.dtype, ids.tolist())


def test_ids_are_kept_and_read(tmp_path):
    path = tmp_path / "ids.npy"
    assert tokens.remembered(path, lambda: IDS) is IDS
    np.testing.assert_array_equal(tokens.remembered(path, refuse), IDS)
    np.testing.assert_array_equal(np.load(path), IDS)
    assert tokens.remembered(None, lambda: IDS) is IDS and os.listdir(tmp_path) == ["ids.npy"]


def with_header(header, version=1, length=None):
    size = struct.pack("<H" if version == 1 else "<I", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header


RAW = saved(IDS)
NONE = {
    "empty": b"",
    "a text": b"It was a dark night.",
    "an .npz": saved(IDS, save=np.savez),
    "begins as a zip": b"PK\x03\x04hello",
    "a bracket lost": RAW.replace(b"}", b" ", 1),
    "a string without end": with_header(b"'''".ljust(117) + b"\n"),
    "a list for a key": with_header(b"{[]: 1}".ljust(117) + b"\n"),
    "minus signs": with_header(b"-" * 5000 + b"1", 2),
    "a header of 4 GiB": with_header(RAW[10:], 2, 2**32 - 1),
    "more ids than there are": RAW.replace(b"(500,)", b"(501,)"),
    "more ids than can be counted": RAW.replace(b"(500,), }".ljust(25), b"(99999999999999999999,), }".ljust(25))[:300],
    "ids of 4 bytes": RAW.replace(b"<u2", b"<u4"),
    "cut": RAW[:-1],
    "objects": RAW.replace(b"'<u2'", b"'|O' "),
    "int64": saved(IDS.astype(np.int64)),
    "floats": saved(IDS.astype(float)),
    "two rows": saved(IDS.reshape(2, -1)),
    "one number": saved(IDS[0]),
    "no ids": saved(IDS[:0]),
}


@pytest.mark.parametrize("raw", NONE.values(), ids=NONE)
def test_a_file_that_holds_none_is_refused(tmp_path, raw):
    """Before the text is encoded, in one line, and it stays as it is."""
    path = tmp_path / "ids.npy"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"^{path}: .*token ids.*; without it the text is encoded again$"):
        tokens.remembered(path, refuse)
    assert path.read_bytes() == raw


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(ValueError, match=f"{name}: .*; a file is needed here"):
            tokens.remembered(tmp_path / name, refuse)


def test_texts_begin_without_a_byte_order_mark(tmp_path):
    """As they are learned and as they are encoded, each of several."""
    for name, encoding in (("plain", "utf-8"), ("marked", "utf-8-sig")):
        (tmp_path / name).write_text("It was a dark night, and the wind blew. " * 20, encoding=encoding)
    plain, marked = ([tmp_path / name] * 2 for name in ("plain", "marked"))
    tokenizer = tokens.train_tokenizer(marked, 270)
    assert tokenizer.to_str() == tokens.train_tokenizer(plain, 270).to_str()
    ids = tokens.encode_files(tokenizer, marked)
    assert ids.tolist() == tokens.encode_files(tokenizer, plain).tolist()
