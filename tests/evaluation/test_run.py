"""Evaluating a text of any size: in pieces, stopped anywhere and gone on with, the same numbers as at once."""

import csv
import io
import json
import math
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny
from folders import words, write
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples
from safetensors.numpy import save_file

import minisink
from minisink import gpt2, llama
from minisink.evaluation import run as evaluation
from minisink.evaluation import tally
from minisink.evaluation.run import Evaluation
from minisink.evaluation.tally import Tally
from minisink.fast.blocks import Banded
from minisink.loss import CHUNK
from minisink.methods import ByLayer, Dense, Recompute, Streaming, Window
from minisink.system.interrupts import defer_interrupts

pytestmark = pytest.mark.usefixtures("interrupts_arrive")
some = examples(25)
METHOD = Streaming(2, 5)
TEXT = " ".join(f"w{i}" for i in np.random.default_rng(0).integers(0, 17, 5 * CHUNK + 40))


class Killed(BaseException):
    """What no program can catch."""


def public(arch=llama, **changes):
    """A tiny model whose words are w0 to w16."""
    model = tiny.make(arch, dtype=np.float32, **changes)
    return minisink.Model(model.config, model.weights, words(17), name="tiny")


MODEL = public()


def losses(model, text, method=METHOD):
    return minisink.token_nll(model, model.encode(text), method)


def stopper(blocks, how):
    """An on_progress that stops a run after so many blocks."""
    left = [blocks]

    def on_progress(_):
        left[0] -= 1
        if left[0] == 0:
            how()

    return on_progress


def interrupt():
    signal.raise_signal(signal.SIGINT)


def kill():
    raise Killed


def measured(folder, model=MODEL, method=METHOD, stop=None, every=None, name="run"):
    """Run until the end or until stopped; returns the evaluation."""
    csv_path, state = folder / f"{name}.csv", folder / f"{name}.safetensors"
    run = Evaluation(model, folder / "text.txt", method, csv=csv_path, every=every, state=state)
    if stop is None:
        run.run()
    else:
        with pytest.raises((KeyboardInterrupt, Killed)):
            run.run(stopper(*stop))
    return run


# Stopping and going on ----------------------------------------------------------------------------


@some
@given(
    st.sampled_from([llama, gpt2]),
    st.sampled_from(["window", "streaming", "retrieval"]),
    st.integers(0, 3),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 2), st.sampled_from([interrupt, kill])), min_size=1, max_size=2),
    st.sampled_from([None, 1, 7, 100, CHUNK, 1000]),
    st.integers(30, 3000),
    st.sampled_from([0, 3600]),
)
@example(gpt2, "streaming", 3, 1, [(1, interrupt), (1, kill), (1, interrupt)], 100, 64, 0)
@example(llama, "recompute", 0, 5, [(2, kill), (1, interrupt)], 7, 64, 0)
def test_a_run_in_parts_is_the_run(tmp_path_factory, arch, method, n_sinks, window, stops, every, chunk, seconds):
    """Wherever it is interrupted or killed, however often: the same perplexity and the same CSV file, to the bit."""
    folder, model = tmp_path_factory.mktemp("ppl"), public(arch)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    method = tiny.method(method, n_sinks, window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "CHUNK", chunk)
        patch.setattr(evaluation, "SAVE_SECONDS", seconds)
        patch.setattr(tally, "POINTS", 256)  # so that the curve does not fill every state with zeros
        whole = measured(folder, model, method, every=every, name="whole")
        for stop in stops:
            run = measured(folder, model, method, stop, every=every)
            assert not run.done and run.n_saved > 0
        run = measured(folder, model, method, every=every)
    nll = losses(model, TEXT, method)
    assert run.done and run.tally.n_tokens == len(nll)
    assert run.tally.nll == whole.tally.nll == pytest.approx(nll.mean(dtype=np.float64), rel=1e-5)
    np.testing.assert_array_equal(run.tally.curve(), whole.tally.curve())
    assert (folder / "run.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv"] * 2 + [".safetensors"] * 2 + [".txt"]


def test_a_stream_goes_on_with_a_cache():
    """The same blocks as without a stop, also where the learned positions of a GPT-2 end."""
    model, ids = public(gpt2), tiny.ids(200)
    whole = list(minisink.nll_stream(model, [ids], METHOD, chunk=50))
    cache = Banded(model.config.n_layers, METHOD)
    first = next(minisink.nll_stream(model, [ids], chunk=50, cache=cache))
    parts = [first, *minisink.nll_stream(model, [ids[50:]], chunk=50, cache=cache)]
    assert [len(part) for part in parts] == [len(block) for block in whole] == [50, 14, 36, 50, 49]
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(whole))


