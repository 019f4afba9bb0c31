"""What tests/evaluation/test_jobs.py has done by other processes: functions of a module that they can import."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np

import minisink
from minisink.evaluation.jobs import in_order, processes
from minisink.system.errors import run_command


def logits(model, ids):
    return model.forward(ids)


def look(model, text):
    """Return a text to tokens and back, and how the arrays lie."""
    return model.decode(model.encode(text)), {name: array.strides for name, array in model.arrays().items()}


def which(model, _):
    """Say which model in which process this is."""
    return os.getpid(), id(model)


def threads(model, _):
    import threadpoolctl

    return max(library["num_threads"] for library in threadpoolctl.threadpool_info())


def die(model, item):
    """Return the number of an item; die instead, as long as there are files of that name in the folder with it."""
    number, folder = item
    for file in folder.glob(f"{number}.*"):
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(model, item):
    if item == 3:
        raise ZeroDivisionError("three")
    return item


def sleep(model, path):
    """Say that work has begun, and be long about it."""
    with path.open("a", encoding="utf-8") as file:
        print(os.getpid(), file=file, flush=True)
    time.sleep(60)


def memory(model, _):
    """Return the bytes that a process has of the weights it shares, its part of them, and of what is its own."""
    model.forward(np.arange(4))
    time.sleep(0.5)  # until the other has read them too
    return measure()


def measure():
    maps, sums = (Path("/proc/self", name).read_text(encoding="utf-8") for name in ("smaps", "smaps_rollup"))
    shared = re.findall(r"/weights(?: \(deleted\))?\n(?:.*\n){2,6}?Pss: +(\d+)", maps)
    own = re.search(r"^Pss_Anon: +(\d+)", sums, re.MULTILINE)
    return 1024 * sum(map(int, shared)), 1024 * int(own[1])


def wait_in_processes(path):
    """Work on what takes a minute, as a command does it."""
    with processes(2) as executor:
        list(in_order(sleep, minisink.load("novels"), [path] * 4, executor))


if __name__ == "__main__":
    sys.exit(run_command(wait_in_processes, Path(sys.argv[1])))
