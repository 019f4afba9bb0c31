"""``minisink reproduce NAME``: measure a figure or table of the paper again, and say whether the run shows its claim.

Every experiment is run the same way; what it measures is in its own file (`experiments`).
"""

import argparse
import inspect
import shlex
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from ..cache import check_whole
from ..experiments.inside import stretch
from ..hf.shipped import sample_text
from ..model import load
from ..system.errors import tell
from ..system.files import check_folder, check_picture, check_room, read_text
from ..system.terminal import table, wrap
from .common import add_json, add_model, add_no_bos, at_least, changed, dump, encode
from .reproduce_report import first_line, report

MODEL, TOKENS = "novels", 3000  # unless the experiment names its own
GIVEN = ("model", "models", "ids", "texts", "text")  # positional parameters that `run` may have
NAMES = """methods sink-count cache-size training maps length speed streameval pass-key sink-or-position why sink-parts
    echo emergence cures new-sink metric sink-tokens rules policies""".split()


class Experiment:
    """An experiment as a command: PURPOSE, EXAMPLE, `add_options` and `run`, like every file in this folder."""

    def __init__(self, name):
        file = "methods_compared" if name == "methods" else name.replace("-", "_")
        self.name, self.module = name, (module := import_module(f"..experiments.{file}", __package__))
        self.PURPOSE = f"{first_line(module)} ({module.PAPER})"
        self.EXAMPLE = f"minisink reproduce {name} --fast"
        parameters = inspect.signature(module.run).parameters
        self.given = [key for key in GIVEN if key in parameters]
        self.model = module.MODELS if "models" in self.given else getattr(module, "MODEL", MODEL)
        self.tokens = getattr(module, "TOKENS", TOKENS)
        self.shares = "each" in parameters  # its rows can be divided among processes
        self.helps: dict = {}
        self.defaults: dict = {"seed": 0} if "seed" in parameters else {}
        self.values: dict = {}
        for key, what in module.OPTIONS.items():
            default = parameters[key].default
            if isinstance(what, dict):  # a value, each of whose fields is an option
                self.values |= dict.fromkeys(what, (key, default))
                self.defaults |= {name: getattr(default, name) for name in what}
                self.helps |= what
            else:
                self.defaults[key], self.helps[key] = default, what

    def add_options(self, parser):
        """Add the shared options, and the experiment's own."""
        add = parser.add_argument
        add_common(parser, self.given, self.model, self.tokens)
        add("also", nargs="*", metavar="NAME", help="more experiments to run with the same options")
        add("--csv", nargs="?", const="-", metavar="FILE", help="the rows as CSV, to FILE or in place of the table")
        add("--plot", metavar="PNG", help="plot the result")
        for key, what in self.helps.items():
            default = self.defaults[key]
            several = isinstance(default, tuple)
            kind = str if default == () else type(default[0] if several else default) if default is not None else int
            shown = " ".join(map(str, default)) if several else default
            options = {"help": what if default in (None, ()) else f"{what} ({shown})", "default": None}
            if kind is bool:
                options["action"] = "store_true"
            else:
                metavar = {int: "N", float: "X"}.get(kind, "NAME")
                options |= {"type": kind, "metavar": metavar, "nargs": "+" if several else None}
            add(_flag(key), **options)

    def run(self, args):
        """Measure, print, and draw."""
        if args.also:
            if unknown := {*args.also} - {*EXPERIMENTS}:
                raise ValueError(f"{' '.join(unknown)} cannot be reproduced; `minisink reproduce list` shows what can")
            if args.plot or args.csv not in (None, "-"):
                raise ValueError("several experiments cannot share a file; write them to a folder with --out")
            return run_all(changed(args, only=[self.name, *args.also]))
        check_outputs(args)
        if args.jobs != 1 and not self.shares:
            shared = ", ".join(name for name, one in EXPERIMENTS.items() if one.shares)
            raise ValueError(f"--jobs: {self.name} cannot be divided among processes; these can: {shared}")
        report(self, args)
        return 0

    def options(self, args):
        """Return the options for `run`: those given, and with --fast the experiment's FAST for the rest."""
        given = {key: value for key, value in vars(args).items() if value is not None}
        given = (self.module.FAST if args.fast else {}) | given
        options = {key: given[key] for key in self.defaults if key in given}
        for field, (key, default) in self.values.items():
            if field in options:
                options[key] = replace(options.get(key, default), **{field: options.pop(field)})
        return options

    def inputs(self, args):
        """Return the positional arguments of `run`: models and texts."""
        inputs: dict = {}
        named = getattr(args, "model", None) or self.model
        if "models" in self.given:
            inputs["models"] = {name: load(name) for name in named}
        elif "model" in self.given:
            inputs["model"] = load(named)
        text = getattr(args, "text", None) or sample_text()
        paths = text if isinstance(text, list) else [text]
        if "text" in self.given:
            inputs["text"] = read_text(paths[0])
        if {"ids", "texts"} & {*self.given}:
            usual = self.module.FAST.get("tokens", self.tokens) if args.fast else self.tokens
            n_tokens = usual if args.tokens is None else args.tokens
            check_whole("--tokens", n_tokens, 2, ": the first is not predicted")
            whole = [encode(inputs["model"], read_text(path), path, bos=not args.no_bos) for path in paths]
            inputs["texts"] = [stretch(inputs["model"], ids, n_tokens, args.seed) for ids in whole]
            inputs["ids"] = inputs["texts"][0]
        return [inputs[key] for key in self.given]

    def command(self, args):
        """Return the command that reruns this."""
        words = ["minisink", "reproduce", self.name]
        for key, value in vars(args).items():
            if key in (*self.defaults, "model", "text", "tokens", "seed", "fast", "no_bos"):
                if value is True:
                    words.append(_flag(key))
                elif not (value is None or value is False or (key, value) == ("seed", 0)):
                    words += [_flag(key), *map(str, value if isinstance(value, list) else [value])]
        return shlex.join(words)

    def own(self, args):
        """Return this experiment's defaults, overridden by those of `args` that it has."""
        parser = argparse.ArgumentParser()
        self.add_options(parser)
        own = parser.parse_args([])
        given = {key: x for key, x in vars(args).items() if key in own and x is not None}
        if isinstance(given.get("model"), list) != ("models" in self.given):
            given.pop("model", None)
        return changed(own, **given)


