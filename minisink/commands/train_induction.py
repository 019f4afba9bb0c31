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
    add("--seeds", type=int, default=3, metavar="N", help="trainings, for a mean and its spread (%(default)s)")
    add_training(parser, seed="the first", layers=(2, "; one cannot learn it"), steps=600, rate="0.01")


def run(args):
    """Run ``minisink train induction``; raise ValueError for impossible options, and a NaN loss."""
    check(args, cache=2, n_blocks=0, block=1, texts=1, seeds=1)
    if min(args.gaps) < 0:
        raise ValueError(f"--gaps has {min(args.gaps)}; a gap is 0 or more symbols")
    sizes = {"cache": args.cache, "n_blocks": args.n_blocks, "block": args.block}
    trainings = []
    for seed in range(args.seed, args.seed + args.seeds):
        started = time.perf_counter()
        same = {name: getattr(args, name) for name in ("rate", "workers", "device")}
        toy = Toy(n_layers=args.layers, n_steps=args.steps, seed=seed, **same)
        history = watch(toy, args.steps, _bars, f"seed {seed}, ")
        about = {"seed": seed, "seconds": time.perf_counter() - started, "bump": bump(history)}
        trainings.append(about | {"history": history, "model": toy.as_model("induction")})
    started, cells = time.perf_counter(), []
    for one in trainings:  # each reads its own texts
        options = {"gaps": args.gaps, "n_texts": args.texts, "seed": one["seed"], **sizes}
        each = experiment.each(one["model"], **options, track=partial(progress, "reading"))
        cells.append([[nll.mean() for nll in row] for row in each.values()])
    losses = np.array(cells)  # (seeds, methods, gaps)
    seconds = time.perf_counter() - started
    means = dict(zip(experiment.methods(**sizes), losses.mean(axis=0).tolist(), strict=True))
    findings = experiment.finding(means, args.gaps, **sizes)
    _show(args, trainings, list(means), losses, findings, seconds)
    if args.json:
        dump(_as_json(args, trainings, list(means), losses, findings, seconds))
    if args.plot is not None:
        _draw(args.plot, [one["history"] for one in trainings], args.gaps, means)


def _bars(_, look):
    """List the bars of a panel."""
    heads = {name: "layer {} head {}".format(*look[name + "_head"]) for name in ("previous", "induction")}
    return [
        ("loss, first reading", look["first"] / CHANCE, f"{look['first']:.2f} nats (chance {CHANCE:.2f})"),
        ("loss, second reading", look["second"] / CHANCE, f"{look['second']:.2f} nats"),
        ("weight on the one before", look["previous"], f"{look['previous']:.2f} by {heads['previous']}"),
        ("weight on what came next", look["induction"], f"{look['induction']:.2f} by {heads['induction']}"),
    ]


def _show(args, trainings, names, losses, findings, seconds):
    several = f"mean and deviation of {args.seeds} trainings" if args.seeds > 1 else "one training"
    about = f"A segment of {SEGMENT} symbols, a gap, the segment again: nats per symbol of the second time, {several} "
    about += f"on texts of {LENGTH} tokens. Chance is {CHANCE:.2f}. All but dense have {args.cache} slots: a window, "
    about += f"or one sink and a window; retrieval sees {args.n_blocks} blocks of {args.block} evicted tokens too."
    print(f"\n{wrap(about)}\n")
    rows = []
    for i, name in enumerate(names):
        cells = losses[:, i].T  # (seeds, methods, gaps) -> (gaps, seeds)
        spreads = [f" ±{cell.std(ddof=1):.2f}" if args.seeds > 1 else "" for cell in cells]
        rows.append([name, *(f"{cell.mean():.2f}{spread}" for cell, spread in zip(cells, spreads, strict=True))])
    print(table(["method", *(f"gap {gap:,}" for gap in args.gaps)], rows) + "\n")
    for line in findings:
        print(wrap(line))
    bumps = [f"the bump at step {one['bump']}" if one["bump"] else "no bump" for one in trainings]
    trained = ", ".join(f"{one['seconds']:.1f} s ({b})" for one, b in zip(trainings, bumps, strict=True))
    print("\n" + wrap(f"trained in {trained}; read in {seconds:.1f} s"))


def _as_json(args, trainings, names, losses, findings, seconds):
    """Return the numbers for scripts."""
    keys, trained = ("first", "second", "previous", "induction"), []
    for one in trainings:
        about = {"seed": one["seed"], "seconds": round(one["seconds"], 2), "bump": one["bump"]}
        trained.append(about | {key: one["history"][-1][1][key] for key in keys})
    by_seed = dict(zip(names, losses.swapaxes(0, 1), strict=True))  # (seeds, gaps) by method
    rows = [{"method": name, "mean": nll.mean(axis=0), "by_seed": nll} for name, nll in by_seed.items()]
    about = {"chance": CHANCE, "gaps": args.gaps, "reading_seconds": round(seconds, 2)}
    return about | {"trainings": trained, "rows": rows, "finding": findings}


def _draw(path, histories, gaps, losses):
    """Draw each training over its steps (losses, weights), and what is remembered after each gap."""
    costs = ", ".join(f"{name} {curve[-1]:.2f}" for name, curve in losses.items())
    title = f"With {gaps[-1]:,} symbols between two readings, the second costs, in nats (chance {CHANCE:.2f}): {costs}"
    with picture(path, title) as figure:
        loss, weight, remembered = figure.subplots(1, 3)
        dashed, solid = {"color": GREY, "ls": "--"}, {"color": BLUE, "ls": "-"}
        curves = [(loss, "first", "first", dashed), (loss, "second", "second", solid)]
        curves += [(weight, "previous", "one before", dashed), (weight, "induction", "what came next", solid)]
        for i, history in enumerate(histories):
            steps = [step for step, _ in history]
            for axes, name, label, style in curves:
                axes.plot(steps, [look[name] for _, look in history], label="_" if i else label, **style)
        loss.set(title="nats, by reading", xlabel="step", ylim=(0, None))
        weight.set(title="weight of best head", xlabel="step", ylim=(-0.03, 1.03))
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
