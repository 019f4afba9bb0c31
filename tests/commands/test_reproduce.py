"""Every experiment by its name: rows out in each form, a picture, a verdict that follows from the rows; and `all`."""

import csv
import inspect
import io
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from minisink.commands.parser import main, make_parser
from minisink.commands.reproduce import EXPERIMENTS
from minisink.experiments import recall
from minisink.experiments.effects import Effect, effect
from minisink.experiments.inside import stretch
from minisink.model import load
from minisink.system.plots import LETTERS, PALETTE

REAL = "smollm2"
SLOW = (
    "methods",
    "sink-count",
    "length",
    "speed",
    "why",
    "cures",
    "new-sink",
    "metric",
    "maps",
    "training",
    "rules",
    "policies",
)  # above one CPU second


def param(name):
    """A test's argument, with the marker of what its experiment takes."""
    real = getattr(EXPERIMENTS[name].module, "MODEL", "") == REAL
    return pytest.param(name, marks=pytest.mark.real if real else pytest.mark.slow if name in SLOW else ())


@pytest.fixture(scope="module", params=[param(name) for name in EXPERIMENTS])
def name(request):
    """Return an experiment's name; the tests of one stand together, so that one process measures for all of them."""
    return request.param


@pytest.fixture(scope="module")
def measured():
    """The rows of each experiment, a first look; run once for all tests here."""
    return {}


@pytest.fixture
def rows_of(measured, monkeypatch, request):
    """A function that lets an experiment run once, and give the same rows from then on."""

    def remember(name):
        module = EXPERIMENTS[name].module
        if getattr(module, "MODEL", "") == REAL:
            request.getfixturevalue(REAL)  # or skip
        run = module.run

        def again(*args, **options):
            if name not in measured:
                measured[name] = list(run(*args, **options))
            yield from measured[name]

        again.__signature__ = inspect.signature(run)
        monkeypatch.setattr(module, "run", again)
        return measured

    return remember


def plain(value):
    """A number or word as JSON says it."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


@pytest.mark.sampled
def test_the_same_rows_in_every_form(name, rows_of, tmp_path, capsys, monkeypatch):
    """A table of 80 columns with claim and verdict; JSON; CSV; and all of them, with a picture, in a folder."""
    monkeypatch.setenv("COLUMNS", "80")
    measured = rows_of(name)
    assert main(["reproduce", name, "--fast", "--json", "--out", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) == said
    rows = [{k: v for k, v in row.items() if isinstance(v, str) or not hasattr(v, "__len__")} for row in measured[name]]
    assert said["rows"] == [{key: plain(value) for key, value in row.items()} for row in rows]
    assert len(said["rows"]) == len(rows) and len({tuple(row) for row in rows}) == 1
    assert said["shown"] in ("yes", "no", "in part") and said["effects"] and said["claim"]
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert main(["reproduce", name, "--fast", "--csv"]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / f"{name}.csv").read_text(encoding="utf-8") == printed
    table = list(csv.DictReader(io.StringIO(printed)))
    assert len(table) == len(rows) and list(table[0]) == list(rows[0])
    assert main(["reproduce", name, "--fast"]) == 0
    out = capsys.readouterr().out
    assert f"This run shows it: {said['shown']}.\n" in out
    assert [line for line in out.splitlines()[1:] if len(line) > 80] == []


def test_its_picture_is_read_from_the_last_row(name, rows_of, tmp_path, monkeypatch):
    """The title is a sentence with what was measured, no table's number; letters are large, colours of the palette."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.touch())
    rows_of(name)
    assert main(["reproduce", name, "--fast", "--json", "--out", str(tmp_path)]) == 0
    finding, paper = (
        json.loads((tmp_path / f"{name}.json").read_text("utf-8"))["finding"],
        EXPERIMENTS[name].module.PAPER,
    )
    (figure,) = drawn
    assert " ".join(figure.get_suptitle().split()) == finding and figure.get_suptitle().count("\n") <= 2
    assert (
        len(finding.split()) > 6
        and not re.search(r"Table|Figure|Section|arXiv|nan|-0\.0+\b", finding)
        and paper not in finding
    )
    assert name == "cures" or re.search(r"\d", finding)
    small = {text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_fontsize() < LETTERS}
    assert small == set()
    for axes in figure.get_axes():
        colours = {line.get_color() for line in axes.lines} | {patch.get_facecolor() for patch in axes.patches}
        assert {to_hex(colour).upper() for colour in colours} <= {colour.upper() for colour in PALETTE}


def test_a_verdict_can_be_no(name, rows_of):
    """Each effect says where it must lie, and elsewhere it is not shown."""
    measured = rows_of(name)
    if name not in measured:
        assert main(["reproduce", name, "--fast", "--json"]) == 0
    for found in EXPERIMENTS[name].module.effects(measured[name]):
        assert found.above is not None or found.below is not None
        far = 1e9 if found.above is None else -1e9
        assert not Effect(found.what, far, far, far, found.above, found.below).shown


@pytest.mark.parametrize(("n", "at_most"), [(30, 3), pytest.param(200, 12, marks=pytest.mark.slow)])
def test_a_difference_that_is_noise_is_not_shown(n, at_most):
    """Of samples without a difference, the interval leaves zero out about as often as it says: one in forty."""
    random = np.random.default_rng(0)
    found = [effect("", random.standard_normal(300), above=0, stretch=1, seed=i) for i in range(n)]
    assert sum(x.shown for x in found) <= at_most
    assert all(x.low <= x.size <= x.high for x in found)
    alike = np.repeat(random.standard_normal((n, 30)), 10, axis=1)  # neighbours that say the same
    in_stretches, one_by_one = (sum(effect("", row, above=0, stretch=n).shown for row in alike) for n in (50, 1))
    assert in_stretches < one_by_one / 2


