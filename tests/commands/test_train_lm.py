"""``minisink train lm``: from text files to a folder that loads."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisink import load
from minisink.commands import train_lm as lm_command
from minisink.commands.parser import make_parser
from minisink.loss import nll_of
from minisink.training import data, state, tokens

TEXT = "It was a dark night, and the wind blew hard over the old grey town. " * 60
SMALL = ("--vocab-size", "280", "--width", "8", "--layers", "1", "--heads", "2", "--batch", "2", "--context", "12")
SMALL += ("--steps", "4", "--eval-every", "2", "--workers", "1")


def command(*options):
    args = make_parser().parse_args(["train", "lm", *map(str, options)])
    return args.run(args)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--sample-start", "none", "--softmax", "softmax1"),
        ("--architecture", "gpt2", "--sink-logit"),
        ("--embedding", "untied", "--dtype", "float16"),
    ],
)
def test_trains_and_loads(text, tmp_path, options, capsys):
    assert command("--text", text, "--out", tmp_path / "out", *SMALL, *options) == 0
    assert "saved" in capsys.readouterr().out
    model = load(tmp_path / "out")
    ids = model.encode("the wind")
    assert (ids[0] == 0) == ("none" not in options)
    assert model.decode(ids) == "the wind"
    assert np.isfinite(model.forward(ids)).all()
    assert model.config.max_positions == 12


def test_config_file_and_tokenizer_of_another_training(text, tmp_path):
    command("--text", text, "--out", tmp_path / "one", *SMALL, "--softmax", "softmax1")
    rest = ("--batch", 2, "--context", 9, "--steps", 1, "--tokenizer", tmp_path / "one/tokenizer.json")
    command("--text", text, "--out", tmp_path / "two", "--config", tmp_path / "one/config.json", *rest)
    one, two = load(tmp_path / "one").config, load(tmp_path / "two").config
    assert (two.d_ff, two.softmax, two.max_positions, one.max_positions) == (one.d_ff, "softmax1", 9, 12)


def test_a_finished_training_is_left_as_it_is(text, tmp_path):
    command("--text", text, "--out", tmp_path / "out", *SMALL)
    before = (tmp_path / "out/model.safetensors").read_bytes()
    command("--text", text, "--out", tmp_path / "out", *SMALL, "--resume")
    assert (tmp_path / "out/model.safetensors").read_bytes() == before


def test_tokens_are_kept_and_read_again(text, tmp_path, capsys):
    kept = tmp_path / "tokens.npy"
    command("--text", text, "--out", tmp_path / "one", *SMALL, "--tokens", kept)
    ids = np.load(kept)
    assert ids.dtype == np.uint16
    assert tokens.read_tokenizer(tmp_path / "one/tokenizer.json").decode(ids.tolist()) == TEXT
    capsys.readouterr()
    text.write_text("")  # only the tokenizer is taken from the text now
    command("--text", text, "--out", tmp_path / "two", *SMALL, "--tokens", kept, "--tokenizer",
            tmp_path / "one/tokenizer.json")  # fmt: skip
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    assert f"using the encoded text in {kept} instead of --text" in capsys.readouterr().out


@pytest.mark.parametrize("what", [b"not numpy", b"", "floats", "a list of lists"])
def test_kept_tokens_that_are_none(text, tmp_path, what):
    kept = tmp_path / "tokens.npy"
    if isinstance(what, bytes):
        kept.write_bytes(what)
    else:
        np.save(kept, np.zeros(3) if what == "floats" else np.zeros((2, 3), np.uint16))
    before = kept.read_bytes()
    with pytest.raises(ValueError, match=r"tokens.npy: (not a .npy file of|holds .* not a row of) token ids"):
        command("--text", text, "--out", tmp_path / "out", *SMALL, "--tokens", kept)
    assert kept.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_file_for_tokens_that_cannot_be_kept(text, tmp_path, monkeypatch):
    """Known before the text is encoded."""
    monkeypatch.setattr(tokens, "train_tokenizer", lambda *_: pytest.fail("the work began"))
    os.mkfifo(tmp_path / "pipe")
    for path, why in ((tmp_path / "none/tokens.npy", "cannot be written"), (tmp_path / "pipe", "not a plain file")):
        with pytest.raises(ValueError, match=f"{path}: {why}"):
            command("--text", text, "--out", tmp_path / "out", *SMALL, "--tokens", path)


def test_the_folders_above_are_made_too(text, tmp_path):
    command("--text", text, "--out", tmp_path / "a/b/c", *SMALL)
    assert load(tmp_path / "a/b/c").config.n_layers == 1


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_two_trainings_do_not_write_into_one_folder(text, tmp_path, monkeypatch):
    """The second is refused before its work begins, to begin with and to go on, and the first ends as it would."""
    train, said = lm_command.train, []

    def meanwhile(training, **options):
        for more in ((), ("--resume",)):
            with pytest.raises(ValueError, match=r"out/log.csv: another run is writing it") as refused:
                command("--text", text, "--out", tmp_path / "out", *SMALL, *more)
            said.append(str(refused.value))
        train(training, **options)

    monkeypatch.setattr(lm_command, "train", meanwhile)
    assert command("--text", text, "--out", tmp_path / "out", *SMALL) == 0 and len(said) == 2
    with open(tmp_path / "out/log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("config.json", "log.csv", "model.safetensors", "state.safetensors", "tokenizer.json"),
    ]


@pytest.mark.parametrize("left", [b"\r\n", b"6,6", b""])
def test_a_training_goes_on_after_an_editor_or_a_power_failure(text, tmp_path, left):
    """A blank line, half a row; and a log that was lost gets its header again."""
    command("--text", text, "--out", tmp_path / "whole", *SMALL)
    rows = (tmp_path / "whole/log.csv").read_bytes()
    (tmp_path / "whole/log.csv").write_bytes(rows + left if left else b"")
    assert command("--text", text, "--out", tmp_path / "whole", *SMALL, "--resume") == 0
    assert (tmp_path / "whole/log.csv").read_bytes() == (rows if left else b"")
    (tmp_path / "whole/log.csv").write_bytes(rows + b"x,y\r\n")
    with pytest.raises(ValueError, match=r"whole/log.csv: not the log of a"):
        command("--text", text, "--out", tmp_path / "whole", *SMALL, "--resume")


def test_special_tokens_in_a_text_stay_text(text, tmp_path):
    text.write_text(TEXT + "<s>")
    tokenizer = tokens.train_tokenizer([text], 280)
    assert 0 not in tokens.encode_files(tokenizer, [text])


@pytest.mark.parametrize(
    "options, message",
    [
        (("--vocab-size", 5000), "larger than the text supports"),
        (("--vocab-size", 100), "too small"),
        (("--context", 5000), "shorter than one sample"),
        (("--width", 9), "multiple of --heads"),
        (("--width", 6), "multiple of 2 x 2 heads.*rotated in pairs"),
        (("--d-ff", 0), "--d-ff is 0"),
        (("--context", 3), "context is 3; it must be 4 or more"),
        (("--steps", 0), "n_steps is 0"),
        (("--eval-every", 0), "--eval-every is 0"),
        (("--tokenizer", "nowhere.json"), "nowhere.json: not a tokenizer"),
        (("--device", "tpu"), "tpu"),
    ],
)
def test_bad_input(text, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        command("--text", text, "--out", tmp_path / "out", *SMALL, *options)


def test_a_config_that_is_none(text, tmp_path):
    with pytest.raises(ValueError, match="nowhere.json"):
        command("--text", text, "--out", tmp_path / "out", "--vocab-size", 280, "--config", "nowhere.json")


def test_text_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    for name in ("bad.txt", "missing.txt"):
        with pytest.raises(ValueError, match=name):
            command("--text", tmp_path / name, "--out", tmp_path / "out", *SMALL)


def test_ctrl_c_saves(text, tmp_path, interrupts_arrive):
    """The first Ctrl-C lets the step end, saves, and exits with 130."""
    options = [*SMALL[:-6], "--steps", "1000000", "--eval-every", "1", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "minisink", "train", "lm", "--text", text, "--out", tmp_path / "out", *options],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    for line in process.stdout:
        if line.split()[:1] == ["1"]:  # the first row of the log: it is training
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume continues" in out
    assert load(tmp_path / "out").config.n_layers == 1


def other(tmp_path, text, *options):
    """A small model to begin from, in a folder."""
    command("--text", text, "--out", tmp_path / "first", *SMALL, *options)
    return load(tmp_path / "first")


@pytest.mark.parametrize(
    "options",
    [(), ("--sample-start", "none"), ("--embedding", "untied"), ("--architecture", "gpt2"), ("--softmax", "softmax1")],
)
def test_training_begins_from_a_model(text, tmp_path, options):
    """The first loss is that of the model it begins from; tokenizer and sizes are its own."""
    first = other(tmp_path, text, *options)
    how = ("--init", tmp_path / "first", "--context", 12, "--batch", 2, "--steps", 1, "--seed", 3, "--workers", 1)
    command("--text", text, "--out", tmp_path / "second", *how, *(() if "gpt2" in options else options))
    second = load(tmp_path / "second")
    assert second.config == first.config
    assert second.tokenizer.to_str() == first.tokenizer.to_str()
    bos = first.config.bos
    inputs, targets = data.draw(np.random.default_rng([3, 1]), _ids(first, text), 2, 12, bos)
    expected = np.mean([nll_of(first.forward(x), y).mean() for x, y in zip(inputs, targets, strict=True)])
    with open(tmp_path / "second/log.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["loss"]) == pytest.approx(expected, abs=1e-5)


def _ids(model, text):
    return data.split(model.encode(text.read_text(), bos=False).astype(np.uint16), 12)[0]


def test_softmax_is_the_models_own_unless_given(text, tmp_path):
    other(tmp_path, text, "--softmax", "softmax1", "--sink-logit")
    how = ("--text", text, "--init", tmp_path / "first", "--context", 9, "--batch", 2, "--steps", 1, "--workers", 1)
    command(*how, "--out", tmp_path / "same")
    command(*how, "--out", tmp_path / "changed", "--softmax", "softmax")
    same, changed = load(tmp_path / "same").config, load(tmp_path / "changed").config
    assert (same.softmax, same.sink_logit, same.max_positions) == ("softmax1", True, 12)  # a shorter context is within
    assert (changed.softmax, changed.sink_logit) == ("softmax", True)


def test_a_longer_context_needs_more_positions(text, tmp_path):
    """Rotary ones come for nothing; learned ones beyond the model's begin random and are learned."""
    for name, options in (("llama", ()), ("gpt2", ("--architecture", "gpt2"))):
        (tmp_path / name).mkdir()
        first = other(tmp_path / name, text, *options)
        more = ("--init", tmp_path / name / "first", "--context", 17, "--batch", 2, "--steps", 1, "--rate", "1e-9")
        command("--text", text, "--out", tmp_path / name / "second", *more)
        second = load(tmp_path / name / "second")
        assert second.config.max_positions == 17
        ids = first.encode("the wind")
        np.testing.assert_allclose(second.forward(ids), first.forward(ids), atol=1e-5)
    assert second.weights.position.shape == (17, 8)
    assert 0.02 < second.weights.position[12:].std() < 0.06