def add_common(parser, given, model=None, tokens="by experiment"):
    """Add the options of every experiment; those for a model or a text only if `given` names it."""
    add = parser.add_argument
    if {"model", "models"} & {*given}:
        add_model(parser, model)
    if {"text", "ids", "texts"} & {*given}:
        several = {"nargs": "+"} if "texts" in given else {}
        add("--text", metavar="FILE", help="a UTF-8 text (the shipped story)", **several)
    if {"ids", "texts"} & {*given}:
        add("--tokens", type=int, metavar="N", help=f"how much of it to read ({tokens})")
        add_no_bos(parser)
    add("--seed", type=int, default=0, metavar="N", help="random seed; it also picks the stretch of a text (0)")
    add("--fast", action="store_true", help="a first look, in seconds")
    add("--jobs", type=int, default=1, metavar="N", help="processes that share the rows (%(default)s)")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FOLDER", help="write rows (CSV), findings (JSON) and picture (PNG) there")


def check_outputs(args):
    """Refuse, before any work, a seed or a path that would fail after it."""
    at_least(args, seed=0)
    check_picture(getattr(args, "plot", None))
    if getattr(args, "csv", None) not in (None, "-"):
        check_folder(args.csv)
    if args.out:
        if not Path(args.out).is_dir():
            raise ValueError(f"{args.out}: there is no such folder")
        check_room(Path(args.out) / "rows.csv")


def _flag(key):
    return "--" + key.replace("_", "-")


def add_options_of_all(parser):
    only = "run only these (see `minisink reproduce list`)"
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, metavar="NAME", help=only)
    add_common(parser, ["text", "ids", "model"])


def run_all(args):
    """Run the experiments one after another; report those that cannot be measured, and print what each shows."""
    check_outputs(args)
    rows, failed = [], False
    for name in args.only or EXPERIMENTS:
        experiment, began = EXPERIMENTS[name], time.perf_counter()
        try:
            shown = report(experiment, changed(experiment.own(args), jobs=args.jobs if experiment.shares else 1))
        except (ValueError, OSError, MemoryError) as error:
            shown, failed = "not measured", True
            tell(f"error: {name}: {error}")
        rows.append([name, experiment.module.PAPER, shown, f"{time.perf_counter() - began:.0f} s"])
        if not args.json:
            print()
    if not args.json:
        print(table(["name", "paper", "shown", "time"], rows))
    return 2 if failed else 0


def show_list(args):
    modules = {name: experiment.module for name, experiment in EXPERIMENTS.items()}
    about = [{"name": name, "paper": m.PAPER, "what": first_line(m), "claim": m.CLAIM} for name, m in modules.items()]
    if args.json:
        return dump(about)
    for one in about:
        print(f"{one['name']} ({one['paper']})")
        print(wrap(one["what"], initial_indent="    ", subsequent_indent="    "))


EXPERIMENTS = {name: Experiment(name) for name in NAMES}
_LIST = {"PURPOSE": "list what can be reproduced", "EXAMPLE": "minisink reproduce list", "run": show_list}
_ALL = {"PURPOSE": "measure every figure and table, one after another", "EXAMPLE": "minisink reproduce all --fast"}
COMMANDS: dict = {
    "list": SimpleNamespace(add_options=partial(add_json, what="print JSON"), **_LIST),
    "all": SimpleNamespace(add_options=add_options_of_all, run=run_all, **_ALL),
    **EXPERIMENTS,
}
