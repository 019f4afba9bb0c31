"""What the site adds to the pages of the repository: folded solutions, pages of source, the reference.

Sphinx reads the repository where it lies, and MyST follows the links between its pages. Sphinx's own pages of source
(viewcode) are of what the reference documents, without lines; lessons lead to lines of any file: `source` makes those.
"""

import inspect
import os
import re
from pathlib import Path, PurePosixPath

import build
from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer

import minisink

ROOT = Path(__file__).resolve().parents[1]
OPENING = re.compile(r"^```\{code-cell\} ipython3\n(---\n)?", re.MULTILINE)
FOLD = ":tags: [hide-input]\n:mystnb: {code_prompt_show: Show the solution, code_prompt_hide: Hide the solution}"
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


def complete(app, name, content):
    """Complete a page that is made of more than its file (Sphinx's event `source-read`)."""
    if re.match(r"tutorials/\d", name):
        content[0] = lesson(PurePosixPath(name).name, content[0])
    elif name == "docs/reference":
        content[0] += reference()
    elif name in ("docs/index", "docs/live"):  # the page of minisink live, which conf.py writes
        content[0] = content[0].replace("<!-- live -->", '**<a href="../live.html">Open it here</a>.**')


def lesson(name, text):
    """Return a lesson as a page: what "Run" puts out is folded, and below each stub its solution; places are links."""

    def folded(cell):
        if not build.solution_of(cell[1]):
            return cell[0]
        stub, solved = build.stubbed(cell[1]), build.solved(cell[1])
        return f"```python\n{stub}\n```\n\n```{{code-cell}} ipython3\n{FOLD}\n\n{solved}\n```"

    def covered(opening):  # what a student is to predict
        end = "" if opening[1] else "---\n"
        return f"```{{code-cell}} ipython3\n---\ntags: [hide-output]\n{end}"

    def linked(place):
        href = f"../source/minisink/{place[1]}.html#L-{build.line_of(name, place[1], place[2])}"
        return f'<a class="reference internal" href="{href}">{place[0]}</a>'

    before, run, after = re.split(r"^(?=## (?:Run|Why)$)", text, flags=re.MULTILINE)
    text = CELL.sub(folded, before + OPENING.sub(covered, run) + after)
    return build.PAGE.sub(r"[\1](../\1)", build.PLACE.sub(linked, text))


def link(app, doctree):
    """Lead links to files of the package to their pages; a folder has none (Sphinx's event `doctree-read`)."""
    page = app.env.docname
    for node in [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]:
        path = os.path.normpath(PurePosixPath(page).parent / node["reftarget"]).replace(os.sep, "/")
        if node.get("reftype") == "myst" and (ROOT / path).is_dir():
            node.replace_self(node.children)
        elif node.get("reftype") == "myst" and re.match(r"minisink/.*\.py$", path):
            uri = app.builder.get_relative_uri(page, f"source/{path}")
            node.replace_self(nodes.reference("", "", *node.children, internal=True, refuri=uri))


def source(app):
    """Yield a page for each file of the package, each line with an anchor (Sphinx's event `html-collect-pages`)."""
    for path in sorted((ROOT / "minisink").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        code = highlight(path.read_text("utf-8"), PythonLexer(), HtmlFormatter(linenos="inline", linespans="L"))
        body = f'<h1><code>{name}</code></h1><div class="source highlight-python notranslate">{code}</div>'
        yield f"source/{name}", {"title": name, "body": body}, "page.html"


def source_of(module, name):
    """Return the link from the reference to the line where a name begins; None for a field or a constant."""
    file = ModuleAnalyzer.for_module(module)
    line = file.find_tags().get(name, (None, None))[1]
    return line and f"../source/{Path(file.srcname).relative_to(ROOT).as_posix()}.html#L-{line}"


def shelf():
    """Return {module: its idea} for the files of the shelf, in the README's order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\[`\w+\.py`\].*) \| (.*) \|$", text, re.MULTILINE)
    return {module: idea for files, idea in rows for module in re.findall(r"\(minisink/(\w+)\.py\)", files)}


def reference():
    """Return what `import minisink` gives, and then the docstrings of the shelf, file by file."""
    public = {name: getattr(minisink, name) for name in minisink.__all__}
    lines = ["", "| name | |", "|---|---|"]
    for name, thing in public.items():
        first = inspect.getdoc(thing).split("\n\n")[0].replace("\n", " ")
        lines.append(f"| {{py:obj}}`{name} <{thing.__module__}.{name}>` | {first} |")
    for module, idea in shelf().items():
        lines += ["", f"## {module}", f"*{idea.replace('**', '')}*: [`{module}.py`](../minisink/{module}.py)", ""]
        lines += ["```{eval-rst}", f".. automodule:: minisink.{module}", "   :members:", "```"]
    lines += ["", "## From other files", "", "```{eval-rst}"]
    for name, thing in public.items():
        if thing.__module__.removeprefix("minisink.") not in shelf():
            kind = "class" if inspect.isclass(thing) else "function"
            lines += [f".. auto{kind}:: {thing.__module__}.{name}", "   :members:" * (kind == "class"), ""]
    return "\n".join([*lines, "```", ""])


def by_file(app, env, node, contents):
    """Find `minisink.cache.Policy` where a docstring says `cache.Policy` (Sphinx's event `missing-reference`)."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or target.startswith("minisink"):
        return None
    python, full = env.get_domain("py"), f"minisink.{target}"
    page = node.get("refdoc", env.docname)
    return python.resolve_xref(env, page, app.builder, node["reftype"], full, node, contents)


def shapes(app, what, name, obj, options, lines):
    """Put the comment of a `def` line, which says the shapes, above its docstring, and link the pages that it names."""
    lines[:] = [re.sub(r"\bdocs/([a-z0-9-]+)\.md\b", r":doc:`/docs/\1`", line) for line in lines]
    if what not in ("function", "method"):
        return
    code = inspect.getsource(obj)
    comment = re.search(r"^[ \t]*def [^\n]*?:  # (.+)$", code, re.MULTILINE)
    first = code.index("def ")
    if comment and code.count("\n", first, comment.start() + 1) <= 1:
        lines[:0] = [f"``{comment[1]}``", ""]