class After:
    """False as often as is said, then true."""

    def __init__(self, n):
        self.n = n

    def __bool__(self):
        self.n -= 1
        return self.n < 0


def test_begun_from_a_model_and_resumed(text, tmp_path, monkeypatch, capsys):
    """A pause changes nothing, also when the training began from a model."""
    other(tmp_path, text)
    how = ("--text", text, "--init", tmp_path / "first", "--context", 12, "--batch", 2, "--workers", 1)
    command(*how, "--steps", 3, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:  # Ctrl-C after a step, twice
        patch.setattr(lm_command, "defer_interrupts", lambda: contextlib.nullcontext(After(1)))
        assert command(*how, "--steps", 3, "--out", tmp_path / "parts") == 130
        assert "stopped at step 1; the same command with --resume continues" in capsys.readouterr().out
        assert command(*how, "--steps", 3, "--out", tmp_path / "parts", "--resume") == 130
        assert "stopped at step 2; the same command continues" in capsys.readouterr().out
    command(*how, "--steps", 3, "--out", tmp_path / "parts", "--resume")
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "parts/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "options, message",
    [
        (("--init", "first", "--config", "first/config.json"), "--config cannot be given with --init"),
        (("--init", "first", "--tokenizer", "first/tokenizer.json"), "--tokenizer cannot be given with --init"),
        (("--init", "first", "--width", "32"), "--width cannot be given with --init"),
        (("--config", "first/config.json", "--d-ff", "32"), "--d-ff cannot be given with --config"),
        (("--init", "first"), "input and output matrices differ; use --embedding untied"),
        (("--init", "nowhere"), "nowhere"),
        (("--init", "first", "--embedding", "untied", "--out", "first"), "first: holds a training already"),
    ],
)
def test_what_cannot_be_begun_from(text, tmp_path, monkeypatch, options, message):
    other(tmp_path, text, "--embedding", "untied", "--rate", "0.01")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        command("--text", text, "--out", "second", "--context", 12, "--batch", 2, "--steps", 1, *options)


