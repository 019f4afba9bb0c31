"""``minisink ppl``: the perplexity of a text of any size."""

import re
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from ..evaluation.jobs import connect, processes
from ..evaluation.part_files import PartRun, in_their_order, load_part
from ..evaluation.plots import draw_losses
from ..evaluation.run import Evaluation
from ..evaluation.tally import GrowingCsv, Tally
from ..experiments.four_methods import foreign
from ..model import load
from ..snapshot import method_from
from ..system.errors import tell
from ..system.files import check_folder, check_picture, lock_files
from ..system.terminal import number, table, wrap
from . import common

PURPOSE = "measure the perplexity of a text of any size"
EXAMPLE = "minisink ppl book.txt --csv loss.csv --every 1000 --resume state.safetensors"


def add_options(parser):
    """Add the options to `parser`."""
    parser._negative_number_matcher = re.compile(r"-\d")  # so that --part -1/4 is refused as a value
    common.add_model(parser)
    parser.add_argument("file", metavar="FILE", nargs="?", help="a UTF-8 text")
    common.add_no_bos(parser)
    common.add_method(parser)
    add = parser.add_argument
    add("--plot", metavar="PNG", help="plot the rolling loss")
    add("--csv", metavar="FILE", help="write the index, id and loss of every token, as it is measured")
    add("--every", type=int, metavar="N", help="write a row every N tokens instead: mean loss, perplexity so far")
    parts = "in several processes or on several machines (window, streaming, recompute)"
    add = parser.add_argument_group(parts).add_mutually_exclusive_group().add_argument
    add("--jobs", type=int, metavar="N", help="use N processes on this machine")
    add("--dask", metavar="ADDRESS", help="use the workers of a Dask scheduler, tcp://HOST:PORT")
    add = parser.add_argument_group("in steps").add_mutually_exclusive_group().add_argument
    add("--resume", metavar="FILE", help="keep the state here, and continue from it (every method but dense)")
    which = "measure only part I of N, and write it to TEXT.I-of-N.part in this folder, for example in a job array"
    add("--part", metavar="I/N", help=which)
    add("--merge", metavar="PART", nargs="+", help="join the files of all N parts; needs neither text nor model")
    common.add_json(parser)


def run(args):
    """Measure, and print one row."""
    check_picture(args.plot)
    for path in (args.csv, args.resume):
        check_folder(path)
    if args.every is not None and not args.csv:
        raise ValueError("--every is for the rows of a CSV file: give --csv too")
    part = _part(args)
    common.check_apart(args.file, args.csv, args.plot, args.resume, *(args.merge or ()))
    with lock_files(args.csv, args.resume, part and part[-1]):
        if args.merge:
            _merge(args)
            return
        with connect(args.dask) if args.dask else processes(1 if args.jobs is None else args.jobs) as pool:
            _measure(args, pool, part)


def _part(args):
    """Return which part ``--part`` names, of how many, and the file to write it to; None for the whole text."""
    if (args.file is None) != bool(args.merge):
        raise ValueError("give a text, or with --merge the files of its parts")
    if args.part is None:
        return None
    if args.csv or args.plot:
        raise ValueError("--part writes its own file; --csv and --plot go with --merge")
    numbers = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", args.part)
    if not numbers or int(numbers[1]) > int(numbers[2]):
        raise ValueError(f"--part is {args.part!r}; write the third of sixteen as 3/16")
    number, of = numbers.groups()
    path = f"{Path(args.file).name}.{number.zfill(len(of))}-of-{of}.part"
    check_folder(path)
    return int(number), int(of), path


def _measure(args, pool, part):
    """Run an `Evaluation` with a bar of the perplexity so far, and report it."""
    model, bos = load(args.model), not args.no_bos
    method = common.method_of(args, model, model.encode("", bos=bos))
    options = {"readable": args.readable, "bos": bos, "pool": pool}
    options |= {"csv": args.csv, "every": args.every, "state": args.resume}
    text = model, args.file, method
    evaluation = PartRun(*text, *part, **options) if part else Evaluation(*text, **options)
    tally, n_known = evaluation.tally, evaluation.tally.n_tokens
    if n_known:
        continues = f"continues after {n_known:,} tokens"
        tell(f"{args.resume} {'is from a finished run; nothing is left to do' if evaluation.done else continues}")
    start, in_bytes = time.perf_counter(), {"unit": "B", "unit_scale": True, "initial": evaluation.start}
    with common.progress(method.name, total=evaluation.n_bytes, **in_bytes) as bar:

        def on_progress(n_bytes):
            bar.set_postfix_str(f"perplexity {tally.perplexity:.2f}", refresh=False)
            bar.update(n_bytes - bar.n)

        evaluation.run(on_progress)
    speed = (tally.n_tokens - n_known) / (time.perf_counter() - start)
    if not part:
        warn_of_nothing(args.file, model, method.capacity, tally.n_tokens)
    _report(args, model, args.file, method, tally, speed, n_known)


def _merge(args):
    """Join the files of the parts of a text, and report as if it had been measured as a whole."""
    parts = in_their_order(args.merge)
    tally, rows = Tally(args.every), GrowingCsv(args.csv, args.every)
    for path, _ in parts:
        rows.add(tally.add(*load_part(path)[1:]))
    rows.add(tally.last_row())
    rows.close()
    about, seconds = parts[0][1], sum(about["seconds"] for _, about in parts)
    model, method = SimpleNamespace(name=about["model"]), method_from(about["method"])
    _report(args, model, about["text"], method, tally, tally.n_tokens / seconds)


def _report(args, model, text, method, tally, tokens_per_second, n_known=0):
    values = {"n_sinks": 0, "window": None, "positions": args.positions} | asdict(method)
    about = {
        "model": model.name,
        "method": method.name,
        **{name: value for name, value in values.items() if name != "lead"},
        "tokens": tally.n_tokens,
        "nll": tally.nll,
        "perplexity": tally.perplexity,
        "tokens_per_second": tokens_per_second,
        "resumed_after": n_known,
    }
    if args.json:
        common.dump(about)
    else:
        window = "all" if method.window is None else str(method.window)
        cells = [method.name, str(about["n_sinks"]), window, f"{tally.n_tokens:,}", number(tally.nll, ".4f")]
        cells += [number(tally.perplexity), f"{tokens_per_second:,.0f}"]
        print(table(["method", "sinks", "window", "tokens", "nats/token", "perplexity", "tokens/s"], [cells]))
        if not args.merge and (strange := foreign(model, tally.perplexity)):
            print(wrap(strange))
    if args.plot:
        curves, title = {method.name: tally.curve()}, f"{model.name}, {Path(text).name}"
        draw_losses(args.plot, curves, title=title, evicted_from=method.capacity, group=tally.group)


def warn_of_nothing(name, model, capacity, n_taken):
    """Warn if the perplexity of a text says nothing about a cache of `capacity` keys, None for all of them.

    `n_taken` is one less than the tokens of the text, the last of which is only predicted.
    """
    if capacity is None or not n_taken:
        return
    trained, text = model.config.max_positions, f"{name} has {n_taken + 1:,} tokens"
    if n_taken <= capacity:
        text += f", and {capacity:,} are kept: nothing was evicted, so this is what dense attention gives; "
        warnings.warn(text + "use a longer text or a smaller --window", stacklevel=2)
    elif n_taken < trained:
        text += f", and {model.name} was trained on {trained:,}: dense attention would do as well, and this does not "
        warnings.warn(text + "show what happens beyond that; use a longer text", stacklevel=2)
