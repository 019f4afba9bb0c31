"""What the forge reads: its workflows run what the README and setup.cfg say, its forms lead to what is there."""

import configparser
import re
from datetime import date
from pathlib import Path

import pytest
import yaml

import minisink

ROOT = Path(__file__).resolve().parents[1]
FORGE = ROOT / ".github"
FILES = sorted([*FORGE.rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def runs(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def command_of(page, part):
    """The line of a page's code that holds this."""
    (line,) = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if part in line]
    return line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_yaml(path):
    assert isinstance(read(path), dict)


def test_the_fast_run_is_the_readme_s_command_on_what_setup_cfg_promises():
    job = read(".github/workflows/ci.yml")["jobs"]["fast"]
    classifiers = SETUP["metadata"]["classifiers"]
    assert job["strategy"]["matrix"]["python"] == re.findall(r"Python :: (3\.\d+)", classifiers)
    assert job["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert [name in classifiers for name in (":: POSIX :: Linux", ":: MacOS", ":: Windows")] == [True] * 3
    command = command_of("README.md", '-e ".[test]"')
    on_windows = command.replace("python3", "python", 1).replace("/bin/", "/Scripts/")
    assert runs(job) == [command, on_windows] and on_windows != command
    assert [step.get("if") for step in job["steps"][2:]] == ["runner.os != 'Windows'", "runner.os == 'Windows'"]


def test_lint_is_what_contributing_says():
    job = read(".github/workflows/ci.yml")["jobs"]["lint"]
    assert runs(job)[1] == command_of("CONTRIBUTING.md", "ruff check . &&")
    assert runs(job)[0].endswith(command_of("CONTRIBUTING.md", '-e ".[lint]"'))


def test_every_night_all_of_it_is_run():
    workflow = read(".github/workflows/ci.yml")
    assert runs(workflow["jobs"]["nightly"]) == ["bash .ci/run"] and (ROOT / ".ci" / "run").is_file()
    assert "schedule" in workflow[True]  # YAML 1.1 reads "on" as true


def test_the_pages_are_built_as_contributing_says_and_not_published_with_a_dead_link():
    build, check = (command_of("CONTRIBUTING.md", part) for part in ("-m sphinx", "docs/check.py"))
    (job,) = read(".github/workflows/pages.yml")["jobs"].values()
    assert runs(job)[1:] == [build, check]
    assert [step["with"]["path"] for step in job["steps"] if "artifact" in step.get("uses", "")] == [build.split()[-1]]
    assert '"_build/live"' in (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")  # live.html is among them


@pytest.mark.parametrize("path", sorted((FORGE / "ISSUE_TEMPLATE").glob("[0-9]*.yml")), ids=lambda path: path.name)
def test_a_form_is_one_that_the_forge_can_show(path):
    form = read(path)
    assert set(form) == {"name", "description", "title", "labels", "body"}
    assert {field["type"] for field in form["body"]} <= {"markdown", "textarea", "input"}
    asked = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(asked) == len(set(asked)) and all(
        "value" in field["attributes"] if field["type"] == "markdown" else field["attributes"]["label"]
        for field in form["body"]
    )


def test_the_forms_ask_for_what_helps_and_lead_to_what_is_there():
    number, turn = ((FORGE / "ISSUE_TEMPLATE" / f"{name}.yml").read_text("utf-8") for name in FORMS)
    assert "minisink info --json" in number
    assert '`CONTRIBUTING.md`, "A wrong turn"' in turn
    assert "\n## A wrong turn\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    from minisink.wrong_turns import right

    assert "minisink.wrong_turns.right.Cache" in turn and isinstance(right.Cache, type)


FORMS = ("1-wrong-number", "2-wrong-turn")


@pytest.mark.parametrize("path", sorted(FORGE.glob("*.md")), ids=lambda path: path.name)
def test_a_link_of_its_pages_leads_to_a_file(path):
    for link in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


def test_citation_has_the_version_and_the_address_of_setup_cfg():
    """And no other address of the project stands anywhere: publishing it changes two files."""
    cited, home = read("CITATION.cff"), SETUP["metadata"]["url"]
    assert (cited["version"], cited["repository-code"]) == (minisink.__version__, home)
    assert isinstance(cited["date-released"], date)
    addresses = re.findall(r"= (http\S+)", SETUP["metadata"]["project_urls"])
    assert len(addresses) == 4 and all(address.startswith(home) for address in addresses)


def test_a_commit_is_linted_by_the_ruff_of_setup_cfg():
    (needed,) = [line for line in SETUP["options.extras_require"]["lint"].split() if line.startswith("ruff")]
    (local,) = read(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"].split()[:2] for hook in local["hooks"]] == [["ruff", "check"], ["ruff", "format"]]
    assert [hook["additional_dependencies"] for hook in local["hooks"]] == [[needed]] * 2
