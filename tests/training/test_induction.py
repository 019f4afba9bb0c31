"""The induction task, the model that learns it, and what the methods remember of it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink.commands.parser import make_parser
from minisink.training.induction import gaps, segments, toy

ROOT = Path(__file__).parents[2]
SEGMENT = segments.SEGMENT


# The task -----------------------------------------------------------------------------------------


@examples(30)
@given(seed=st.integers(0, 999), gap=st.integers(0, 60))
def test_what_is_asked_was_read_so_many_symbols_before(seed, gap):
    """The second reading is the first, `gap` symbols after it ended; BOS stands first and nowhere else."""
    ids = segments.ask(np.random.default_rng(seed), 5, gap)
    assert ids.shape == (5, 1 + 2 * SEGMENT + gap)
    assert (ids[:, 0] == segments.BOS).all() and (ids[:, 1:] > 0).all() and ids.max() < segments.VOCABULARY
    assert (ids[:, -SEGMENT:] == ids[:, 1 : 1 + SEGMENT]).all()
    assert len({tuple(row) for row in ids}) == 5  # each text has a segment of its own


@examples(30)
@given(seed=st.integers(0, 999), length=st.integers(1, 90))
def test_rows_are_segments_read_three_times(seed, length):
    """From the front, every unit can be taken off a row: a segment, a gap of at most 15, and the segment twice."""
    rows = segments.rows(np.random.default_rng(seed), 4, length)
    assert rows.shape == (4, length) and (rows[:, 0] == segments.BOS).all() and (rows[:, 1:] > 0).all()
    for row in rows:
        ends = {0}  # places where a unit may end; lots may repeat by chance, so all ways count
        for t in range(length - 1):
            ends |= {t + n for n in _units(row[1:], t)} if t in ends else set()
        assert length - 1 in ends


def _units(symbols, t):
    """Lengths of the units that may begin at t; the last one is cut off where the row ends."""
    rest = len(symbols) - t
    for n in range(4, 20):
        for gap in range(16):
            whole = 3 * n + gap
            a, b, c = symbols[t : t + n], symbols[t + n + gap :][:n], symbols[t + 2 * n + gap :][:n]
            if (a[: len(b)] == b).all() and (a[: len(c)] == c).all():
                yield min(whole, rest)


def test_a_gap_below_nothing_is_refused():
    with pytest.raises(ValueError, match="gap is -1"):
        segments.ask(np.random.default_rng(0), 1, -1)


# The model ----------------------------------------------------------------------------------------


def test_it_has_the_parameters_that_are_said():
    assert toy.Toy(n_steps=1).vector.shape == (37_312,)


def test_the_toy_starts_at_chance_and_learns_what_is_common():
    learner = toy.Toy(n_steps=30, batch=4)
    before = learner.look()
    assert abs(before["first"] - segments.CHANCE) < 0.6 and before["induction"] < 0.1
    for _ in range(30):
        learner.step()
    assert learner.look()["first"] < before["first"]


def test_what_is_watched_is_where_the_copy_is():
    """A head that puts all its weight on the token after the first reading has 1.0; one on the token before too."""
    learner = toy.Toy(n_steps=1)
    inputs = learner.watched[:, :-1]
    B, T = inputs.shape
    pattern = np.zeros((B, 2, T, T), np.float32)
    pattern[:, 0, range(1, T), range(T - 1)] = 1.0
    for t in range(T):  # where the present symbol stood first, and the one after it
        for b in range(B):
            pattern[b, 1, t, min(t, int(np.flatnonzero(inputs[b] == inputs[b, t])[0]) + 1)] = 1.0
    zeros = np.zeros((B * T, segments.VOCABULARY), np.float32)
    learner.forward = lambda ids: (zeros, [{"pattern": pattern}, {"pattern": 0 * pattern}])
    seen = learner.look()
    assert (seen["previous"], seen["previous_head"], seen["induction_head"]) == (1.0, (0, 0), (0, 1))
    assert seen["induction"] > 0.75  # by lot a segment may hold a symbol twice
    assert math.isclose(seen["second"], math.log(segments.VOCABULARY), rel_tol=1e-6)


def test_the_bump_is_where_half_of_chance_is_passed():
    history = [(step, {"second": nll}) for step, nll in [(0, 3.6), (10, 3.4), (20, 1.8), (30, 1.7), (40, 0.2)]]
    assert toy.bump(history) == 30 and toy.bump(history[:3]) is None


# What is remembered -------------------------------------------------------------------------------


def test_a_cell_is_the_loss_of_the_second_reading():
    """Of all its symbols but the first, which nobody can know."""
    model = toy.Toy(n_steps=1).as_model("toy")
    found = gaps.each(model, gaps=(0, 7), n_texts=2, seed=5, cache=6, n_blocks=1, block=2)
    assert list(found) == list(gaps.methods(6, 1, 2))
    for name, method in gaps.methods(6, 1, 2).items():
        for gap, cell in zip((0, 7), found[name], strict=True):
            texts = segments.ask(np.random.default_rng([5, 3]), 2, gap)
            nll = [minisink.token_nll(model, text, method)[SEGMENT + gap + 1 :] for text in texts]
            assert np.allclose(nll, cell, rtol=1e-6) and len(nll[0]) == SEGMENT - 1


def test_all_see_the_same_where_nothing_is_evicted():
    """A cache longer than the text: six equal losses."""
    found = gaps.each(toy.Toy(n_steps=1).as_model("toy"), gaps=(3,), n_texts=1, cache=40)
    assert np.ptp([cell.mean() for (cell,) in found.values()]) < 1e-5


def test_the_control_draws_blocks_at_random():
    """For each head an order of its own, another for each token and layer, the same in every run."""
    method, scores = gaps.methods()["retrieval, random"], np.zeros((5, 7, 2))
    draws = [
        method.block_scores(None, None, scores, None, layer=i, t=t) for i, t in [(0, 30), (0, 30), (0, 31), (1, 30)]
    ]
    assert all((np.sort(draw, axis=1) == np.arange(7)).all() for draw in draws)
    assert len({tuple(order) for order in draws[0].tolist()}) == 5
    assert (draws[0] == draws[1]).all() and not any((draws[0] == other).all() for other in draws[2:])


LEARNED = {
    "dense": [0.1, 0.2, 3.9],
    "window": [0.1, 5.0, 5.0],
    "streaming": [0.1, 3.5, 3.5],
    "retrieval": [0.1, 0.1, 0.25],
    "retrieval, original": [0.1, 0.2, 3.6],
    "retrieval, random": [0.1, 2.5, 3.4],
}
FOUND = [
    ("forgets: 3.50",),
    ("worse than chance: 5.00",),
    ("fails beyond", "3.90", "0.20"),
    ("8 right keys", "almost all", "(98%): 0.25", "positions 3.60"),
    ("next to nothing: 3.40",),
]


def test_the_finding_says_what_was_found():
    """Each sentence follows its number, whichever way that goes."""
    for line, words in zip(gaps.finding(LEARNED, (0, 20, 200)), FOUND, strict=True):
        assert all(word in line for word in words), line
    other = LEARNED | {"streaming": [0, 0, 2.0], "window": [0, 0, 3.5], "dense": [0.1, 0.2, 0.9]}
    other |= {"retrieval": [0, 0, 1.1], "retrieval, original": [0, 0, 1.1], "retrieval, random": [0, 0, 1.4]}
    streaming, window, dense, best, random = gaps.finding(other, (0, 20, 200))
    assert "remembers something: 2.00" in streaming and "is at chance: 3.50" in window and "keeps 79%" in dense
    assert "all of what was forgotten: 0.15" in gaps.finding(LEARNED | {"retrieval": [0, 0, 0.15]}, (0, 20, 200))[3]
    assert "50% of what was forgotten: 1.10" in best and "original" not in best and "33%" in random


def test_where_there_is_nothing_to_find_it_says_so():
    assert "No finding" in gaps.finding(LEARNED, (0, 20))[0] and "No finding" in gaps.finding(LEARNED, (200, 300))[0]
    unlearned = LEARNED | {"dense": [3.4, 3.4, 3.4]}
    assert gaps.finding(unlearned, (0, 20, 200)) == ["Nothing was learned: 3.40 nats at a gap of 20, chance is 3.47."]


@pytest.mark.slow
def test_what_is_promised():
    """The command as it is called, one training: what streaming forgets comes back, and by the right keys only."""
    command = [sys.executable, "-m", "minisink", "train", "induction", "--json", "--seeds", "1", "--gaps", "0", "20"]
    out = subprocess.run([*command, "200", "--texts", "6"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    seen = json.loads(out.splitlines()[-1])
    (training,) = seen["trainings"]
    assert 100 <= training["bump"] <= 300 and min(training["previous"], training["induction"]) > 0.5
    near, short, long = np.transpose([row["mean"] for row in seen["rows"]])
    dense, window, streaming, best, original, random = long
    assert max(near[[0, 2, 3]]) < 0.4 and short[0] < 0.5  # what is in sight is copied by all
    assert abs(streaming - segments.CHANCE) < 0.15 and window > segments.CHANCE + 0.5
    assert best < 0.4 and min(dense, original, random) > 2.5
    assert len(seen["finding"]) == 5


# The command --------------------------------------------------------------------------------------


def command(*options):
    args = make_parser().parse_args(["train", "induction", *options])
    return args.run(args)


SMALL = ("--steps", "2", "--seeds", "2", "--texts", "1", "--gaps", "0", "30")


def test_command_ends_with_json_and_a_picture(capsys, tmp_path):
    command(*SMALL, "--json", "--plot", str(tmp_path / "curves.png"))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    result = json.loads(out.splitlines()[-1])
    assert [row["method"] for row in result["rows"]] == list(gaps.methods())
    assert np.shape([row["by_seed"] for row in result["rows"]]) == (6, 2, 2)
    assert [one["seed"] for one in result["trainings"]] == [0, 1] and result["trainings"][0]["bump"] is None
    assert "Nothing was learned" in result["finding"][0] and "no bump" in out
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("options", [("--layers", "1"), ("--n-blocks", "0"), ("--cache", "5"), ("--seeds", "1")])
def test_variants_run(options, capsys):
    command(*SMALL, *options)
    assert "retrieval, random" in capsys.readouterr().out


IMPOSSIBLE = [("--layers", "0"), ("--steps", "0"), ("--seeds", "0"), ("--seeds", "-2"), ("--seed", "-1")]
IMPOSSIBLE += [("--rate", "-1"), ("--gaps", "-3"), ("--texts", "0"), ("--cache", "1"), ("--block", "0")]
IMPOSSIBLE += [("--n-blocks", "-1"), ("--plot", "missing/curves.png"), ("--plot", "curves.what")]


@pytest.mark.parametrize("options", IMPOSSIBLE)
def test_impossible_options(options):
    with pytest.raises(ValueError, match=options[0][2:] if options[0] != "--plot" else options[1]):
        command(*options)
