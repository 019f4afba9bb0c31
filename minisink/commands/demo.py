"""``minisink demo``: window attention fails, StreamingLLM holds."""

from pathlib import Path

from ..experiments import four_methods
from ..methods import METHODS, N_SINKS
from ..model import load
from ..system.files import check_picture
from ..system.plots import above_recompute, draw_losses
from ..system.resources import sample_text
from ..system.terminal import chart, human_bytes, rolling_mean, rolling_span, table
from .common import add_json, add_model, add_readable, dump, encode, number, progress, read_text

PURPOSE = "watch window attention fail and StreamingLLM hold"
EXAMPLE = "minisink demo --cache 64"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add_model(parser)
    add("--text", metavar="FILE", help="a UTF-8 text (the story that ships)")
    add("--tokens", type=int, default=3000, metavar="N", help="how much of it; 0 for all (%(default)s)")
    add("--n-sinks", type=int, default=N_SINKS, metavar="N", help="first tokens kept by streaming (%(default)s)")
    add("--cache", type=int, default=128, metavar="N", help="keys a query may see (%(default)s)")
    add("--plot", metavar="PNG", help="draw the rolling loss as a picture")
    add_readable(parser)
    add_json(parser)


def run(args):
    """Stream a text through the four methods, and print what was measured."""
    if args.plot:
        check_picture(args.plot)
    if args.tokens < 0:
        raise ValueError(f"--tokens is {args.tokens}; it must be 0 (all) or more")
    model = load(args.model)
    source = args.text or sample_text()
    ids = encode(model, read_text(source), source)
    ids = ids[: args.tokens] if args.tokens else ids
    with progress(len(METHODS) * (len(ids) - 1), "demo") as bar:

        def on_progress(method, n_tokens):
            bar.set_description(method)
            bar.update(n_tokens)

        options = {"n_sinks": args.n_sinks, "cache": args.cache, "readable": args.readable}
        rows = four_methods.run(model, ids, **options, on_progress=on_progress)
    sentence = four_methods.finding(rows, args.cache)
    losses = {row["method"]: row["nll"] for row in rows}
    if args.plot:
        draw_losses(args.plot, losses, title=f"{model.name}: a cache of {args.cache} tokens", evicted_from=args.cache)
    if args.json:
        dump(
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
    return [row["method"], number(row["before"]), number(row["after"]), f"{row['keys']:,}", cache, speed]
