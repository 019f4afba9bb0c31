"""The commands: what they print, what they write, and one line with exit status 2 for anything wrong."""

import argparse
import csv
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import tiny
from folders import words, write

import minisink
from minisink import gpt2, llama
from minisink.__main__ import console
from minisink.cache import LayerCache
from minisink.commands import info
from minisink.commands.common import METHODS, method_of
from minisink.commands.parser import make_parser
from minisink.experiments import inside
from minisink.families import gpt_neox, mpt
from minisink.generation import Stream
from minisink.hf.tokenizer import text_stream
from minisink.methods import Dense, Recompute, Streaming, Window
from minisink.retrieval import Retrieval

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["demo", "generate", "ppl", "inspect", "info"]
PNG = b"\x89PNG\r\n\x1a\n"
TEXT = "It was a dark night, and the wind blew. " * 24


@pytest.fixture
def works(run):
    """Run a command that must work without a word on stderr; returns stdout."""

    def call(*argv):
        status, out, err = run(*argv)
        assert (status, err) == (0, "")
        return out

    return call


@pytest.fixture
def story(tmp_path):
    """A text of 338 tokens: longer than any cache here, and than the training."""
    path = tmp_path / "story.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders: a GPT-2 with 64 positions, a Llama without a tokenizer, one whose values are zero, one with a NaN."""
    root = tmp_path_factory.mktemp("models")
    write(root / "gpt2", tiny.make(gpt2, dtype=np.float32, bos=None), tokenizer=words(17))
    write(root / "mute", tiny.make(dtype=np.float32))
    nothing = tiny.make(dtype=np.float32)
    for layer in nothing.weights.layers:
        layer.wv[:] = 0.0
    write(root / "zeros", nothing, tokenizer=words(17))
    nan = tiny.make(dtype=np.float32)
    nan.weights.norm[0] = np.nan
    write(root / "nan", nan, tokenizer=words(17))
    return root


def begun(name, n_sinks, window):
    """The method of that name for a text that begins with <s>, as the commands make it."""
    return Recompute(window, lead=(0,)) if name == "recompute" else tiny.method(name, n_sinks, window)


def table_rows(out):
    """Rows of the first table as lists of cells."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        rows.append(re.split(r"\s{2,}", line.strip()))
    return rows


def strict_json(out):
    """JSON as others read it: no NaN, no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(out, parse_constant=refuse)


# Help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*COMMANDS, "bench", "train backcopy", "train induction", "train lm"])
def test_help_shows_an_example_that_parses(works, command):
    """Every command's --help ends in an example, which the parser takes."""
    out = works(*command.split(), "--help")
    example = out.split("example:\n")[1].strip()
    assert example.startswith(f"minisink {command}")
    make_parser().parse_args(shlex.split(example)[1:])
    assert command.startswith("train") or "--model MODEL" in out


def test_the_version_is_printed(works):
    assert works("--version").strip() == f"minisink {minisink.__version__}"


# demo ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--tokens", 600, "--write", 60], pytest.param([], marks=pytest.mark.slow)])
def test_the_demo_shows_window_attention_fail(works, argv):
    """Chart, table, texts, and a sentence whose numbers are those of the table; one screen says it."""
    out = works("demo", *argv)
    screen = out.splitlines()[-23:]  # and the prompt below it makes 24
    assert (
        screen[0].startswith(f"novels reads {600 if argv else 3000:,} tokens") and max(map(len, out.splitlines())) <= 80
    )
    rows = {row[0]: row for row in table_rows("\n".join(screen))}
    assert list(rows)[:4] == ["dense", "window", "recompute", "streaming"]
    before, after = ({name: float(rows[name][i]) for name in list(rows)[:4]} for i in (2, 3))
    assert len(set(before.values())) == 1, before  # nothing has been evicted
    assert after["window"] > 1.5 * after["streaming"]
    assert abs(after["streaming"] / after["recompute"] - 1) < 0.02
    assert [rows[name][1] for name in after] == [
        "all before",
        "last 16",
        "first 1 + last 15, read again",
        "first 1 + last 15",
    ]
    assert "^ first eviction" in out
    said = " ".join(screen[-4:])
    for name in ("window", "streaming", "recompute"):
        assert f"{after[name]:.2f}" in said
    assert re.search(r"give the first token 4\d% of their weight, and the window throws it away", said)


@pytest.mark.parametrize(
    "argv", [["--write", 120], *(pytest.param(["--seed", seed], marks=pytest.mark.slow) for seed in (0, 1, 2))]
)
def test_what_the_demo_writes_can_be_told_apart(works, argv):
    """Nonsense under a window, sense with the sink, sense from the control that has none to lose: to themselves."""
    about = strict_json(works("demo", "--tokens", 60, *argv, "--json"))
    assert [text["who"] for text in about["texts"]] == ["window", "1 sink + window", "novels-vanilla, window"]
    window, streaming, control = (text["own_perplexity"] for text in about["texts"])
    assert window > 4 * max(streaming, control)


def test_a_text_the_model_does_not_know_is_said_so(works, tmp_path):
    """German, to a model of English novels: no puzzle, but a sentence."""
    (tmp_path / "german.txt").write_text(
        "Zwölf Boxkämpfer jagten Viktor quer über den großen Sylter Deich. " * 6, "utf-8"
    )
    for command in (["demo", "--text", "german.txt", "--write", 0], ["ppl", "german.txt", "--window", 8]):
        assert "does not know texts of this kind" in " ".join(works(*command).split())


