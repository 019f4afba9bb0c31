"""``minisink reproduce why``: why window attention breaks."""

from ..experiments.why import run as measure
from ..model import load
from ..system.files import read_text
from ..system.resources import sample_text
from ..system.terminal import table, wrap
from .common import add_json, add_model, add_no_bos, dump, encode, progress

PURPOSE = "why the window breaks: where the weight of the sink goes"
EXAMPLE = "minisink reproduce why --cache 64 --token 200"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add_model(parser)
    add("--text", metavar="FILE", help="a UTF-8 text (the story that ships)")
    add("--cache", type=int, default=64, metavar="N", help="keys a query sees (%(default)s)")
    add("--tokens", type=int, default=1000, metavar="N", help="of the text, from its beginning (%(default)s)")
    add("--token", type=int, metavar="T", help="one token of it (the mean of all after the first eviction)")
    add_no_bos(parser)
    add_json(parser)


def run(args):
    """Print a row a layer."""
    if args.token is not None and not args.cache <= args.token < args.tokens:
        raise ValueError(f"--token is {args.token}; after the first eviction come {args.cache} to {args.tokens - 1}")
    model = load(args.model)
    source = args.text or sample_text()
    ids = encode(model, read_text(source), source, bos=not args.no_bos)[: args.tokens]
    with progress(len(ids) - args.cache, "why") as bar:
        found = measure(model, ids, cache=args.cache, on_progress=bar.update)
    if args.token is None:
        which, seen = f"mean of {len(ids) - args.cache:,} tokens after the first eviction", slice(None)
    else:
        which, seen = f"token {args.token}", slice(args.token - args.cache, args.token - args.cache + 1)
    means = {name: {key: rows[seen].mean(axis=0) for key, rows in about.items()} for name, about in found.items()}
    if args.json:
        dump({"model": model.name, "cache": args.cache, "tokens": which, **means})
        return
    print(f"{model.name}, a cache of {args.cache}, {which}\n")
    header = ["layer", "sink: weight", "|v|/median", "|home|", "window: weight", "|v|/median", "|home|"]
    columns = [means[name][key] for name in ("streaming", "window") for key in ("weight", "value", "mixed")]
    rows = [[str(i), *(f"{x:.2f}" for x in row)] for i, row in enumerate(zip(*columns, strict=True))]
    print(table(header, rows))
    left = "left: the sink, in a cache with a window; right: the oldest token of a window as large; "
    print(
        "\n" + wrap(left + "weight on it, mean over the heads; |v|: norm of its value; |home|: norm of what is mixed.")
    )
