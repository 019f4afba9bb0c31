"""``minisink reproduce NAME``: a figure or table of the paper, anew, and whether this run shows what it claims.

Every experiment is run the same way; what it is about stands in its own file (`experiments`).
"""

import argparse
import csv
import inspect
import io
import math
import shlex
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from textwrap import fill, indent

from tqdm import tqdm

from ..experiments import (
    cache_size,
    cures,
    echo,
    effects,
    emergence,
    int8,
    length,
    maps,
    methods_compared,
    metric,
    new_sink,
    pass_key,
    sink_count,
    sink_or_position,
    sink_parts,
    sink_tokens,
    streameval,
    token_cost,
    training,
    why,
)
from ..experiments.stretch import stretch
from ..hf.shipped import sample_text
from ..model import load
from ..system.files import atomic_write, check_picture, check_room, has_matplotlib, read_text
from ..system.plots import picture
from ..system.terminal import table, wrap
from .common import add_json, add_model, add_models, add_no_bos, as_json, check_folder, dump, encode

MODEL, TOKENS = "novels", 3000  # what an experiment is run on unless it says otherwise
GIVEN = ("model", "models", "ids", "texts", "text")  # what `run` may ask for by position


class Experiment:
    """An experiment as a command: PURPOSE, EXAMPLE, `add_options` and `run`, like every file beside this one."""

    def __init__(self, name, module):
        self.name, self.module = name, module
        self.PURPOSE = f"{_first_line(module)} ({module.PAPER})"
        self.EXAMPLE = f"minisink reproduce {name} --fast"
        parameters = inspect.signature(module.run).parameters
        self.given = [key for key in GIVEN if key in parameters]
        self.defaults = {key: parameters[key].default for key in module.OPTIONS}
        self.draws = "seed" in parameters  # and so has use for --seed

    def add_options(self, parser):
        """Add what all share, and a line for each of the experiment's own."""
        add = parser.add_argument
        add_common(parser, self.given, module=self.module)
        add("also", nargs="*", metavar="NAME", help="others, run with the same options")
        add("--csv", nargs="?", const="-", metavar="FILE", help="the rows as CSV, to a file or instead of the table")
        add("--plot", metavar="PNG", help="draw a picture")
        for key, what in self.module.OPTIONS.items():
            default = self.defaults[key]
            several = isinstance(default, tuple)
            kind = type(default[0] if several else default) if default is not None else int
            shown = " ".join(map(str, default)) if several else default
            options = {"help": what if default is None else f"{what} ({shown})", "default": None}
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
        report(self, args)
        return 0

    def options(self, args):
        """What `run` is called with: what was given, else what --fast says, else nothing."""
        fast = self.module.FAST if args.fast else {}
        chosen = {key: getattr(args, key, None) for key in self.defaults}
        chosen = {key: value if value is not None else fast.get(key) for key, value in chosen.items()}
        chosen |= {"seed": args.seed} if self.draws else {}
        return {key: value for key, value in chosen.items() if value is not None}

    def tokens(self, args):
        """How much of a text is read."""
        if args.tokens is not None:
            return args.tokens
        fast = self.module.FAST if args.fast else {}
        return fast.get("tokens", _usual(self.module))

    def inputs(self, args):
        """What `run` asks for by position: models and texts."""
        found: dict = {}
        if "models" in self.given:
            found["models"] = {name: load(name) for name in args.model or self.module.MODELS}
        elif "model" in self.given:
            found["model"] = load(args.model or getattr(self.module, "MODEL", MODEL))
        text = getattr(args, "text", None) or sample_text()
        paths = text if isinstance(text, list) else [text]
        if "text" in self.given:
            found["text"] = read_text(paths[0])
        if {"ids", "texts"} & {*self.given}:
            n_tokens, model = self.tokens(args), found["model"]
            if n_tokens < 2:
                raise ValueError(f"--tokens is {n_tokens}; it must be 2 or more, for the first is not predicted")
            texts = [excerpt(model, read_text(path), path, n_tokens, args) for path in paths]
            found |= {"texts": texts} if "texts" in self.given else {"ids": texts[0]}
        return [found[key] for key in self.given]

    def command(self, args):
        """The words that run this again."""
        words = ["minisink", "reproduce", self.name]
        for key, value in vars(args).items():
            if key in (*self.defaults, "model", "text", "tokens", "seed", "fast", "no_bos"):
                if value is True:
                    words.append(_flag(key))
                elif not (value is None or value is False or (key, value) == ("seed", 0)):
                    words += [_flag(key), *map(str, value if isinstance(value, list) else [value])]
        return shlex.join(words)

    def own(self, args):
        """The options of this experiment by itself, those that all share as they were given to all."""
        parser = argparse.ArgumentParser()
        self.add_options(parser)
        own = parser.parse_args([])
        for key in vars(own):
            value = getattr(args, key, None)
            if value is not None and (key != "model" or isinstance(value, list) == ("models" in self.given)):
                setattr(own, key, value)
        return own


