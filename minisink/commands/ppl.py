"""``minisink ppl``: the perplexity of a text of any size."""

import sys
import time
import warnings
from pathlib import Path

from ..evaluation.run import Evaluation
from ..experiments.four_methods import foreign
from ..methods import WITH_SINKS
from ..model import load
from ..system.files import alone, check_picture
from ..system.plots import draw_losses
from ..system.terminal import number, table, wrap
from .common import (
    add_json,
    add_method,
    add_model,
    add_no_bos,
    check_apart,
    check_folder,
    dump,
    keys_in_sight,
    method_options,
    progress,
    retrieval_options,
)

PURPOSE = "perplexity of a text of any size"
EXAMPLE = "minisink ppl book.txt --csv loss.csv --every 1000 --resume state.safetensors"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add_model(parser)
    add("file", metavar="FILE", help="a UTF-8 text")
    add_no_bos(parser)
    add_method(parser)
    add("--plot", metavar="PNG", help="draw the rolling loss as a picture")
    add("--csv", metavar="FILE", help="write token, id and loss of every token, as they come")
    add("--every", type=int, metavar="N", help="a row every N tokens instead: mean loss, perplexity so far")
    add("--resume", metavar="FILE", help="keep the state here, and go on from it (window, streaming, retrieval)")
    add_json(parser)


def run(args):
    """Measure, and print one row."""
    if args.plot:
        check_picture(args.plot)
    for path in (args.csv, args.resume):
        check_folder(path)
    check_apart(args.file, args.csv, args.plot, args.resume)
    if args.every is not None and not args.csv:
        raise ValueError("--every is for the rows of a CSV file: give --csv too")
    with alone(args.csv, args.resume):
        _measure(args)


def _measure(args):
    model = load(args.model)
    settings = method_options(args, model, model.encode("", bos=not args.no_bos))
    evaluation = Evaluation(
        model, args.file, bos=not args.no_bos, csv=args.csv, every=args.every, state=args.resume, **settings
    )
    tally, known = evaluation.tally, evaluation.tally.n_tokens
    if known:
        what = "is of a finished run; nothing is left to do" if evaluation.done else f"goes on after {known:,} tokens"
        print(f"minisink: {args.resume} {what}", file=sys.stderr)
    start = time.perf_counter()
    with progress(evaluation.n_bytes, args.method, unit="B", unit_scale=True, initial=evaluation.place.start) as bar:

        def on_progress(n_bytes):
            bar.set_postfix_str(f"perplexity {tally.perplexity:.2f}", refresh=False)
            bar.update(n_bytes - bar.n)

        evaluation.run(on_progress)
    seconds = time.perf_counter() - start
    warn_of_nothing(args.file, model, keys_in_sight(settings), tally.n_tokens)
    about = {
        "model": model.name,
        "method": args.method,
        "n_sinks": args.n_sinks if args.method in WITH_SINKS else 0,
        "window": None if args.method == "dense" else settings["window"],
        "positions": args.positions,
        **(retrieval_options(args) if args.method == "retrieval" else {}),
        "tokens": tally.n_tokens,
        "nll": tally.nll,
        "perplexity": tally.perplexity,
        "tokens_per_second": (tally.n_tokens - known) / seconds,
        "resumed_after": known,
    }
    if args.json:
        dump(about)
    else:
        window = "all" if args.method == "dense" else str(settings["window"])
        cells = [args.method, str(about["n_sinks"]), window, f"{tally.n_tokens:,}", number(about["nll"], ".4f")]
        cells += [number(about["perplexity"]), f"{about['tokens_per_second']:,.0f}"]
        print(table(["method", "sinks", "window", "tokens", "nats/token", "perplexity", "tokens/s"], [cells]))
        strange = foreign(model, about["perplexity"])
        if strange:
            print(wrap(strange))
    if args.plot:
        title = f"{model.name}: {Path(args.file).name}"
        draw_losses(
            args.plot,
            {args.method: tally.curve()},
            title=title,
            evicted_from=keys_in_sight(settings),
            group=tally.group,
        )


def warn_of_nothing(name, model, capacity, n_taken):
    """Say it when the perplexity of a text says nothing about a cache of `capacity` keys, None for all of them.

    `n_taken` tokens went in, one less than the text has: the last is only predicted.
    """
    if capacity is None or not n_taken:
        return
    trained, text = model.config.max_positions, f"{name} has {n_taken + 1:,} tokens"
    if n_taken <= capacity:
        warnings.warn(
            f"{text} and {capacity:,} are kept in sight: nothing was evicted, so this is what dense attention gives; "
            "take a longer text or a smaller --window",
            stacklevel=2,
        )
    elif n_taken < trained:
        warnings.warn(
            f"{text}, and {model.name} was trained on {trained:,}: dense attention would do, and this does not show "
            "what comes beyond; take a longer text",
            stacklevel=2,
        )
