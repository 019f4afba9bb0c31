"""What each command does: reads its input, calls the library, prints what was measured.

Tables and text go to stdout; progress to stderr. A file to be written is checked before work starts; a picture
appears when it is whole, a CSV file grows.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

from .evaluation import Evaluation
from .experiments import four_methods, speed
from .experiments.shapes import random_model
from .files import check_picture
from .generate import generate, text_stream
from .methods import METHODS, cache_bytes_per_token, lead_of
from .model import load
from .plots import above_recompute, draw_inspection, draw_losses, draw_speed
from .resources import sample_text
from .sinks import look_inside, summary
from .terminal import chart, human_bytes, rolling_mean, rolling_span, table


def _settings(args, model, ids):
    """The options of a method for `token_nll` and `generate`; a rebuilt window begins as the text does."""
    window = args.window
    if window is None:
        window = max(1, min(256, model.config.max_positions) - (args.n_sinks if args.method == "streaming" else 0))
    lead = lead_of(model, ids, window)
    return {"method": args.method, "n_sinks": args.n_sinks, "window": window, "positions": args.positions, "lead": lead}


def _read_text(path):
    """A UTF-8 text, or a ValueError that names the file and the bad byte."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.object[error.start]:#04x} at {error.start})") from None


def _encode(model, text, source, *, bos=True):
    """Token ids of a text that holds at least one character."""
    if not text:
        raise ValueError(f"{source}: empty text")
    return model.encode(text, bos=bos)


def _check_folder(path):
    if path is not None and (not Path(path).parent.is_dir() or Path(path).is_dir()):
        raise ValueError(f"{path}: cannot be written; it needs a folder that is there and the name of a file")


def _check_apart(*paths):
    """Refuse a file that is to be read or written twice."""
    known = set()
    for path in filter(None, paths):
        if Path(path).resolve() in known:
            raise ValueError(f"{path}: named twice; the text and each file that is written need names of their own")
        known.add(Path(path).resolve())


def _progress(total, what, **options):
    """A bar on stderr that appears after two seconds, and never where nobody watches."""
    options = {"unit": "token"} | options
    return tqdm(total=total, desc=what, delay=2, disable=None, leave=False, file=sys.stderr, **options)


def _number(x, form=".2f"):
    return "-" if math.isnan(x) else format(x, form)


def _dump(value):
    """JSON with null where a number is missing, for JSON has no NaN."""
    print(json.dumps(_plain(value), allow_nan=False))


def demo(args):
    """``minisink demo``."""
    if args.plot:
        check_picture(args.plot)
    if args.tokens < 0:
        raise ValueError(f"--tokens is {args.tokens}; it must be 0 (all) or more")
    model = load(args.model)
    source = args.text or sample_text()
    ids = _encode(model, _read_text(source), source)
    ids = ids[: args.tokens] if args.tokens else ids
    with _progress(len(METHODS) * (len(ids) - 1), "demo") as bar:

        def on_progress(method, n_tokens):
            bar.set_description(method)
            bar.update(n_tokens)

        rows = four_methods.run(model, ids, n_sinks=args.n_sinks, cache=args.cache, on_progress=on_progress)
    sentence = four_methods.finding(rows, args.cache)
    losses = {row["method"]: row["nll"] for row in rows}
    if args.plot:
        draw_losses(args.plot, losses, title=f"{model.name}: a cache of {args.cache} tokens", evicted_from=args.cache)
    if args.json:
        _dump(
            {
                "model": model.name,
                "tokens": len(ids),
                "cache": args.cache,
                "n_sinks": args.n_sinks,
                "methods": [{k: v for k, v in row.items() if k != "nll"} for row in rows],
                "finding": sentence,
            }
        )
        return
    print(f"{model.name}: {len(ids):,} tokens of {Path(source).name} through a cache of {args.cache}")
    print(f"streaming keeps {args.n_sinks} sinks and a window of {args.cache - args.n_sinks}\n")
    header = ["method", "perplexity before", "and after eviction", "keys seen", "cache", "tokens/s"]
    print(table(header, [_demo_row(row) for row in rows]))
    for row in rows:
        if row["note"]:
            print(f"{row['method']} stopped after {len(row['nll'])} tokens: {row['note']}")
    span = rolling_span(losses)
    print(f"\nloss in nats, mean of the last {span} tokens: d dense, w window, r recompute, s streaming\n")
    curves = {method: rolling_mean(nll, span) for method, nll in losses.items() if len(nll)}
    if curves:
        print(chart(curves, mark=args.cache, mark_label="first eviction", height=12))
    above = {method: rolling_mean(more, span) for method, more in above_recompute(losses).items() if len(more)}
    if above:
        print("\nhow much more than re-computation: w window, s streaming\n")
        print(chart(above, mark=args.cache, mark_label="first eviction", height=8))
    print(f"\n{sentence}")


