"""Where the built documentation is: packed in a release's package, or in ``docs/_build/html`` of a clone."""

import io
import shlex
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

from ..live.page import page, sample
from ..model import load

BUILD = "-m sphinx -W -q -D nb_execution_mode=off -c docs . docs/_build/html"  # the lessons are not run
PACKED = "site.zip.xz"  # an xz of an uncompressed zip: the pages are much alike


def site() -> Path:
    """Return the folder of the pages, or the release's file; FileNotFoundError says how to build them."""
    package = Path(__file__).resolve().parents[1]
    clone = package.parent / "docs"
    in_a_clone = (clone / "conf.py").is_file()
    there = clone / "_build" / "html" if in_a_clone else package / PACKED
    if (there / "index.html" if in_a_clone else there).is_file():
        return there
    build = '{0} -m pip install -e ".[docs]" && {0} {1}'
    if in_a_clone:
        build = f"cd {shlex.quote(str(clone.parent))} && {build.format(shlex.quote(sys.executable), BUILD)}"
        raise FileNotFoundError(f"the pages are not built yet; this does it in a minute: {build}")
    build = build.format("python", BUILD)
    raise FileNotFoundError(f"this wheel has no pages, unlike a release's; or in a clone of minisink: {build}")


@contextmanager
def unpacked(there):
    """Yield the folder of the pages; for a release, unpack them, and make the page of minisink live."""
    if there.is_dir():
        yield there
        return
    try:
        import lzma
    except ImportError:  # some builds of Python lack it
        raise ValueError(f"{there}: this Python has no lzma, and cannot unpack the pages") from None
    with tempfile.TemporaryDirectory(prefix="minisink-", ignore_cleanup_errors=True) as folder:
        with lzma.open(there) as file, ZipFile(io.BytesIO(file.read())) as pages:
            pages.extractall(folder)
        live = page(model=load("novels"), text=sample())
        Path(folder, "live.html").write_text(live, encoding="utf-8", newline="\n")
        yield Path(folder)