def add_common(parser, given, *, module=None):
    """The options that every experiment has, as far as it is given a model or a text."""
    add = parser.add_argument
    if "models" in given and module:
        add_models(parser, module.MODELS)
    elif "model" in given:
        add_model(parser, getattr(module, "MODEL", MODEL) if module else None)
    if {"text", "ids", "texts"} & {*given}:
        several = {"nargs": "+"} if "texts" in given else {}
        add("--text", metavar="FILE", help="a UTF-8 text (the story that ships)", **several)
    if {"ids", "texts"} & {*given}:
        add("--tokens", type=int, metavar="N", help=f"how much of it ({_usual(module)})")
        add_no_bos(parser)
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn; of a text, which stretch is read (0)")
    add("--fast", action="store_true", help="a first look, in seconds")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FOLDER", help="write rows (CSV), what was found (JSON) and picture (PNG) there")


def excerpt(model, text, source, n_tokens, args):
    """So many tokens of a text; another seed reads another stretch of it."""
    return stretch(model, encode(model, text, source, bos=not args.no_bos), n_tokens, args.seed)


def check_outputs(args):
    """Refuse what could not be done or written, before the work."""
    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}; it must be 0 or more")
    if getattr(args, "plot", None):
        check_picture(args.plot)
    if getattr(args, "csv", None) not in (None, "-"):
        check_folder(args.csv)
    if args.out:
        if not Path(args.out).is_dir():
            raise ValueError(f"{args.out}: there is no such folder")
        check_room(Path(args.out) / "rows.csv")


def report(experiment, args):
    """Run an experiment and say what came out, also when it was stopped before its end.

    Returns
    -------
    str
        Whether this run shows what is claimed: see `effects.verdict`.
    """
    inputs, options = experiment.inputs(args), experiment.options(args)
    rows, began = [], time.perf_counter()
    try:
        rows.extend(experiment.module.run(*inputs, **options, track=partial(_bar, experiment.name)))
    except (ValueError, MemoryError, KeyboardInterrupt):
        if rows and not args.json:
            print(plain(rows) + "\n")  # nothing that was measured is lost
        raise
    seconds = time.perf_counter() - began
    found = list(experiment.module.effects(rows))
    about = {
        "name": experiment.name, "paper": experiment.module.PAPER, "claim": experiment.module.CLAIM,
        "command": experiment.command(args), "seconds": seconds, "shown": effects.verdict(found),
        "effects": [asdict(effect) | {"shown": effect.shown} for effect in found], "rows": scalars(rows),
    }  # fmt: skip
    if args.json:
        dump(about)
    elif args.csv == "-":
        print(as_csv(rows), end="")
    else:
        show(experiment, about, rows, found)
    write(experiment, args, about, rows)
    return about["shown"]


