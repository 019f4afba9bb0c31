"""`minisink ppl` on several processes, and in parts that are joined: the numbers of one process, to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tiny
from folders import words, write

from minisink.evaluation.run import Evaluation
from minisink.hf.shipped import sample_text
from minisink.loss import CHUNK

TEXT = " ".join(f"w{i}" for i in np.random.default_rng(0).integers(0, 17, 8 * CHUNK + 40))
ARGV = ("--model", "model", "--window", "5", "--n-sinks", "2")


@pytest.fixture
def command(tmp_path, run):
    """`minisink ppl` with a tiny model, in its own folder; returns (status, stdout, stderr)."""
    write(tmp_path / "model", tiny.make(dtype=np.float32, max_positions=128), tokenizer=words(17))
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return lambda *argv: run("ppl", *argv) if "--merge" in argv else run("ppl", "text.txt", *ARGV, *argv)


def parts(command, n, *argv):
    for i in range(1, n + 1):
        status, _, err = command("--part", f"{i}/{n}", *argv)
        assert (status, err) == (0, "")
    return sorted(str(path) for path in Path().glob("*.part"))


@pytest.mark.parametrize(
    ("n", "every"),
    [(3, ()), *(pytest.param(n, e, marks=pytest.mark.slow) for n, e in ((1, ()), (12, ()), (3, ("--every", 100))))],
)
def test_parts_are_joined_to_the_whole(command, monkeypatch, n, every):
    """The same rows and numbers; also parts of a few tokens or none, of a text in pieces, and a picture."""
    assert command("--csv", "whole.csv", *every)[0] == 0
    whole = json.loads(command("--json")[1])
    monkeypatch.setattr("minisink.evaluation.run.CHUNK", 1000)
    files = parts(command, n)
    assert len(files) == n and files[0] == f"text.txt.{'1'.zfill(len(str(n)))}-of-{n}.part"
    status, out, err = command("--merge", *files[::-1], "--csv", "merged.csv", "--plot", "loss.png", "--json", *every)
    joined = json.loads(out)
    assert (status, err) == (0, "") and Path("loss.png").stat().st_size > 1000
    assert joined.pop("tokens_per_second") > 0 < whole.pop("tokens_per_second")
    assert joined.pop("nll") == pytest.approx(whole.pop("nll"), rel=1e-12)
    assert joined.pop("perplexity") == pytest.approx(whole.pop("perplexity"), rel=1e-12) and joined == whole
    if not every:
        assert Path("merged.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", [("window",), ("recompute", "--readable"), ("streaming", "--positions", "original")])
def test_parts_by_other_methods(command, method):
    """What `--merge` reports is the method's."""
    Path("text.txt").write_text(TEXT[:2000], encoding="utf-8")
    whole = command("--method", *method)[1].splitlines()[2].split()[:-1]
    joined = command("--merge", *parts(command, 2, "--method", *method))[1].splitlines()[2].split()[:-1]
    assert joined == whole


WRONG = {
    "a method": (["--method", "dense"], r"Dense(positions='slot') cannot be measured in parts: it keeps every token"),
    "csv": (["--csv", "a.csv"], "--part writes its own file; --csv and --plot go with --merge"),
    "a state": (["--resume", "a"], "--resume: not allowed with argument --part"),
    "beyond": (["--part", "5/4"], "--part is '5/4'; write the third of sixteen as 3/16"),
    "zero": (["--part", "0/4"], "--part is '0/4'"),
    "negative": (["--part", "-1/4"], "--part is '-1/4'; write the third of sixteen as 3/16"),
    "one number": (["--part", "4"], "--part is '4'"),
    "no jobs": (["--jobs", "0"], "jobs is 0; it must be a whole number of 1 or more"),
    "two ways": (["--jobs", "2", "--dask", "tcp://x:1"], "not allowed with argument --jobs"),
}


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_go_is_one_line(command, argv, message):
    """And leaves nothing behind."""
    status, out, err = command("--part", "1/2", *argv)
    assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["model", "text.txt"]