def test_a_model_is_not_written_over(text, tmp_path):
    other(tmp_path, text)
    (tmp_path / "first" / state.FILE).unlink()
    before = (tmp_path / "first/model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="first: holds a model already"):
        command("--text", text, "--out", tmp_path / "first", *SMALL, "--seed", 1)
    log = (tmp_path / "first/log.csv").read_bytes()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "first" / name).unlink()
    with pytest.raises(ValueError, match="first: holds the log of a training already"):
        command("--text", text, "--out", tmp_path / "first", *SMALL, "--seed", 1)
    assert (tmp_path / "first/log.csv").read_bytes() == log
    assert (tmp_path / "first/model.safetensors").read_bytes() == before


def test_a_tokenizer_with_another_first_token(text, tmp_path):
    """Where `<s>` is not id 0, one embedding cannot be shared but for it."""
    tokenizer = tokens.train_tokenizer([text], 280)
    raw = json.loads(tokenizer.to_str())
    vocab = raw["model"]["vocab"]
    one = next(token for token, i in vocab.items() if i == 1)
    vocab[tokens.BOS], vocab[one] = 1, 0
    raw["added_tokens"][0]["id"] = 1
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    how = ("--text", text, "--out", tmp_path / "out", *SMALL, "--tokenizer", tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="<s> has id 1 in the tokenizer.*--embedding untied"):
        command(*how)
    command(*how, "--embedding", "untied")
    assert load(tmp_path / "out").config.bos == 1