def test_positions_of_the_text_go_on(tmp_path):
    """The ablation numbers tokens by the text, also after a stop."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    method = Streaming(2, 5, "original")
    measured(tmp_path, method=method, stop=(2, interrupt))
    run = measured(tmp_path, method=method)
    assert run.tally.nll == pytest.approx(losses(MODEL, TEXT, method).mean(dtype=np.float64), rel=1e-5)


def test_a_byte_order_mark_is_not_measured(tmp_path, monkeypatch):
    """The rows are those of the text without it, also of a run in parts."""
    monkeypatch.setattr(evaluation, "CHUNK", 1000)
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    measured(tmp_path, name="plain")
    text.write_text(TEXT, encoding="utf-8-sig")
    measured(tmp_path, name="whole")
    for stop in ((1, interrupt), (2, kill), None):
        measured(tmp_path, stop=stop)
    rows = [(tmp_path / f"{name}.csv").read_bytes() for name in ("plain", "whole", "run")]
    assert rows[0] == rows[1] == rows[2]


class Failing(io.BytesIO):
    """A file on a disk that breaks."""

    def __init__(self, raw, at):
        super().__init__(raw)
        self.at = at

    def read(self, size=-1):
        if self.tell() + size > self.at:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("every", [None, 100])
def test_a_text_that_breaks_keeps_what_came_before(tmp_path, monkeypatch, every):
    """Every token before it is in the CSV file; when the disk is well again the run is as if nothing had happened."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    whole = measured(tmp_path, every=every, name="whole")
    monkeypatch.setattr(evaluation, "CHUNK", 100)
    with monkeypatch.context() as broken:
        broken.setattr(evaluation, "_open", lambda path: Failing(path.read_bytes(), 2500))
        with pytest.raises(ValueError, match="cannot be read at byte 2500 .Input/output error.; stopped after") as stop:
            measured(tmp_path, every=every)
    rows = (tmp_path / "run.csv").read_text("utf-8").splitlines()
    n_before = len(MODEL.encode(TEXT[:2490])) - 1
    assert str(stop.value).endswith(f"; the same command continues from token {n_before // CHUNK * CHUNK}")
    assert abs(len(rows) - 1 - (n_before if every is None else n_before // every)) < 20
    assert measured(tmp_path, every=every).tally.nll == whole.tally.nll
    assert (tmp_path / "run.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_second_interrupt_does_not_wait(tmp_path):
    """The first is noted until the end of a block; the second acts at once, and what was saved stays."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    with defer_interrupts() as noted:
        interrupt()
        assert len(noted) == 1
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    run = measured(tmp_path, stop=(2, lambda: [interrupt(), interrupt()]))
    assert run.n_saved == CHUNK  # the state of the first block alone


def test_elsewhere_interrupts_are_left_alone():
    """In another thread, or where somebody else listens."""
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    with defer_interrupts() as noted:
        interrupt()
    assert (seen, noted) == ([1], [])
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def elsewhere():
        with defer_interrupts():
            seen.append(2)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [1, 2]


# Another run --------------------------------------------------------------------------------------


def other_weight():
    model = public()
    model.weights.layers[1].wo[0, 0] += 1e-3
    return model


OTHERS = {
    "model": ({"model": other_weight()}, "model was"),
    "config": ({"model": public(rope_theta=50.0)}, "model was"),
    "method": ({"method": Window(5)}, "method was streaming and is window"),
    "n_sinks": ({"method": Streaming(3, 5)}, "n_sinks was 2 and is 3"),
    "window": ({"method": Streaming(2, 6)}, "window was 5 and is 6"),
    "positions": ({"method": Streaming(2, 5, "original")}, "positions was slot and is original"),
    "rows": ({"every": 10}, "every was None and is 10"),
    "longer": ({"text": TEXT + " w1"}, f"bytes of text was {len(TEXT)} and is {len(TEXT) + 3}"),
    "text": ({"text": TEXT.replace("w2", "w3", 1)}, "begins with another text"),
    "csv": ({"rows": "token_index,id,nll\r\n" + "1,2,3.0\r\n" * 2000}, "not the CSV file"),
    "short csv": ({"rows": "token_index,id,nll\r\n"}, "not the CSV file"),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_the_state_of_another_run_is_refused(tmp_path, monkeypatch, change, message):
    """By what differs, and nothing is written."""
    monkeypatch.setattr(evaluation, "CHUNK", 1000)  # so that the state lies some pieces into the text
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    measured(tmp_path, stop=(3, interrupt))
    change = dict(change)
    text.write_text(change.pop("text", TEXT), encoding="utf-8")
    if "rows" in change:
        (tmp_path / "run.csv").write_text(change.pop("rows"), encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        measured(tmp_path, **change)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("n_blocks", [1, None])
def test_a_text_that_changed_where_it_was_read_is_refused(tmp_path, n_blocks):
    """In the piece that the run stopped in, and at the end of one that is over."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    measured(tmp_path, stop=n_blocks and (n_blocks, interrupt))
    text.write_text("w9" + TEXT[2:] if n_blocks else TEXT[:-1] + "9", encoding="utf-8")
    with pytest.raises(ValueError, match="the state of another run: .*text.txt begins with another text"):
        measured(tmp_path)


def test_rows_that_would_be_missing_are_refused(tmp_path):
    """A CSV file from the middle on; and a state that was forgotten beside one that is there."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    state, rows = tmp_path / "run.safetensors", tmp_path / "run.csv"
    measured(tmp_path, stop=(2, interrupt))
    with pytest.raises(ValueError, match="csv was True and is False"):
        Evaluation(MODEL, tmp_path / "text.txt", METHOD, state=state)
    kept = rows.read_bytes()
    state.unlink()
    with pytest.raises(ValueError, match=r"run.csv exists, but .*run.safetensors.* does not"):
        measured(tmp_path)
    assert rows.read_bytes() == kept


@pytest.mark.parametrize("content", ["text", "cut", "arrays", "old"])
def test_what_is_no_state_is_refused(tmp_path, content):
    """A text, a state cut short, another safetensors file, a state without all its parts."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    state = tmp_path / "run.safetensors"
    measured(tmp_path, stop=(1, interrupt))
    arrays, about = {"curve": np.zeros(2)}, {"minisink_evaluation": json.dumps({"run": {}})}
    if content in ("text", "cut"):
        state.write_bytes(b"It was a dark night." if content == "text" else state.read_bytes()[:-9])
    else:
        save_file(arrays, state, metadata=about if content == "old" else None)
    before = state.read_bytes()
    with pytest.raises(ValueError, match=r"run.safetensors: not the state of a `minisink ppl` run"):
        measured(tmp_path)
    assert state.read_bytes() == before


def test_a_method_that_cannot_stop(tmp_path):
    """Its state would grow with the text."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match="--resume goes with the methods window, recompute, .*: dense keeps every"):
        measured(tmp_path, method=Dense())
    assert os.listdir(tmp_path) == ["text.txt"]


def test_layers_of_their_own_policies_go_on(tmp_path):
    """`ByLayer` can stop where every layer has a limit, and only there."""
    (tmp_path / "text.txt").write_text(TEXT[:2000], encoding="utf-8")
    method = ByLayer([Streaming(2, 5), Window(7), Streaming(1, 3)])
    measured(tmp_path, method=method, stop=(1, interrupt))
    run = measured(tmp_path, method=method)
    assert run.tally.nll == pytest.approx(losses(MODEL, TEXT[:2000], method).mean(dtype=np.float64), rel=1e-5)
    with pytest.raises(ValueError, match="by layer keeps every key"):
        measured(tmp_path, method=ByLayer([Dense(), Window(7), Window(7)]), name="other")
    with pytest.raises(ValueError, match=r"method is 'window'; pass a value, such as minisink.Streaming"):
        measured(tmp_path, method="window", name="other")


# Constant memory ----------------------------------------------------------------------------------


def test_no_more_than_a_chunk_and_a_block_is_held(tmp_path, monkeypatch):
    """Of a text without end, as much is read as the blocks need, and what the model has taken in is let go."""

    class Endless(io.BytesIO):
        n = 0

        def read(self, size=-1):
            self.n += 1
            return b"w1 w2 w3 w4 " * 25 + b"w5 "  # 101 tokens

    (tmp_path / "text.txt").write_text("w1 w2", encoding="utf-8")
    monkeypatch.setattr(evaluation, "_open", lambda path: file)
    file, run = Endless(), Evaluation(MODEL, tmp_path / "text.txt", METHOD)

    def look(_):
        n = run.tally.n_tokens
        assert n + 1 <= 101 * file.n <= n + 1 + 2 * 101
        assert len(run.reader._pending) <= 2
        assert sum(len(x) for layer in run.cache.layers for x in layer[::2]) <= 3 * (2 + CHUNK + 5)
        if n > 20 * CHUNK:
            raise Killed

    with pytest.raises(Killed):
        run.run(look)


@given(st.lists(st.integers(0, 40), max_size=20), st.sampled_from([None, 1, 7, 64]), st.sampled_from([2, 8, 64]))
def test_a_tally_counts(lengths, every, points):
    """Whatever the blocks: the mean, a row for every so many tokens, and a curve of bounded length."""
    nll = np.random.default_rng(0).normal(3, 1, sum(lengths)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "POINTS", points)
        count = Tally(every)
    rows = [row for block in np.split(nll, np.cumsum(lengths)) for row in count.add(block)] + count.last_row()
    assert count.n_tokens == len(nll)
    exact = nll.astype(np.float64)
    stops = [*range(every, len(nll), every), len(nll)] if every and len(nll) else []
    assert [row[0] for row in rows] == stops
    for stop, mean, perplexity in rows:
        start = (stop - 1) // every * every
        assert mean == pytest.approx(exact[start:stop].mean())
        assert perplexity == pytest.approx(np.exp(exact[:stop].mean()))
    curve, group = count.curve(), count.group
    assert len(curve) <= points and (group == 1 or len(curve) > points / 2)
    expected = [exact[i : i + group].mean() for i in range(0, len(nll), group)]
    np.testing.assert_allclose(curve, expected, rtol=1e-9)
    assert (
        (math.isnan(count.nll) and math.isnan(count.perplexity))
        if not len(nll)
        else count.nll == pytest.approx(exact.mean())
    )


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, run):
    """`minisink ppl text.txt` with a tiny model, in its own folder; returns (status, stdout, stderr)."""
    write(tmp_path / "model", tiny.make(dtype=np.float32, max_positions=128), tokenizer=words(17))
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return lambda *argv: run("ppl", "text.txt", "--model", "model", "--window", "5", "--n-sinks", "2", *argv)


def test_ctrl_c_and_the_same_command_again(command, monkeypatch):
    """Stopped in one line that says where; gone on with; finished; and nothing left to do."""
    argv = ["--csv", "run.csv", "--every", 100, "--resume", "state.safetensors", "--json", "--plot", "loss.png"]
    count, calls = Evaluation._count, []

    def stopping(self, *block):
        count(self, *block)
        calls.append(1)
        if len(calls) == 3:
            interrupt()

    monkeypatch.setattr(Evaluation, "_count", stopping)
    status, out, err = command(*argv)
    assert (status, out, len(calls)) == (130, "", 3) and len(err.splitlines()) == 1
    n = int(err.split("interrupted after ")[1].split(" ")[0].replace(",", ""))
    assert err.endswith(f"; the same command continues from token {n:,}\n") and "perplexity" in err
    assert not Path("loss.png").exists()

    status, out, err = command(*argv)
    nll = losses(minisink.load("model"), TEXT)
    about = json.loads(out)
    assert (status, about["tokens"], about["resumed_after"]) == (0, len(nll), n)
    assert about["nll"] == pytest.approx(nll.mean(dtype=np.float64), rel=1e-5)
    assert err == f"minisink: state.safetensors continues after {n:,} tokens\n"
    assert Path("loss.png").stat().st_size > 1000
    with open("run.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["tokens"]) for row in rows] == [*range(100, len(nll), 100), len(nll)]
    for i, row in enumerate(rows):
        assert float(row["mean_nll"]) == pytest.approx(nll[100 * i : 100 * i + 100].mean(dtype=np.float64), rel=1e-4)
        so_far = nll[: 100 * i + 100].mean(dtype=np.float64)
        assert float(row["perplexity"]) == pytest.approx(math.exp(so_far), rel=1e-4)

    before = {path: path.read_bytes() for path in Path().iterdir() if path.suffix in (".csv", ".safetensors")}
    status, out, err = command(*argv)
    assert status == 0 and err == "minisink: state.safetensors is from a finished run; nothing is left to do\n"
    assert json.loads(out)["perplexity"] == about["perplexity"]
    assert {path: path.read_bytes() for path in before} == before


def test_an_interrupted_run_without_a_state_says_what_there_is(command, monkeypatch):
    """The CSV file is kept, and the line names the option."""
    count = Evaluation._count
    monkeypatch.setattr(Evaluation, "_count", lambda *a: [count(*a), interrupt()])
    status, _, err = command("--csv", "run.csv")
    assert status == 130 and err.endswith("; with --resume FILE a run can continue\n")
    n = int(err.split("after ")[1].split()[0])
    assert len(Path("run.csv").read_text("utf-8").splitlines()) == 1 + n
    assert command("--csv", "run.csv", "--method", "dense")[2].count("--resume") == 0


def test_a_full_disk_is_one_line(command, monkeypatch):
    """The file by name, and how far the run came."""
    writer, calls = csv.writer, []

    def filling(file):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        return writer(file)

    monkeypatch.setattr("csv.writer", filling)
    status, out, err = command("--csv", "run.csv")
    assert (status, out) == (2, "")
    assert err.startswith("minisink: error: run.csv: cannot be written (No space left on device); stopped after ")
    assert len(err.splitlines()) == 1 and Path("run.csv").stat().st_size > 1000


def test_a_state_that_cannot_be_written_is_one_line(command, monkeypatch):
    """It does not advise --resume, which was given."""

    def full(path, *_):
        raise ValueError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("minisink.evaluation.run.save_state", full)
    status, _, err = command("--resume", "state.safetensors")
    assert status == 2 and err.startswith("minisink: error: state.safetensors: cannot be written (No space")
    assert "; stopped after " in err and "--resume" not in err


BAD = {
    "every without csv": (["--every", 5], "--csv"),
    "every 0": (["--every", 0, "--csv", "run.csv"], "every is 0"),
    "csv over the text": (["--csv", "text.txt"], "text.txt: named twice"),
    "one file for two": (["--csv", "run.csv", "--resume", "./run.csv"], "run.csv: named twice"),
    "no folder": (["--resume", "none/state"], "none/state: cannot be written"),
    "a folder": (["--resume", "model"], "model: a folder; a file is needed"),
    "the text": (["--resume", "other.txt"], "other.txt: not the state of a `minisink ppl` run"),
}


@pytest.mark.parametrize(("argv", "message"), BAD.values(), ids=BAD)
def test_anything_wrong_is_one_line(command, argv, message):
    """Status 2, and every file as it was."""
    Path("other.txt").write_text("another text", encoding="utf-8")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    status, out, err = command(*argv)
    assert (status, out) == (2, "") and len(err.splitlines()) == 1 and message in err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("option", ["--csv", "--resume"])
def test_a_pipe_is_no_file_to_write_to(command, option):
    """It would wait for a reader; refused by name, before the work."""
    os.mkfifo("pipe")
    wrong = "minisink: error: pipe: not a plain file; a file is needed here\n"
    assert command(option, "pipe") == (2, "", wrong)


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
@pytest.mark.parametrize("shared", ["--csv", "--resume"])
def test_two_runs_do_not_write_one_file(command, monkeypatch, shared):
    """The second is refused in one line, and the first goes on as if nothing had been."""
    measure, said = Evaluation.run, []

    def meanwhile(self, on_progress):
        said.append(command(shared, "one"))
        measure(self, on_progress)

    monkeypatch.setattr(Evaluation, "run", meanwhile)
    assert command(shared, "one")[0] == 0
    wrong = "minisink: error: one: another run is writing it; wait until it ends, or give another name\n"
    assert said == [(2, "", wrong)]
    assert sorted(path.name for path in Path().iterdir()) == ["model", "one", "text.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_a_text(command):
    """`minisink ppl <(zcat book.gz)`: read as it comes, but not gone on with."""
    status, plain, _ = command("--json")
    Path("text.txt").unlink()
    os.mkfifo("text.txt")
    assert "read again from the middle" in command("--resume", "state")[2]
    writer = threading.Thread(target=lambda: Path("text.txt").write_text(TEXT, encoding="utf-8"))
    writer.start()
    status, piped, err = command("--json")
    writer.join()
    assert (status, err) == (0, "")
    assert json.loads(piped)["nll"] == json.loads(plain)["nll"]
    assert command("--resume", "state")[0] == 2


def test_lines_end_as_python_reads_them(tmp_path, monkeypatch, novels_folder):
    """Carriage returns do not count, as in every other command; in small pieces as at once."""
    monkeypatch.setattr(evaluation, "CHUNK", 7)
    model, text = minisink.load(novels_folder), "It was a dark\r\nnight,\rand  the\n\nwind — “blew”.\r\n" * 4
    (tmp_path / "text.txt").write_bytes(text.encode("utf-8"))
    for method in (Dense(), Recompute(60), Recompute(60, lead=(0,)), Streaming(2, 60)):
        run = Evaluation(model, tmp_path / "text.txt", method)
        run.run()
        nll = losses(model, text.replace("\r\n", "\n").replace("\r", "\n"), method)
        assert run.tally.n_tokens == len(nll)
        assert run.tally.nll == pytest.approx(nll.mean(dtype=np.float64), rel=1e-5)


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_disk_that_is_full_at_the_end_too_is_named(command):
    """What is left in the buffer cannot be written when the file is closed, and that hides no message."""
    resource = pytest.importorskip("resource")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        status, _, err = command("--csv", "run.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 2 and err.startswith(
        "minisink: error: run.csv: cannot be written (File too large); stopped after "
    )