def test_the_demo_as_json_and_picture(works, tmp_path, story, novels):
    """The same numbers for a program: the documented keys, perplexities of `token_nll`, and a PNG."""
    out = works(
        "demo",
        "--text",
        story,
        "--tokens",
        120,
        "--cache",
        32,
        "--n-sinks",
        2,
        "--write",
        9,
        "--json",
        "--plot",
        "demo.png",
    )
    about = strict_json(out)
    assert set(about) >= {"model", "tokens", "cache", "n_sinks", "methods", "texts", "finding"}
    ids = novels.encode(TEXT)[:120]
    assert (about["model"], about["tokens"], about["cache"], about["n_sinks"]) == ("novels", len(ids), 32, 2)
    keys = {"method", "before", "after", "keys", "cache_bytes", "tokens_per_second", "note"}
    for row, window in zip(about["methods"], [32, 32, 32, 30], strict=True):
        assert set(row) >= keys
        nll = minisink.token_nll(novels, ids, begun(row["method"], 2, window))
        assert row["before"] == pytest.approx(math.exp(nll[:32].mean(dtype=np.float64)), rel=1e-4)
        assert row["after"] == pytest.approx(math.exp(nll[32:].mean(dtype=np.float64)), rel=1e-4)
    assert [row["keys"] for row in about["methods"]] == [len(ids) - 1, 32, 32, 32]
    assert [row["cache_bytes"] for row in about["methods"]] == [4096 * (len(ids) - 1), 4096 * 32, 0, 4096 * 32]
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.png", "story.txt"]


@pytest.mark.parametrize("text", ["a", "It was a dark night."])
def test_a_demo_without_an_eviction_says_so(works, tmp_path, text):
    """A text that does not fill the cache proves nothing, and the sentence says that."""
    (tmp_path / "short.txt").write_text(text, encoding="utf-8")
    out = works("demo", "--text", "short.txt", "--write", 0)
    assert "\n\nNothing was evicted" in out
    assert all(row[3] == "-" for row in table_rows(out))
    assert "^ first eviction" not in out
    about = strict_json(works("demo", "--text", "short.txt", "--write", 0, "--json", "--plot", "short.png"))
    assert [row["after"] for row in about["methods"]] == [None] * 4


def test_a_gpt2_demo_says_where_dense_attention_ends(works, tmp_path, models):
    """Learned positions run out: dense stops there and says so, and the others go on."""
    (tmp_path / "long.txt").write_text("w1 w2 w3 w4 w5 w6 w7 " * 30, encoding="utf-8")
    out = works("demo", "--model", models / "gpt2", "--text", "long.txt", "--cache", 16, "--write", 9)
    note = next(line for line in out.splitlines() if line.startswith("dense stopped"))
    assert note.startswith("dense stopped after 64 tokens:") and "64 learned positions" in out
    about = strict_json(
        works("demo", "--model", models / "gpt2", "--text", "long.txt", "--cache", 16, "--write", 0, "--json")
    )
    assert [bool(row["note"]) for row in about["methods"]] == [True, False, False, False]


def test_a_model_of_nan_is_reported_and_not_compared(run, tmp_path, models):
    """A warning, dashes, and JSON that others can read."""
    (tmp_path / "text.txt").write_text("w1 w2 w3 w4 w5 w6 w7 " * 9, encoding="utf-8")
    status, out, err = run("demo", "--model", models / "nan", "--text", "text.txt", "--cache", 16)
    assert status == 0 and "no gap" not in out
    assert len(err.splitlines()) == 1 and "norm.weight holds NaN" in err
    for argv in (["demo", "--text", "text.txt", "--cache", 16], ["inspect", "w1 w2 w3"], ["ppl", "text.txt"]):
        status, out, err = run(*argv, "--model", models / "nan", "--json")
        assert status == 0
        strict_json(out)


# generate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dense", "window", "recompute", "streaming"])
def test_generate_writes_what_the_library_does(works, novels, method):
    """Prompt and continuation are those of `generate` and `text_stream` with the same options."""
    prompt = "It was a dark night — “and"
    options = {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "seed": 3,
        "max_new_tokens": 30,
    }
    argv = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value)]
    out = works("generate", "--prompt", prompt, "--method", method, "--window", 24, "--n-sinks", 2, *argv)
    ids = novels.encode(prompt)
    tokens = minisink.generate(novels, ids, begun(method, 2, 24), **options)
    assert out == prompt + "".join(text_stream(novels.tokenizer, tokens, after=ids)) + "\n"
    argv += ["--state", "text.state"]
    assert works("generate", "--prompt", prompt, "--method", method, "--window", 24, "--n-sinks", 2, *argv) == out


def test_generate_goes_on_with_a_file(works, story, novels):
    """--prompt-file is --prompt; without either the text begins at the beginning."""
    argv = ["--max-new-tokens", 5]
    assert works("generate", "--prompt-file", story, *argv) == works("generate", "--prompt", TEXT, *argv)
    assert works("generate", *argv) == works("generate", "--prompt", "", *argv) != "\n"


