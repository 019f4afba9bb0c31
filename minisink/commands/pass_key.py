"""``minisink reproduce pass-key``: a number told in a long text, and asked for at its end."""

from ..experiments import pass_key
from ..model import load
from ..system.files import read_text
from ..system.resources import sample_text
from . import recall

PURPOSE = "pass keys: a number told in a long text, and asked for at its end"
EXAMPLE = "minisink reproduce pass-key --lengths 500 --depths 0 0.9 --methods dense retrieval"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add("--text", metavar="FILE", help="what the rest is about, a UTF-8 text (the story that ships)")
    add("--lengths", nargs="+", type=int, default=list(pass_key.LENGTHS), metavar="N",
        help="tokens of a text (500 1000 1500)")  # fmt: skip
    add("--depths", nargs="+", type=float, default=list(pass_key.DEPTHS), metavar="X",
        help="where the key is told, a share of it (0 0.5 0.9)")  # fmt: skip
    add("--cache", type=int, default=pass_key.CACHE, metavar="N", help="slots, sinks included (%(default)s)")
    add("--keys", type=int, default=1, metavar="N", help="each in a text of its own (%(default)s)")
    recall.add_options(parser, pass_key.METHODS)


def run(args):
    """Print a table a method: depths by lengths."""
    recall.check(args, lengths=1, depths=0, cache=1, keys=1)
    model = load(args.model)
    filler = read_text(args.text or sample_text())
    n_tokens = args.keys * len(args.depths) * sum(args.lengths) * len(args.methods)

    def measure(on_progress):
        which = {"lengths": args.lengths, "depths": args.depths, "n_keys": args.keys, "cache": args.cache}
        return pass_key.run(model, filler, **which, **recall.options_of(args), on_progress=on_progress)

    rows = recall.collect(measure, n_tokens, "pass-key")
    slots = f"{args.n_sinks} sinks and a window of {args.cache - args.n_sinks}"
    title = f"{model.name}: a key told at a depth, asked for at the end; {slots}."
    recall.show(args, rows, title=title, row_of=_row, column_of=lambda row: f"{row['length']:,} tokens")


def _row(row):
    """The name of a row, or of its column."""
    return ("depth",) if row is None else (f"{row['depth']:g}",)
