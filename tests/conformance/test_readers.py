"""The readers of benchmarks/readers/, which have no library: their dumps are right, and no file makes them overrun."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minisink import conformance
from minisink.commands.parser import main

READERS = Path(__file__).resolve().parents[2] / "benchmarks" / "readers"
CC, NODE = shutil.which("cc"), shutil.which("node")
WATCH = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]  # a read or write out of bounds ends the program
NAMES = [pytest.param(name, marks=() if name == "llama" else pytest.mark.slow) for name in conformance.NAMES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `minisink conformance vectors` writes."""
    folder = tmp_path_factory.mktemp("vectors")
    assert main(["conformance", "vectors", str(folder), "--policy", "streaming"]) == 0
    return folder


@pytest.fixture(scope="module")
def in_c(tmp_path_factory):
    """The words that run the reader in C, which watches itself where the compiler can do that."""
    if CC is None:
        pytest.skip("needs a C compiler")
    program, source = tmp_path_factory.mktemp("c") / "sinks", READERS / "sinks.c"
    for watch in (WATCH, []):
        words = [CC, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", *watch, "-o", program, source, "-lm"]
        if subprocess.run(words, capture_output=True).returncode == 0:
            return [program]
    raise AssertionError("sinks.c does not compile")


@pytest.fixture
def in_javascript():
    if NODE is None:
        pytest.skip("needs node")
    return [NODE, READERS / "sinks.mjs"]


def ran(words, *files):
    return subprocess.run([*words, *files], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["in_c", "in_javascript"])
def test_its_dump_is_right(language, name, folder, tmp_path, request, capsys):
    """Every size of the vectors, with rotation and without, outputs to the last digits."""
    dump = tmp_path / f"{name}.safetensors"
    result = ran(request.getfixturevalue(language), folder / dump.name, dump)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    verdict = conformance.check_dump(dump)
    assert verdict and len(verdict.report.traces) == 4 and verdict.missing == () and verdict.report.worst < 1e-13
    assert main(["conformance", "check", str(dump)]) == 0
    assert capsys.readouterr().out.startswith("right in 4 traces of 24 tokens, ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "wrong", "name"),
    [
        ("sinks.c", "if (n == S) memmove", "if (n > S) memmove", "one key too many"),
        ("sinks.c", "(double)(n - 1 - slot)", "(double)(n - slot)", "query one place too far"),
        ("sinks.mjs", "held.splice(nSinks, 1)", "held.splice(0, 1)", "no sinks"),
    ],
)
def test_its_mistake_is_named(file, right, wrong, name, folder, tmp_path, request):
    """One line changed, and the dump says which wrong turn that is."""
    source = (READERS / file).read_text(encoding="utf-8")
    assert source.count(right) == 1
    (tmp_path / file).write_text(
        source.replace(right, wrong).replace("S * sizeof *held", "2 * S * sizeof *held"), "utf-8"
    )
    words = [NODE, tmp_path / file]
    if file == "sinks.c":
        request.getfixturevalue("in_c")
        words = [tmp_path / "sinks"]
        subprocess.run([CC, "-O1", "-o", *words, tmp_path / file, "-lm"], check=True)
    else:
        request.getfixturevalue("in_javascript")
    dump = tmp_path / "gqa.safetensors"
    assert ran(words, folder / dump.name, dump).returncode == 0
    report = conformance.check_dump(dump).report
    assert not report and name in [turn.name for turn in report.looks_like]


def broken(whole):
    """Files that are none, and headers that do not tell the truth."""
    n = struct.unpack("<Q", whole[:8])[0]
    header, numbers = whole[8 : 8 + n], whole[8 + n :]
    yield from (b"", b"\x05", b"\xff" * 8, struct.pack("<Q", 2 << 30) + b"{}", struct.pack("<Q", n), whole[: n // 2])
    yield from (whole[: 8 + n], whole[:-1], struct.pack("<Q", 2) + b"{}")

    def with_header(old, new):
        assert old in header, old
        changed = header.replace(old, new)
        return struct.pack("<Q", len(changed)) + changed + numbers

    at = header.index(b'"1+4.q"')
    entry = header[at : header.index(b"}", at)]
    shape, offsets = entry[entry.index(b"[") :].split(b"]")[0], entry[entry.rindex(b"[") :].split(b"]")[0]
    for new in (
        b"[24, 2, 2, 65",
        b"[-24, -2, 2, 64",
        b"[0, 2, 2, 64",
        b"[24, 2, 2",
        b"[9223372036854775807, 2, 2, 64",
        b"",
    ):
        yield with_header(entry, entry.replace(shape, new))
    for new in (
        b"[0, 99999999",
        b"[-8, 49144",
        b"[9, 1",
        b"[-9223372036854775808, 9223372036854775807",
        b"[4",
        b"[8, 49160",
    ):
        yield with_header(entry, entry.replace(offsets, new))
    yield with_header(entry, entry.replace(b"F64", b"F32"))
    yield with_header(header[at:], header[at : at + 9])
    yield with_header(b'"1+4.k"', b'"1+4.K"')
    random = np.random.default_rng(0)
    for _ in range(20):  # any byte of the header
        bytes_ = bytearray(header)
        bytes_[random.integers(n)] = random.integers(256)
        yield with_header(header, bytes(bytes_))


@pytest.mark.slow
def test_no_file_makes_the_reader_in_c_overrun(in_c, folder, tmp_path):
    """It ends with status 2 and one line, or reads what is there; the compiler's watch is silent."""
    refused = 0
    for i, data in enumerate(broken((folder / "llama.safetensors").read_bytes())):
        (tmp_path / "llama.safetensors").write_bytes(data)
        result = ran(in_c, tmp_path / "llama.safetensors", tmp_path / "dump.safetensors")
        assert result.returncode in (0, 2), (i, result.stderr)
        assert result.stderr.count("\n") == (result.returncode == 2) and "Sanitizer" not in result.stderr
        refused += result.returncode == 2
    assert refused >= 22
    for files in ((tmp_path / "none", tmp_path / "dump"), (folder, tmp_path / "dump"), ("only one",)):
        assert ran(in_c, *files).returncode == 2
    assert ran(in_c, folder / "llama.safetensors", tmp_path / "no folder" / "dump").returncode == 2
