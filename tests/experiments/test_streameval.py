"""StreamEval: the record is as described, and leaks nothing; the table is what the record's answers cost."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import Retrieval
from minisink.commands.parser import main
from minisink.experiments import streameval
from minisink.experiments.recall import score

sizes = st.fixed_dictionaries(
    {"distance": st.integers(0, 30), "n_queries": st.integers(1, 6), "every": st.integers(1, 12)}
)


@pytest.fixture(scope="module")
def novels():
    return minisink.load("novels")


def lines_of(text):
    """(whether it is a query, number, value) of each line after the first."""
    title, *lines = text.splitlines()
    assert title == "Below is a record of lines I want you to remember."
    form = re.compile(r"(Query: )?The REGISTER_CONTENT in line (\d+) is <(\d{5})>")
    found = [form.fullmatch(line) for line in lines]
    return [(match[1] is not None, int(match[2]), match[3]) for match in found]


@examples(60)
@given(seed=st.integers(0, 999), sizes=sizes)
def test_every_answer_stands_so_many_lines_back_and_nowhere_else(seed, sizes):
    """Lines are numbered from 0; queries come every so often; the value asked for was told once, at the distance."""
    text, needles, answers = streameval.record(np.random.default_rng(seed), **sizes)
    plain, values, asked = 0, {}, []
    for is_query, number, value in lines_of(text):
        if is_query:
            assert number == plain - 1 - sizes["distance"] and values[number] == value
            asked.append((plain - 1, number))
        else:
            assert number == plain and value not in values.values()
            values[number], plain = value, plain + 1
    first = sizes["distance"]
    assert [after for after, _ in asked] == [first + i * sizes["every"] for i in range(sizes["n_queries"])]
    assert len({number for _, number in asked}) == len(asked) == len(needles) == len(answers)
    for (_, number), there, here in zip(asked, needles, answers, strict=True):
        assert text[slice(*there)] == text[slice(*here)] == values[number]
        assert text[: here[0]].count(values[number]) == 1 and text.index(values[number]) == there[0]
    assert text.endswith(f"{text[slice(*answers[-1])]}>\n")


def test_no_value_is_told_twice_in_a_long_record():
    """Of 2,000 drawn one by one from 90,000, twenty would be there before."""
    text, _, _ = streameval.record(np.random.default_rng(0), distance=1999, n_queries=1)
    values = [value for is_query, _, value in lines_of(text) if not is_query]
    assert len(values) == len(set(values)) == 2000


def test_the_paper_s_protocol_is_a_query_every_ten_lines_for_twenty_back():
    text, _, _ = streameval.record(np.random.default_rng(0), distance=20, n_queries=3)
    lines = lines_of(text)
    assert [number for is_query, number, _ in lines if is_query] == [0, 10, 20]
    assert [lines[i - 1][1] for i, line in enumerate(lines) if line[0]] == [20, 30, 40]


@examples(10)
@given(seed=st.integers(0, 99), sizes=sizes)
def test_in_tokens_the_values_are_found_again(novels, seed, sizes):
    """The tokens of each telling and of its answer read as the same five digits."""
    asked = streameval.make(novels, seed=seed, **sizes)
    for (a, b), (c, d) in zip(asked.needles, asked.answers, strict=True):
        there, here = (re.search(r"\d{5}", novels.decode(asked.ids[slice(*place)]))[0] for place in ((a, b), (c, d)))
        assert there == here and b <= c
    assert len(asked.back) == sizes["n_queries"] and min(asked.back) > 5 * sizes["distance"]


def test_a_row_is_what_its_answers_cost(novels):
    asked = {"distances": (2, 3), "caches": (64, 96), "methods": ("dense", "retrieval"), "n_queries": 2}
    rows = list(streameval.run(novels, fetched=Retrieval(1, 99, n_blocks=2, block=4), **asked))
    assert [(row["distance"], row["method"], row["cache"]) for row in rows] == [
        (distance, method, cache)
        for distance in (2, 3)
        for method, cache in (("dense", None), ("retrieval", 64), ("retrieval", 96))
    ]
    asked = streameval.make(novels, distance=3, n_queries=2)
    nll, exact = score(novels, asked, Retrieval(1, 95, n_blocks=2, block=4))
    assert rows[-1]["nll"] == pytest.approx(nll.mean()) and rows[-1]["exact"] == exact.sum()


SMALL = ["reproduce", "streameval", "--model", "novels", "--distances", "0", "4", "--caches", "48", "96"]
SMALL += ["--n-queries", "2", "--every", "1", "--n-sinks", "1"]


def test_the_command_prints_a_table_a_method(capsys):
    assert main([*SMALL, "--methods", "dense", "window", "retrieval"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    headers = [line.split() for line in out.splitlines() if line.startswith("distance ")]
    assert headers == [
        ["distance", "tokens", "back", *slots] for slots in (["all"], ["0+48", "0+96"], ["1+47", "1+95"])
    ]
    assert out.count("/2") == 2 * 5 and "Chance" in out
    assert main([*SMALL, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert len(seen["rows"]) == 8 and {row["asked"] for row in seen["rows"]} == {2}
    assert {row["in_cache"] for row in seen["rows"]} >= {True, False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--distances", "3", "-1"], "distance is -1"),
        (["--n-queries", "0"], "n_queries is 0"),
        (["--every", "0"], "every is 0"),
        (["--caches", "0"], "a cache of 0 tokens"),
        (["--caches", "1"], "a cache of 1 tokens cannot hold 1 sinks"),
        (["--n-sinks", "-1"], "n_sinks is -1"),
        (["--distances", "90000"], "there are 90000 different values"),
        (["--model", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_line(options, message, capsys):
    assert main([*SMALL, *options]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.real
def test_smollm2_knows_a_line_in_the_cache_and_forgets_it_after(smollm2):
    """The cliff; and retrieval, which knows as much of it as before."""
    rows = list(streameval.run(smollm2, distances=(2, 8), caches=(128,), n_queries=2, every=2))
    nll = {(row["distance"], row["method"]): row["nll"] for row in rows}
    assert [row["in_cache"] for row in rows] == [True, True, False, False]
    assert nll[8, "streaming"] > 2.0 and max(nll[2, "streaming"], nll[8, "retrieval"]) < 1.2
