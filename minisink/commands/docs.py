"""``minisink docs``: the site, from this machine and only for this machine.

A release wheel contains the built pages; in a clone one command builds them. The server is that of
`python -m http.server`, without its log, and its traceback for each browser that hangs up.
"""

import io
import shlex
import sys
import tempfile
import threading
import webbrowser
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

from ..live.page import page, sample
from ..model import load

PURPOSE = "the documentation, as pages in a browser, without internet"
EXAMPLE = "minisink docs --port 8000 --no-browser"
HOST = "127.0.0.1"
BUILD = "-m sphinx -W -q -D nb_execution_mode=off -c docs . docs/_build/html"  # the lessons are not run
PACKED = "site.zip.xz"  # an xz of an uncompressed zip: the pages are much alike


def add_options(parser):
    add = parser.add_argument
    add("--port", type=int, default=0, metavar="N", help="0 picks a free one (%(default)s)")
    add("--no-browser", action="store_true", help="only print the address")


def run(args):
    """Serve until Ctrl-C."""
    with unpacked(site()) as folder, server_of(folder, args.port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        print(f"{address} until Ctrl-C", flush=True)
        if not args.no_browser:  # in a separate thread, because a browser in a terminal returns only when it is closed
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        with suppress(KeyboardInterrupt):  # the usual end
            server.serve_forever()
        print(file=sys.stderr)


def site() -> Path:
    """Return the folder of the pages, or the release's file; FileNotFoundError says how to build them."""
    package = Path(__file__).resolve().parents[1]
    clone = package.parent / "docs"
    in_a_clone = (clone / "conf.py").is_file()
    there = clone / "_build" / "html" if in_a_clone else package / PACKED
    if (there / "index.html" if in_a_clone else there).is_file():
        return there
    if not in_a_clone:
        raise FileNotFoundError("this wheel has no pages, unlike a release's; a clone of minisink can build them")
    go, python = f"cd {shlex.quote(str(clone.parent))}", shlex.quote(sys.executable)
    build = f'{go} && {python} -m pip install -e ".[docs]" && {python} {BUILD}'
    raise FileNotFoundError(f"the pages are not built yet; this does it in a minute: {build}")


@contextmanager
def unpacked(there):
    """Yield the folder of the pages; for a release, unpack them, and make the page of minisink live."""
    if there.is_dir():
        yield there
        return
    import lzma  # some builds of Python lack it; the other commands work there

    with tempfile.TemporaryDirectory(prefix="minisink-", ignore_cleanup_errors=True) as folder:
        with lzma.open(there) as file, ZipFile(io.BytesIO(file.read())) as pages:
            pages.extractall(folder)
        live = page(model=load("novels"), text=sample())
        Path(folder, "live.html").write_text(live, encoding="utf-8", newline="\n")
        yield Path(folder)


def server_of(folder, port=0):
    """Return a server of the files of a folder; raise OSError for an unavailable port; 0 picks a free one."""
    return Server((HOST, port), partial(Handler, directory=str(folder)))


class Server(ThreadingHTTPServer):
    """A server that lets a browser hang up."""

    def handle_error(self, request, client_address):
        """Ignore a browser that left before the answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(SimpleHTTPRequestHandler):
    """The files of one folder."""

    def log_message(self, format, *args):
        """Log nothing."""