def _demo_row(row):
    cache = human_bytes(row["cache_bytes"]) if row["method"] != "recompute" else "rebuilt"
    speed = f"{row['tokens_per_second']:,.0f}"
    return [row["method"], _number(row["before"]), _number(row["after"]), f"{row['keys']:,}", cache, speed]


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(args):
    """``minisink generate``."""
    model = load(args.model)
    prompt = _read_text(args.prompt_file) if args.prompt_file else args.prompt
    ids = model.encode(prompt)
    if not len(ids):
        raise ValueError("--prompt is empty, and this model has no begin-of-text token to start from")
    if args.max_new_tokens < 0:
        raise ValueError(f"--max-new-tokens is {args.max_new_tokens}; it must be 0 (until Ctrl-C) or more")
    endless = args.max_new_tokens == 0
    tokens = generate(
        model,
        ids,
        max_new_tokens=None if endless else args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop_tokens=() if endless else model.config.eos,
        **_settings(args, model, ids),
    )
    print(prompt, end="", flush=True)
    try:
        for piece in text_stream(model.tokenizer, tokens, after=ids):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass  # how an endless stream ends
    print()


def ppl(args):
    """``minisink ppl``."""
    if args.plot:
        check_picture(args.plot)
    for path in (args.csv, args.resume):
        _check_folder(path)
    _check_apart(args.file, args.csv, args.plot, args.resume)
    if args.every is not None and not args.csv:
        raise ValueError("--every is for the rows of a CSV file: give --csv too")
    model = load(args.model)
    settings = _settings(args, model, model.encode(""))
    run = Evaluation(model, args.file, csv=args.csv, every=args.every, state=args.resume, **settings)
    tally, known = run.tally, run.tally.n_tokens
    if known:
        goes_on = "is of a finished run; nothing is left to do" if run.done else f"goes on after {known:,} tokens"
        print(f"minisink: {args.resume} {goes_on}", file=sys.stderr)
    start = time.perf_counter()
    with _progress(run.n_bytes, args.method, unit="B", unit_scale=True, initial=run.place.start) as bar:

        def on_progress(n_bytes):
            bar.set_postfix_str(f"perplexity {tally.perplexity:.2f}", refresh=False)
            bar.update(n_bytes - bar.n)

        run.run(on_progress)
    seconds = time.perf_counter() - start
    if args.plot:
        capacity = None if args.method == "dense" else settings["window"] + (args.method == "streaming") * args.n_sinks
        title = f"{model.name}: {Path(args.file).name}"
        draw_losses(args.plot, {args.method: tally.curve()}, title=title, evicted_from=capacity, group=tally.group)
    about = {
        "model": model.name,
        "method": args.method,
        "n_sinks": args.n_sinks if args.method == "streaming" else 0,
        "window": None if args.method == "dense" else settings["window"],
        "positions": args.positions,
        "tokens": tally.n_tokens,
        "nll": tally.nll,
        "perplexity": tally.perplexity,
        "tokens_per_second": (tally.n_tokens - known) / seconds,
        "resumed_after": known,
    }
    if args.json:
        _dump(about)
        return
    window = "all" if args.method == "dense" else str(settings["window"])
    cells = [args.method, str(about["n_sinks"]), window, f"{tally.n_tokens:,}", _number(about["nll"], ".4f")]
    cells += [_number(about["perplexity"]), f"{about['tokens_per_second']:,.0f}"]
    print(table(["method", "sinks", "window", "tokens", "nats/token", "perplexity", "tokens/s"], [cells]))


def inspect(args):
    """``minisink inspect``."""
    if args.plot:
        check_picture(args.plot)
    model = load(args.model)
    ids = _encode(model, args.text, "TEXT", bos=not args.no_bos)
    found = summary(model, ids, n_first=args.first)
    several = "token" if args.first == 1 else f"{args.first} tokens"
    if args.plot:
        patterns = [layer["pattern"] for layer in look_inside(model, ids)["layers"]]
        draw_inspection(args.plot, patterns, found, title=f"{model.name}: weight on the first {several}, of {len(ids)}")
    if args.json:
        _dump({"model": model.name, "tokens": len(ids), "first": args.first, **found})
        return
    first = model.tokenizer.id_to_token(int(ids[0]))
    print(f"{model.name}: {len(ids)} tokens, the first is {first!r}\n")
    rows = []
    for i, layer in enumerate(found["layers"]):
        for h, head in enumerate(layer["heads"]):
            lengths = [layer["residual_first"], layer["residual_median"], head["value_first"], head["value_median"]]
            weight = head["weight_on_first"]
            bar = "#" * round(20 * weight)
            rows.append([f"{i}.{h}", f"{weight:.0%}", bar.ljust(20), *(f"{x:.2f}" for x in lengths)])
    header = ["layer.head", "weight", f"on the first {several}".ljust(20), "|x| first", "median", "|v| first", "median"]
    print(table(header, rows))
    print("\nweight: mean over the tokens after the first; |x|: norm of the residual stream after the layer;")
    print("|v|: norm of the values; first: of the first token; median: over the others")
    print(f"sink rate (share of heads that give the first token more than 0.3): {found['sink_rate']:.0%}")