def test_generate_keeps_the_space_before_a_word(works, stories_folder):
    """A tokenizer that strips the first space of a text does not strip that of a continuation."""
    argv = ["generate", "--model", stories_folder, "--max-new-tokens", 7, "--prompt"]
    assert works(*argv, "Once upon a").startswith("Once upon a time, there was a ")


def test_generate_stops_at_the_end_of_a_text(works, tmp_path, models, monkeypatch):
    """The model's end-of-text token ends it, unwritten, unless the stream is endless."""
    out = works("generate", "--model", models / "gpt2", "--prompt", "w1", "--max-new-tokens", 9, "--temperature", 3)
    written = out.split()
    end = next(i for i in range(2, 10) if written[i] not in written[:i])
    folder = shutil.copytree(models / "gpt2", tmp_path / "ends")
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | {"eos_token_id": int(written[end][1:])}), encoding="utf-8")
    argv = ["generate", "--model", folder, "--prompt", "w1", "--temperature", 3, "--max-new-tokens"]
    assert works(*argv, 9).split() == written[:end]
    asked, write = [], Stream.write

    def nine(self, logits, *how):
        asked.append(how)
        return write(self, logits, 9)

    monkeypatch.setattr(Stream, "write", nine)
    assert works(*argv, 0) == out and asked == [(None, ())]


@pytest.mark.sampled
@pytest.mark.parametrize("method", METHODS)
def test_generate_goes_on_from_a_state(works, run, method):
    """What is written in two parts, with a prompt in between or without, is what is written at once, drawn or not."""
    argv = ["generate", "--method", method, "--window", 9, "--block", 2, "--temperature", 1, "--seed", 5]
    whole = works(*argv, "--prompt", "It was", "--max-new-tokens", 20)
    parts = [works(*argv, "--prompt", "It was", "--max-new-tokens", 8, "--state", "s")]
    parts += [works(*argv, "--max-new-tokens", 12, "--state", "s")]
    assert "".join(part.removesuffix("\n") for part in parts) == whole.removesuffix("\n")
    assert works(*argv, "--prompt", " And then", "--max-new-tokens", 3, "--state", "s").startswith(" And then")
    other = "window" if method != "window" else "dense"
    status, out, err = run(*argv, "--method", other, "--state", "s")
    assert (status, out) == (2, "") and err.startswith("minisink: error: s: was made with ")


def test_a_text_that_ended_needs_a_prompt(works, run, tmp_path, models):
    """Its state has nothing that waits to be read."""
    folder = shutil.copytree(models / "gpt2", tmp_path / "ends")
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | {"eos_token_id": list(range(17))}), encoding="utf-8")
    argv = ["generate", "--model", folder, "--state", "s"]
    assert works(*argv, "--prompt", "w1 w2") == "w1 w2\n"
    assert run(*argv) == (2, "", "minisink: error: s: its text has ended; --prompt continues it\n")
    assert works(*argv, "--prompt", "w3") == "w3\n"


@pytest.mark.parametrize(
    "argv, method",
    [
        ([], Streaming(4, 252)),
        (["--n-sinks", "7"], Streaming(7, 249)),
        (["--method", "dense"], Dense()),
        (["--method", "window"], Window(256)),
        (["--method", "window", "--window", "9", "--positions", "original"], Window(9, "original")),
        (["--method", "recompute"], Recompute(256, lead=(0,))),
        (["--method", "retrieval", "--store", "64"], Retrieval(4, 252, store=64)),
        (["--method", "retrieval", "--select", "bound"], Retrieval(4, 252, select="bound")),
        (["--method", "retrieval", "--n-blocks", "2", "--block", "5"], Retrieval(4, 252, n_blocks=2, block=5)),
    ],
)
def test_options_make_a_method(novels, models, argv, method):
    """256 keys, the sinks among them, or as many as the model was trained for."""
    args = make_parser().parse_args(["generate", *argv])
    assert method_of(args, novels, novels.encode("It was")) == method
    short = minisink.load(models / "gpt2")
    made = method_of(args, short, short.encode("w1"))
    assert made.capacity == (None if args.method == "dense" else args.window or 64)
    assert args.method != "recompute" or made.lead == ()


# ppl ----------------------------------------------------------------------------------------------


