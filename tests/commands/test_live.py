"""``minisink live``: one file that holds everything, or a clear line; and what ``inspect --steps`` writes for it."""

import json
import re
import webbrowser
from pathlib import Path

import pytest
import tiny

from minisink.families import mpt
from minisink.live.page import HERE, SCRIPTS, pack

TEXT = "It was a dark night, and the keeper of the light was old."


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_is_one_file_below_4_mb(run, tmp_path):
    """Nothing in it names another file, nor could load one."""
    text = 'one </script><script>alert(1)</script> <!-- {{script}} & "two"'
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    status, out, _ = run("live", "--write", "page.html", "--text", "text.txt")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (status, out) == (0, f"page.html: {len(html.encode()) / 1e6:.1f} MB\n") and len(html.encode()) < 4_000_000
    assert data_of(html)["text"] == text and html.count("<script") == 2
    assert "default-src 'none'" in html and not re.search(
        r"\bsrc=|\bimport\b.*from|url\(|@import", html.split('id="data"')[0]
    )
    assert not re.search(r"^(import|export) ", html, re.MULTILINE)


def test_it_opens_a_browser_or_names_the_file(run, monkeypatch):
    """The page is written where nobody else writes."""
    opened = []
    for works in (True, False):
        monkeypatch.setattr(webbrowser, "open", lambda address, works=works: opened.append(address) or works)
        status, out, _ = run("live", "--model", "novels-vanilla")
        path = Path(out.split(":")[0])
        assert (status, opened[-1], path.is_file()) == (0, path.as_uri(), True)
        assert ("open it in a browser" in out) != works


def test_recorded_steps_are_played(run, tmp_path):
    """Of two methods, each a lane."""
    for method in ("window", "streaming"):
        options = ["--method", method, "--n-sinks", "1", "--window", "5", "--steps", f"{method}.json"]
        assert run("inspect", TEXT, *options)[:2] == (0, "")
    assert run("live", "--play", "window.json", "streaming.json", "--write", "page.html")[0] == 0
    steps = data_of((tmp_path / "page.html").read_text(encoding="utf-8"))["steps"]
    assert steps == [s for m in ("window", "streaming") for s in json.loads((tmp_path / f"{m}.json").read_text())]
    last = steps[-1]
    assert last["schema"] == "minisink-step/1" and last["evicted"] == [last["t"] - 5]
    assert [slot["role"] for slot in last["slots"]] == ["sink", *["window"] * 4, "newest"]
    assert [slot["position"] for slot in last["slots"]] == [*range(6)]
    assert sum(last["pattern"][1][3]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[]", "not a list of steps; minisink inspect TEXT --steps FILE writes one"),
        ("3", "not a list of steps"),
        ('[{"schema": "minisink-step/2"}]', "a step has schema 'minisink-step/2'; the page shows 'minisink-step/1'"),
        ("[", "not JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused(run, tmp_path, written, said):
    (tmp_path / "steps.json").write_text(written)
    status, _, err = run("live", "--play", "steps.json", "--write", "page.html")
    assert status == 2 and "steps.json: " in err and said in err and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("option", [("--window", 5), ("--method", "window")])
def test_a_cache_without_steps_is_not_passed_over(run, option):
    status, _, err = run("inspect", TEXT, *option)
    assert status == 2 and "--method and --window need --steps FILE" in err


def test_a_model_that_is_too_large_is_refused(run, monkeypatch, tmp_path):
    monkeypatch.setattr("minisink.live.page.MOST_BYTES", 1_000_000)
    status, _, err = run("live", "--write", "page.html")
    assert status == 2 and "novels: 2 MB in half precision; a page holds 1 MB" in err
    assert not (tmp_path / "page.html").exists()


def test_a_family_that_the_page_cannot_run_is_refused_by_name():
    with pytest.raises(ValueError, match=r"tiny is a mpt; the page runs llama, mistral, .*: record .* with --play"):
        pack(tiny.public(tiny.make(mpt)))


def test_a_long_text_is_cut_and_said_so(run, tmp_path):
    (tmp_path / "long.txt").write_text("long " * 5000)
    status, _, err = run("live", "--text", "long.txt", "--write", "page.html")
    assert status == 0 and "long.txt: has 25,000 characters; the page takes the first 20,000" in err


def test_names_of_the_scripts_do_not_meet():
    """They share one scope in the page."""
    names = []
    for script in SCRIPTS:
        source = (HERE / script).read_text(encoding="utf-8")
        names += re.findall(r"^(?:export )?(?:const|let|function|class) (\w+)", source, re.MULTILINE)
    assert len(names) > 50 and len(names) == len(set(names))


def test_the_engine_reads_in_one_sitting():
    for script in SCRIPTS[:3]:
        lines = (HERE / script).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 250 and max(map(len, lines)) <= 120, script
