"""``minisink docs``: serve the site on this machine, and to this machine only.

A release wheel contains the built pages; in a clone one command builds them. The server is Python's own, but unlike
`python -m http.server` it does not follow links out of the folder, list files, log, or print a traceback for each
browser that hangs up.
"""

import io
import shlex
import sys
import tempfile
import threading
import webbrowser
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

from ..live.page import page, sample
from ..model import load

PURPOSE = "read the documentation in a browser, without internet"
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
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port is {args.port}; it must be 1 to 65535, or 0 for a free one")
    with unpacked(site()) as folder, server_of(folder, args.port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        print(f"{address} until Ctrl-C", flush=True)
        if not args.no_browser:  # in a separate thread, because a browser in a terminal returns only when it is closed
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the usual end
            print(file=sys.stderr)


def site() -> Path:
    """Return the folder of the pages, or the release's file; raise FileNotFoundError with how to build them."""
    package = Path(__file__).resolve().parents[1]
    clone = package.parent / "docs"
    in_a_clone = (clone / "conf.py").is_file()
    there = clone / "_build" / "html" if in_a_clone else package / PACKED
    if (there / "index.html" if in_a_clone else there).is_file():
        return there
    build = '{0} -m pip install -e ".[docs]" && {0} {1}'
    if in_a_clone:
        build = f"cd {shlex.quote(str(clone.parent))} && {build.format(shlex.quote(sys.executable), BUILD)}"
        raise FileNotFoundError(f"the pages are not built yet; this builds them in a minute: {build}")
    build = build.format("python", BUILD)
    raise FileNotFoundError(f"this wheel, unlike a release's, has no pages; build them in a clone of minisink: {build}")


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


def server_of(folder, port=0):
    """Return a server of the files of a folder; raise OSError for an unavailable port; 0 picks a free one."""
    try:
        return Server((HOST, port), partial(Handler, directory=str(Path(folder).resolve())))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"--port {port}: {reason}; without --port a free one is used") from error


class Server(ThreadingHTTPServer):
    """A server whose port cannot be shared, and that lets a browser hang up."""

    allow_reuse_address = sys.platform != "win32"  # on Windows two servers could listen at once

    def handle_error(self, request, client_address):
        """Ignore a browser that hung up before the answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder; a folder is served as its index.html, and not found without one."""

    def send_head(self):
        """Answer 404 unless the path leads, links followed, to a plain file inside the folder: a pipe would block."""
        try:
            path = Path(self.translate_path(self.path))
            page = (path / "index.html" if path.is_dir() else path).resolve()
            inside = page.is_file() and page.is_relative_to(self.directory)
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, a cycle of links
            inside = False
        return super().send_head() if inside else self.send_error(404)

    def log_message(self, format, *args):
        """Log nothing."""
