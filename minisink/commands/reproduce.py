"""``minisink reproduce NAME``: a figure or table of the paper, anew, and whether this run shows what it claims.

Every experiment is run the same way; what it is about stands in its own file (`experiments`).
"""

import argparse
import inspect
import shlex
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ..experiments.inside import stretch
from ..hf.shipped import sample_text
from ..model import load
from ..system.errors import tell
from ..system.files import check_folder, check_picture, check_room, read_text
from ..system.terminal import table, wrap
from .common import add_json, add_model, add_no_bos, at_least, dump, encode
from .reproduce_report import first_line, report

MODEL, TOKENS = "novels", 3000  # what an experiment is run on unless it says otherwise
GIVEN = ("model", "models", "ids", "texts", "text")  # what `run` may ask for by position
NAMES = """methods sink-count cache-size training maps length speed streameval pass-key sink-or-position why sink-parts
    echo emergence cures new-sink metric sink-tokens rules policies""".split()
FILES = {"methods": "methods_compared", "speed": "token_cost"}  # the others lie in a file of their own name


class Experiment:
    """An experiment as a command: PURPOSE, EXAMPLE, `add_options` and `run`, like every file beside this one."""

    def __init__(self, name):
        file = FILES.get(name, name.replace("-", "_"))
        self.name, self.module = name, (module := import_module(f"..experiments.{file}", __package__))
        self.PURPOSE = f"{first_line(module)} ({module.PAPER})"
        self.EXAMPLE = f"minisink reproduce {name} --fast"
        parameters = inspect.signature(module.run).parameters
        self.given = [key for key in GIVEN if key in parameters]
        self.draws = "seed" in parameters  # and so has use for --seed
        self.shares = "each" in parameters  # rows that processes can work on, each for itself
        self.helps, self.defaults, self.values = {}, {}, {}
        for key, what in module.OPTIONS.items():
            default = parameters[key].default
            if isinstance(what, dict):  # a value, each of whose fields is an option
                self.values |= dict.fromkeys(what, (key, default))
                self.defaults |= {name: getattr(default, name) for name in what}
                self.helps |= what
            else:
                self.defaults[key], self.helps[key] = default, what

    def add_options(self, parser):
        """Add what all share, and a line for each of the experiment's own."""
        add = parser.add_argument
        add_common(parser, self.given, module=self.module)
        add("also", nargs="*", metavar="NAME", help="others, run with the same options")
        add("--csv", nargs="?", const="-", metavar="FILE", help="the rows as CSV, to a file or instead of the table")
        add("--plot", metavar="PNG", help="draw a picture")
        for key, what in self.helps.items():
            default = self.defaults[key]
            several = isinstance(default, tuple)
            kind = str if default == () else type(default[0] if several else default) if default is not None else int
            shown = " ".join(map(str, default)) if several else default
            options = {"help": what if default in (None, ()) else f"{what} ({shown})", "default": None}
            if kind is bool:
                add(_flag(key), action="store_true", **options)
            else:
                metavar = {int: "N", float: "X"}.get(kind, "NAME")
                add(_flag(key), type=kind, metavar=metavar, nargs="+" if several else None, **options)

    def run(self, args):
        """Measure, print, and draw."""
        if args.also:
            for name in args.also:
                if name not in EXPERIMENTS:
                    raise ValueError(f"{name} cannot be reproduced; `minisink reproduce list` names what can")
            if args.plot or args.csv not in (None, "-"):
                raise ValueError("several experiments, one file: write all into a folder, with --out")
            args.only = [self.name, *args.also]
            return COMMANDS["all"].run(args)
        check_outputs(args)
        if args.jobs != 1 and not self.shares:
            shared = ", ".join(name for name, one in EXPERIMENTS.items() if one.shares)
            raise ValueError(f"--jobs: {self.name} has nothing to share among processes; these have: {shared}")
        report(self, args)
        return 0

    def options(self, args):
        """Return what `run` is called with: what was given, else what --fast says, else nothing."""
        options = dict(self.module.FAST) if args.fast else {}
        options |= {key: getattr(args, key) for key in self.defaults if getattr(args, key, None) is not None}
        options = {key: value for key, value in options.items() if key in self.defaults}
        for field, (key, default) in self.values.items():
            if field in options:
                options[key] = replace(options.get(key, default), **{field: options.pop(field)})
        return options | ({"seed": args.seed} if self.draws else {})

    def inputs(self, args):
        """Return what `run` asks for by position: models and texts."""
        inputs: dict = {}
        if "models" in self.given:
            inputs["models"] = {name: load(name) for name in args.model or self.module.MODELS}
        elif "model" in self.given:
            inputs["model"] = load(args.model or getattr(self.module, "MODEL", MODEL))
        text = getattr(args, "text", None) or sample_text()
        paths = text if isinstance(text, list) else [text]
        if "text" in self.given:
            inputs["text"] = read_text(paths[0])
        if {"ids", "texts"} & {*self.given}:
            fast, model = self.module.FAST if args.fast else {}, inputs["model"]
            usual = fast.get("tokens", _default_tokens(self.module))
            n_tokens = usual if args.tokens is None else args.tokens
            if n_tokens < 2:
                raise ValueError(f"--tokens is {n_tokens}; it must be 2 or more, for the first is not predicted")
            whole = [encode(model, read_text(path), path, bos=not args.no_bos) for path in paths]
            texts = [stretch(model, ids, n_tokens, args.seed) for ids in whole]
            inputs |= {"texts": texts} if "texts" in self.given else {"ids": texts[0]}
        return [inputs[key] for key in self.given]

    def command(self, args):
        """Return the words that run this again."""
        words = ["minisink", "reproduce", self.name]
        for key, value in vars(args).items():
            if key in (*self.defaults, "model", "text", "tokens", "seed", "fast", "no_bos"):
                if value is True:
                    words.append(_flag(key))
                elif not (value is None or value is False or (key, value) == ("seed", 0)):
                    words += [_flag(key), *map(str, value if isinstance(value, list) else [value])]
        return shlex.join(words)

    def own(self, args):
        """Return the options of this experiment by itself, those that all share as they were given to all."""
        parser = argparse.ArgumentParser()
        self.add_options(parser)
        parsed = parser.parse_args([])
        for key in vars(parsed):
            value = getattr(args, key, None)
            if value is not None and (key != "model" or isinstance(value, list) == ("models" in self.given)):
                setattr(parsed, key, value)
        return parsed