def write(experiment, args, about, rows):
    """The files that were asked for, each by itself or all into a folder."""
    texts, pictures = {}, [args.plot] if args.plot else []
    if args.csv not in (None, "-"):
        texts[args.csv] = as_csv(rows)
    if args.out:
        whole = str(Path(args.out) / experiment.name)
        texts |= {whole + ".csv": as_csv(rows), whole + ".json": as_json(about) + "\n"}
        pictures += [whole + ".png"] if has_matplotlib() else []
    for path, text in texts.items():
        with atomic_write(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    for path in pictures:
        with picture(path, about["command"]) as figure:
            figure.suptitle(wrap(f"{experiment.module.PAPER}: {_first_line(experiment.module)}", 70))
            experiment.module.draw(figure, rows)


def show(experiment, about, rows, found):
    """The rows as a table, what the paper says, and what this run says to it."""
    module = experiment.module
    command = fill(about["command"], 76, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    print(command.replace("\n", " \\\n") + "\n")
    print(module.show(rows) if hasattr(module, "show") else plain(rows))
    print("\n" + wrap(f"{module.PAPER}: {module.CLAIM}."))
    print(f"This run shows it: {about['shown']}.")
    for effect in found:
        print(fill(str(effect), 79, initial_indent="  ", subsequent_indent="    "))


def scalars(rows):
    """The rows without their arrays."""
    return [{key: value for key, value in row.items() if not hasattr(value, "__len__") or isinstance(value, str)}
            for row in rows]  # fmt: skip


def plain(rows):
    """Rows as a table, four digits of a number."""
    rows = scalars(rows)
    return table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])


def _cell(value):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def as_csv(rows):
    """The rows as CSV, a line each below their names."""
    rows, text = scalars(rows), io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _bar(name, work):
    """Whatever is to be done, with a bar where somebody watches."""
    return tqdm(work, desc=name, delay=2, disable=None, leave=False, file=sys.stderr)


def _usual(module):
    return getattr(module, "TOKENS", TOKENS) if module else "each its own"


def _flag(key):
    return "--" + key.replace("_", "-")


def _first_line(module):
    return module.__doc__.split("\n")[0].rstrip(".")


# All of them --------------------------------------------------------------------------------------


class All:
    """``minisink reproduce all``: one after another; what cannot be measured is said, and passed over."""

    PURPOSE = "every figure and table, one after another"
    EXAMPLE = "minisink reproduce all --fast"

    def __init__(self, experiments):
        self.experiments = experiments

    def add_options(self, parser):
        """What all share."""
        add = parser.add_argument
        add("--only", nargs="+", choices=self.experiments, metavar="NAME", help="some of them (see list)")
        add_common(parser, ["text", "ids", "model"])

    def run(self, args):
        """Run them, and print which shows what."""
        check_outputs(args)
        rows, failed = [], 0
        for name in args.only or self.experiments:
            experiment, began = self.experiments[name], time.perf_counter()
            try:
                shown = report(experiment, experiment.own(args))
            except (ValueError, OSError, MemoryError) as error:
                shown, failed = "not measured", failed + 1
                print(f"minisink: error: {name}: {' '.join(str(error).split())}", file=sys.stderr)
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

    def __init__(self, experiments):
        self.experiments = experiments

    def add_options(self, parser):
        """None but --json."""
        add_json(parser, "print JSON")

    def run(self, args):
        """A row an experiment."""
        modules = {name: experiment.module for name, experiment in self.experiments.items()}
        if args.json:
            dump([{"name": name, "paper": m.PAPER, "what": _first_line(m), "claim": m.CLAIM}
                  for name, m in modules.items()])  # fmt: skip
            return
        for name, module in modules.items():
            print(f"{name} ({module.PAPER})")
            print(indent(wrap(_first_line(module), 75), "    "))


EXPERIMENTS = {
    name: Experiment(name, module)
    for name, module in {
        "methods": methods_compared,
        "sink-count": sink_count,
        "cache-size": cache_size,
        "training": training,
        "maps": maps,
        "length": length,
        "speed": token_cost,
        "streameval": streameval,
        "pass-key": pass_key,
        "sink-or-position": sink_or_position,
        "why": why,
        "sink-parts": sink_parts,
        "echo": echo,
        "emergence": emergence,
        "cures": cures,
        "new-sink": new_sink,
        "int8": int8,
        "metric": metric,
        "sink-tokens": sink_tokens,
    }.items()
}
COMMANDS: dict = {"list": List(EXPERIMENTS), "all": All(EXPERIMENTS), **EXPERIMENTS}
