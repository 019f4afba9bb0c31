"""Who is still at work: processes by the folder they were started in."""

import contextlib
import os
from pathlib import Path


def at_work_in(folder):
    """Processes whose current folder is one in this folder; none where there is no /proc."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.readlink(place).startswith(f"{folder}{os.sep}"):
                found.append(place.parent.name)
    return found