@pytest.mark.sampled
@pytest.mark.parametrize("method", ["dense", "window", "recompute", "streaming"])
def test_ppl_measures_what_the_library_does(works, tmp_path, story, novels, method):
    """Table, JSON, CSV and picture of one measurement, which is `token_nll`'s."""
    ids = novels.encode(TEXT)
    nll = minisink.token_nll(novels, ids, begun(method, 2, 20))
    argv = ["ppl", story, "--method", method, "--n-sinks", 2, "--window", 20]
    about = strict_json(works(*argv, "--json", "--csv", "loss.csv", "--plot", "loss.png"))
    keys = {"model", "method", "n_sinks", "window", "positions", "tokens", "nll", "perplexity", "tokens_per_second"}
    assert set(about) >= keys
    assert (about["method"], about["tokens"], about["positions"]) == (method, len(ids) - 1, "slot")
    assert about["n_sinks"] == (2 if method == "streaming" else 0)
    assert about["window"] == (None if method == "dense" else 20)
    assert about["nll"] == pytest.approx(nll.mean(dtype=np.float64), rel=1e-5)
    assert about["perplexity"] == pytest.approx(math.exp(about["nll"]))
    with open(tmp_path / "loss.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["token_index"]), int(row["id"])) for row in rows] == list(enumerate(ids.tolist()))[1:]
    np.testing.assert_allclose([float(row["nll"]) for row in rows], nll, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.csv", "loss.png", "story.txt"]
    ((name, *_, tokens, nats, perplexity, _),) = table_rows(works(*argv))
    expected = [method, f"{len(ids) - 1:,}", f"{about['nll']:.4f}", f"{about['perplexity']:.2f}"]
    assert [name, tokens, nats, perplexity] == expected


def test_ppl_of_the_ablation(works, story):
    """--positions original is another measurement."""
    argv = ["ppl", story, "--window", 20, "--json", "--positions"]
    slot, original = (strict_json(works(*argv, positions))["nll"] for positions in ("slot", "original"))
    assert abs(slot - original) > 1e-4


def test_ppl_of_a_single_token_is_nothing(works, tmp_path, models):
    """One token predicts none: dashes, null, and a CSV file of a header."""
    (tmp_path / "one.txt").write_text("w1", encoding="utf-8")
    argv = ["ppl", "one.txt", "--model", models / "gpt2"]
    assert table_rows(works(*argv))[0][3:6] == ["0", "-", "-"]
    about = strict_json(works(*argv, "--json", "--csv", "one.csv", "--plot", "one.png"))
    assert (about["tokens"], about["nll"], about["perplexity"]) == (0, None, None)
    assert (tmp_path / "one.csv").read_text(encoding="utf-8").split() == ["token_index,id,nll"]


# inspect and info ---------------------------------------------------------------------------------


def test_inspect_shows_the_sink(works, novels):
    """The shipped model looks at its first token; the numbers are those of `summary`."""
    text = "It was a dark night, and the wind blew from the sea."
    out = works("inspect", text)
    assert "'<s>'" in out and "sink rate" in out
    about = strict_json(works("inspect", text, "--json"))
    assert about["tokens"] == len(novels.encode(text))
    expected = inside.summary(inside.look_inside(novels, novels.encode(text)))
    assert about["sink_rate"] == expected["sink_rate"] > 0.2
    assert about["layers"] == expected["layers"]
    assert strict_json(works("inspect", text, "--json", "--no-bos"))["tokens"] == about["tokens"] - 1
    assert works("inspect", text, "--first", 2) != out


def test_inspect_a_gpt2(works, models):
    """Another architecture, and values that are all zero."""
    for name in ("gpt2", "zeros"):
        assert "weight" in works("inspect", "w1 w2 w3 w4", "--model", models / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "zeros", "novels"])
def test_inspect_draws_every_head(works, models, name):
    """Of either architecture, also where all values are zero."""
    works("inspect", "w1 w2 w3 w4", "--model", "novels" if name == "novels" else models / name, "--plot", "heads.png")
    assert Path("heads.png").read_bytes().startswith(PNG)


def test_info_counts(works, models):
    """Sizes from the config, parameters and bytes from the arrays."""
    out = works("info")
    assert "1,066,112" in out and "4,264,448" in out
    about = strict_json(works("info", "--json"))
    assert about["parameters"] == 1066112 and about["bytes"] == 4 * 1066112
    assert about["cache bytes per token"] == 2 * 4 * 4 * 32 * 4
    assert about["layers"] == 4
    mute = strict_json(works("info", "--model", models / "mute", "--json"))
    arrays = minisink.load(models / "mute")
    tensors = arrays.arrays()
    assert mute["parameters"] == sum(array.size for array in tensors.values())
    assert mute["model_type"] == "llama"


def test_info_says_how_positions_are_known():
    said = [info.positions(tiny.make(arch).config) for arch in (llama, gpt2, gpt_neox, mpt)]
    assert said == ["rotary", "learned", "rotary, 4 of the 6 channels of a head", "ALiBi"]


def test_every_command_that_reads_text_can_leave_out_the_begin_of_text_token(works, story, novels):
    """--no-bos: the text as it is, one token shorter, with no sink in front; and no lead in a rebuilt window."""
    for argv in (
        ["demo", "--text", story, "--write", 0, "--cache", 8],
        ["ppl", story],
        ["inspect", "It was a dark night."],
    ):
        with_bos, without = (strict_json(works(*argv, *extra, "--json"))["tokens"] for extra in ([], ["--no-bos"]))
        assert with_bos - without == 1
    nll = minisink.token_nll(novels, novels.encode(TEXT, bos=False), Recompute(9))
    seen = strict_json(works("ppl", story, "--no-bos", "--method", "recompute", "--window", 9, "--json"))
    assert seen["nll"] == pytest.approx(float(nll.mean()), rel=1e-4)
    tokens = minisink.generate(novels, novels.encode("It was", bos=False), max_new_tokens=6)
    want = "It was" + novels.decode(list(tokens))
    assert works("generate", "--no-bos", "--prompt", "It was", "--max-new-tokens", 6).rstrip("\n") == want.rstrip("\n")


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["why"], ["sink-count", "--caches", 16]])
def test_an_experiment_can_leave_out_the_begin_of_text_token(works, argv):
    """--no-bos makes another figure."""
    options = ["reproduce", *argv, "--tokens", 70]
    assert works(*options) != works(*options, "--no-bos")


