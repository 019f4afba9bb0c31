"""``minisink ppl`` says it when a perplexity shows nothing: nothing was evicted, or the text is as short as trained."""

import json

import numpy as np
import pytest
import tiny
from folders import words, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minisink
from minisink.commands.common import WITH_SINKS
from minisink.commands.parser import main
from minisink.methods import Streaming

TRAINED = 24
METHODS = ("window", "recompute", "streaming", "retrieval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama trained on `TRAINED` positions that knows the words w0 to w16."""
    root = tmp_path_factory.mktemp("ppl") / "model"
    write(root, tiny.make(dtype=np.float32, max_positions=TRAINED), tokenizer=words(17))
    return root


@pytest.fixture(scope="module")
def model(folder):
    return minisink.load(folder)


@pytest.fixture
def ppl(folder, tmp_path, capsys):
    """A function that measures a text of so many words; returns (stdout, warnings)."""

    def measure(n_words, *options):
        path = tmp_path / "text.txt"
        path.write_text(" ".join(f"w{i % 17}" for i in range(n_words)), encoding="utf-8")
        status = main(["ppl", str(path), "--model", str(folder), *map(str, options)])
        captured = capsys.readouterr()
        assert status == 0
        return captured.out, captured.err.splitlines()

    return measure


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # `ppl` writes its text anew each time
@given(
    n_words=st.integers(2, 60), n_sinks=st.integers(0, 4), window=st.integers(1, 20), method=st.sampled_from(METHODS)
)
def test_it_says_that_nothing_was_evicted_exactly_when_nothing_was(ppl, model, n_words, n_sinks, window, method):
    """A cache that has read the same text is asked; and one line is the most that is said."""
    out, said = ppl(n_words, "--method", method, "--n-sinks", n_sinks, "--window", window, "--json", "--block", 1)
    measured = json.loads(out)
    ids = np.arange(n_words) % 17
    kept = minisink.new_cache(model, Streaming(n_sinks if method in WITH_SINKS else 0, window))
    minisink.token_nll(model, ids, cache=kept)
    assert measured["tokens"] == kept.n_seen
    nothing = kept.n_seen == len(kept)
    assert len(said) == int(nothing or n_words <= TRAINED)
    assert ["nothing was evicted" in line for line in said] == [nothing] * len(said)
    assert all(f"text.txt has {n_words} tokens" in line for line in said)
    if nothing:
        dense, _ = ppl(n_words, "--method", "dense", "--json")
        assert measured["nll"] == pytest.approx(json.loads(dense)["nll"], rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_text_of_the_trained_length_is_warned_about_and_one_more_token_is_not(ppl, method):
    """With a cache that is far smaller, so that it did evict."""
    options = ["--method", method, "--n-sinks", 1, "--window", 5, "--block", 1]
    _, (said,) = ppl(TRAINED, *options)
    assert said.startswith("minisink: warning: ") and "text.txt has 24 tokens" in said and "was trained on 24" in said
    assert ppl(TRAINED + 1, *options)[1] == []


def test_dense_attention_and_a_text_of_one_token_are_not_warned_about(ppl):
    """Dense has nothing to evict; of one token there is no perplexity that could mislead."""
    assert ppl(9, "--method", "dense")[1] == ppl(1, "--window", 5)[1] == []


def test_a_run_that_goes_on_counts_the_text_as_a_whole(ppl, tmp_path):
    """The state of a finished run: the same warning again, and none where the first had none."""
    for n_words, n_said in ((9, 1), (60, 0)):
        options = ["--window", 12, "--n-sinks", 0, "--resume", tmp_path / f"{n_words}.safetensors"]
        said = [[line for line in ppl(n_words, *options)[1] if "warning" in line] for _ in range(2)]
        assert said[0] == said[1] and len(said[0]) == n_said
