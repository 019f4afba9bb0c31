"""``minisink demo``: window attention fails, StreamingLLM works, in numbers and in words."""

import warnings
from pathlib import Path

import numpy as np

from ..evaluation.plots import draw_losses
from ..experiments import four_methods, last_words
from ..hf.shipped import sample_text
from ..methods import Recompute, Streaming, Window, lead_of
from ..model import load
from ..system.files import check_picture, read_text
from ..system.terminal import chart, count, human_bytes, number, rolling_mean, rolling_span, side_by_side, table, wrap
from .common import add_json, add_model, add_no_bos, add_readable, at_least, dump, encode, progress

PURPOSE = "watch window attention fail and StreamingLLM work"
EXAMPLE = "minisink demo --cache 64"
PROMPT = "It was a dark night, and the wind blew."
INDUCTION = 1.0  # nats saved on a second reading of noise: with less, a model does not look things up
CONTROL = "novels-vanilla"  # the twin of novels that never had a fixed first token, and has no sink to lose


def add_options(parser):
    add = parser.add_argument
    add_model(parser)
    add("--text", metavar="FILE", help="a UTF-8 text (the shipped story)")
    add("--tokens", type=int, default=3000, metavar="N", help="how much of it to read; 0 for all (%(default)s)")
    add("--cache", type=int, default=16, metavar="N", help="keys a query sees; fewer make it clearer (%(default)s)")
    add("--n-sinks", type=int, default=1, metavar="N", help="first tokens kept by streaming (%(default)s)")
    add("--write", type=int, default=1200, metavar="N", help="tokens each method writes; 0 for no text (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="random seed of the written texts (%(default)s)")
    add("--plot", metavar="PNG", help="plot the rolling loss")
    add_no_bos(parser)
    add_readable(parser)
    add_json(parser)


def run(args):
    """Stream a text through the methods, let three write, and print the measurements."""
    check_picture(args.plot)
    at_least(args, tokens=0, write=0, seed=0)
    model, source = load(args.model), args.text or sample_text()
    ids = encode(model, read_text(source), source, bos=not args.no_bos)[: args.tokens or None]
    methods, writers = four_methods.four(model, ids, args.cache, args.n_sinks), _writers(model, args)
    gain = four_methods.induction(model)
    back = four_methods.brought_back(args.cache, args.n_sinks) if gain > INDUCTION else None
    methods += [back] if back else []
    # work is counted in tokens that pass through the model: re-computation reads a whole cache for every one
    work = {method: args.cache if isinstance(method, Recompute) else 1 for method in methods}
    n_tokens = sum(work.values()) * (len(ids) - 1) + len(writers) * args.write
    with progress("demo", total=n_tokens, unit="token") as bar:

        def on_progress(method, n_tokens):
            bar.set_description(method.name, refresh=False)
            bar.update(n_tokens * work[method])

        options = {"cache": args.cache, "readable": args.readable}
        rows = [*four_methods.run(model, ids, methods, **options, on_progress=on_progress)]
        if not all(np.isfinite(row["nll"]).all() for row in rows):
            writers = {}  # a model that computes NaN has nothing to say
        bar.set_description("writing", refresh=False)
        draws = {"n_tokens": args.write, "seed": args.seed, "bos": not args.no_bos, "readable": args.readable}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # we have already warned of a cache that is too long
            texts = [*last_words.run(writers, PROMPT, **draws, on_progress=bar.update)]
    losses = {row["method"]: row["nll"] for row in rows}
    findings = [four_methods.finding(rows, args.cache), *_explain_finding(model, ids, rows, gain)]
    if args.json:
        about = {"model": model.name, "tokens": len(ids), "cache": args.cache, "n_sinks": args.n_sinks}
        numbers = [{key: x for key, x in row.items() if key != "nll"} for row in rows]
        dump(about | {"methods": numbers, "texts": texts, "finding": " ".join(findings)})
    else:
        heading = f"{model.name} reads {len(ids):,} tokens of {Path(source).name}; perplexity before and after eviction"
        _show(args, heading, len(lead_of(model, ids, args.cache)), back, rows, losses, texts)
        print("\n" + wrap(" ".join(findings)))
    if args.plot:
        title = f"{model.name}, a cache of {args.cache} tokens"
        draw_losses(args.plot, losses, title=title, evicted_from=args.cache)


def _writers(model, args):
    """Return the three writers: window, sinks + window, and the sink-free control."""
    if not args.write:
        return {}
    window, streaming = Window(args.cache), Streaming(args.n_sinks, args.cache - args.n_sinks)
    writers = {"window": (model, window), f"{count(args.n_sinks, 'sink')} + window": (model, streaming)}
    return writers | ({f"{CONTROL}, window": (load(CONTROL), window)} if model.name == "novels" else {})


def _explain_finding(model, ids, rows, gain):
    """Explain the finding: how much the model relies on its first token, knows the text, and copies."""
    if len(ids) > 1:
        weight = four_methods.lean(model, ids)
        lost = "and the window throws it away" if weight > 0.1 else "so there is little for a window to lose"
        yield f"The heads of {model.name} give the first token {weight:.0%} of their weight, {lost}."
    strange = four_methods.foreign(model, next(row["after"] for row in rows if row["method"] == "recompute"))
    if strange:
        yield strange
    if gain <= INDUCTION:  # hence no row for "retrieval"
        yield f"No induction (a second reading of noise gains {gain:.1f} nats): retrieval has nothing to copy with."


def _show(args, heading, lead, back, rows, losses, texts):
    """Print the curves, and below them one screen of 24 rows with the results."""
    span, short = rolling_span(losses), {"retrieval": "back"}  # with a letter different from re-computation's
    curves = {short.get(name, name): rolling_mean(nll, span) for name, nll in losses.items() if len(nll)}
    if curves:
        print(f"loss in nats, mean of the last {span} tokens")
        fetched = ", b retrieval (brought back)" if back else ""
        print(f"d dense, w window, r recompute, s streaming{fetched}, * where they meet\n")
        print(chart(curves, mark=args.cache, mark_label="first eviction", height=14, skip=span) + "\n")
    print(heading + "\n")
    sees = {
        "dense": "all before",
        "window": f"last {args.cache}",
        "recompute": f"first {lead} + " * bool(lead) + f"last {args.cache - lead}, read again",
        "streaming": f"first {args.n_sinks} + last {args.cache - args.n_sinks}",
        "retrieval": back and f"the same + {back.n_blocks} x {back.block}",
    }
    cells = []
    for row in rows:
        cache = human_bytes(row["cache_bytes"]) if row["method"] != "recompute" else "none"
        numbers = [number(row["before"]), number(row["after"]), cache, f"{row['tokens_per_second']:,.0f}"]
        cells.append([row["method"], sees[row["method"]], *numbers])
    print(table(["method", "sees", "before", "after", "cache", "tokens/s"], cells))
    for row in rows:
        if row["note"]:
            print(wrap(f"{row['method']} stopped after {len(row['nll'])} tokens: {row['note']}"))
    if texts:
        print(f'\nAfter "{PROMPT}", the end of {args.write:,} tokens:')
        feet = [f"(ppl {row['own_perplexity']:.0f}, repeats {row['repeated']:.0%})" for row in texts]
        print(side_by_side({row["who"]: row["text"] for row in texts}, rows=4, feet=feet))