def test_a_seed_reads_another_stretch():
    """Whole, of the length asked for, with the begin-of-text token first; seed 0 the beginning."""
    model = load("novels")
    text = "It was a dark night, and the wind blew. " * 20
    ids = model.encode(text)
    assert list(stretch(model, ids, 50)) == list(ids[:50])
    assert list(stretch(model, ids, 50, seed=2)) == [ids[0], *ids[1 + 2 * 49 : 1 + 2 * 49 + 49]]
    assert list(stretch(model, ids, 10**6, seed=2)) == list(ids)


def test_several_are_run_and_summed_up(capsys, tmp_path):
    """By name, with the same options; a failing one is said and passed over, and the status tells."""
    two = ["sink-count", "sink-or-position"]
    assert main(["reproduce", *two, "--fast", "--tokens", "150"]) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[0] for line in last] == two
    assert main(["reproduce", "all", "--only", *two, "--model", "novels-gpt2", "--fast", "--tokens", "150"]) == 2
    out, err = capsys.readouterr()
    assert "sink-or-position" in err and "not measured" in out and "This run shows it" in out
    assert main(["reproduce", "sink-count", "nothing"]) == 2
    assert "nothing cannot be reproduced" in capsys.readouterr().err
    assert main(["reproduce", *two, "--plot", str(tmp_path / "x.png")]) == 2
    assert "--out" in capsys.readouterr().err


def test_the_command_that_is_named_is_the_one_that_ran(capsys):
    """With every option that was given, a zero too; and it parses to the same."""
    words = "reproduce methods --model novels --tokens 90 --seed 2 --no-bos --cache 16 --methods window streaming"
    words += " --write 0"
    assert main([*words.split(), "--json"]) == 0
    named = json.loads(capsys.readouterr().out)["command"].split()
    assert named[:1] == ["minisink"] and {*named[1:]} == {*words.split()}
    parse = make_parser().parse_args
    assert vars(parse(named[1:])) == vars(parse(words.split()))


def test_the_fields_of_a_value_are_options():
    """Those of what is fetched: given, or as they are; the value is made once, and wrong fields are refused by it."""
    experiment = EXPERIMENTS["pass-key"]

    def options(*words):
        return experiment.options(make_parser().parse_args(["reproduce", "pass-key", *words]))

    assert options() == {"seed": 0}
    usual, lengths = recall.FETCHED, {"lengths": (300,), "depths": (0.0,), "n_keys": 3, "seed": 0}
    assert options("--fast", "--block", "3") == lengths | {"fetched": replace(usual, block=3)}
    chosen = replace(usual, n_sinks=2, n_blocks=5, select="bound")
    assert options("--n-sinks", "2", "--n-blocks", "5", "--select", "bound") == {"fetched": chosen, "seed": 0}
    with pytest.raises(ValueError, match="select is 'mean'; it must be one of best, bound"):
        options("--select", "mean")


def test_the_list_names_all(capsys):
    assert main(["reproduce", "list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name} (" in out for name in EXPERIMENTS)
    assert main(["reproduce", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "1"], "--tokens is 1"),
        (["--tokens", "60"], "nothing is evicted"),
        (["--seed", "-1"], "--seed is -1"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--out", "nowhere"], "nowhere: there is no such folder"),
        (["--csv", "nowhere/rows.csv"], "nowhere/rows.csv: cannot be written"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(options, message, capsys):
    assert main(["reproduce", "sink-count", "--fast", *options]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_what_was_measured_is_printed_when_it_ends_early(monkeypatch, capsys):
    module = EXPERIMENTS["sink-count"].module
    run = module.run

    def fails(*args, **options):
        yield next(run(*args, **options))
        raise MemoryError("no memory left")

    fails.__signature__ = inspect.signature(run)
    monkeypatch.setattr(module, "run", fails)
    assert main(["reproduce", "sink-count", "--fast"]) == 2
    out, err = capsys.readouterr()
    assert "perplexity" in out and "no memory left" in err


def test_without_matplotlib_the_numbers_still_come(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["reproduce", "sink-count", "--fast", "--tokens", "200", "--out", str(tmp_path)]) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".json"}
    assert main(["reproduce", "sink-count", "--fast", "--plot", "x.png"]) == 2
    assert "minisink[plot]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.shares])
def test_two_processes_print_the_same_rows(run, name):
    words = ("reproduce", name, "--model", "novels", "--fast", "--csv")
    assert run(*words, "--jobs", 2)[:2] == run(*words)[:2]


def test_jobs_where_there_is_nothing_to_share(run):
    """One line that names those that have; no job at all is another."""
    status, _, said = run("reproduce", "metric", "--jobs", 2)
    shared = "methods, sink-count, cache-size, streameval, pass-key, sink-or-position"
    assert (status, said.count("\n")) == (2, 1) and f"these can: {shared}" in said
    status, _, said = run("reproduce", "cache-size", "--fast", "--jobs", 0)
    assert (status, said.count("\n")) == (2, 1) and "jobs is 0" in said
