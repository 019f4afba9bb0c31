"""The log of a training: what an editor or a power failure did to it is passed over, anything else is refused."""

import os

import pytest

from minisink.training import log

HEADER = b"step,tokens,loss\r\n"
ROWS = HEADER + b"2,20,3.5\r\n4,40,2.75\r\n"
READ = (["step", "tokens", "loss"], [["2", "20", "3.5"], ["4", "40", "2.75"]])


def test_rows_come_under_one_header(tmp_path):
    path = tmp_path / "log.csv"
    for row in ({"step": 2, "tokens": 20, "loss": 3.5}, {"step": 4, "tokens": 40, "loss": 2.75}):
        log.add(path, row)
    assert path.read_bytes() == ROWS
    assert log.read(path) == READ


MENDED = {
    "as written": ROWS,
    "a blank line at the end": ROWS + b"\r\n",
    "blank lines": ROWS.replace(b"\r\n", b"\r\n\r\n \r\n"),
    "other line ends": ROWS.replace(b"\r\n", b"\n"),
    "a byte-order mark": b"\xef\xbb\xbf" + ROWS,
    "half a row": ROWS + b"6,6",
    "half a number": ROWS + b"6,60,2.",
    "half a character": ROWS + b"6",
}


@pytest.mark.parametrize("raw", MENDED.values(), ids=MENDED)
def test_what_an_editor_and_a_power_failure_do(tmp_path, raw):
    """It is read as it was meant, and when a training goes on none of it stays."""
    path = tmp_path / "log.csv"
    path.write_bytes(raw)
    assert log.read(path) == READ
    log.cut(path, 6)
    assert path.read_bytes() == ROWS
    log.cut(path, 3)
    assert path.read_bytes() == HEADER + b"2,20,3.5\r\n"
    log.add(path, {"step": 4, "tokens": 40, "loss": 2.75})
    assert path.read_bytes() == ROWS


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"step,tok"])
def test_an_empty_log_gets_its_header_again(tmp_path, raw):
    path = tmp_path / "log.csv"
    path.write_bytes(raw)
    assert log.read(path) == ([], [])
    log.cut(path, 6)
    log.add(path, {"step": 2, "tokens": 20, "loss": 3.5})
    assert path.read_bytes() == HEADER + b"2,20,3.5\r\n"


NONE = {
    "a NUL": (ROWS + b"\0\r\n", "row 3|NUL"),
    "a word": (ROWS + b"x,60,2.5\r\n", "row 3 has 'x' instead of a number"),
    "a long word": (ROWS + b"6,60," + b"x" * 100_000 + b"\r\n", "row 3 has 'xxxxxxxxxxxxxxxxxxxx' instead of a"),
    "not UTF-8": (ROWS + b"\xff\r\n", "can't decode byte 0xff"),
    "a field of 200,000 digits": (ROWS + b"1," + b"1" * 200_000 + b"\r\n", "field larger than"),
    "half a row in the middle": (HEADER + b"2,2\r\n" + b"4,40,2.75\r\n", "row 1 does not have the 3 columns of the"),
    "a row too long": (ROWS + b"6,60,2.5,1\r\n", "row 3 does not have the 3 columns"),
}


@pytest.mark.parametrize(("raw", "why"), NONE.values(), ids=NONE)
def test_anything_else_is_refused(tmp_path, raw, why):
    """By name, in a line of bearable length, and the file stays as it is."""
    path = tmp_path / "log.csv"
    path.write_bytes(raw)
    for go in (lambda: log.read(path), lambda: log.cut(path, 9)):
        with pytest.raises(ValueError, match=f"log.csv: not the log of a `minisink train lm` run .*({why})") as caught:
            go()
        assert len(str(caught.value)) < 250
    assert path.read_bytes() == raw


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(ROWS.replace(b"step", b"token_index"))
    with pytest.raises(ValueError, match="its first column is 'token_index'"):
        log.cut(path, 9)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_what_is_no_file_is_refused(tmp_path):
    """A folder, a pipe, a link to nowhere, nothing: none of them is waited for."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "pipe", "link"):
        for go in (log.read, lambda path: log.cut(path, 9)):
            with pytest.raises(ValueError, match=f"{name}: "):
                go(tmp_path / name)
    with pytest.raises(ValueError, match="none: cannot be read"):
        log.read(tmp_path / "none")
    log.cut(tmp_path / "none", 9)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="folder: cannot be written"):
        log.add(tmp_path / "folder", {"step": 1})
