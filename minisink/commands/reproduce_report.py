"""The result of an experiment: as a table with its verdict, JSON or CSV, and as files with a picture."""

import csv
import io
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from textwrap import fill

from ..evaluation.jobs import in_order, processes
from ..experiments.effects import verdict
from ..system.files import atomic_write
from ..system.plots import picture
from ..system.terminal import human_bytes, table, wrap
from .common import as_json, dump, progress


def report(experiment, args):
    """Run an experiment and print its result, even if it was stopped; return its `effects.verdict`."""
    module, inputs, options = experiment.module, experiment.inputs(args), experiment.options(args)
    rows, began, track = [], time.perf_counter(), partial(progress, experiment.name)
    try:
        with processes(args.jobs) as executor:
            how = {"each": partial(in_order, executor=executor, track=track)} if experiment.shares else {"track": track}
            rows.extend(module.run(*inputs, **options, **how))
    except (ValueError, MemoryError, KeyboardInterrupt):
        if rows and not args.json:
            print(plain(rows) + "\n")  # no measurement is lost
        raise
    seconds = time.perf_counter() - began
    effects = list(module.effects(rows))
    about = {"name": experiment.name, "paper": module.PAPER, "claim": module.CLAIM}
    about |= {"command": experiment.command(args), "seconds": seconds, "shown": verdict(effects)}
    about["finding"] = module.finding(rows)
    about |= {"effects": [asdict(effect) | {"shown": effect.shown} for effect in effects], "rows": scalars(rows)}
    if args.json:
        dump(about)
    elif args.csv == "-":
        print(as_csv(rows), end="")
    else:
        show(module, about, rows, effects)
    write(module, args, about, rows)
    return about["shown"]


def write(module, args, about, rows):
    """Write the requested files, each separately or all into a folder."""
    texts = {args.csv: as_csv(rows)} if args.csv not in (None, "-") else {}
    pictures = [args.plot] if args.plot else []
    if args.out:
        stem = str(Path(args.out) / about["name"])
        texts |= {stem + ".csv": as_csv(rows), stem + ".json": as_json(about) + "\n"}
        pictures.append(stem + ".png")
    for path, text in texts.items():
        with atomic_write(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    with suppress(ImportError):  # without matplotlib a folder gets no picture; --plot was refused
        for path in pictures:
            with picture(path, about["finding"], about["command"]) as figure:
                module.draw(figure, rows)


def show(module, about, rows, effects):
    """Print the rows as a table, the paper's claim, and this run's verdict on it."""
    command = fill(about["command"], 76, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    print(command.replace("\n", " \\\n") + "\n")
    print(module.show(rows) if hasattr(module, "show") else plain(rows))
    print("\n" + wrap(f"{module.PAPER}: {module.CLAIM}."))
    print(f"This run shows it: {about['shown']}.")
    for effect in effects:
        print(wrap(str(effect), initial_indent="  ", subsequent_indent="    "))


def scalars(rows):
    """Return the rows without their arrays."""
    return [{key: x for key, x in row.items() if isinstance(x, str) or not hasattr(x, "__len__")} for row in rows]


def plain(rows):
    rows = scalars(rows)
    header = [key.removesuffix("_bytes").replace("_", " ") for key in rows[0]]
    return table(header, [[_cell(key, value) for key, value in row.items()] for row in rows])


def _cell(key, value):
    if value is None or value != value:  # NaN
        return "-"
    if key.endswith("_bytes"):
        return human_bytes(value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def as_csv(rows):
    rows, text = scalars(rows), io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def first_line(module):
    return module.__doc__.split("\n")[0].rstrip(".")
