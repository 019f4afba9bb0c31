"""The log of a training run, ``log.csv``: a header, and a row of numbers for every evaluation.

It is reread when training resumes, and by `experiments.emergence`. Blank lines (from an editor) and half a row at the
end (from a power failure) are skipped. Any other non-number is an error.
"""

import csv
import os

from ..system.files import atomic_write, blame, check_file

FILE = "log.csv"


def add(path, row):
    """Append a row, a dict of numbers, after a header if it is the first; ValueError if that fails."""
    with blame(path, "cannot be written"), open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def read(path):
    """Return the names of the columns, none for an empty file, and the rows: lists of numbers as strings."""
    check_file(path)
    try:
        with blame(path, "cannot be read"), open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in file if line.strip()]
        if lines and not lines[-1].endswith(("\n", "\r")):
            lines.pop()  # it was cut off
        names, *rows = [*csv.reader(lines)] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _not_a_log(path, error) from None
    for i, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise _not_a_log(path, f"row {i} does not have the {len(names)} columns of the header")
        for cell in row:
            try:
                float(cell)
            except ValueError:
                raise _not_a_log(path, f"row {i} has {cell[:20]!r} instead of a number") from None
    return names, rows


def cut(path, step):
    """Delete rows after a step, blank lines and half a row from a log, if it exists and `read` does not raise."""
    if not os.path.lexists(path):
        return
    names, rows = read(path)
    if names and names[0] != "step":
        raise _not_a_log(path, f"its first column is {names[0][:20]!r}")
    earlier = [row for row in rows if float(row[0]) <= step]
    with atomic_write(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *earlier] if names else [])


def _not_a_log(path, why):
    return ValueError(f"{path}: not the log of a `minisink train lm` run ({why})")