# The readable path ---------------------------------------------------------------------------------


def test_the_way_to_the_evicted_key_is_short_and_on_the_shelf(monkeypatch, works):
    """`generate --readable`, from the command to the line where a key leaves: the files that docs/design.md lists."""
    append, ways = LayerCache.append, []

    def watched(layer, keys, values):
        n_before = len(layer.keys)
        append(layer, keys, values)
        if len(layer.keys) < n_before + len(keys):
            ways.append([Path(frame.filename) for frame in traceback.extract_stack()])

    monkeypatch.setattr(LayerCache, "append", watched)
    works("generate", "--readable", "--prompt", "It was a dark night", "--window", 2, "--max-new-tokens", 3)
    package = Path(minisink.__file__).parent
    for way in ways:
        files = [path.relative_to(package).as_posix() for path in way if path.is_relative_to(package)]
        after = dict.fromkeys(files[files.index("commands/generate.py") :])
        after = [file for file in after if file != "commands/generate.py"]
        page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## From the command")[1].split("##")[0]
        assert [*after, "cache.py"] == re.findall(r"^\| `(\S+\.py)`", page, re.MULTILINE)
        assert len(after) + 1 <= 8 and [file for file in after if "/" in file] == ["hf/tokenizer.py"]
    assert len(ways) > 4


@pytest.mark.parametrize("readable", [True, False])
def test_only_the_readable_path_runs_through_cache_py(monkeypatch, novels, readable):
    """`readable=True` goes there with every token of every layer; the fast path never does."""
    append, lengths = LayerCache.append, []
    monkeypatch.setattr(LayerCache, "append", lambda layer, k, v: lengths.append(len(k)) or append(layer, k, v))
    tokens = minisink.generate(novels, novels.encode("It was"), Streaming(1, 2), max_new_tokens=4, readable=readable)
    assert len(list(tokens)) == 4
    assert sum(lengths) == readable * novels.config.n_layers * (3 + 3)


@pytest.mark.slow
def test_a_debugger_is_kept(tmp_path):
    """`python -m pdb -m minisink` stops at a breakpoint in cache.py, for there is no second process."""
    script = "from minisink.cache import LayerCache\nbreak LayerCache.append\ncontinue\nwhere\nquit\n"
    command = [sys.executable, "-m", "pdb", "-m", "minisink", "generate", "--readable", "--max-new-tokens", "3"]
    env = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key}
    run = subprocess.run(command, input=script, capture_output=True, text=True, cwd=ROOT, env=env)
    assert "cache.py" in run.stdout and "cached_attention" in run.stdout, run.stdout + run.stderr


@pytest.mark.sampled
@pytest.mark.parametrize("command", [["generate", "--max-new-tokens", "12"], ["ppl", "story.txt", "--csv", "loss.csv"]])
@pytest.mark.parametrize("method", METHODS)
def test_the_readable_path_says_the_same(works, story, command, method):
    """Text to the letter, losses to rounding, under every method and across evictions."""
    sizes = ["--method", method, "--n-sinks", 2, "--window", 7, "--block", 4]
    fast = works(*command, *sizes)
    losses = Path("loss.csv").read_text() if "ppl" in command else ""
    readable = works(*command, *sizes, "--readable")
    if "ppl" not in command:
        assert readable == fast
        return
    a, b = (
        np.array([row.split(",") for row in text.split()[1:]], float) for text in (losses, Path("loss.csv").read_text())
    )
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    np.testing.assert_allclose(a[:, 2], b[:, 2], atol=1e-4)


def test_the_readable_path_of_the_other_commands(works):
    """The demo's perplexities, and what inspect sees."""
    for command in (["demo", "--tokens", 90, "--cache", 16, "--write", 0], ["inspect", "It was a dark night."]):
        fast, readable = (strict_json(works(*command, *extra, "--json")) for extra in ([], ["--readable"]))
        if "demo" in command:
            fast, readable = ([row["after"] for row in about["methods"]] for about in (fast, readable))
        else:
            fast, readable = (
                [h["weight_on_first"] for x in about["layers"] for h in x["heads"]] for about in (fast, readable)
            )
        assert fast == pytest.approx(readable, rel=1e-4)


# Anything wrong -----------------------------------------------------------------------------------

