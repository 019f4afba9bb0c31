"""Exams from seeds: two for neighbours, their key, and the marks of boxes and functions."""

import csv
import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minisink
from minisink.commands.parser import main
from minisink.positions import rotate

TEACHER = Path(__file__).parents[2] / "tutorials" / "teacher"
spec = importlib.util.spec_from_file_location("exam", TEACHER / "exam.py")
exam = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exam)

SEEDS = range(12)


def printed(capsys, *argv):
    exam.run([*map(str, argv)])
    return capsys.readouterr().out


def test_it_prints_two_sheets_and_the_key_the_same_for_a_seed(capsys):
    whole = printed(capsys, "--seed", 7)
    assert whole == printed(capsys, "--seed", 7) != printed(capsys, "--seed", 8)
    alone = [printed(capsys, "--seed", 7, "--part", part).strip() for part in ("A", "B", "key")]
    assert whole.strip() == "\n\n\n".join(alone)
    assert [re.findall("^# (.*)$", part, re.MULTILINE) for part in alone] == [
        ["Attention sinks: exam 7, version A"],
        ["Attention sinks: exam 7, version B"],
        ["Key: exam 7"],
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("version", ["A", "B"])
def test_a_sheet_has_fifty_points_a_picture_and_a_function_and_no_answer(seed, version):
    sheet, key = exam.sheet(seed, version), exam.key(seed)
    points = [int(n) for n in re.findall(r"^\*\*\d+\.\*\* \((\d+)\)", sheet, re.MULTILINE)]
    assert len(points) == 13 and sum(points) + exam.SENTENCE == exam.TOTAL
    assert sheet.count("Box: ") == 8 and "query 12" in sheet and sheet.count("```python") == 1
    code = set(re.findall(r"^    (?:return|n =|between|best) .*$", key, re.MULTILINE))
    assert code and not any(line in sheet for line in code)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_neighbour_has_other_numbers_in_every_box(seed):
    """The same questions, in another order, and the same ones to answer in words."""
    plain = [
        {re.sub(r"\d+|```.*", "", ask.split("\n")[0]): answer for ask, answer, *_ in exam.boxes(seed)[v]} for v in "AB"
    ]
    assert len(plain[0]) == 8 and set(plain[0]) == set(plain[1])
    assert all(plain[0][ask] != plain[1][ask] for ask in plain[0])
    words = [re.split(r"^\*\*10\.\*\*", exam.sheet(seed, v), flags=re.MULTILINE)[1] for v in "AB"]
    assert words[0] == words[1] and exam.task(exam.CODE["A"]) not in exam.sheet(seed, "B")


def test_what_the_boxes_say_of_a_ring_and_of_an_echo_is_so():
    """The scores of a cache by slot; and a model cut to some of its layers."""
    rng = np.random.default_rng(0)
    rates = np.array([1.0, 0.1, 0.01])
    query, keys = rng.normal(size=(1, 1, 6)), rng.normal(size=(8, 1, 6))
    ask, (recent, sinks) = exam.ring(np.random.default_rng(3))
    capacity = sum(map(int, re.findall(r"(?:n_sinks|window) = (\d+)", ask)))
    places = np.array([*range(4), *range(recent - 3, recent + 1)])
    held = np.array([*range(4), *range(capacity - 4, capacity)])
    by_slot = (rotate(keys, held, rates) * rotate(query, capacity - 1, rates)).sum(axis=(1, 2))
    once = rotate(keys, places, rates)
    of_ring = [(once[i] * rotate(query, sinks if i < 4 else recent, rates)).sum() for i in range(8)]
    np.testing.assert_allclose(by_slot, of_ring)

    model = minisink.load("novels")
    for layers, window, token in ((2, 8, 10), (3, 5, 20)):
        drawn = iter((layers, window, token))
        _, (last,) = exam.echo(SimpleNamespace(integers=lambda *_, drawn=drawn: next(drawn)))
        weights = dataclasses.replace(model.weights, layers=model.weights.layers[:layers])
        cut = minisink.Model(dataclasses.replace(model.config, n_layers=layers), weights)
        moved = 0
        for _ in range(8):  # the farthest of some; what is left at the end may be too little for float32
            ids = rng.integers(10, 200, last + 20).tolist()
            changed = [*ids[:token], ids[token] + 1, *ids[token + 1 :]]
            losses = [minisink.token_nll(cut, text, minisink.Window(window), readable=True) for text in (ids, changed)]
            moved = max(moved, np.flatnonzero(losses[0] != losses[1])[-1] + 1)  # losses begin with token 1
        assert moved == last


def test_a_picture_shows_what_each_query_sees():
    ask, (correct, first), diagnosis = exam.picture(np.random.default_rng(1))
    n_sinks, window = map(int, re.findall(r"`(?:n_sinks|window) = (\d)", ask))
    rows = re.findall(r"^query +\d+  ([#. ]+?) +query +\d+  ([#. ]+)$", ask, re.MULTILINE)
    seen = [[[i for i, mark in enumerate(row[side].split()) if mark == "#"] for row in rows] for side in (0, 1)]
    assert len(rows) == 13 and seen[correct - 1] == exam.held(n_sinks, window, 13) and diagnosis
    assert [a == b for a, b in zip(*seen, strict=True)].index(False) == first


@pytest.mark.parametrize(
    ("written", "answer", "right"),
    [
        ("3, 21", [3, 21], True),
        ("[3 21]", [3, 21], True),
        ("21, 3", [3, 21], False),
        ("3", [3, 21], False),
        ("3, 21, 4", [3, 21], False),
        ("120", [121], False),
        ("1/4; 0.2; .167", [1 / 4, 1 / 5, 1 / 6], True),
        ("1/4, 1/5, 1/7", [1 / 4, 1 / 5, 1 / 6], False),
        ("1/0", [1 / 4], False),
        ("", [6.0], False),
        ("6", [5.999999999999999], True),
    ],
)
def test_a_box_is_right_if_all_its_numbers_are(written, answer, right):
    assert exam.is_right(written, answer) is right


def test_boxes_of_a_class_are_marked(tmp_path, capsys):
    versions, path = exam.boxes(7), tmp_path / "boxes.csv"
    right = {v: [exam.shown(answer) for _, answer, *_ in versions[v]] for v in "AB"}
    rows = [["ann", "A", *right["A"]], ["bob", "B", *right["B"]], ["copy", "B", *right["A"]]]
    rows += [["dot", "A", "", *right["A"][1:7], "1"]]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["student", "version", *range(1, 9)], *rows])
    said = list(csv.reader(printed(capsys, "--seed", 7, "--mark", path).splitlines()))
    assert said[:3] == [["student", "version", "points", "wrong"], ["ann", "A", "24", ""], ["bob", "B", "24", ""]]
    assert int(said[3][2]) <= 3 and said[4] == ["dot", "A", "18", "1 8"]
    path.write_text("student,version,1\nann,A,3\n", encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, TEACHER / "exam.py", "--seed", "7", "--mark", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2 and "boxes.csv: no column 2, 3" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_functions_of_an_exam_are_marked_by_the_checker(tmp_path, capsys):
    """A right one passes, and each known mistake is named."""
    class_, names = tmp_path / "class", ("thinned", "heaviest")
    class_.mkdir()
    source = (TEACHER / "exam_tasks.py").read_text(encoding="utf-8")
    turns = {name: list(getattr(exam.tasks, f"{name}_turns")) for name in names}
    for name in names:
        (class_ / f"{name}_right.py").write_text(
            f"import numpy as np\n\n{source[source.index(f'def {name}(') :].split('def _')[0]}", "utf-8"
        )
    wrong = (
        "def thinned(n, n_sinks, window, every):\n    return [i for i in range(n) if i < n_sinks or i >= n - window]\n"
    )
    (class_ / "thinned_wrong.py").write_text(wrong, "utf-8")
    tasks = str(TEACHER / "exam_tasks.py")
    assert main(["check", str(class_), "--csv", str(tmp_path / "m.csv"), "--tasks", tasks, "--jobs", "1"]) == 0
    with open(tmp_path / "m.csv", newline="", encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows["heaviest_right"]["heaviest"] == rows["thinned_right"]["thinned"] == "passed"
    assert rows["thinned_wrong"]["score"] == "0" and turns["thinned"][2] in rows["thinned_wrong"]["wrong_turns"]
