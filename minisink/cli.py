"""The command line: options in, one line on stderr and exit status 2 for anything wrong.

What the commands do is in `commands`, and what trains in `training`; each has an example in its ``--help``.
"""

import argparse

from . import __version__, commands
from .errors import in_one_line
from .experiments.shapes import SHAPES
from .experiments.speed import PAPER
from .methods import METHODS
from .resources import shipped_names
from .training import backcopy_command, lm_command


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; what the shell gave by default.

    Returns
    -------
    int
        Exit status.
    """
    args = make_parser().parse_args(argv)
    return in_one_line(args.run, args)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"minisink: error: {message} ({self.prog} --help tells more)\n")


def make_parser():
    """The argument parser of all commands.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = _Parser(prog="minisink", description="StreamingLLM and attention sinks in plain NumPy.")
    parser.add_argument("--version", action="version", version=f"minisink {__version__}")
    choices = parser.add_subparsers(metavar="COMMAND", required=True)

    p = _command(
        choices, "demo", commands.demo, "watch window attention fail and StreamingLLM hold", "minisink demo --cache 64"
    )
    p.add_argument("--text", metavar="FILE", help="a UTF-8 text (the story that ships)")
    p.add_argument("--tokens", type=int, default=3000, metavar="N", help="how much of it; 0 for all (%(default)s)")
    p.add_argument("--n-sinks", type=int, default=4, metavar="N", help="first tokens kept by streaming (%(default)s)")
    p.add_argument("--cache", type=int, default=128, metavar="N", help="keys a query may see (%(default)s)")
    p.add_argument("--plot", metavar="PNG", help="draw the rolling loss as a picture")
    _json_option(p)

    p = _command(
        choices,
        "generate",
        commands.write,
        "continue a text",
        'minisink generate --prompt "It was a dark night" --temperature 0.8',
    )
    source = p.add_mutually_exclusive_group()
    source.add_argument("--prompt", default="", metavar="TEXT", help="what to continue")
    source.add_argument("--prompt-file", metavar="FILE", help="a UTF-8 text to continue")
    _method_options(p)
    p.add_argument("--max-new-tokens", type=int, default=200, metavar="N", help="0 streams until Ctrl-C (%(default)s)")
    p.add_argument("--temperature", type=float, default=0.0, metavar="X", help="0 takes the likeliest (%(default)s)")
    p.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest; 0 for all (%(default)s)"
    )
    p.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest that hold P (%(default)s)"
    )
    p.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="1 for none (%(default)s)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (%(default)s)")

    p = _command(
        choices,
        "ppl",
        commands.ppl,
        "perplexity of a text of any size",
        "minisink ppl book.txt --csv loss.csv --every 1000 --resume state.safetensors",
    )
    p.add_argument("file", metavar="FILE", help="a UTF-8 text")
    _method_options(p)
    p.add_argument("--plot", metavar="PNG", help="draw the rolling loss as a picture")
    p.add_argument("--csv", metavar="FILE", help="write token, id and loss of every token, as they come")
    p.add_argument("--every", type=int, metavar="N", help="a row every N tokens instead: mean loss, perplexity so far")
    p.add_argument(
        "--resume", metavar="FILE", help="keep the state here, and go on from it (with method window or streaming)"
    )
    _json_option(p)

    p = _command(
        choices,
        "inspect",
        commands.inspect,
        "where the weight goes",
        'minisink inspect "It was a dark night." --plot heads.png',
    )
    p.add_argument("text", metavar="TEXT")
    p.add_argument("--first", type=int, default=1, metavar="N", help="weight on the first N tokens (%(default)s)")
    p.add_argument("--no-bos", action="store_true", help="do not put the begin-of-text token first")
    p.add_argument("--plot", metavar="PNG", help="draw every head's pattern as a picture")
    _json_option(p)

    p = _command(
        choices,
        "bench",
        commands.bench,
        "what a token costs, streaming and re-computing, and how near decoding is to the floor",
        "minisink bench --shape smollm2-135m --caches 256 1024 4096 --plot speed.png",
    )
    p.set_defaults(model=None)
    p.add_argument(
        "--shape",
        choices=SHAPES,
        default="novels",
        help="random weights of this shape, unless --model (%(default)s)",
    )
    p.add_argument("--caches", type=int, nargs="+", default=PAPER, metavar="N", help="sizes (256 to 4096)")
    p.add_argument("--n-sinks", type=int, default=4, metavar="N", help="first tokens kept by streaming (%(default)s)")
    p.add_argument("--repeats", type=int, default=3, metavar="N", help="the median of so many is shown (%(default)s)")
    p.add_argument("--plot", metavar="PNG", help="draw milliseconds per token as a picture")
    _json_option(p)

    p = _command(
        choices, "info", commands.info, "config, size, bytes of cache per token", "minisink info --model ./my-folder"
    )
    _json_option(p)

    purpose = "grow a sink: a classroom experiment, or a language model"
    p = choices.add_parser("train", help=purpose, description=_sentence(purpose))
    which = p.add_subparsers(metavar="WHAT", required=True)
    for name, module in (("backcopy", backcopy_command), ("lm", lm_command)):
        module.add_options(_described(which, name, module.train, module.PURPOSE, module.EXAMPLE))
    return parser


def _described(choices, name, run, purpose, example):
    """A sub-command with an example in its help."""
    p = choices.add_parser(
        name,
        help=purpose,
        description=_sentence(purpose),
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.set_defaults(run=run)
    return p


def _sentence(purpose):
    return purpose[0].upper() + purpose[1:] + "."


def _command(choices, name, run, purpose, example):
    """A sub-command that takes --model."""
    p = _described(choices, name, run, purpose, example)
    names = ", ".join(shipped_names())
    p.add_argument(
        "--model",
        default="novels",
        metavar="MODEL",
        help=f"a shipped name ({names}), a folder or a hub id owner/name (%(default)s)",
    )
    return p


def _json_option(p):
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _method_options(p):
    p.add_argument("--method", choices=METHODS, default="streaming", help="what a query sees (%(default)s)")
    p.add_argument("--n-sinks", type=int, default=4, metavar="N", help="first tokens kept by streaming (%(default)s)")
    p.add_argument(
        "--window", type=int, metavar="N", help="last tokens seen (256 with the sinks, or the trained length)"
    )
    p.add_argument(
        "--positions",
        choices=("slot", "original"),
        default="slot",
        help="numbered in the cache or in the text (%(default)s)",
    )