BAD = {
    "no command": ([], "COMMAND"),
    "unknown command": (["dance"], "dance"),
    "unknown option": (["info", "--colour"], "--colour"),
    "option without a value": (["info", "--model"], "--model"),
    "not a number": (["demo", "--cache", "many"], "many"),
    "unknown method": (["ppl", "story.txt", "--method", "sliding"], "sliding"),
    "two prompts": (["generate", "--prompt", "a", "--prompt-file", "story.txt"], "--prompt-file"),
    "no file": (["ppl", "none.txt"], "none.txt"),
    "no file for the demo": (["demo", "--text", "none.txt"], "none.txt"),
    "no file for the prompt": (["generate", "--prompt-file", "none.txt"], "none.txt"),
    "a folder for a file": (["ppl", "."], "directory"),
    "not UTF-8": (["ppl", "latin.txt"], "latin.txt: not UTF-8 text (byte 0xe9 at 3)"),
    "not UTF-8 in the demo": (["demo", "--text", "latin.txt"], "latin.txt: not UTF-8"),
    "not UTF-8 in the prompt": (["generate", "--prompt-file", "latin.txt"], "latin.txt: not UTF-8"),
    "not UTF-8 on the line": (["inspect", "caf\udce9"], "not UTF-8"),
    "not UTF-8 on the line, generating": (["generate", "--prompt", "caf\udce9"], "not UTF-8"),
    "empty": (["ppl", "empty.txt"], "empty.txt: empty text"),
    "empty for the demo": (["demo", "--text", "empty.txt"], "empty.txt: empty text"),
    "empty to inspect": (["inspect", ""], "empty"),
    "empty prompt": (["generate", "--model", "{models}/gpt2"], "--prompt is empty"),
    "one token": (["inspect", "a", "--no-bos"], "weight on the first 1 of 1 tokens"),
    "no sink": (["inspect", "a", "--first", 0], "first 0"),
    "too many": (["inspect", "a", "--first", 99], "first 99"),
    "no model": (["info", "--model", "nowels"], "nowels: no such folder"),
    "empty folder": (["info", "--model", "."], "no config.json"),
    "bad checkpoint": (["info", "--model", "broken"], "config.json: not readable as JSON"),
    "no tokenizer": (["generate", "--model", "{models}/mute"], "has no tokenizer"),
    "no tokenizer for the demo": (["demo", "--model", "{models}/mute"], "has no tokenizer"),
    "no tokenizer to inspect": (["inspect", "w1", "--model", "{models}/mute"], "has no tokenizer"),
    "window of 0": (["ppl", "story.txt", "--window", 0], "window is 0"),
    "sinks of -1": (["ppl", "story.txt", "--n-sinks", -1], "n_sinks is -1"),
    "no room": (["demo", "--cache", 1], "a cache of 1 tokens"),
    "cache of -1": (["demo", "--cache", -1], "a cache of -1 tokens"),
    "tokens of -1": (["demo", "--tokens", -1], "--tokens is -1"),
    "temperature": (["generate", "--temperature", -1], "temperature is -1"),
    "temperature of nan": (["generate", "--temperature", "nan"], "temperature is nan"),
    "top-p": (["generate", "--top-p", 2], "top_p is 2"),
    "top-k": (["generate", "--top-k", -1], "top_k is -1"),
    "penalty": (["generate", "--repetition-penalty", 0], "repetition_penalty is 0"),
    "seed": (["generate", "--seed", -1], "seed is -1"),
    "max-new-tokens": (["generate", "--max-new-tokens", -1], "--max-new-tokens is -1"),
    "original positions of a GPT-2": (
        ["ppl", "words.txt", "--model", "{models}/gpt2", "--window", 16, "--positions", "original"],
        "64 learned positions",
    ),
    "too long for a GPT-2": (
        ["ppl", "words.txt", "--model", "{models}/gpt2", "--method", "dense"],
        "64 learned positions",
    ),
    "picture without a folder": (["demo", "--plot", "none/demo.png"], "none"),
    "picture of a kind nobody knows": (["demo", "--plot", "demo.xyz"], "demo.xyz"),
    "picture without an ending": (["ppl", "story.txt", "--plot", "demo"], "demo: a picture's name ends in"),
    "picture that is a folder": (["inspect", "a b", "--plot", "folder.png"], "folder.png"),
    "csv without a folder": (["ppl", "story.txt", "--csv", "none/loss.csv"], "none/loss.csv"),
    "csv that is a folder": (["ppl", "story.txt", "--csv", "folder.png"], "folder.png"),
}


