"""The page of results: Markdown tables, what they were measured on, and a section that replaces its older self."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("numpy", "torch", "transformers", "llama-cpp-python")


def table(header, rows):
    """Lines of a Markdown table, and an empty one after it."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def machine():
    """Lines: processor, versions, GPU."""
    cpu = "unknown processor"
    if Path("/proc/cpuinfo").is_file():
        names = [s.split(":")[1].strip() for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s]
        cpu = f"{names[0]}, {len(names)} cores" if names else cpu
    versions = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            versions.append(f"no {library}")
    yield f"- machine: {cpu}, {platform.system()} {platform.machine()}"
    yield f"- versions: {', '.join(versions)}"
    yield "- GPU: not measured"


def command():
    """Return the command that runs, without the folders of one machine."""
    return "python " + " ".join(Path(a).name if Path(a).is_absolute() else a for a in sys.argv)


def busy():
    """How busy the machine is, in words."""
    return f"load average at the start: {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


def count(threads):
    """1 thread, 2 threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def short(x):
    """Three figures of a positive number, or more before the point; no exponent.

    Examples
    --------
    >>> short(0.06721), short(4.3), short(1234.5)
    ('0.0672', '4.30', '1,234')
    """
    return f"{x:,.0f}" if x >= 100 else f"{x:#.3g}".rstrip(".")


def put_section(path, lines):
    """Write lines, the first of them a ``##`` heading, into a page: over the same section, or else at its end.

    The section reaches to the next ``##``, or as far as the page does.
    """
    page = Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
    start = page.index(lines[0]) if lines[0] in page else len(page)
    stop = next((i for i in range(start + 1, len(page)) if page[i].startswith("## ")), len(page))
    page[start:stop] = lines
    Path(path).write_text("\n".join(page) + "\n", encoding="utf-8")
