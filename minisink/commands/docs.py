"""``minisink docs``: the site, from this machine and for this machine only.

A wheel that was made for a release carries the built pages; in a clone they are built with one command. The server
is Python's own, on 127.0.0.1; what `python -m http.server` would do besides is off: following links out of the folder,
lists of files, a log, and a page of traceback for each browser that hangs up.
"""

import sys
import threading
import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .site import site, unpacked

PURPOSE = "the documentation, as pages in a browser, without internet"
EXAMPLE = "minisink docs --port 8000 --no-browser"

HOST = "127.0.0.1"


def add_options(parser):
    add = parser.add_argument
    add("--port", type=int, default=0, metavar="N", help="0 takes a free one (%(default)s)")
    add("--no-browser", action="store_true", help="print the address only")


def run(args):
    """Serve until Ctrl-C."""
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port is {args.port}; it must be 1 to 65535, or 0 for one that is free")
    with unpacked(site()) as folder, server_of(folder, args.port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        print(f"{address} until Ctrl-C", flush=True)
        if not args.no_browser:  # in a thread of its own: a browser of the terminal returns when it is closed
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # how it ends
            print(file=sys.stderr)


def server_of(folder, port=0):
    """Return a server of the files of a folder; raise OSError for a port that cannot be had, 0 takes a free one."""
    try:
        return Server((HOST, port), partial(Handler, directory=str(Path(folder).resolve())))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"--port {port}: {reason}; without --port a free one is taken") from error


class Server(ThreadingHTTPServer):
    """One that no second server can share a port with, and that lets a browser hang up."""

    allow_reuse_address = sys.platform != "win32"  # there it would let two listen at once

    def handle_error(self, request, client_address):
        """Pass over a browser that went away before the answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder; a folder is its index.html, and without one it is not found."""

    def send_head(self):
        """Answer 404 to whatever is no plain file within the folder, wherever a link may lead: a pipe would wait."""
        try:
            path = Path(self.translate_path(self.path))
            page = (path / "index.html" if path.is_dir() else path).resolve()
            inside = page.is_file() and page.is_relative_to(self.directory)
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
            inside = False
        return super().send_head() if inside else self.send_error(404)

    def log_message(self, format, *args):
        """Log nothing."""