def test_files_that_do_not_belong_together(command, run):
    """A part that is missing, there twice, of another run or text; a file that is no part; nothing at all."""
    Path("text.txt").write_text(TEXT[:3000], encoding="utf-8")
    files = parts(command, 3)
    again = f"minisink: error: {files[0]}: already exists; move it away to measure this part again\n"
    assert command("--part", "1/3") == (2, "", again)
    Path("other").mkdir()
    os.rename(files[1], "other/2")
    command("--part", "2/3", "--window", 6)
    os.rename(files[1], "other/window")
    Path("text.txt").write_text(TEXT[1:3001], encoding="utf-8")
    command("--part", "2/3")
    os.rename(files[1], "other/text")
    Path("other/copy").write_bytes(Path(files[0]).read_bytes())
    Path("other/cut").write_bytes(Path(files[0]).read_bytes()[:-9])
    one, _, three = files
    for names, message in (
        ([one], "2/3, 3/3: missing among the parts"),
        ([three, one], "2/3: missing among the parts"),
        ([one, three, "other/copy"], f"{one} and other/copy: both are part 1 of 3"),
        ([one, "other/window", three], f"other/window: a part of a different run from {one}: window was 5 and is 6"),
        ([one, "other/text", three], f"other/text: a part of a different run from {one}: digest of the text was"),
        ([one, "other/cut"], "other/cut: not what `minisink ppl --part` writes"),
        ([one, "text.txt"], "text.txt: not what `minisink ppl --part` writes"),
        ([one, "none"], "none: not what `minisink ppl --part` writes (no such file)"),
    ):
        status, out, err = command("--merge", *names, "--csv", "a.csv")
        assert (status, out, len(err.splitlines())) == (2, "", 1) and message in err and not Path("a.csv").exists()
    assert command("--merge", one, "other/2", three)[0] == 0
    assert "give a text, or with --merge the files of its parts" in run("ppl")[2]
    assert "give a text, or with --merge the files of its parts" in run("ppl", "text.txt", "--merge", one)[2]


def test_a_full_disk_is_one_line_in_parts(command, monkeypatch):
    """The file by name, and nothing half written."""

    def full(path, *_):
        raise ValueError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("minisink.evaluation.part_files.save_state", full)
    status, _, err = command("--part", "1/2")
    assert status == 2 and "text.txt.1-of-2.part: cannot be written (No space left on device)" in err
    assert len(err.splitlines()) == 1 and not list(Path().glob("*.part"))


@pytest.mark.usefixtures("threads")
def test_a_run_in_parts_stops_and_goes_on(command, monkeypatch):
    """Interrupted between two parts, with other jobs afterwards: the same rows and state; not with one process."""
    command("--csv", "whole.csv")
    add, calls = Evaluation._count, []

    def stopping(self, *block):
        add(self, *block)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Evaluation, "_count", stopping)
    argv = ["--csv", "run.csv", "--resume", "state"]
    status, _, err = command("--jobs", 2, *argv)
    n = 2 * 3 * CHUNK  # a part is not shorter than its run-up; of the third part the rows are there, and written again
    assert status == 130 and err.endswith(f"; the same command continues from token {n:,}\n")
    assert "in parts was True and is False (--jobs 2 or more, and --dask, measure in parts)" in command(*argv)[2]
    status, out, err = command("--jobs", 3, *argv, "--json")
    assert (status, err) == (0, f"minisink: state continues after {n:,} tokens\n")
    assert json.loads(out)["resumed_after"] == n
    assert Path("run.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert command("--jobs", 2, *argv)[2] == "minisink: state is from a finished run; nothing is left to do\n"


@pytest.fixture
def threads(monkeypatch):
    """Instead of processes, which take a second to start."""
    monkeypatch.setattr("minisink.commands.ppl.processes", lambda n: ThreadPoolExecutor(n) if n > 1 else nullcontext())


@pytest.mark.slow
def test_processes_give_the_same_bits(tmp_path, interrupts_arrive):
    """On a model that ships; also after Ctrl-C, when no process is left that would hold standard error."""
    text = sample_text().read_text("utf-8")
    (tmp_path / "book.txt").write_text(text * (360000 // len(text)), encoding="utf-8")
    ppl = [sys.executable, "-m", "minisink", "ppl", "book.txt", "--n-sinks", "1", "--window", "63"]
    subprocess.run([*ppl, "--csv", "one.csv"], cwd=tmp_path, check=True)
    subprocess.run([*ppl, "--csv", "two.csv", "--jobs", "2"], cwd=tmp_path, check=True)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    argv = [*ppl, "--csv", "run.csv", "--jobs", "2", "--resume", "state"]
    run = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "state").exists() and run.poll() is None:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    assert "; the same command continues from token " in run.communicate()[1] and run.returncode == 130
    subprocess.run(argv, cwd=tmp_path, check=True)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "run.csv").read_bytes()
