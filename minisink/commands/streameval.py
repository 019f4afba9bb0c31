"""``minisink reproduce streameval``: what is known of a line so far back, in caches of several sizes."""

from ..experiments import streameval
from ..model import load
from . import recall

PURPOSE = "StreamEval (Figure 8, Table 7): lines, and questions about them so far back"
EXAMPLE = "minisink reproduce streameval --distances 5 20 --caches 128 --queries 3"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add("--distances", nargs="+", type=int, default=list(streameval.DISTANCES), metavar="N",
        help="lines back (2 5 10 20 40)")  # fmt: skip
    add("--caches", nargs="+", type=int, default=list(streameval.CACHES), metavar="N",
        help="slots, sinks included (128 256 512)")  # fmt: skip
    add("--queries", type=int, default=5, metavar="N", help="at each distance (%(default)s)")
    add("--every", type=int, default=streameval.EVERY, metavar="N", help="lines between queries (%(default)s)")
    recall.add_options(parser, streameval.METHODS)


def run(args):
    """Print a table a method: distances by caches."""
    recall.check(args, distances=0, caches=1, queries=1, every=1)
    model = load(args.model)
    sizes = {"n_queries": args.queries, "every": args.every}
    n_tokens = _work(args, model, sizes)

    def measure(on_progress):
        which = {"distances": args.distances, "caches": args.caches}
        return streameval.run(model, **which, **sizes, **recall.options_of(args), on_progress=on_progress)

    rows = recall.collect(measure, n_tokens, "streameval")
    title = f"{model.name}: a record of lines, every {args.every} a query."
    recall.show(args, rows, title=title, row_of=_row, column_of=lambda row: _slots(row, args.n_sinks))


def _work(args, model, sizes):
    """Tokens to read in all."""
    each = sum(1 if method == "dense" else len(args.caches) for method in args.methods)
    texts = (streameval.make(model, distance=distance, **sizes).ids for distance in args.distances)
    return each * sum(map(len, texts))


def _row(row):
    """The names of a row, or of their columns."""
    return ("lines", "tokens back") if row is None else (str(row["distance"]), _span(row["back"]))


def _span(back):
    return f"{back[0]}-{back[1]}" if back[0] < back[1] else str(back[0])


def _slots(row, n_sinks):
    if row["cache"] is None:
        return "all"
    return f"{n_sinks}+{row['cache'] - n_sinks}" if row["method"] != "window" else f"0+{row['cache']}"
