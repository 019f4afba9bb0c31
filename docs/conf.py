"""How the site is built: ``python -m sphinx -W -c docs . docs/_build/html``; all it needs is in the extra ``docs``.

The lessons are executed and their results kept in ``docs/_build/.jupyter_cache``, so a second build runs only what
changed. Without running them: ``-D nb_execution_mode=off``. What the site adds to these pages is in `repository`.
"""

import sys
from pathlib import Path

from sphinxcontrib.katex import katex_version

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in (".", "docs", "tutorials")]

import repository  # noqa: E402

import minisink  # noqa: E402
from minisink.live.page import page, sample  # noqa: E402

vendored = (Path(__file__).parent / "_static" / "katex" / "README.md").read_text(encoding="utf-8").split()[2]
if vendored != katex_version:  # its style sheet lies here, its script in the package
    raise RuntimeError(f"docs/_static/katex is of {vendored}, sphinxcontrib-katex has {katex_version}: see setup.cfg")

project = "minisink"
version = release = minisink.__version__
html_title = f"minisink {release}"
copyright = "the minisink authors"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.linkcode", "sphinxcontrib.katex"]
root_doc = "docs/index"
include_patterns = ["README.md", "docs/*.md", "tutorials/[0-9]*.md", "tutorials/teacher/[a-z]*.md"]
include_patterns += ["weights/README.md", "weights/*/README.md"]
# students read the site, and slides are no page of it
hidden = [f"tutorials/teacher/{name}.md" for name in ("exam", "solutions", "lecture")]
exclude_patterns = [".*", "docs/_*", *hidden]
default_role = "py:obj"  # `name` in a docstring is a link where there is something of that name
highlight_language = "text"
smartquotes = False  # "slot" and --slot are code, wherever they stand

html_theme = "furo"
html_static_path = ["_static"]
html_extra_path = ["_root", "_build/live"]  # index.html, which leads to docs/index.html; live.html, written here
live = Path(__file__).parent / "_build" / "live" / "live.html"
live.parent.mkdir(parents=True, exist_ok=True)
live.write_text(page(model=minisink.load("novels"), text=sample()), encoding="utf-8", newline="\n")
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_show_sourcelink = html_copy_source = False
html_show_search_summary = False  # for it the search fetches pages, which a browser refuses to pages opened as files

# No page asks for anything that does not lie beside it: docs/check.py reads them all.
katex_css_path = "katex/katex.min.css"
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # the first figure on a machine says that fonts are looked for
nb_code_prompt_show, nb_code_prompt_hide = "Show the {type}", "Hide the {type}"  # a solution says so: `repository`

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have types and shapes
napoleon_google_docstring = False
napoleon_use_rtype = False


def linkcode_resolve(domain, info):
    """Return where the source of a name stands: a line of a page of this site."""
    return repository.source_of(info["module"], info["fullname"])


def setup(app):
    """Let `repository` complete the pages and their links."""
    app.connect("source-read", repository.complete)
    app.connect("doctree-read", repository.link, priority=100)  # before Sphinx copies what is linked to be downloaded
    app.connect("html-collect-pages", repository.source)
    app.connect("autodoc-process-docstring", repository.shapes)
    app.connect("missing-reference", repository.by_file)
