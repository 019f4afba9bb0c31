"""Options, checks, progress and output that several commands share."""

import argparse
import json
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from ..hf.package import PACKAGES
from ..hf.shipped import shipped_names
from ..methods import Dense, Method, Recompute, Streaming, Window, lead_of
from ..model import Model
from ..retrieval import Retrieval
from ..retrieval.method import SELECT

METHODS = {kind.__name__.lower(): kind for kind in (Dense, Window, Recompute, Streaming, Retrieval)}
WITH_SINKS = ("streaming", "retrieval")
CAPACITY = 256  # keys of every method, unless a window is given


def add_model(parser, default="novels"):
    """Add ``--model``; with a tuple as its default it takes several models."""
    several = {"nargs": "+", "default": list(default)} if isinstance(default, tuple) else {"default": default}
    shown = f" ({' '.join(several['default'])})" if several.get("nargs") else " (%(default)s)" if default else ""
    names, packages = ", ".join(shipped_names()), ", ".join(PACKAGES)
    what = f"a shipped name ({names}), {packages} if installed, a folder, a GGUF file or a hub id{shown}"
    parser.add_argument("--model", metavar="MODEL", help=what, **several)


def add_json(parser, what="print JSON instead of a table"):
    parser.add_argument("--json", action="store_true", help=what)


def add_readable(parser):
    parser.add_argument("--readable", action="store_true", help="use cache.py, as in the paper: same result, slower")


def add_no_bos(parser):
    parser.add_argument("--no-bos", action="store_true", help="do not begin with the begin-of-text token")


def add_method(parser):
    """Add ``--method``, the values of all methods, and ``--readable``."""
    add = parser.add_argument
    add("--method", choices=METHODS, default="streaming", help="what a query sees (%(default)s)")
    add("--n-sinks", type=int, default=Streaming.n_sinks, metavar="N", help="first tokens kept for good (%(default)s)")
    add("--window", type=int, metavar="N", help="last tokens seen (256 less the sinks; at most the trained length)")
    numbering = "count positions in the cache or in the text (%(default)s)"
    add("--positions", choices=("slot", "original"), default="slot", help=numbering)
    blocks = "blocks of evicted tokens to bring back; memory and search time grow with the text (%(default)s)"
    add("--n-blocks", type=int, default=Retrieval.n_blocks, metavar="N", help=blocks)
    add("--block", type=int, default=Retrieval.block, metavar="N", help="tokens per block (%(default)s)")
    add("--select", choices=SELECT, default="best", help="how blocks are scored (%(default)s)")
    add("--store", type=int, metavar="N", help="keep only the newest N evicted tokens (all)")
    add_readable(parser)


def method_of(args, model: Model, ids) -> Method:
    """Return the method for the options of `add_method`, to be used on a text that begins with `ids`."""
    kind, window = METHODS[args.method], args.window
    if window is None:
        cache, n_sinks = min(CAPACITY, model.config.max_positions), args.n_sinks * (args.method in WITH_SINKS)
        window = cache - n_sinks
        if window < 1:
            raise ValueError(f"{n_sinks} sinks leave no window in a cache of {cache}; give --window")
    values = vars(args) | {"window": window, "lead": lead_of(model, ids, window)}
    return kind(**{field.name: values[field.name] for field in fields(kind) if field.init})


def changed(args, **values):
    """Return a copy of the options with some values changed."""
    return argparse.Namespace(**vars(args) | values)


def add_draws(parser, *, temperature=0.0, top_p=1.0):
    """Add the options for choosing the next token."""
    add = parser.add_argument
    add("--temperature", type=float, default=temperature, metavar="X", help="0 takes the likeliest token (%(default)s)")
    add("--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest tokens; 0 for all (%(default)s)")
    add("--top-p", type=float, default=top_p, metavar="P", help="draw from the likeliest that sum to P (%(default)s)")
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help="1 for no penalty (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")


def draws(args):
    """Return the options that `add_draws` added, by name."""
    return {name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "repetition_penalty", "seed")}


def at_least(args, **least):
    """Refuse an option below its minimum."""
    for name, lowest in least.items():
        if getattr(args, name) < lowest:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be {lowest} or more")


def encode(model, text, source, *, bos=True):
    """Return the token ids of a text, which must not be empty."""
    if not text:
        raise ValueError(f"{source}: empty text")
    return model.encode(text, bos=bos)


def check_apart(*paths):
    """Refuse a file that would be read or written twice."""
    resolved = set()
    for path in filter(None, paths):
        if Path(path).resolve() in resolved:
            raise ValueError(f"{path}: named twice; the text and each output file need different names")
        resolved.add(Path(path).resolve())


def progress(what, items=None, **options):
    """Return a progress bar on stderr that appears after two seconds, and only in a terminal."""
    return tqdm(items, desc=what, delay=2, disable=None, leave=False, **options)


def dump(value):
    """Print JSON, with null for a missing number, because JSON has no NaN."""
    print(as_json(value))


def as_json(value):
    """Return what `dump` prints."""
    text = json.dumps(value, default=lambda array: array.tolist())
    return json.dumps(json.loads(text, parse_constant=lambda _: None))
