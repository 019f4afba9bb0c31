"""``minisink reproduce sink-count``: how many sinks a model needs."""

from pathlib import Path

from ..experiments.sink_count import CACHES, SINKS
from ..experiments.sink_count import run as measure
from ..model import load
from ..system.resources import sample_text
from ..system.terminal import table
from .common import add_json, add_model, add_no_bos, dump, encode, number, progress, read_text

PURPOSE = "how many sinks a model needs, in caches of several sizes (Tables 2 and 3)"
EXAMPLE = "minisink reproduce sink-count --text book.txt another.txt --caches 64 128"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add_model(parser)
    add("--text", nargs="+", type=Path, default=[sample_text()], metavar="FILE", help="UTF-8 texts (the story shipped)")
    add("--tokens", type=int, default=3000, metavar="N", help="of each text, from its beginning (%(default)s)")
    add("--caches", nargs="+", type=int, default=list(CACHES), metavar="N", help="keys a query sees (64 128 256)")
    add("--sinks", nargs="+", type=int, default=list(SINKS), metavar="N", help="first tokens kept (0 1 2 4 8)")
    add_no_bos(parser)
    add_json(parser)


def run(args):
    """Print a row a cache."""
    if args.tokens < 2:
        raise ValueError(f"--tokens is {args.tokens}; it must be 2 or more, for the first is not predicted")
    model = load(args.model)
    texts = [encode(model, read_text(path), path, bos=not args.no_bos)[: args.tokens] for path in args.text]
    n_tokens = sum(len(ids) - 1 for ids in texts)
    with progress(n_tokens * sum(len(args.sinks) + cache for cache in args.caches), "sink-count") as bar:
        rows = list(measure(model, texts, caches=args.caches, sinks=args.sinks, on_progress=bar.update))
    names = ", ".join(path.stem for path in args.text)
    if args.json:
        dump({"model": model.name, "texts": names, "tokens": n_tokens, "n_sinks": args.sinks, "rows": rows})
        return
    print(f"{model.name}: perplexity of {n_tokens:,} tokens of {names}")
    header = ["cache", *(f"{n} sink{'s' * (n != 1)}" for n in args.sinks), "re-computed"]
    cells = [[str(row["cache"]), *map(number, row["sinks"]), number(row["recompute"])] for row in rows]
    print(table(header, cells))