@pytest.mark.parametrize(("argv", "message"), BAD.values(), ids=BAD)
def test_anything_wrong_is_one_line_and_status_2(run, tmp_path, story, models, argv, message):
    """No traceback, nothing on stdout, nothing written, and what was wrong by name."""
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "words.txt").write_text("w1 w2 " * 50, encoding="utf-8")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run(*(str(word).replace("{models}", str(models)) for word in argv))
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith("minisink")
    assert "error: " in err and message in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "argv",
    [
        ["demo", "--plot", "none/demo.png"],
        ["ppl", "story.txt", "--csv", "none/x.csv"],
        ["inspect", "a b", "--plot", "x.xyz"],
        ["demo", "--plot", "d.png"],
        ["ppl", "story.txt", "--csv", "/proc/loss.csv"],
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(run, story, monkeypatch, argv):
    """Not after an hour of it."""
    monkeypatch.setattr(f"minisink.commands.{argv[0]}.load", lambda *a, **o: pytest.fail("the model was loaded first"))
    Path("d.png").mkdir()
    assert run(*argv)[0] == 2


def test_a_picture_without_matplotlib_says_what_to_install(run, story, monkeypatch):
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, _, err = run("ppl", story, "--plot", "loss.png")
    assert status == 2 and "pip install 'minisink[plot]'" in err


@pytest.mark.parametrize("option", ["--window", "--n-sinks"])
@pytest.mark.parametrize("method", ["window", "recompute", "streaming"])
def test_an_absurd_number_is_no_traceback(run, story, option, method):
    """More than any counter holds: it works as without a limit, or is one line."""
    for command in (["ppl", story], ["generate", "--max-new-tokens", 2]):
        status, _, err = run(*command, "--method", method, option, 10**30)
        assert status in (0, 2)
        assert [line.split(": ")[1] for line in err.splitlines()] in ([], ["warning"], ["error"], ["warning", "error"])


@pytest.mark.parametrize(
    "argv",
    [
        ["ppl", "story.txt", "--window", 296],
        ["generate", "--max-new-tokens", 3, "--window", 296],
        ["demo", "--tokens", 40, "--cache", 300, "--write", 0],
    ],
)
def test_a_warning_is_one_line_and_work_goes_on(run, story, argv):
    """More keys than in training: said once, on stderr."""
    status, out, err = run(*argv)
    assert status == 0 and out
    assert err == "minisink: warning: a cache of 300 tokens is longer than the 256 positions novels was trained on\n"


PICTURES = [["ppl", "story.txt"], ["demo", "--tokens", 90, "--write", 0]]
PICTURES += [
    pytest.param(argv, marks=pytest.mark.slow)
    for argv in (
        ["inspect", "It was a dark night."],
        ["bench", "--caches", 16, "--repeats", 1],
        ["reproduce", "emergence"],
        ["train", "backcopy", "--steps", 3, "--length", 8],
        ["train", "induction", "--steps", 3, "--texts", 1, "--gaps", 0],
    )
]


@pytest.mark.sampled
@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("argv", PICTURES, ids=lambda argv: argv[1] if len(argv) < 3 else argv[0])
def test_a_picture_that_fails_takes_no_result_along(run, story, monkeypatch, argv, extra):
    """What was measured is printed whole, then the error in one line, with status 2."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    status, out, err = run(*argv, *extra, "--plot", "picture.png")
    assert (status, err) == (0, "") and Path("picture.png").read_bytes().startswith(PNG)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    status, failed, err = run(*argv, *extra, "--plot", "picture.png")
    assert (status, err) == (2, "minisink: error: picture.png: cannot be written (No space left on device)\n")
    said = [re.sub(r"[\d.,]+|-{2,}", "", text).split() for text in (failed, out)]
    assert said[0] == said[1]  # but for the times, and rules as long as they are
    if extra:
        strict_json(failed.splitlines()[-1])


def test_what_breaks_while_it_is_written_leaves_nothing(run, tmp_path, story, monkeypatch):
    """A picture and a disk that is full: one line, the old file as it was, nothing beside it."""
    (tmp_path / "loss.png").write_text("old", encoding="utf-8")

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert run("ppl", story, "--plot", "loss.png")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "story.txt"]
    assert (tmp_path / "loss.png").read_text(encoding="utf-8") == "old"


def test_an_interruption_of_work_is_one_line(run, story, monkeypatch):
    """Ctrl-C while measuring: status 130 as shells have it."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("minisink.commands.ppl.Evaluation", interrupted)
    assert run("ppl", story) == (130, "", "minisink: interrupted\n")


# As a program -------------------------------------------------------------------------------------

ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
MINISINK = [sys.executable, "-m", "minisink"]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


def test_the_program_is_the_function(works, tmp_path):
    """`python -m minisink` from another folder prints what `main` does, and exits with its status."""
    argv = ["generate", "--prompt", "It was", "--max-new-tokens", "5"]
    env = {k: v for k, v in ENV.items() if k not in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    program = subprocess.run(
        [*MINISINK, *argv], cwd=tmp_path, env=env, capture_output=True, text=True, encoding="utf-8"
    )
    assert (program.returncode, program.stderr) == (0, "")
    assert program.stdout == works(*argv)
    wrong = subprocess.run([*MINISINK, "ppl", "none.txt"], cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (2, "", 1)


@posix
def test_ctrl_c_ends_an_endless_stream_in_good_order(interrupts_arrive):
    """Text comes as it is made; an interrupt ends it with a newline, one line of what it took, and status 0."""
    command = [*MINISINK, "generate", "--prompt", "It was", "--max-new-tokens", "0"]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        first = program.stdout.read(2000)
        program.send_signal(signal.SIGINT)
        rest, err = program.communicate(timeout=300)
    assert first.startswith(b"It was") and rest.endswith(b"\n")
    assert program.returncode == 0
    said = re.fullmatch(rb"minisink: stopped after ([\d,]+) new tokens; the cache keeps 256 tokens in 1.0 MiB\n", err)
    n_tokens = int(said[1].replace(b",", b""))
    assert 1 < len((first + rest).decode("utf-8")) / n_tokens < 8


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--method", "dense"], "the cache keeps 7 tokens in 28.0 KiB"),
        (["--method", "window", "--window", 5], "the cache keeps 5 tokens in 20.0 KiB"),
        (["--method", "streaming", "--window", 4, "--n-sinks", 2], "the cache keeps 6 tokens in 24.0 KiB"),
        (["--method", "streaming"], "the cache keeps 7 tokens in 28.0 KiB"),
        (["--method", "retrieval", "--window", 2, "--block", 1], "the cache keeps 7 tokens in 28.0 KiB"),
        (["--method", "retrieval", "--window", 2, "--block", 1, "--store", 1], "the cache keeps 7 tokens in 28.0 KiB"),
        (["--method", "recompute", "--window", 5], "the cache keeps 0 tokens in 0 B"),
    ],
)
def test_an_interrupted_stream_says_what_it_took(interrupts_arrive, run, monkeypatch, novels, options, kept):
    """How many tokens were written, how many the cache keeps, and their bytes; or how many the state holds."""
    whole = run("generate", "--prompt", "It was", "--max-new-tokens", 5, *options)[1]
    argv, write = ["generate", "--prompt", "It was", "--max-new-tokens", 0, *options], Stream.write

    def interrupted(*args):
        for n, token in enumerate(write(*args), 1):
            if n == 5:
                signal.raise_signal(signal.SIGINT)
            yield token

    monkeypatch.setattr(Stream, "write", interrupted)
    assert len(novels.encode("It was")) == 3  # of the five new ones, the last has not been read
    assert run(*argv) == (0, whole, f"minisink: stopped after 5 new tokens; {kept}\n")
    assert run(*argv, "--state", "s") == (0, whole, "minisink: stopped; s holds 7 tokens read\n")


@posix
@pytest.mark.parametrize(
    "argv",
    [
        ["info"],
        pytest.param(["generate", "--max-new-tokens", "3"], marks=pytest.mark.slow),
        pytest.param(["ppl", "story.txt", "--csv", "a.csv"], marks=pytest.mark.slow),
    ],
)
def test_without_a_standard_output_the_work_is_done(tmp_path, story, argv):
    """Cron, a service: nothing is said, and nothing is wrong; what is wrong has its status still."""
    closed = ["sh", "-c", '"$@" >&-', "sh", *MINISINK, *argv]
    program = subprocess.run(closed, cwd=tmp_path, env=ENV, capture_output=True)
    assert (program.returncode, program.stdout, program.stderr) == (0, b"", b"")
    assert (tmp_path / "a.csv").exists() == ("ppl" in argv)
    silent = ["sh", "-c", '"$@" >&- 2>&-', "sh", *MINISINK, "ppl", "none.txt"]
    assert subprocess.run(silent, cwd=tmp_path, env=ENV, capture_output=True).returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "cp1252:replace"])