def add_common(parser, given, *, module=None):
    """Add the options that every experiment has, as far as it is given a model or a text."""
    add = parser.add_argument
    if "models" in given and module:
        add_model(parser, module.MODELS)
    elif "model" in given:
        add_model(parser, getattr(module, "MODEL", MODEL) if module else None)
    if {"text", "ids", "texts"} & {*given}:
        several = {"nargs": "+"} if "texts" in given else {}
        add("--text", metavar="FILE", help="a UTF-8 text (the story that ships)", **several)
    if {"ids", "texts"} & {*given}:
        add("--tokens", type=int, metavar="N", help=f"how much of it ({_default_tokens(module)})")
        add_no_bos(parser)
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn; of a text, which stretch is read (0)")
    add("--fast", action="store_true", help="a first look, in seconds")
    add("--jobs", type=int, default=1, metavar="N", help="processes that share the rows (%(default)s)")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FOLDER", help="write rows (CSV), what was found (JSON) and picture (PNG) there")


def check_outputs(args):
    """Refuse what could not be done or written, before the work."""
    at_least(args, seed=0)
    check_picture(getattr(args, "plot", None))
    if getattr(args, "csv", None) not in (None, "-"):
        check_folder(args.csv)
    if args.out:
        if not Path(args.out).is_dir():
            raise ValueError(f"{args.out}: there is no such folder")
        check_room(Path(args.out) / "rows.csv")


def _default_tokens(module):
    return getattr(module, "TOKENS", TOKENS) if module else "each its own"


def _flag(key):
    return "--" + key.replace("_", "-")


class All:
    """``minisink reproduce all``: one after another; what cannot be measured is named, and passed over."""

    PURPOSE = "every figure and table, one after another"
    EXAMPLE = "minisink reproduce all --fast"

    def add_options(self, parser):
        """Add what all share."""
        add = parser.add_argument
        add("--only", nargs="+", choices=EXPERIMENTS, metavar="NAME", help="some of them (see list)")
        add_common(parser, ["text", "ids", "model"])

    def run(self, args):
        """Run them, and print which shows what."""
        check_outputs(args)
        rows, failed = [], 0
        for name in args.only or EXPERIMENTS:
            experiment, began = EXPERIMENTS[name], time.perf_counter()
            try:
                own = experiment.own(args)
                own.jobs = args.jobs if experiment.shares else 1
                shown = report(experiment, own)
            except (ValueError, OSError, MemoryError) as error:
                shown, failed = "not measured", failed + 1
                tell(f"error: {name}: {error}")
            rows.append([name, experiment.module.PAPER, shown, f"{time.perf_counter() - began:.0f} s"])
            if not args.json:
                print()
        if not args.json:
            print(table(["name", "paper", "shown", "time"], rows))
        return 2 if failed else 0


class List:
    """``minisink reproduce list``."""

    PURPOSE = "what can be reproduced"
    EXAMPLE = "minisink reproduce list"

    def add_options(self, parser):
        """Add --json alone."""
        add_json(parser, "print JSON")

    def run(self, args):
        """Print a row an experiment."""
        modules = {name: experiment.module for name, experiment in EXPERIMENTS.items()}
        if args.json:
            about = {name: {"paper": m.PAPER, "what": first_line(m), "claim": m.CLAIM} for name, m in modules.items()}
            dump([{"name": name} | own for name, own in about.items()])
            return
        for name, module in modules.items():
            print(f"{name} ({module.PAPER})")
            print(wrap(first_line(module), initial_indent="    ", subsequent_indent="    "))


EXPERIMENTS = {name: Experiment(name) for name in NAMES}
COMMANDS: dict = {"list": List(), "all": All(), **EXPERIMENTS}
