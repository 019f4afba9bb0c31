"""The engine of the page against the package: ids, losses, patterns, positions, what is evicted; mistakes are seen.

JavaScript computes in float64, and so does the package here: what is left is its own rounding, 1e-12 nats. In float32
the package itself is up to 5.2e-5 nats away, on 256 tokens of novels-gpt2.
"""

import random
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from engine import DIGITS, LIVE, NATS, Modulo, ask, differ, needs_node, perplexity_from_13, policy_of

from minisink import Dense, Retrieval, Streaming, Window, load, token_nll
from minisink.evaluation.difference import paired
from minisink.hf.shipped import sample_text, shipped_names
from minisink.live.page import RUNS, pack, sample
from minisink.live.steps import steps

pytestmark = needs_node
RUN = [name for name in shipped_names() if load(name).config.model_type in RUNS]
METHODS = [Dense(), Window(9), Streaming(2, 7), Modulo(1, 6), Retrieval(2, 7, n_blocks=2, block=4)]
ABLATIONS = [Streaming(1, 5, "original"), Retrieval(1, 6, "original", n_blocks=1, block=3), Streaming(0, 4)]


@pytest.fixture(scope="module")
def novels():
    return load("novels", dtype="float64")


def text_of(n):
    return sample_text().read_text(encoding="utf-8")[:n]


def complaint(model, ids, methods, folder=LIVE):
    """The first difference between our steps and those of a folder's scripts, or None."""
    cases = [{"policy": policy_of(method), "ids": ids.tolist(), "whole": True} for method in methods]
    for method, case in zip(methods, ask(pack(model), folder, cases=cases)["cases"], strict=True):
        for ours, theirs in zip(steps(model, ids, method), case["steps"], strict=True):
            ours["positions"] = policy_of(method)["positions"]
            if found := differ(ours, theirs, DIGITS):
                return f"{model.name}, {method}, token {ours['t']}, {found}"
    return None


def test_every_step_of_every_method_is_the_same(novels):
    """All of the contract: slots, positions, evicted, pattern, norms, fetched, the likeliest next tokens."""
    assert complaint(novels, novels.encode(text_of(150))[:40], METHODS) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_every_model_that_ships_runs_the_same(name):
    model = load(name, dtype="float64")
    assert complaint(model, model.encode(text_of(400))[:60], METHODS + ABLATIONS) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_losses_of_a_longer_text_are_the_same(name):
    """400 tokens, and dense as far as the model was trained."""
    model = load(name, dtype="float64")
    ids = model.encode(text_of(4000))[:400]
    methods = [Dense(), Window(24), Streaming(1, 15), Streaming(4, 60)]
    texts = [ids[:256] if method == Dense() else ids for method in methods]
    cases = [{"policy": policy_of(m), "ids": i.tolist()} for m, i in zip(methods, texts, strict=True)]
    for method, text, case in zip(methods, texts, ask(pack(model), cases=cases)["cases"], strict=True):
        assert abs(token_nll(model, text, method) - case["steps"][1:]).max() < NATS, method


@pytest.mark.slow
def test_other_llamas_run_too(stories_folder, novels):
    """Grouped heads; but its tokenizer is of another kind, which is said before anything is written."""
    model = load(stories_folder, dtype="float64")
    with pytest.raises(ValueError, match=r"its tokenizer has .*; the page only has GPT-2's byte-level BPE"):
        pack(model)
    model.tokenizer = novels.tokenizer
    assert complaint(model, np.arange(5, 300, 9), METHODS) is None


@pytest.mark.slow
def test_the_numbers_of_the_page_s_own_page():
    """The table of docs/live.md, by the package alone."""
    text = (Path(__file__).parents[2] / "docs" / "live.md").read_text(encoding="utf-8")
    methods = [Dense(), Window(12), Streaming(1, 11), Streaming(1, 11, "original"), Modulo(1, 11), Streaming(4, 8)]
    model = load("novels")
    ids = model.encode(sample())
    for n in (222, 500):
        values = [f"{perplexity_from_13(model, ids[: n + 1], method):.1f}" for method in methods]
        assert f"| to token {n} | {' | '.join(values)} |" in text
        nll = [token_nll(model, ids[: n + 1], method)[12:] for method in methods]
        gaps = [paired(x, nll[2]) for x in nll]
        cells = [f"{gap.mean:+.2f} ± {gap.error:.2f}" if gap.error else "" for gap in gaps]
        assert f"to token {n} | {' | '.join(cells)} |".replace("|  |", "| |") in text
    model = load("novels-softmax1")
    both = {f"{perplexity_from_13(model, model.encode(sample())[:223], m):.1f}" for m in (methods[1], methods[2])}
    assert [f"perplexity of {value}" in text for value in both] == [True]


# The normalisers ----------------------------------------------------------------------------------


def test_softmax_takes_scores_of_any_size(novels):
    """softmax, softmax1, a sink logit, relu: exp(1000) is no number."""
    scores = [["softmax", None, [1000, 1000, -1000]], ["softmax1", None, [0, 0, 0]], ["softmax1", None, [1000, 0]]]
    scores += [["softmax", 2000, [1999, 2000]], ["relu", None, [-1, 2]]]
    with_sink = np.exp([-1, 0]) / (1 + np.exp(-1) + 1)
    expected = [[0.5, 0.5, 0], [0.25, 0.25, 0.25], [1, 0], with_sink, [0, 2]]
    for ours, theirs in zip(expected, ask(pack(novels), scores=scores)["patterns"], strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-12)


