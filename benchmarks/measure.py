"""Everything that decode.py shows, measured with the threads of this process."""

import gc
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import contestants
import numpy as np
import page
from lines import time_of_lines

import minisink
from minisink.experiments import speed
from minisink.experiments.shapes import SHAPES, random_model
from minisink.loss import nll_of

CACHE = 256
PATIENCE = 40  # turns' worth of time after which a slow contestant has no more than three


def everything(args):
    """Return a dict that JSON can hold."""
    (threads,) = args.threads
    shapes = args.shapes or list(SHAPES)
    return {
        "threads": threads,
        "cache": CACHE,
        "busy": page.busy(),
        "contestants": about(),
        "decoding": {shape: decoding(shape, args, threads) for shape in shapes},
        "blocks": [blocks(cache, args.repeats, args.seconds) for cache in (128, 256)] if "novels" in shapes else [],
        "recompute": {shape: recompute(shape, args.repeats) for shape in args.recompute},
        "lines": {shape: lines(shape, 15 * args.seconds) for shape in args.lines},
    }


def about():
    """Return the name of every contestant and what it does."""
    found = {"floor": "computes only the matrix-vector products, which read every weight once; it is not a decoder."}
    for name, make in {"minisink": contestants.ours, **contestants.OTHERS}.items():
        verb, _, rest = make.__doc__.split("\n\n")[0].replace("\n    ", " ").partition(" ")
        found[name] = f"{verb.lower()}s {rest}"  # "Run torch" becomes "runs torch"
    return found


def say(what):
    """Print where the time goes, for those who wait."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


def decoding(shape, args, threads):
    """Return the seconds per token of every contestant, and which are left out, and why."""
    say(f"decoding, {shape}")
    model = random_model(shape, max_positions=4096)
    turns, left_out = {}, {}
    with ExitStack() as at_end:
        for name, make in {"minisink": contestants.ours, **contestants.OTHERS}.items():
            folder = Path(at_end.enter_context(tempfile.TemporaryDirectory()))
            options = {"llama2c": args.llama2c, "sinks_python": args.sinks_python}
            try:
                turn = make(contestants.Setting(model, CACHE, threads, folder, at_end, **options))
            except contestants.LeftOut as reason:
                left_out[name] = str(reason)
            else:
                turns |= {"floor": turn[1], "minisink": turn[0]} if name == "minisink" else {name: turn}
        seconds = take_turns(turns, args.repeats, args.seconds)
        turns.clear()  # what they hold goes before the next shape comes
    del model, turn, make
    gc.collect()
    return {"seconds": seconds, "left_out": left_out}


def take_turns(turns, repeats, seconds):
    """Return the median of the turns of each contestant, one turn of one after one of the other."""
    times, spent = {name: [] for name in turns}, dict.fromkeys(turns, 0.0)
    for _ in range(repeats):
        for name, turn in turns.items():
            if len(times[name]) < 3 or spent[name] < PATIENCE * seconds:
                start = time.perf_counter()
                times[name].append(turn(seconds))
                spent[name] += time.perf_counter() - start
    return {name: float(np.median(values)) for name, values in times.items()}


def blocks(cache, repeats, seconds, n_tokens=8192):
    """Return the seconds per token of a text in blocks, and token by token on the readable path and by `Decoder`."""
    say(f"perplexity in blocks, cache {cache}")
    model = random_model("novels", max_positions=4096)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, n_tokens + 1)
    method = minisink.Streaming(4, cache - 4)
    kept = minisink.new_cache(model, method)
    model.forward(ids[:cache], cache=kept)
    decoder = speed.full_decoder(model, cache)

    def in_blocks(_):
        start = time.perf_counter()
        for _ in minisink.nll_blocks(model, ids, method):
            pass
        return (time.perf_counter() - start) / n_tokens

    turns = {
        "blocks": in_blocks,
        "readable": contestants.steadily(lambda: nll_of(model.forward([0], cache=kept), [1])),
        "decoder": contestants.steadily(lambda: nll_of(decoder.step(0)[None], [1])),
    }
    return {"cache": cache, **take_turns(turns, repeats, seconds)}


def recompute(shape, repeats):
    """Return rows of `speed.run`."""
    say(f"re-computing, {shape}")
    model = random_model(shape, max_positions=4096)
    return list(speed.run(model, repeats=max(1, repeats // 3)))


def lines(shape, seconds):
    """Return the seconds per token of each line."""
    say(f"line by line, {shape}")
    decoder = speed.full_decoder(random_model(shape, max_positions=4096), CACHE)
    return time_of_lines(lambda: decoder.step(0), seconds=seconds)
