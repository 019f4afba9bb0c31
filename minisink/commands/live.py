"""``minisink live``: watch a cache forget, on a page in one file that needs no internet."""

import json
import tempfile
import webbrowser
from pathlib import Path

from ..live.page import MOST_TEXT, page, sample
from ..live.steps import SCHEMA
from ..model import load
from ..system.errors import tell
from ..system.files import atomic_write, check_folder, read_text
from .common import add_model

PURPOSE = "watch a cache forget, on a page in a single file"
EXAMPLE = "minisink live --write page.html --model novels-gpt2"


def add_options(parser):
    add = parser.add_argument
    add_model(parser)
    add("--text", metavar="FILE", help="a UTF-8 text to read (the sample text)")
    add("--play", nargs="+", metavar="FILE", help="show recordings made by minisink inspect --steps, one lane per file")
    add("--write", metavar="FILE", help="write the page here, and do not open it")


def run(args):
    """Write the page, and open it unless --write is given."""
    check_folder(args.write)
    if args.play:
        html = page(steps=[step for path in args.play for step in _read_steps(path)])
    else:
        html = page(model=load(args.model), text=_text(args.text))
    path = Path(args.write or Path(tempfile.mkdtemp(prefix="minisink-")) / "live.html")
    with atomic_write(path) as unfinished:
        unfinished.write_text(html, encoding="utf-8", newline="\n")
    opened = not args.write and webbrowser.open(path.resolve().as_uri())
    print(f"{path}: {len(html.encode()) / 1e6:.1f} MB{'' if args.write or opened else '; open it in a browser'}")


def _text(path):
    if path is None:
        return sample()
    text = read_text(path)
    if len(text) > MOST_TEXT:
        tell(f"{path}: has {len(text):,} characters; the page takes the first {MOST_TEXT:,}")
    return text


def _read_steps(path):
    try:
        steps = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise ValueError(f"{path}: not a list of steps; minisink inspect TEXT --steps FILE writes one")
    for step in steps:
        if step.get("schema") != SCHEMA:
            raise ValueError(f"{path}: a step has schema {step.get('schema')!r}; the page shows {SCHEMA!r}")
    return steps
