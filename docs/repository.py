"""What the site takes from outside `docs/`: the README, the lessons, the weights' READMEs, the source, the docstrings.

Every page keeps the links that work in the repository; `relink` turns them into links of the site. The pages that
`gather` writes lie in the folders GATHERED, which git ignores.
"""

import importlib
import importlib.util
import inspect
import os
import re
from pathlib import Path, PurePosixPath

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import minisink

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GATHERED = ("start", "tutorials", "weights", "reference", "source")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^\s*(```+|~~~+)")
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)\n```$", re.MULTILINE | re.DOTALL)

spec = importlib.util.spec_from_file_location("build", ROOT / "tutorials" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


# Pages: a file of the repository and its name on the site ------------------------------------------------------


def pages():
    """Every page of the repository that is one of the site: {its path from the root: its name there}."""
    found = {f"docs/{path.name}": path.stem for path in DOCS.glob("*.md")}
    found["README.md"] = "start/README"
    outside = ("tutorials/[0-9][0-9]-*.md", "tutorials/teacher/[a-z]*.md", "weights/**/README.md")
    for path in sorted(path for pattern in outside for path in ROOT.glob(pattern)):
        inside = path.relative_to(ROOT)
        found[inside.as_posix()] = inside.with_suffix("").as_posix()
    return found


def shelf():
    """The files of the shelf and their ideas, in the README's order."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Read it in this order")[1].split("\n## ")[0]
    return re.findall(r"\[`\w+\.py`\]\(minisink/(\w+)\.py\) \| (.*) \|", table)


def text_of(path):
    """A file of the repository as the site has it, before `relink`."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path == "README.md":
        return text.replace("# minisink\n", "# Start here\n", 1)
    return _lesson(PurePosixPath(path).stem, text) if re.match(r"tutorials/\d", path) else text


def _lesson(name, text):
    """A lesson as a page: what is to be written is a stub with its solution folded below, and places are links."""

    def folded(cell):
        if not build.solution_of(cell[1]):
            return cell[0]
        stub, solved = build.stubbed(cell[1]), build.solved(cell[1])
        return f"```python\n{stub}\n```\n\n```{{code-cell}} ipython3\n:tags: [hide-input]\n\n{solved}\n```"

    def linked(place):
        return f"[{place[0]}](../minisink/{place[1]}#L{build.line_of(name, place[1], place[2])})"

    text = CELL.sub(folded, text)
    text = build.PAGE.sub(lambda page: f"[{page[1]}](../{page[1]})", build.PLACE.sub(linked, text))
    text = text.replace("[Open in Colab](COLAB), or run it here", "Run it here")  # a page may be read off the network
    text = text.replace('[tutorials]"`', f'[tutorials]" && python tutorials/build.py student class {name[:2]}`', 1)
    return text.replace("open this file", f"open `class/{name}.ipynb`", 1)


def gather():
    """Write the pages that are not in `docs/`; leave alone what has not changed, delete what is no longer there."""
    made = {f"{name}.md": text_of(path) for path, name in pages().items() if not path.startswith("docs/")}
    made["weights/README.md"] += _contents("weights/.+/")
    made["tutorials/index.md"] = (
        "# Lessons\nOne idea and one figure each. Write the prediction down before you read on to the next cell, and "
        "the exercise before you unfold its solution. `python tutorials/build.py student class` makes notebooks of "
        "them, to run and to write in; {doc}`minisink check </check>` says whether what you wrote is right.\n"
        + _contents(r"tutorials/\d")
    )
    made["reference/index.md"] = _public()
    for module, idea in shelf():
        made[f"reference/{module}.md"] = _reference(module, idea)
    for path in _sources():
        made[f"source/{path}.md"] = _source(path)
    for name, text in made.items():
        target = DOCS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
    for folder in GATHERED:
        for path in (DOCS / folder).rglob("*.md"):
            if path.relative_to(DOCS).as_posix() not in made:
                path.unlink()


def _contents(pattern):
    return _toctree(name for name in pages().values() if re.match(pattern, name))


def _toctree(names):
    entries = "\n".join(f"/{name}" for name in names)
    return f"\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"


# Links: those of the repository become those of the site -------------------------------------------------------


def relink(app, name, content):
    """Turn the links of a page as it is read (Sphinx's event `source-read`)."""
    origins = {page: path for path, page in pages().items()}
    if name in origins:
        content[0] = relinked(content[0], PurePosixPath(origins[name]), PurePosixPath(name))


def relinked(text, origin, page):
    """`text` of the file `origin`, for `page`; what stands in a block of code is left alone."""
    lines, fence = text.split("\n"), None
    prose = []  # runs of lines, so that a link may go over the end of one
    for line in lines:
        mark = FENCE.match(line)
        if fence is None and not mark:
            prose.append((True, line))
            continue
        prose.append((False, line))
        if fence is None:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = None
    out, run = [], []
    for is_prose, line in [*prose, (False, None)]:
        if is_prose:
            run.append(line)
            continue
        out.append(LINK.sub(lambda found: _link(found, origin, page), "\n".join(run)) if run else None)
        out.append(line)
        run = []
    return "\n".join(line for line in out if line is not None)


def _link(found, origin, page):
    image, text, target = found.groups()
    target, hash_, place = target.partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return found[0]
    path = os.path.normpath(origin.parent / target).replace(os.sep, "/")
    if path.startswith("..") or not (ROOT / path).exists():
        return found[0]  # Sphinx says that it leads nowhere
    known, readme = pages(), f"{path}/README.md"
    if path == "tutorials" or path in known or readme in known:
        name = "tutorials/index" if path == "tutorials" else known.get(path) or known[readme]
        return f"[{text}]({_from(page, f'{name}.md')}{hash_}{place})"
    if (ROOT / path).is_dir():
        return text
    if path.endswith(".py"):
        line = re.match(r"L(\d+)", place)
        place = f"#L-{line[1]}" if line else ""
        return f'<a class="reference internal" href="{_from(page, f"source/{path}.html")}{place}">{text}</a>'
    return f"{image}[{text}]({_from(page, f'../{path}')})"


def _from(page, target):
    return os.path.relpath(target, page.parent).replace(os.sep, "/")


# Source: a page for each file that some page names -------------------------------------------------------------


def _sources():
    """Files of Python that have a page: the shelf, what `minisink.__all__` comes from, and whatever a page links to."""
    found = {f"minisink/{module}.py" for module, _ in shelf()} | {"minisink/__init__.py"}
    found |= {_file_of(module) for module, _ in _homes().values()}
    for path in pages():
        for _, _, target in LINK.findall(text_of(path)):
            linked = os.path.normpath(PurePosixPath(path).parent / target.partition("#")[0]).replace(os.sep, "/")
            if linked.endswith(".py") and not linked.startswith("..") and (ROOT / linked).is_file():
                found.add(linked)
    return sorted(found)


def _source(path):
    """A file of Python as a page, each line with an anchor; raw, so that the search finds words in pages only."""
    code = (ROOT / path).read_text(encoding="utf-8")
    html = highlight(code, PythonLexer(), HtmlFormatter(linenos="inline", linespans="L"))
    html = f'<div class="source highlight-python notranslate">{html}</div>'
    return f"---\norphan: true\n---\n# `{path}`\n\n`````{{raw}} html\n{html}\n`````\n"


def _file_of(module):
    return f"{module.replace('.', '/')}.py"


def source_of(module, name):
    """The link from a page of the reference to the line where a name begins, or None."""
    try:
        thing = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
        thing = inspect.unwrap(thing.fget if isinstance(thing, property) else thing)
        line = inspect.getsourcelines(thing)[1]
    except (AttributeError, ImportError, OSError, TypeError):  # a field of a dataclass, a constant
        return None
    return f"../source/{_file_of(module)}.html#L-{line}"


# Reference: the docstrings -------------------------------------------------------------------------------------


def _homes():
    """Where each public name is written: {name: (module, its first sentence)}."""
    homes = {}
    for name in minisink.__all__:
        thing = getattr(minisink, name)
        module = getattr(thing, "__module__", None) or "minisink.methods"  # METHODS is a tuple
        homes[name] = (module, (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " "))
    homes["METHODS"] = ("minisink.methods", ", ".join(minisink.METHODS))
    return homes


def _public():
    rows = [f"| {{py:obj}}`{name} <{module}.{name}>` | {text} |" for name, (module, text) in _homes().items()]
    modules = [f"reference/{module}" for module, _ in shelf()]
    return (
        "# Reference\nWhat `import minisink` gives; everything else may move.\n\n| name | |\n|---|---|\n"
        + "\n".join(rows)
        + "\n\n## What is raised\n\n```{eval-rst}\n.. autoexception:: minisink.hf.fields.CheckpointError\n```\n"
        + "\n## File by file\nThe shelf, in the order it is read:\n"
        + _toctree(modules)
    )


def _reference(module, idea):
    idea = re.sub(r"\*\*", "", idea)
    source = f'<a class="reference internal" href="../source/minisink/{module}.py.html"><code>{module}.py</code></a>'
    return (
        f"# {module}\n*{idea[0].upper()}{idea[1:]}.* The file: {source}\n\n"
        f"```{{eval-rst}}\n.. automodule:: minisink.{module}\n   :members:\n```\n"
    )


def by_file(app, env, node, contents):
    """Docstrings say `cache.Policy` for `minisink.cache.Policy` (Sphinx's event `missing-reference`)."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or target.startswith("minisink"):
        return None
    python, full = env.get_domain("py"), f"minisink.{target}"
    page = node.get("refdoc", env.docname)
    return python.resolve_xref(env, page, app.builder, node["reftype"], full, node, contents)


def shapes(app, what, name, obj, options, lines):
    """Put the comment of a `def` line, which says the shapes, above its docstring, and link the pages that it names."""
    lines[:] = [re.sub(r"\bdocs/([a-z0-9-]+)\.md\b", r":doc:`/\1`", line) for line in lines]
    if what not in ("function", "method"):
        return
    try:
        source = inspect.getsource(obj)
    except (OSError, TypeError):
        return
    comment = re.search(r"^[ \t]*def [^\n]*?:  # (.+)$", source, re.MULTILINE)
    first = source.index("def ")
    if comment and source.count("\n", first, comment.start() + 1) <= 1:
        lines[:0] = [f"``{comment[1]}``", ""]
