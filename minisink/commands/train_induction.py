"""``minisink train induction``: what streaming forgets, and retrieval recovers, on a model trained here."""

import time
from pathlib import Path

import numpy as np

from ..system.terminal import table, wrap
from ..training.induction import gaps as experiment
from ..training.induction import picture
from ..training.induction.segments import CHANCE, SEGMENT
from ..training.induction.toy import LENGTH, Toy, bump
from .classroom import check, watch
from .common import dump, progress

PURPOSE = "grow induction heads in ten seconds, then see what each cache remembers"
EXAMPLE = "minisink train induction --seeds 1 --plot induction.png"


def add_options(parser):
    add = parser.add_argument
    between = "symbols between the two readings (0 20 200 1000)"
    add("--gaps", nargs="+", type=int, default=list(experiment.GAPS), metavar="N", help=between)
    add("--cache", type=int, default=experiment.CACHE, metavar="N", help="slots: one sink and a window (%(default)s)")
    add("--n-blocks", type=int, default=experiment.N_BLOCKS, metavar="N", help="blocks fetched (%(default)s)")
    add("--block", type=int, default=experiment.BLOCK, metavar="N", help="tokens per block (%(default)s)")
    add("--texts", type=int, default=8, metavar="N", help="texts to read per gap (%(default)s)")
    add("--seeds", type=int, default=3, metavar="N", help="trainings, for a mean and its spread (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the first (%(default)s)")
    add("--layers", type=int, default=2, metavar="N", help="attention layers (%(default)s; one cannot learn it)")
    add("--steps", type=int, default=600, metavar="N", help="steps of 32 texts (%(default)s)")
    add("--rate", type=float, metavar="X", help="peak learning rate (0.01)")
    add("--workers", type=int, default=1, metavar="N", help="threads (%(default)s)")
    add("--device", default="cpu", help="cpu or cuda (%(default)s)")
    add("--plot", type=Path, metavar="FILE", help="draw the curves (needs matplotlib)")
    add("--json", action="store_true", help="end with one line of JSON")


def run(args):
    """Run ``minisink train induction``; raise ValueError for impossible options, and a NaN loss."""
    check(args, cache=2, n_blocks=0, block=1, texts=1, seeds=1, seed=0, layers=1, steps=1, workers=1)
    if min(args.gaps) < 0:
        raise ValueError(f"--gaps has {min(args.gaps)}; a gap is 0 or more symbols")
    sizes = {"cache": args.cache, "n_blocks": args.n_blocks, "block": args.block}
    trainings, models = [], []
    for seed in range(args.seed, args.seed + args.seeds):
        started = time.perf_counter()
        same = {name: getattr(args, name) for name in ("rate", "workers", "device")}
        toy = Toy(n_layers=args.layers, n_steps=args.steps, seed=seed, **same)
        history = watch(toy, args.steps, lambda history, s=seed: f"seed {s}, {picture.panel(history, args.steps)}")
        seconds = time.perf_counter() - started
        trainings.append({"seed": seed, "seconds": seconds, "bump": bump(history), "history": history})
        models.append(toy.as_model("induction"))
    started = time.perf_counter()
    losses = _measure(args, models, sizes)  # (seeds, methods, gaps)
    seconds = time.perf_counter() - started
    names = list(experiment.methods(**sizes))
    means = dict(zip(names, losses.mean(axis=0).tolist(), strict=True))
    findings = experiment.finding(means, args.gaps, **sizes)
    _show(args, trainings, names, losses, findings, seconds)
    if args.json:
        dump(_as_json(args, trainings, names, losses, findings, seconds))
    if args.plot is not None:
        picture.draw(args.plot, [one["history"] for one in trainings], args.gaps, means)


def _measure(args, models, sizes):
    """Measure the losses, (seeds, methods, gaps): each model reads its own texts."""
    n_tokens = sum(1 + 2 * SEGMENT + gap for gap in args.gaps) * args.texts * len(experiment.methods(**sizes))
    losses = []
    with progress("reading", total=n_tokens * len(models), unit="token") as bar:
        for seed, model in enumerate(models, args.seed):
            options = {"gaps": args.gaps, "n_texts": args.texts, "seed": seed, **sizes}
            losses.append(list(experiment.run(model, **options, on_progress=bar.update).values()))
    return np.array(losses)


def _show(args, trainings, names, losses, findings, seconds):
    mean, spread = losses.mean(axis=0), losses.std(axis=0, ddof=1) if args.seeds > 1 else None
    several = f"mean and deviation of {args.seeds} trainings" if args.seeds > 1 else "one training"
    about = f"A segment of {SEGMENT} symbols, a gap, the segment again: nats per symbol of the second time, {several} "
    about += f"on texts of {LENGTH} tokens. Chance is {CHANCE:.2f}. All but dense have {args.cache} slots: a window, "
    about += f"or one sink and a window; retrieval sees {args.n_blocks} blocks of {args.block} evicted tokens too."
    print(f"\n{wrap(about)}\n")
    rows = []
    for i, name in enumerate(names):
        cells = [f"{x:.2f}" + ("" if spread is None else f" ±{spread[i, j]:.2f}") for j, x in enumerate(mean[i])]
        rows.append([name, *cells])
    print(table(["method", *(f"gap {gap:,}" for gap in args.gaps)], rows))
    print()
    for line in findings:
        print(wrap(line))
    bumps = [f"the bump at step {one['bump']}" if one["bump"] else "no bump" for one in trainings]
    trained = ", ".join(f"{one['seconds']:.1f} s ({b})" for one, b in zip(trainings, bumps, strict=True))
    print("\n" + wrap(f"trained in {trained}; read in {seconds:.1f} s"))


def _as_json(args, trainings, names, losses, findings, seconds):
    """Return the numbers for scripts."""
    trained, rows = [], []
    for one in trainings:
        last = one["history"][-1][1]
        about = {"seed": one["seed"], "seconds": round(one["seconds"], 2), "bump": one["bump"]}
        trained.append(about | {key: last[key] for key in ("first", "second", "previous", "induction")})
    for i, name in enumerate(names):
        rows.append({"method": name, "mean": losses[:, i].mean(axis=0).tolist(), "by_seed": losses[:, i].tolist()})
    about = {"chance": CHANCE, "gaps": args.gaps, "reading_seconds": round(seconds, 2)}
    return about | {"trainings": trained, "rows": rows, "finding": findings}
