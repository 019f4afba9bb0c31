"""``minisink clinic``: a page of 80 columns, JSON, a picture; and one line for what cannot be examined."""

import json
import re
from pathlib import Path

import pytest
import tiny
from folders import words, write

from minisink import gpt2

PAGE = (Path(__file__).parents[2] / "docs" / "clinic.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d+\.\d+")
SHORT = ["--tokens", 200, "--caches", 16]


def test_a_page_as_text_and_json(run, tmp_path):
    """A GPT-2 whose words are w0 to w16: 80 columns; the same answer in JSON."""
    write(tmp_path / "gpt2", tiny.make(gpt2, bos=None), tokenizer=words(17))
    (tmp_path / "text.txt").write_text(" ".join(f"w{i}" for i in tiny.ids(300)), encoding="utf-8")
    status, out, err = run("clinic", "gpt2", "--text", "text.txt", *SHORT)
    assert (status, err) == (0, "") and max(map(len, out.splitlines())) < 80
    assert out.startswith("Keep no sink in gpt2: no number makes it stream") and "R; " in out and "None" not in out
    status, out, _ = run("clinic", "gpt2", "--text", "text.txt", *SHORT, "--json")
    about = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and (about["n_sinks"], about["tokens"]) == (None, 200)
    assert [len(about["weight"]), len(about["weight"][0])] == [3, 4] and about["losses"][0]["cache"] == 16


@pytest.mark.slow
def test_a_page_as_a_picture(run, tmp_path):
    assert run("clinic", "--tokens", 400, "--caches", 16, 32, "--plot", "page.png")[0] == 0
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", 300, "--caches", 400], "the text has 300 tokens and the cache holds 400"),
        (["--tokens", 1], "--tokens is 1; it must be 2 or more"),
        (["--caches", 8], "a cache of 8 tokens cannot hold 8 sinks"),
        (["--text", "none.txt"], "none.txt: cannot be read"),
        (["--plot", "page.xyz"], "page.xyz"),
        (["nowels"], "nowels: no such folder"),
        (["mute"], "has no tokenizer"),
    ],
)
def test_what_cannot_be_examined_is_one_line(run, tmp_path, options, message):
    write(tmp_path / "mute", tiny.make())
    status, out, err = run("clinic", *options)
    assert (status, out, len(err.splitlines())) == (2, "", 1) and message in err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "keep"), [("novels-vanilla", "no sink"), ("novels-softmax1", "no sink")])
def test_the_models_without_a_sink_keep_none(run, name, keep):
    _, out, _ = run("clinic", name)
    assert out.startswith(f"Keep {keep} in {name}: a plain window is enough")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["novels", pytest.param("smollm2", marks=pytest.mark.real)])
def test_the_page_in_the_docs_is_what_is_printed(run, name, request):
    if name == "smollm2":
        request.getfixturevalue("smollm2")
    shown = re.search(rf"^```\n(Keep 1 sink in {name}:.*?)```", PAGE, re.DOTALL | re.MULTILINE)[1]
    status, out, _ = run("clinic", name)
    assert status == 0 and NUMBER.sub("#", out) == NUMBER.sub("#", shown)
    wanted = [float(x) for x in NUMBER.findall(shown)]
    assert [float(x) for x in NUMBER.findall(out)] == pytest.approx(wanted, rel=0.02, abs=0.002)
