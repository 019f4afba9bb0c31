"""The site: built without a warning by one command, nothing of it from elsewhere, and no link inside leads nowhere."""

import importlib.util
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import minisink
from minisink.commands.docs import BUILD

ROOT = Path(__file__).parents[1]
LESSONS = sorted(path.stem for path in (ROOT / "tutorials").glob("[0-9][0-9]-*.md"))
NEEDED = ("sphinx", "furo", "myst_nb", "sphinxcontrib.katex")


def _there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package that is not there itself
        return False


pytestmark = [
    pytest.mark.slow,  # the site is built once, half a minute
    pytest.mark.skipif(not all(map(_there, NEEDED)), reason="the site needs pip install 'minisink[docs]'"),
]


def _run(copy, *argv):
    return subprocess.run([sys.executable, *map(str, argv)], cwd=copy, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, and the copy of the repository that they were built in; the lessons are run elsewhere."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in ("benchmarks", "docs", "minisink", "tests", "tutorials", "weights"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("_build", "__pycache__"))
    for path in filter(Path.is_file, ROOT.iterdir()):  # what pages link to, beside the README
        shutil.copy(path, copy)
    built = _run(copy, *BUILD.split())
    assert built.returncode == 0, built.stderr
    return copy / "docs" / "_build" / "html"


def _page(site, name):
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_the_site_needs_no_other_machine(site):
    checked = _run(ROOT, "docs/check.py", site)
    assert checked.returncode == 0, checked.stdout


def test_the_check_of_it_finds_what_is_wrong(site, tmp_path):
    wrong = '<img src="https://example.org/a.png"><a href="no.html">x</a>'
    (tmp_path / "index.html").write_text(_page(site, "docs/index").replace("</article>", wrong), encoding="utf-8")
    checked = _run(ROOT, "docs/check.py", tmp_path)
    assert checked.returncode == 1 and "example.org" in checked.stdout and "no.html" in checked.stdout


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_solution_is_folded_below_its_stub(site, lesson):
    """Every one of them, in `details`, which needs no script to open."""
    source = (ROOT / "tutorials" / f"{lesson}.md").read_text(encoding="utf-8")
    solutions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, flags=re.DOTALL)
    page = _page(site, f"tutorials/{lesson}")
    folds = re.findall(r"<details.*?</details>", page, flags=re.DOTALL)
    assert 0 < len(solutions) == len(folds) == page.count("NotImplementedError")
    assert all("Show the solution" in fold and " open" not in fold.split(">")[0] for fold in folds)
    hidden, shown = map(_words, ("".join(folds), re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)))
    for line in filter(None, map(str.strip, "".join(solutions).splitlines())):
        assert line in hidden and (len(line) < 12 or line not in shown), line
    assert "SOLUTION" not in page


@pytest.mark.parametrize("lesson", LESSONS)
def test_what_a_lesson_is_to_predict_is_folded(lesson, monkeypatch):
    """The outputs of "Run", all of them, and no others."""
    jupytext = pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[tutorials]'")
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), str(ROOT / "tutorials"), *sys.path])
    repository = importlib.import_module("repository")
    page = repository.lesson(lesson, (ROOT / "tutorials" / f"{lesson}.md").read_text(encoding="utf-8"))
    section, folded = None, {True: set(), False: set()}
    for cell in jupytext.reads(page, fmt="md:myst").cells:
        section = (re.findall(r"^## (.+)", cell.source, re.MULTILINE) or [section])[-1]
        if cell.cell_type == "code":
            folded["hide-output" in cell.metadata.get("tags", [])].add(section)
    assert page.count("\n## Run\n") == 1 and folded[True] == {"Run"} and "Run" not in folded[False]


def _words(html):
    return unescape(re.sub(r"<[^>]*>", "", html))


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_sends_its_reader_to_pages(site, lesson):
    """A place in the source, to its line; a page of docs/, to the page; to run it, to what a student is given."""
    page = _page(site, f"tutorials/{lesson}")
    source = (ROOT / "tutorials" / f"{lesson}.md").read_text(encoding="utf-8")
    places = re.findall(r"`minisink/([\w/]+\.py):([\w.]+)`", source)
    assert places
    for file, name in places:
        found = re.search(
            rf'href="(\.\./source/minisink/{re.escape(file)}\.html)#L-(\d+)"><code[^>]*>[^<]*<[^<]*{name}<', page
        )
        assert found, f"{file}:{name}"
        code = re.search(rf'<span id="L-{found[2]}">(.*)', _page(site / "tutorials", found[1].removesuffix(".html")))
        assert re.match(rf"\s*\d+\s*(def|class) {name.split('.')[-1]}\b", _words(code[1]))
    article = page.partition("<article")[2].partition("</article>")[0]
    for name in re.findall(r"`docs/([\w-]+)\.md`", source):
        assert f'href="../docs/{name}.html"' in article
    assert re.search(r'href="\.\./docs/lessons\.html">(<[^>]*>)?How to run it', article)


def test_a_link_to_a_file_of_the_package_leads_to_its_page(site):
    """And a public name to its docstring and its line; the site begins at index.html."""
    assert 'href="source/minisink/ops.py.html"' in _page(site, "README")
    reference = _page(site, "docs/reference")
    for thing in [minisink.ops.softmax, *(getattr(minisink, name) for name in minisink.__all__)]:
        assert f'id="{thing.__module__}.{thing.__name__}"' in reference
    first = re.search(r'href="\.\./source/(minisink/model\.py)\.html#(L-\d+)"', reference)
    assert re.search(rf'<span id="{first[2]}">.*(class|def)', _page(site, f"source/{first[1]}"))
    assert "url=docs/index.html" in _page(site, "index")


def test_the_exam_is_on_no_page(site):
    """Students read the site, and a release's wheel carries it; the clone has the exam."""
    names = [path.name for path in site.rglob("*")]
    assert "syllabus.html" in names and not [name for name in names if re.match("exam|solutions", name)]
    secrets = ("Give its pattern under softmax", "three times the same was computed")
    assert not [path for path in site.rglob("*.html") if any(s in path.read_text(encoding="utf-8") for s in secrets)]


def test_students_and_teachers_have_parts_of_their_own(site):
    """In the sidebar: the lessons in order, then the teacher's pages, each with its heading above."""
    sidebar = re.search(r'<div class="sidebar-tree">.*?</div>', _page(site, "docs/lessons"), flags=re.DOTALL)[0]
    parts = re.findall(r'class="caption-text">([^<]*)<|href="([^"#]*)"', sidebar)
    names = [caption or href.rpartition("tutorials/")[2] for caption, href in parts if caption or href != "#"]
    assert [name for name in names if re.match(r"\d", name)] == [f"{lesson}.html" for lesson in LESSONS]
    teach, do = names.index("Teach"), names.index("Do")
    assert names.index(f"{LESSONS[-1]}.html") < teach and names[teach + 1] == "teacher/syllabus.html"
    assert {name for name in names if name.startswith("teacher/")} == set(names[teach + 1 : do])
