"""Ctrl-C at a good moment: between two blocks, or two steps of a training, so that nothing is lost."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def interrupts_wait():
    """Let Ctrl-C wait for a good moment; a second one does not wait.

    Where Ctrl-C is ignored, or somebody else listens, nothing changes.

    Yields
    ------
    list
        Empty until there was a Ctrl-C. Who waits for it looks here, and ends in good order.
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


def until(noted, items):
    """The items up to and with the one in whose time there was a Ctrl-C; `noted` is from `interrupts_wait`.

    >>> list(until([], [1, 2, 3])), list(until(["Ctrl-C"], [1, 2, 3]))
    ([1, 2, 3], [1])
    """
    for item in items:
        yield item
        if noted:
            return
