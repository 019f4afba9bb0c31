"""What the commands that ask a text for what it told share: their options, tables, and what is found."""

from ..experiments.recall import finding
from ..methods import N_SINKS
from ..system.terminal import table, wrap
from .common import add_json, add_model, add_no_bos, add_readable, add_retrieval, dump, progress, retrieval_options

MODEL = "smollm2"  # the shipped ones copy nothing
CHOICES = ("dense", "window", "streaming", "retrieval")


def add_options(parser, methods):
    """``--model``, ``--methods``, the sizes, ``--readable`` and ``--json``."""
    add = parser.add_argument
    add_model(parser, MODEL)
    add("--methods", nargs="+", choices=CHOICES, default=list(methods), metavar="METHOD",
        help=f"of {', '.join(CHOICES)} ({' '.join(methods)})")  # fmt: skip
    add("--n-sinks", type=int, default=N_SINKS, metavar="N", help="first tokens kept for good (%(default)s)")
    add_retrieval(parser)
    add("--seed", type=int, default=0, metavar="N", help="of the numbers that are told (%(default)s)")
    add_no_bos(parser)
    add_readable(parser)
    add_json(parser)


def check(args, **least):
    """Refuse a number, or one of several, below the least of its option."""
    for name, lowest in {"n_sinks": 0, "seed": 0, **least}.items():
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if not value >= lowest:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be {lowest} or more")


def options_of(args):
    """What every cell is measured with."""
    options = {"methods": args.methods, "n_sinks": args.n_sinks, "seed": args.seed, "bos": not args.no_bos}
    return options | retrieval_options(args) | {"readable": args.readable}


def collect(measure, n_tokens, what):
    """The rows that ``measure(on_progress)`` yields, with a bar."""
    with progress(n_tokens, what) as bar:
        return list(measure(bar.update))


def show(args, rows, *, title, row_of, column_of):
    """A table a method, nats a token and how many recalled exactly; and what they say. Or JSON.

    `row_of` and `column_of` name the place of a row of `recall.measure` in its table.
    """
    said = finding(rows)
    if args.json:
        dump({"model": args.model, "rows": rows, "finding": said})
        return
    print(wrap(f"{title} Nats a token of the answers, and how many are recalled exactly."))
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = {}
        for row in own:
            cells.setdefault(row_of(row), {})[column_of(row)] = f"{row['nll']:.2f} {row['exact']:2}/{row['asked']}"
        columns = list(dict.fromkeys(map(column_of, own)))
        print(f"\n{method}")
        print(
            table([*row_of(None), *columns], [[*names, *(found[c] for c in columns)] for names, found in cells.items()])
        )
    print()
    for line in said:
        print(wrap(line))