def bench(args):
    """``minisink bench``."""
    if args.plot:
        check_picture(args.plot)
    caches, n_sinks = sorted(set(args.caches)), args.n_sinks
    if not 0 <= n_sinks < caches[0]:
        raise ValueError(f"a cache of {caches[0]} tokens cannot hold {n_sinks} sinks and a window of at least 1")
    if args.repeats < 1:
        raise ValueError(f"--repeats is {args.repeats}; it must be 1 or more")
    model = load(args.model) if args.model else random_model(args.shape, max_positions=caches[-1])
    if model.config.model_type == "gpt2" and caches[-1] > model.config.max_positions:
        raise ValueError(
            f"a cache of {caches[-1]} is more than the {model.config.max_positions} positions of {model.name}"
        )
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "all"
    with tqdm(total=1 + len(caches), desc="bench", disable=None, leave=False, file=sys.stderr) as bar:
        decode = speed.decoding(model, cache=caches[0], n_sinks=n_sinks, repeats=3 * args.repeats)
        bar.update()
        rows = list(speed.compare(model, caches, n_sinks=n_sinks, repeats=args.repeats, on_progress=bar.update))
    title = f"{model.name}: {model.n_parameters:,} parameters, {model.dtype}, BLAS threads: {threads}"
    if args.plot:
        draw_speed(args.plot, rows, title=title)
    if args.json:
        _dump(
            {"model": model.name, "parameters": model.n_parameters, "threads": threads, "decode": decode, "rows": rows}
        )
        return
    print(f"{title}\n")
    header = ["cache", "streaming", "re-computing", "ratio", "paper, 7B", "streaming", "re-computing"]
    cells = [
        [str(r["cache"]), f"{r['streaming_ms']:.2f} ms", f"{r['recompute_ms']:.1f} ms", f"{r['ratio']:.1f} x"]
        + ["-" if math.isnan(r["paper_ratio"]) else f"{r['paper_ratio']:.1f} x"]
        + [human_bytes(r["streaming_bytes"]), human_bytes(r["recompute_bytes"])]
        for r in rows
    ]
    print(table(header, cells))
    print(f"\nper token, median of {args.repeats}; bytes beside the weights; paper: Llama-2-7B on an A6000, Figure 10")
    speed_now = f"{decode['decode_ms']:.3f} ms ({decode['tokens_per_second']:,.0f} tokens/s)"
    products = f"{decode['over_floor']:.2f} x the {decode['floor_ms']:.3f} ms of its matrix-vector products alone"
    print(f"decoding at cache {decode['cache']}: {speed_now}, {products};")
    print(f"at token 1,000,000 {decode['late_over_early']:.2f} x the time at token 1,000")


def info(args):
    """``minisink info``."""
    model = load(args.model)
    config = model.config
    about = {
        "model": model.name,
        "model_type": config.model_type,
        "layers": config.n_layers,
        "heads": config.n_heads,
        "key/value heads": config.n_kv_heads,
        "head width": config.head_dim,
        "model width": config.d_model,
        "MLP width": config.d_ff,
        "vocabulary": config.vocab_size,
        "trained length": config.max_positions,
        "parameters": model.n_parameters,
        "bytes": model.n_parameters * model.dtype.itemsize,
        "cache bytes per token": cache_bytes_per_token(model),
        "ignored tensors": model.ignored,
    }
    if args.json:
        _dump(about)
        return
    shown = about | {
        "parameters": f"{model.n_parameters:,}",
        "bytes": f"{about['bytes']:,} ({human_bytes(about['bytes'])} as {model.dtype})",
        "cache bytes per token": f"{about['cache bytes per token']:,}",
        "ignored tensors": ", ".join(model.ignored) or "none",
    }
    width = max(len(key) for key in shown)
    for key, value in shown.items():
        print(f"{key.ljust(width)}  {value}")
