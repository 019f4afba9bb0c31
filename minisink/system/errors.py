"""Report errors of a command: one line on standard error, and an exit status."""

import os
import sys
import warnings

from . import PACKAGE
from .terminal import in_a_line, wrap

CAN_FAIL = ("strict", "surrogateescape", "surrogatepass")  # how a stream handles a character that it cannot write


def fix_streams():
    """Make stdin, stdout and stderr exist, and the last two able to print any character.

    Without a standard stream (cron, a service, pythonw, ``<&-``), input is empty and output is discarded. A character
    that the encoding of a file or pipe lacks becomes a backslash and its code.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in order, so each gets its descriptor
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        elif mode == "w" and getattr(stream, "errors", None) in CAN_FAIL:
            stream.reconfigure(errors="backslashreplace")


def warn_caller(message):
    """Warn, attributed to the calling line outside this package."""
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_back and f"{frame.f_globals.get('__name__')}.".startswith(f"{PACKAGE}."):
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, stacklevel=stacklevel)


def run_command(run, *args):
    """Call ``run(*args)`` and return its exit status (0 for None): 2 after an error, 130 after Ctrl-C.

    Each warning becomes one line, printed once, and an error that the user can fix (`ValueError`, `OSError`,
    `OverflowError`, `MemoryError`) becomes one line too. Any other error is our mistake, and keeps its traceback.
    """
    printed = set()

    def show(message, *_):
        if str(message) not in printed:  # once, wherever it comes from
            printed.add(str(message))
            tell(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        status = 0
        try:
            status = run(*args) or 0
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, perhaps `head`, has seen enough
            _silence(sys.stdout)
        except KeyboardInterrupt as stop:
            tell(" ".join(["interrupted", *map(str, stop.args)]))
            return 130
        except (ValueError, OSError, OverflowError, MemoryError) as error:
            tell(f"error: {str(error).strip() or type(error).__name__}")
            return 2
    return status


def tell(message):
    """Print a line to standard error, wrapped for a terminal; text quoted from a file cannot control it."""
    line = in_a_line(f"{PACKAGE}: {message}")
    try:
        print(wrap(line) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
    except OSError:  # a full disk or a closed pipe must not end a run that takes hours
        _silence(sys.stderr)


def _silence(stream):
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