# The tokenizer ------------------------------------------------------------------------------------

POOLS = [
    "abcdefghijklmnopqrstuvwxyz",
    " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2009\u2028\u2029\u202f\u205f\u3000",
    ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "\u2019s", "'", "''"],
    ["<s>", "</s>", "<script>", "&amp;", "Ġ", "Ċ", "\x00", "\x7f", "\xad", "\ufeff", "\u200b", "\u200d", "\ufffd"],
    "0123456789²½٣Ⅷ〇",
    ["👩‍👩‍👧", "🏳️‍🌈", "e\u0301", "\u0301", "ﷺ", "שלום", "مرحبا", "漢字", "한글", "ß", "İ", "ǅ", "𝒳", "\U0010ffff"],
    [" the", " and", "ing", "  ", "   ", "\n\n", " \n", "...", "!?", "--"],
]


def hostile(n, seed=0):
    """Strings of letters, spaces, marks and signs of every kind, and code points drawn at random."""
    draw, assigned = random.Random(seed), [c for c in map(chr, range(sys.maxunicode)) if is_letter_of_old(c)]
    for i in range(n):
        pools = draw.sample(POOLS, draw.randint(1, 3)) + [assigned] * (i % 3 == 0)
        yield "".join(draw.choice(draw.choice(pools)) for _ in range(draw.randint(0, 40)))


def is_letter_of_old(c):
    """Whether Python's Unicode knows it: what a newer one calls a letter, an older one does not."""
    return unicodedata.category(c) not in ("Cn", "Cs")


def same_ids(model, texts, folder=LIVE):
    answer = ask(pack(model), folder, texts=texts)
    ours = [model.encode(text, bos=False).tolist() for text in texts]
    assert [t for t, a, b in zip(texts, ours, answer["ids"], strict=True) if a != b] == []
    return ours


def test_hostile_strings_become_the_same_ids(novels):
    texts = [*hostile(150), "", "a" * 3000, " " * 500, "<s>"]
    ours = same_ids(novels, texts)
    assert ask(pack(novels), tokens=ours)["texts"] == [novels.decode(ids) for ids in ours]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["novels", "novels-vanilla"])
def test_2000_hostile_strings_become_the_same_ids(name):
    same_ids(load(name), list(hostile(2000, seed=1)))


# Mistakes -----------------------------------------------------------------------------------------

MISTAKES = {
    "evicts the wrong slot": ("slot >= S - this.window", "slot >= S - this.window - 1 && slot !== S - 2"),
    "evicts a sink": ("slot < this.n_sinks ||", "slot < this.n_sinks - 1 || slot === this.n_sinks ||"),
    "window off by one": ("slot >= S - this.window", "slot > S - this.window"),
    "positions off by one": (
        "(_, slot) => slot);  // StreamingLLM",
        "(_, slot) => slot + (slot > 1));  // StreamingLLM",
    ),
    "positions of the text": ('this.positions === "slot"', 'this.positions === "none"'),
    "keys rotated twice": ("=> rotate(key, positions[s]))", "=> rotate(rotate(key, positions[s]), positions[s]))"),
    "evicts after attending": ("S <= this.capacity ?", "S <= this.capacity + 1 ?"),
    "heads share the wrong key": ("Math.floor(h * K / H) * D", "(H - 1 - h) * D"),
    "a ring of the window itself": ("(2 * W)", "W"),
    "fetched keys stand too near": ("rotate(q, policy.window)", "rotate(q, policy.window - 1)"),
}


@pytest.fixture(scope="module")
def few(novels):
    methods = [Streaming(2, 5), Modulo(1, 4), Retrieval(1, 4, n_blocks=1, block=2)]
    return novels, novels.encode(text_of(80))[:18], methods


def with_mistake(folder, file, right, wrong):
    """The scripts, one line of them changed."""
    shutil.copytree(LIVE, folder)
    source = (folder / file).read_text(encoding="utf-8")
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {file}"
    (folder / file).write_text(source.replace(right, wrong), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake, few, tmp_path):
    """The comparison above turns red for each."""
    assert complaint(*few, with_mistake(tmp_path / "live", "engine.mjs", *MISTAKES[mistake])) is not None


def test_right_scripts_are_right(few):
    """Of the very texts and methods in which each mistake shows."""
    assert complaint(*few) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("engine.mjs", "= scores.reduce((a, b) => Math.max(a, b), sink)", "= 0"),
        ("files.mjs", "pair[0] < best[0]", "pair[0] <= best[0] + 40"),
        ("files.mjs", "(?!\\\\P{White_Space})", ""),
    ],
)
def test_a_mistake_in_softmax_or_tokenizer_is_seen(file, right, wrong, novels, tmp_path):
    folder = with_mistake(tmp_path / "live", file, right, wrong)
    if file == "engine.mjs":
        row = ask(pack(novels), folder, scores=[["softmax", None, [1000, 1000]]])["patterns"][0]
        assert row != [0.5, 0.5]
    else:
        with pytest.raises(AssertionError):
            same_ids(novels, list(hostile(200)), folder)
