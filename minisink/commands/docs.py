"""``minisink docs``: the site, from this machine and for this machine only.

A wheel that was made for a release carries the built pages; in a clone they are built with one command. The server
listens on 127.0.0.1, answers GET and HEAD, and gives out nothing but files that lie in the folder of the pages.
"""

import sys
import threading
import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .site import site

PURPOSE = "the documentation, as pages in a browser, without internet"
EXAMPLE = "minisink docs --port 8000 --no-browser"

HOST = "127.0.0.1"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add("--port", type=int, default=0, metavar="N", help="0 takes a free one (%(default)s)")
    add("--no-browser", action="store_true", help="print the address only")


def run(args):
    """Serve until Ctrl-C."""
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port is {args.port}; it must be 1 to 65535, or 0 for one that is free")
    with server_of(site(), args.port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        print(f"{address} until Ctrl-C", flush=True)
        if not args.no_browser:  # in a thread of its own: a browser of the terminal returns when it is closed
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # how it ends
            print(file=sys.stderr)


def server_of(folder, port=0):
    """A server of the files of a folder, on this machine's own address.

    Parameters
    ----------
    folder : path
    port : int
        0 for one that is free.

    Returns
    -------
    http.server.ThreadingHTTPServer

    Raises
    ------
    OSError
        When somebody else has the port, or this user may not have it.
    """
    try:
        return Server((HOST, port), partial(Handler, directory=str(Path(folder).resolve())))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"--port {port}: {reason}; without --port a free one is taken") from error


class Server(ThreadingHTTPServer):
    """One that no second server can share a port with, and that does not wait for a browser to hang up."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # there it would let two listen at once

    def handle_error(self, request, client_address):
        """A browser that went away before the answer is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder; a folder is its index.html, and without one it is not found."""

    def send_head(self):
        """Answer 404 to whatever is no file within the folder, wherever a link may lead."""
        name = self.translate_path(self.path)
        try:
            inside = Path(name).resolve().is_relative_to(self.directory)
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
            inside = False
        if not inside:
            self.send_error(404)
            return None
        return super().send_head()

    def list_directory(self, path):
        """There is no list of files."""
        self.send_error(404)

    def log_message(self, format, *args):
        """Nothing is logged."""
