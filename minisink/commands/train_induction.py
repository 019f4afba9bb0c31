"""``minisink train induction``: what streaming forgets, and retrieval recovers, on a model trained here."""

import time
from functools import partial

import numpy as np

from ..evaluation.plots import STROKES
from ..system.plots import BLUE, GREEN, GREY, PURPLE, name_lines, picture
from ..system.terminal import table, wrap
from ..training.induction import gaps as experiment
from ..training.induction.segments import CHANCE, SEGMENT
from ..training.induction.toy import LENGTH, Toy, bump
from .classroom import add_training, check, watch
from .common import dump, progress

PURPOSE = "grow induction heads in ten seconds, then see what each cache remembers"
EXAMPLE = "minisink train induction --seeds 1 --plot induction.png"
MEASURED = ("first", "second", "previous", "induction")
STYLES = {name: STROKES[name] | {"lw": 2.5} for name in ("dense", "window", "streaming", "retrieval")}
STYLES["retrieval, original"] = {"color": PURPLE, "lw": 1.5, "ls": "-"}
STYLES["retrieval, random"] = {"color": GREEN, "lw": 1.5, "ls": "-."}


def add_options(parser):
    add = parser.add_argument
    between = "symbols between the two readings (0 20 200 1000)"
    add("--gaps", nargs="+", type=int, default=list(experiment.GAPS), metavar="N", help=between)
    add("--cache", type=int, default=experiment.CACHE, metavar="N", help="slots: one sink and a window (%(default)s)")
    add("--n-blocks", type=int, default=experiment.N_BLOCKS, metavar="N", help="blocks fetched (%(default)s)")
    add("--block", type=int, default=experiment.BLOCK, metavar="N", help="tokens per block (%(default)s)")
    add("--texts", type=int, default=8, metavar="N", help="texts to read per gap (%(default)s)")
    add("--seeds", type=int, default=3, metavar="N", help="training runs, for a mean and its spread (%(default)s)")
    add_training(parser, seed="the first run", layers=(2, "; one layer cannot learn the task"), steps=600, rate="0.01")


def run(args):
    check(args, cache=2, n_blocks=0, block=1, texts=1, seeds=1)
    if min(args.gaps) < 0:
        raise ValueError(f"--gaps has {min(args.gaps)}; a gap is 0 or more symbols")
    sizes = {"cache": args.cache, "n_blocks": args.n_blocks, "block": args.block}
    seeds = range(args.seed, args.seed + args.seeds)
    toys, histories, trainings = [], [], []
    for seed in seeds:
        started = time.perf_counter()
        same = {name: getattr(args, name) for name in ("rate", "workers", "device")}
        toys.append(Toy(n_layers=args.layers, n_steps=args.steps, seed=seed, **same))
        histories.append(watch(toys[-1], args.steps, _bars, f"seed {seed}, "))
        about = {"seed": seed, "seconds": round(time.perf_counter() - started, 2), "bump": bump(histories[-1])}
        trainings.append(about | {key: histories[-1][-1][1][key] for key in MEASURED})
    started = time.perf_counter()
    options = {"gaps": args.gaps, "n_texts": args.texts, "track": partial(progress, "reading"), **sizes}
    models = [toy.as_model("induction") for toy in toys]
    losses = [experiment.each(model, seed=seed, **options) for model, seed in zip(models, seeds, strict=True)]
    rows = []
    for name in experiment.methods(**sizes):
        by_seed = np.array([[nll.mean() for nll in by_method[name]] for by_method in losses])  # (seeds, gaps)
        rows.append({"method": name, "mean": by_seed.mean(axis=0), "by_seed": by_seed})
    result = {"chance": CHANCE, "gaps": args.gaps, "reading_seconds": round(time.perf_counter() - started, 2)}
    result |= {"trainings": trainings, "rows": rows}
    result["finding"] = experiment.finding({row["method"]: row["mean"] for row in rows}, args.gaps, **sizes)
    _show(args, result)
    if args.json:
        dump(result)
    if args.plot is not None:
        _draw(args.plot, histories, result)


