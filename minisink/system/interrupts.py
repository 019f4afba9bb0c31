"""Ctrl-C at a good moment: between two pieces of work, so that nothing is lost."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def defer_interrupts():
    """Defer Ctrl-C to a good moment; a second one acts at once.

    Yields a list that is empty until Ctrl-C: the work checks it now and then, and ends in an orderly way.
    If Ctrl-C is ignored, or something else handles it, nothing changes.
    """
    noted, listening = [], signal.getsignal(signal.SIGINT) is signal.default_int_handler
    listening = listening and threading.current_thread() is threading.main_thread()

    def note(number, _):
        noted.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if listening:
        signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        if listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def until_interrupt(noted, items):
    """Yield items until Ctrl-C, the one in progress included; `noted` is from `defer_interrupts`.

    >>> list(until_interrupt([], [1, 2, 3])), list(until_interrupt(["Ctrl-C"], [1, 2, 3]))
    ([1, 2, 3], [1])
    """
    for item in items:
        yield item
        if noted:
            return
