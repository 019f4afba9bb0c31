"""``minisink`` and ``python -m minisink``.

The commands run on one BLAS thread (see `system.threads`) unless ``OPENBLAS_NUM_THREADS`` or ``OMP_NUM_THREADS`` says
otherwise, as it should for a model with 100M parameters or more on an otherwise idle machine. numpy reads the number
when it is imported, and nothing has imported it yet at this point: see `minisink`.
"""

import os
import signal
import sys


def console():
    """Run `commands.parser.main` on one BLAS thread, and exit with its status."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    listening = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listening:
        signal.signal(signal.SIGINT, _end)
    from .commands.parser import main
    from .system.errors import fix_streams

    fix_streams()
    if listening:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())


def _end(*_):
    """Exit on Ctrl-C, as `run_command` does later; during the imports it would otherwise be lost."""
    os.write(2, b"minisink: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    if sys.path[0] == os.getcwd():
        del sys.path[0]  # python -m puts the current folder first; a random.py there is not ours to run
    console()
