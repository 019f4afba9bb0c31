"""Decoding with minisink beside what people would use instead: same shapes, same threads, same run.

    python benchmarks/decode.py                                  # with what is installed, one thread
    python benchmarks/decode.py --threads 1 2 --write docs/benchmarks.md
    python benchmarks/decode.py --shapes novels stories15m       # tinyllama-1.1b takes 14 GB of memory

Random weights of each shape go into every contestant (`contestants.py`); each shows its logits first, which must be
the same. Then they decode in turn, again and again, and the median of the turns counts (`measure.py`). Every number
of threads has a process of its own, because matrix libraries ask for it only once. `report.py` makes the page of
it, and `long.py` adds a section.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import report

from minisink.experiments.shapes import SHAPES


def main():
    """Measure in one process after the other, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each contestant's turn")
    parser.add_argument("--recompute", nargs="*", choices=SHAPES, default=["smollm2-135m"], help="shapes of Figure 10")
    parser.add_argument(
        "--lines", nargs="*", choices=SHAPES, default=["novels", "gpt2-124m"], help="shapes timed line by line"
    )
    parser.add_argument("--llama2c", metavar="PATH", help="llama2.c's binary, run")
    parser.add_argument("--sinks-python", metavar="PATH", help="a python that has attention_sinks")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page; otherwise it is printed")
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)  # here, with this process's threads
    args = parser.parse_args()
    for file in filter(None, (args.llama2c, args.sinks_python)):
        if not Path(file).is_file():
            parser.error(f"{file}: no such file")
    if min(args.repeats, *args.threads) < 1:
        parser.error("--repeats and --threads are 1 or more")
    if args.measure:
        import measure

        Path(args.measure).write_text(json.dumps(measure.everything(args)), encoding="utf-8")
        return
    page = "\n".join(report.page([in_process_of(n) for n in args.threads])) + "\n"
    if args.write:
        Path(args.write).write_text(page, encoding="utf-8")
    else:
        print(page)


def in_process_of(threads):
    """Return what this script measures with that many threads."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "results.json")
        command = [sys.executable, *sys.argv, "--threads", str(threads), "--measure", str(file)]
        subprocess.run(command, env=environment, check=True)
        return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
