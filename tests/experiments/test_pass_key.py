"""Pass keys: the key stands where it is said to, and once more where it is asked for; what is known of it."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import Retrieval, Streaming
from minisink.commands.parser import main
from minisink.experiments import pass_key
from minisink.experiments.recall import score
from minisink.hf.shipped import sample_text

FILLER = sample_text().read_text("utf-8")


@pytest.fixture(scope="module")
def novels():
    return minisink.load("novels")


@examples(30)
@given(length=st.integers(120, 400), depth=st.floats(0, 1), seed=st.integers(0, 99), bos=st.booleans())
def test_a_key_is_told_at_its_depth_and_asked_for_at_the_end(novels, length, depth, seed, bos):
    """The text is as long as it should be, the story around the key unbroken, and nothing else says the key."""
    (key,) = pass_key.keys(seed, 1)
    asked = pass_key.make(novels, FILLER, key, length=length, depth=depth, bos=bos)
    ((a, b),), ((c, d),) = asked.needles, asked.answers
    text = novels.decode(asked.ids)
    assert abs(len(asked.ids) - length) <= 4 and d == len(asked.ids)
    assert text.count(key) == 3 and text.endswith(f"The pass key is {key}")
    assert key in novels.decode(asked.ids[a:b]) and key in novels.decode(asked.ids[c:d])
    assert key not in novels.decode(asked.ids[b:c])  # the nearest telling
    tell, ask = (form.format(key=key) for form in (pass_key.TELL, pass_key.ASK))
    before, after = text.removesuffix(ask).split(tell)
    assert FILLER.startswith(before + after)
    n_before, n_all = (len(novels.encode(part, bos=False)) for part in (before, before + after))
    assert math.isclose(n_before, depth * n_all, abs_tol=4)


def test_keys_are_different_and_of_five_digits():
    keys = pass_key.keys(3, 500)
    assert len(set(keys)) == 500 and all(len(key) == 5 and key.isdigit() and key[0] != "0" for key in keys)


def test_a_row_is_the_mean_over_its_keys(novels):
    options = {"methods": ("streaming", "dense"), "cache": 32, "n_keys": 2, "seed": 6, "fetched": Retrieval(1, 99)}
    rows = list(pass_key.run(novels, FILLER, lengths=(130, 150), depths=(0.5,), **options))
    seen = [(row["length"], row["method"], row["cache"]) for row in rows]
    assert seen == [(length, *which) for length in (130, 150) for which in (("streaming", 32), ("dense", None))]
    texts = [pass_key.make(novels, FILLER, key, length=150, depth=0.5) for key in pass_key.keys(6, 2)]
    found = [score(novels, text, Streaming(1, 31))[0][0] for text in texts]
    assert rows[2]["nll"] == pytest.approx(sum(found) / 2) and rows[2]["in_cache"] is False
    assert rows[2]["asked"] == 2


SMALL = ["reproduce", "pass-key", "--model", "novels", "--lengths", "120", "160", "--depths", "0", "1"]
SMALL += ["--cache", "60", "--n-sinks", "1"]


@pytest.mark.slow
def test_the_command_prints_a_table_a_method(capsys):
    assert main(SMALL) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    lines = [line.split() for line in out.splitlines()]
    assert lines.count(["length", "depth", "tokens", "back", "1+59"]) == 2 and out.count("/1") == 8
    assert main([*SMALL, "--json", "--n-keys", "2", "--lengths", "120"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    seen = [(row["depth"], row["method"], row["in_cache"]) for row in rows]
    assert seen == [(depth, name, depth == 1.0) for depth in (0.0, 1.0) for name in ("streaming", "retrieval")]
    assert {row["asked"] for row in rows} == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depths", "1.5"], "depth is 1.5; it must be a share of the text, from 0 to 1"),
        (["--depths", "-0.5"], "depth is -0.5"),
        (["--depths", "nan"], "depth is nan"),
        (["--lengths", "20"], "statement and question alone take"),
        (["--lengths", "900000"], "the filler has"),
        (["--cache", "1"], "a cache of 1 tokens cannot hold 1 sinks"),
        (["--n-keys", "0"], "n_keys is 0"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_line(options, message, capsys):
    assert main([*SMALL, *options]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.real
def test_smollm2_reads_off_an_evicted_key_and_streaming_cannot(smollm2):
    """More than 400 tokens back, in a cache of 4+124."""
    streaming, retrieval = pass_key.run(smollm2, FILLER, lengths=(460,), depths=(0.0,))
    assert streaming["nearest"] >= 400 and streaming["nll"] >= 2.0 and streaming["exact"] == 0
    assert retrieval["nll"] <= 0.3 and retrieval["exact"] == 1
