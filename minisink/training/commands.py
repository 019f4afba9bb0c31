"""``minisink train``: its two sub-commands, `lm` and `backcopy`."""

from .backcopy_command import add_parser as add_backcopy
from .lm_command import add_parser as add_lm


def add_parser(subparsers):
    """Add ``train`` with its sub-commands.

    Parameters
    ----------
    subparsers : argparse action
        What ``ArgumentParser.add_subparsers`` returned.
    """
    train = subparsers.add_parser("train", help="grow a sink: a classroom experiment, or a language model")
    which = train.add_subparsers(metavar="WHAT", required=True)
    add_backcopy(which)
    add_lm(which)