def _bars(_, look):
    heads = {name: "layer {} head {}".format(*look[name + "_head"]) for name in ("previous", "induction")}
    return [
        ("loss, first reading", look["first"] / CHANCE, f"{look['first']:.2f} nats (chance {CHANCE:.2f})"),
        ("loss, second reading", look["second"] / CHANCE, f"{look['second']:.2f} nats"),
        ("weight on the previous", look["previous"], f"{look['previous']:.2f} by {heads['previous']}"),
        ("weight on what came next", look["induction"], f"{look['induction']:.2f} by {heads['induction']}"),
    ]


def _show(args, result):
    several = f"mean and deviation of {args.seeds} training runs" if args.seeds > 1 else "one training run"
    about = f"A segment of {SEGMENT} symbols, a gap, the segment again: nats per symbol the second time, {several} "
    about += f"on texts of {LENGTH} tokens. Chance is {CHANCE:.2f}. All but dense have {args.cache} slots: a window, "
    about += f"or one sink and a window; retrieval sees {args.n_blocks} blocks of {args.block} evicted tokens too."
    print(f"\n{wrap(about)}\n")
    cells = []
    for row in result["rows"]:
        spreads = [f" ±{seeds.std(ddof=1):.2f}" if args.seeds > 1 else "" for seeds in row["by_seed"].T]
        means = [f"{mean:.2f}{spread}" for mean, spread in zip(row["mean"], spreads, strict=True)]
        cells.append([row["method"], *means])
    print(table(["method", *(f"gap {gap:,}" for gap in args.gaps)], cells) + "\n")
    for line in result["finding"]:
        print(wrap(line))
    bumps = [f"the bump at step {one['bump']}" if one["bump"] else "no bump" for one in result["trainings"]]
    trained = [f"{one['seconds']:.1f} s ({b})" for one, b in zip(result["trainings"], bumps, strict=True)]
    print("\n" + wrap(f"trained in {', '.join(trained)}; read in {result['reading_seconds']:.1f} s"))


def _draw(path, histories, result):
    """Plot each training run over its steps (losses, weights), and what is remembered after each gap."""
    gaps, losses = result["gaps"], {row["method"]: row["mean"] for row in result["rows"]}
    costs = ", ".join(f"{name} {curve[-1]:.2f}" for name, curve in losses.items())
    title = f"With {gaps[-1]:,} symbols between two readings, the second costs, in nats (chance {CHANCE:.2f}): {costs}"
    with picture(path, title) as figure:
        loss, weight, remembered = figure.subplots(1, 3)
        dashed, solid = {"color": GREY, "ls": "--"}, {"color": BLUE, "ls": "-"}
        curves = [(loss, "first", "first", dashed), (loss, "second", "second", solid)]
        curves += [(weight, "previous", "previous one", dashed), (weight, "induction", "what came next", solid)]
        for i, history in enumerate(histories):
            steps = [step for step, _ in history]
            for axes, name, label, style in curves:
                axes.plot(steps, [look[name] for _, look in history], label="_" if i else label, **style)
        loss.set(title="nats, by reading", xlabel="step", ylim=(0, None))
        weight.set(title="weight of the best head", xlabel="step", ylim=(-0.03, 1.03))
        places = range(len(gaps))
        for name, curve in losses.items():
            remembered.plot(places, curve, marker="o", label=name, **STYLES[name])
        remembered.set_xticks(places, [f"{gap:,}" for gap in gaps])
        remembered.set(title="nats, second reading", xlabel="symbols between", ylim=(0, None))
        for axes in (loss, remembered):
            axes.axhline(CHANCE, color="black", ls=":")
        for axes in (loss, weight):
            axes.legend()
        name_lines(remembered)