def test_a_character_that_the_output_lacks_does_not_end_it(monkeypatch, encoding):
    """It becomes a backslash and its number, unless the user has said what it should become."""
    name, _, errors = encoding.partition(":")
    out = io.TextIOWrapper(io.BytesIO(), encoding=name, errors=errors or "strict")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.argv", ["minisink", "generate", "--prompt", "日本 שלום 🙂", "--max-new-tokens", "3"])
    with pytest.raises(SystemExit, match="^0$"):
        console()
    _backslashes(out.buffer.getvalue(), encoding)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252:replace"])
def test_a_program_writes_every_character(encoding):
    """The same, of a process."""
    argv = [*MINISINK, "generate", "--prompt", "日本 שלום 🙂", "--max-new-tokens", "3"]
    program = subprocess.run(argv, env=ENV | {"PYTHONIOENCODING": encoding}, capture_output=True)
    assert (program.returncode, program.stderr) == (0, b"")
    _backslashes(program.stdout, encoding)


def _backslashes(out, encoding):
    assert (b"\\U0001f642" in out) == (":" not in encoding)
    assert (b"\\u65e5" in out) == (encoding in ("ascii", "cp1252"))


@posix
@pytest.mark.parametrize(
    "argv", [["info"], pytest.param(["generate", "--max-new-tokens", "0"], marks=pytest.mark.slow)]
)
def test_a_reader_that_leaves_is_no_error(argv):
    """`| head -1` ends the program without a word."""
    with subprocess.Popen([*MINISINK, *argv], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        if argv[0] == "generate":
            program.stdout.read(1)
        program.stdout.close()
        err = program.stderr.read()
        assert (program.wait(timeout=30), err) == (0, b"")


# The screen ---------------------------------------------------------------------------------------

SCREENS = {
    "generate": ["generate", "--max-new-tokens", "3"],
    "ppl": ["ppl", "story.txt", "--window", "9"],
    "inspect": ["inspect", "It was a dark night."],
    "info": ["info"],
    "reproduce": ["reproduce", "list"],
    "backcopy": ["train", "backcopy", "--steps", "3", "--length", "8"],
    "help": ["--help"],
}


LONG = [
    ["bench", "--caches", "16", "4096", "--repeats", "1", "--readable", "--n-sinks", "1"],
    ["train", "induction", "--steps", "2", "--seeds", "2", "--texts", "1"],
]


def _commands(parser, way=()):
    """The words of every command that the parser knows."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _commands(below, (*way, name))
            return
    yield way


@pytest.mark.parametrize("argv", [*SCREENS.values(), *(pytest.param(argv, marks=pytest.mark.slow) for argv in LONG)])
def test_every_command_fits_eighty_columns(run, story, monkeypatch, argv):
    """What a projector shows, colours off; a longer line would be folded there."""
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run(*argv)
    assert status == 0
    assert [line for line in (out + err).splitlines() if len(line) > 80] == []
    assert ("through cache.py" in out) == ("bench" in argv)


@pytest.mark.parametrize("way", list(_commands(make_parser())), ids=" ".join)
def test_every_help_fits_eighty_columns(run, monkeypatch, way):
    """Purpose, options, example."""
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(*way, "--help")
    assert status == 0 and "example:" in out
    assert [line for line in out.splitlines() if len(line) > 80 and not line.startswith("  minisink")] == []
