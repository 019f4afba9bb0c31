"""The command line: options in, one line on stderr and exit status 2 for any error.

A command is a file next to this one with PURPOSE, EXAMPLE, `add_options` and `run`.
"""

import argparse
from importlib import import_module

from .. import __version__
from ..system.errors import run_command, tell
from ..system.terminal import wrap
from . import conformance, reproduce, train_backcopy, train_induction, train_lm

NAMES = ("demo", "chat", "generate", "ppl", "inspect", "clinic", "live", "bench", "info", "check", "docs")  # files here
COMMANDS = {name: import_module(f".{name}", __package__) for name in NAMES}
TRAININGS = {"backcopy": train_backcopy, "induction": train_induction, "lm": train_lm}
FAMILIES: dict = {
    "reproduce": ("measure the figures and tables of the paper again", reproduce.COMMANDS),
    "conformance": ("check a cache or engine in any language with golden vectors", conformance.COMMANDS),
    "train": ("train a toy that grows a sink or induction heads, or a language model", TRAININGS),
}


def main(argv=None):
    """Run one command, from `argv` without the program's name, or from the shell; return its exit status."""
    return run_command(_run, argv)


def _run(argv):
    args = make_parser().parse_args(argv)
    return args.run(args)


def make_parser():
    """Make the argument parser of all commands."""
    parser = _Parser(prog="minisink", description="StreamingLLM and attention sinks in plain NumPy.")
    parser.add_argument("--version", action="version", version=f"minisink {__version__}")
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        _add(choices, name, command)
    for family, (purpose, members) in FAMILIES.items():
        p = choices.add_parser(family, help=purpose, description=_sentence(purpose))
        commands = p.add_subparsers(metavar="WHAT", required=True)
        for name, command in members.items():
            _add(commands, name, command)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """Print the error in one line."""
        tell(f"error: {message} (see {self.prog} --help)")
        self.exit(2)


def _add(choices, name, command):
    about = {"description": wrap(_sentence(command.PURPOSE)), "epilog": f"example:\n  {command.EXAMPLE}"}
    formatter = argparse.RawDescriptionHelpFormatter
    p = choices.add_parser(name, help=command.PURPOSE, formatter_class=formatter, **about)
    command.add_options(p)
    p.set_defaults(run=command.run)


def _sentence(purpose):
    return purpose[0].upper() + purpose[1:] + "."
