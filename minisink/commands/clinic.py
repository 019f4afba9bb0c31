"""``minisink clinic``: a model's sinks on one page."""

from functools import partial

import numpy as np

from ..evaluation.difference import Difference
from ..experiments import clinic
from ..hf.shipped import sample_text
from ..model import load
from ..system.files import check_picture, read_text
from ..system.plots import picture
from ..system.terminal import count, in_runs, table, wrap
from .common import add_json, add_no_bos, at_least, dump, encode, progress

PURPOSE = "how many sinks a model needs, and why: one page"
EXAMPLE = "minisink clinic smollm2 --plot clinic.png"
WHY = {
    "position": "whatever comes first is one",
    "begin-of-text": "it is one because it is the begin-of-text token",
    "word": "it is one because of its word",
    "both": "it is one by its position, and even more by its word",
    "none": "no sink stands out from chance there",
}


def add_options(parser):
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", default="novels", help="a model, as for --model elsewhere (%(default)s)")
    add("--text", metavar="FILE", help="a UTF-8 text of the kind the model is meant for (the shipped story)")
    add("--tokens", type=int, default=3000, metavar="N", help="how much of it to read (%(default)s)")
    add_no_bos(parser)
    add("--caches", type=int, nargs="+", metavar="N", help="keys a query sees (64 256, or the trained length)")
    add("--plot", metavar="PNG", help="plot the weights of all heads, and the losses")
    add_json(parser, "print JSON, with the numbers for every head")


def run(args):
    check_picture(args.plot)
    at_least(args, tokens=2)
    model, path = load(args.model), args.text or sample_text()
    ids = encode(model, read_text(path), path, bos=not args.no_bos)[: args.tokens]
    about = clinic.run(model, ids, caches=args.caches, track=partial(progress, model.name))
    keep = count(about["n_sinks"], "sink") if about["n_sinks"] else "no sink"
    title = f"Keep {keep} in {model.name}: {about['reason']}"
    if args.json:
        dump(about)
    else:
        print("\n\n".join([wrap(title + "."), *page(about)]))
    if args.plot:
        with picture(args.plot, title, f"minisink clinic {args.model}") as figure:
            clinic.draw(figure, about)


def page(about):
    """Return the findings as paragraphs and tables: sinks, heads, losses, spike and values."""
    weight, (layer, channels), losses = about["weight"], about["spike"], about["losses"]  # (L, H)
    first, left_out, copied, middle = (f"{rate['mean']:.1%} ± {rate['error']:.1%}" for rate in about["rates"].values())
    words = ", ".join(f"{row['word']!r} in {len(row['heads'])}" for row in about["words"][:6]) or "none"
    sinks = f"Sinks: {first} of the heads have one on the first token, {middle} on one in the middle: "
    sinks += f"{WHY[about['cause']]}. When it is left out, {left_out} have one on the next; when it is copied to the "
    sinks += f"middle, {copied} have one there. Other words that are one in a few heads: {words}."
    does, found = np.full(weight.shape, "."), []
    for key, letter in (("stream", "S"), ("retrieve", "R")):
        heads = about[key]["heads"]
        does[tuple(np.transpose(heads))] = letter
        found.append(f"{len(heads)} {key} ({letter}; {about[key]['not_told']} more are not told)")
    tenths = (9.99 * weight).astype(int).astype(str)
    maps = [[str(h), "".join(tenths[:, h]), "".join(does[:, h])] for h in range(weight.shape[1])]
    legend = f"A column per layer, 0 to {len(weight) - 1}. Of {weight.size} heads {' and '.join(found)}."
    cells = []
    for row in losses:
        lost = Difference(**row["lost"][0])
        perplexities = [f"{x:.2f}" if x < 1e4 else f"{x:.1e}" for x in row["perplexity"]]
        unclear = "" if lost.above(0) or lost.below(0) else "?"
        enough = "-" if row["enough"] is None else str(row["enough"])
        cells.append([str(row["cache"]), *perplexities, f"{lost}{unclear}", enough])
    header = ["cache", *map(str, losses[0]["n_sinks"]), "nats lost without", "enough"]
    drained, value = min(enumerate(about["values"]), key=lambda pair: pair[1]["mean"])
    spike = f"Spike: {about['massive'][layer]:,.0f} times the median entry of the stream after layer {layer}, channels "
    spike += f"{in_runs([*map(int, channels)])}. Values of the first token: {value['mean']:.2f} ± {value['error']:.2f} "
    spike += f"of the others' median in layer {drained} ({value['kind']})."
    below = "Perplexity after the first eviction, by sinks kept; ?: may be due to chance\n" + table(header, cells)
    return [wrap(sinks), table(["head", "tenths on the first", "does"], maps), wrap(legend), below, wrap(spike)]
