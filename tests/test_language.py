"""Prose reads like English and not like a translation: the kinds of sentences that a pattern can find.

Most kinds need an ear; these need none. The table is for pages and code alike. Code blocks and `names` in a page are
not prose, and what a program prints is the program's to mend.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNITS = r"nats|ms|milliseconds|seconds|minutes|µs|bytes|radians|bits|[kKMG]i?B"
PARTS = r"layer|head|key|query|token|step|turn|second|minute|row|column|panel|line|block|model|file|method|page|lesson"
KINDS = [  # the kind, how it is found, and what to write instead
    ("takes home", r"\b(?:tak(?:es?|en|ing)|took|br(?:ings?|ought|inging))(?: \w+){0,3} home\b", "reads; the output"),
    ("nats a token", rf"\b(?:{UNITS}) an? (?:{PARTS})\b", "nats per token"),
    (
        "a row a layer",
        rf"\b(?:an?|one) (?:row|column|line|panel|bar|dot|figure|file|number|policy) an? (?:{PARTS})\b",
        "one row per layer",
    ),
    ("falls out", r"\bfalls? out\b", "cancels; leaves"),
    ("by lot", r"\bby lot\b|\blots\b", "at random; the seed"),
    ("anew", r"\banew\b", "again"),
    ("what is none", r"\b(?:what|that|which|who) (?:is|are|was|were) none\b", "what is not one"),
    ("whoever", r"\bwhoever\b", "anyone who"),
    ("so many", r"\bso many\b(?!.{0,40} that)", "that many"),
    ("it is no bug", r"(?<!there )\b(?:is|are) no (?:bug|mistake|law|accident|error|cache|sink|number)\b", "is not a"),
    ("beside", r"\bbeside (?:re-comput|its own|their own|the (?:median|mean|others?|loss)|place)\b", "relative to"),
    ("one does", r"(?:[,.;:] |\b(?:if|as|and|what|where|how|than) )one (?:does|tries|can|sees|may|must)\b", "you, we"),
    ("one upon the other", r"\bone upon\b|\bupon the other\b", "on top of each other; they coincide"),
    ("goes on", r"\b(?:goes|going|went) on\b|\bgo on (?:from|with)\b", "continues"),
    ("what was asked for", r"\bwhat was asked for\b", "the goal"),
    ("but for", r"\bbut for\b", "except for"),
    ("can be told", r"\b(?:can|could|to) be told\b(?! apart)", "can be measured; is known"),
    ("stands in", r"\bst(?:ands?|ood) (?:in|on|below|above|beside|there|behind)\b", "is, is written"),
    ("by other hands", r"\bby other hands\b", "by other tools"),
    ("of several the one", r"(?:[.;:] )of (?:several|these|those|larger|each|every|it)\b", "if there are several"),
    ("in the mean", r"\bin the mean\b", "on average"),
    ("all there is", r"\ball there is to\b|\bthere is to tell\b", "everything that is needed"),
    ("be what it was", r"\bbe what [^.;]{0,30} (?:was|were)\b", "restore"),
    ("there before", r"\bwere there before\b", "already seen"),
    ("for other reason", r"\bfor no other reason\b", "only because"),
    ("as it does it", r"\bas \w+ does it\b", "as it does"),
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [*sorted((ROOT / "weights").rglob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]
SCRIPTS = sorted([*(ROOT / "docs").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
WRITTEN = {"reproduction.md": "## Each experiment", "check-your-cache.md": "## What it recognises"}  # then generated


def page_prose(path):
    """Return the sentences of a page, without code, names and addresses."""
    text = path.read_text(encoding="utf-8").partition(WRITTEN.get(path.name, "\0"))[0]
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "_", text)


def found(prose):
    """Return every place of a kind: where it is, and what to write instead."""
    prose = re.sub(r"\s+", " ", prose)
    places = ((kind, instead, match) for kind, find, instead in KINDS for match in re.finditer(find, prose, re.I))
    return [f"{kind} -> {instead}: ...{prose[max(0, m.start() - 40) : m.end() + 30]}..." for kind, instead, m in places]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages(page):
    assert found(page_prose(page)) == []


FOLDERS = ("minisink", "tutorials", "benchmarks", "docs")
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "_build" not in path.parts)
CODE += [*sorted((ROOT / "minisink" / "live").glob("*.mjs")), ROOT / "minisink" / "live" / "page.html"]
LESSONS = sorted((ROOT / "tutorials").rglob("*.md"))


def code_prose(path):
    """Yield the texts of a file: docstrings, other strings and comments; of a script for the page, its lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from text.split("\n")
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("STRING", "COMMENT", "FSTRING_MIDDLE"):
            yield re.sub(r"`+[^`]*`+", "_", token.string.lstrip("# "))


@pytest.mark.parametrize("folder", FOLDERS)
def test_code(folder):
    """What a reader of the source, of a help text or of an error message meets."""
    code = {path.relative_to(ROOT).as_posix(): path for path in CODE}
    own = {name: path for name, path in code.items() if name.startswith(folder)}
    wrong = {name: found(" | ".join(code_prose(path))) for name, path in own.items()}
    assert {name: places for name, places in wrong.items() if places and "wrong_turns" not in name} == {}


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_lessons(page):
    assert found(page_prose(page)) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.relative_to(ROOT).as_posix())
def test_scripts(script):
    """Names, docstrings, comments, and what is printed."""
    assert found(script.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("A head that takes nothing home", "takes home"),
        ("it costs 0.66 nats a token", "nats a token"),
        ("drawn by lot", "by lot"),
        ("This is no bug.", "it is no bug"),
        ("All is well. Of several the one that explains most", "of several the one"),
        ("a state\ngoes on tomorrow", "goes on"),
    ],
)
def test_each_is_found(sentence, kind):
    assert [place.split(" -> ")[0] for place in found(sentence)] == [kind]


@pytest.mark.parametrize("sentence", ["How many tokens a query sees", "there is no sink", "three, which one can count"])
def test_english_is_left_alone(sentence):
    assert found(sentence) == []
