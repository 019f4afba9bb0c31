"""Logs of trainings beside each other."""

import csv
import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from minisink.commands.parser import main
from minisink.experiments import emergence

COLUMNS = ("step", "tokens", "valid_loss", "window_nll", "one_sink_nll", "sink_0", "sink_1")


def write(folder, n_rows=10, columns=COLUMNS, name="log.csv"):
    """A log in which every number says where it stands; returns its folder."""
    folder.mkdir(exist_ok=True)
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([(i, i * 1e6, 9 - i / 10, 2 + i / 100, 2, 0.01 * i, 0.02 * i) for i in range(1, n_rows + 1)])
    return folder


def test_a_log_is_read(tmp_path):
    log = emergence.read_log(write(tmp_path) / "log.csv")
    i = np.arange(1, 11)
    np.testing.assert_allclose(log["tokens"], i * 1e6)
    np.testing.assert_allclose(log["loss"], 9 - i / 10)
    np.testing.assert_allclose(log["gap"], i / 100)
    np.testing.assert_allclose(log["weight"], np.outer(i, [0.01, 0.02]))


def test_parts_follow_one_another(tmp_path):
    write(tmp_path, 10, name="log-128.csv")
    write(tmp_path, 3, name="log-256.csv")
    rows = list(emergence.run(trainings=[str(tmp_path)]))
    assert [row["tokens"] for row in rows] == [10**6 * n for n in range(1, 14)]
    np.testing.assert_allclose([row["gap"] for row in rows], np.array([*range(1, 11), 1, 2, 3]) / 100)
    assert [row["part"] for row in rows] == [0] * 10 + [1] * 3
    assert np.shape([row["weights"] for row in rows]) == (13, 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: holds no log"):
        list(emergence.run(trainings=[str(tmp_path / "empty")]))


@pytest.mark.parametrize(("n_rows", "shown"), [(11, [2, 5, 8, 11]), (5, [1, 2, 3, 4, 5]), (1, [1])])
def test_some_rows_are_printed_and_the_last_always(tmp_path, capsys, n_rows, shown):
    folders = [str(write(tmp_path / name, n_rows)) for name in "ab"]
    assert main(["reproduce", "emergence", "--trainings", *folders]) == 0
    table = capsys.readouterr().out.split("\n\n")[1]
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[name, f"{i}.0M"] for name in "ab" for i in shown]
    i = shown[-1]
    assert rows[-1][2:] == [f"{9 - i / 10:.2f}", f"{0.01 * i:.2f}", f"{0.02 * i:.2f}", f"+{i / 100:.3f}"]


def test_a_row_is_a_look_at_the_strongest_layer(tmp_path):
    """Every row of every part, and what stands first by the config."""
    write(tmp_path / "a", 4, name="log-128.csv")
    write(tmp_path / "a", 3, name="log-256.csv")
    write(tmp_path / "b", 2)
    (tmp_path / "a" / "config.json").write_text('{"bos_token_id": 0}', encoding="utf-8")
    rows = list(emergence.run(trainings=[str(tmp_path / name) for name in "ab"]))
    i = [1, 2, 3, 4, 1, 2, 3, 1, 2]
    assert [row["tokens"] for row in rows] == [10**6 * n for n in (1, 2, 3, 4, 5, 6, 7, 1, 2)]
    assert [row["part"] for row in rows] == [0] * 4 + [1] * 3 + [0] * 2
    assert [(row["training"], row["first"]) for row in rows] == [("a", "fixed")] * 7 + [("b", "?")] * 2
    np.testing.assert_allclose([row["weight"] for row in rows], 0.02 * np.array(i))
    assert {row["layer"] for row in rows} == {1}
    with pytest.raises(ValueError, match="another training run has this name"):
        list(emergence.run(trainings=[str(tmp_path / "a"), str(tmp_path / "b" / "a")]))


def curve(first, weight, loss):
    """Rows of a log as `run` yields them."""
    both = enumerate(zip(weight, loss, strict=True), 1)
    return [{"training": "a", "first": first, "tokens": n * 10**6, "weight": w, "loss": x} for n, (w, x) in both]


@pytest.mark.parametrize(
    ("first", "weight", "shown"),
    [
        ("fixed", [0, 0, 0, 0.1, 0.2, 0.4, 0.5, 0.5], [True, True]),
        ("fixed", [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [True, False]),  # the sink first, then the loss
        ("fixed", [0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1], [False, True]),  # too weak
        ("any", [0, 0, 0, 0, 0, 0.1, 0.1, 0.1], [True]),
        ("any", [0, 0, 0, 0, 0, 0.5, 0.5, 0.5], [False]),
        ("?", [0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1], [True, True]),
        ("?", [0.1] * 8, [False, False]),
    ],
)
def test_the_verdict_follows_from_the_curves(first, weight, shown):
    loss = [9, 8.9, 4, 3, 3, 3, 3, 3]  # half of its fall after three looks
    found = list(emergence.effects(curve(first, weight, loss)))
    assert [effect.shown for effect in found] == shown


def test_half_way_is_the_first_look_there():
    values = np.array([0.0, 0.2, 0.6, 0.4, 1.0])
    assert emergence.half_way(curve("any", values, values), values) == 3
    assert emergence.half_way(curve("any", values, values), -values) == 1  # a curve that falls is there at once


def test_the_models_that_ship(capsys):
    """Every log in the wheel can be read."""
    assert main(["reproduce", "emergence"]) == 0
    assert {"novels-vanilla", "novels-gpt2", "novels-alibi", "novels-neox"} <= {
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line
    }


def test_the_docs_say_what_is_printed(monkeypatch, capsys):
    """Every block of `docs/training.md` below its command."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    page = (root / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"`minisink reproduce emergence([^`]*)` prints\n```\n(.*?)\n```", page, re.DOTALL)
    assert len(blocks) == 2
    for options, stated in blocks:
        words = [sorted(map(str, root.glob(word))) if "*" in word else [word] for word in shlex.split(options)]
        assert main(["reproduce", "emergence", *itertools.chain(*words)]) == 0
        assert capsys.readouterr().out.split("\n\n")[1] == stated


def test_a_log_that_was_edited_or_cut_is_read(tmp_path, capsys):
    """Without its blank lines and the half row at its end; anything else is one line of the command."""
    path = write(tmp_path / "a", 3) / "log.csv"
    whole = emergence.read_log(path)
    rows = path.read_bytes()
    path.write_bytes(rows.replace(b"\r\n", b"\r\n\r\n") + b"4,4000000.0,8.")
    for name, column in emergence.read_log(path).items():
        np.testing.assert_array_equal(column, whole[name])
    for wrong in (b"\xff\r\n", b"4,x\r\n", b"4,4e6,8,2,2,x,0\r\n"):
        path.write_bytes(rows + wrong)
        assert main(["reproduce", "emergence", "--trainings", str(tmp_path / "a")]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and f"{path}: not the log of a" in err
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"log.csv: a folder"):
        list(emergence.run(trainings=[str(tmp_path / "a")]))


@pytest.mark.parametrize("columns", [("step", "tokens"), ()])
def test_what_is_no_log_is_refused(tmp_path, columns):
    for n_rows in (0, 2):
        path = write(tmp_path, n_rows, columns) / "log.csv"
        with pytest.raises(ValueError, match=r"log.csv: not the log of a `minisink train lm` run"):
            emergence.read_log(path)
    with pytest.raises(ValueError, match=r"none.csv: cannot be read"):
        emergence.read_log(tmp_path / "none.csv")
