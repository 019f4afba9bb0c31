"""Ctrl-C at a good moment: between two pieces of work, so that nothing is lost."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def defer_interrupts():
    """Yield a list that is empty until Ctrl-C: the work checks it now and then, and ends in an orderly way.

    A second Ctrl-C acts at once. If Ctrl-C is ignored, or something else handles it, nothing changes.
    """
    noted: list = []
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return

    def note(number, _):
        noted.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
