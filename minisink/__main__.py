"""``minisink`` and ``python -m minisink``.

Small products gain little from a second BLAS thread, and on a machine that is busy with something else (a video
call in the classroom) threads that wait for each other cost many times the work. So the commands run on one,
unless ``OPENBLAS_NUM_THREADS`` or ``OMP_NUM_THREADS`` says otherwise; with models of 100M parameters and more,
say otherwise. The number is read when numpy is imported, which has already happened here: start anew.
"""

import os
import subprocess
import sys


def console():
    """Run `cli.main` in a process with one BLAS thread, and exit with its status."""
    if "OPENBLAS_NUM_THREADS" in os.environ or "OMP_NUM_THREADS" in os.environ:
        from .cli import main

        sys.exit(main())
    command = [sys.executable, "-m", "minisink", *sys.argv[1:]]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    if os.name == "posix":
        os.execve(sys.executable, command, env)  # this process becomes the new one
    sys.exit(subprocess.call(command, env=env))


if __name__ == "__main__":
    console()
