"""``minisink train backcopy``: watch a sink form, in half a minute."""

import time
from functools import partial
from pathlib import Path

from ..evaluation.difference import paired
from ..methods import Streaming, Window
from ..system.terminal import wrap
from ..training.backcopy import picture
from ..training.backcopy.chain import Task
from ..training.backcopy.toy import Toy
from .classroom import check, watch
from .common import dump

PURPOSE = "watch a sink form in a one-layer model, in half a minute"
EXAMPLE = "minisink train backcopy --softmax softmax1 --plot curves.png"


def add_options(parser):
    add = parser.add_argument
    add("--layers", type=int, default=1, metavar="N", help="attention layers (%(default)s)")
    add("--softmax", choices=("softmax", "softmax1", "relu"), default="softmax", help="scores to weights (%(default)s)")
    add("--optimizer", choices=("adamw", "sgd"), default="adamw", help="(%(default)s)")
    add("--no-bos", action="store_true", help="let texts begin anywhere")
    add("--seed", type=int, default=0, metavar="N", help="seed of the task, the weights and the texts (%(default)s)")
    add("--steps", type=int, default=1200, metavar="N", help="steps of 32 texts (%(default)s)")
    add("--rate", type=float, metavar="X", help="peak learning rate (0.05; relu 0.002, sgd 1)")
    add("--length", type=int, default=64, metavar="N", help="tokens per text in training (%(default)s)")
    add("--workers", type=int, default=1, metavar="N", help="threads (%(default)s; more gain nothing here)")
    add("--device", default="cpu", help="cpu or cuda (%(default)s)")
    add("--plot", type=Path, metavar="FILE", help="draw the curves (needs matplotlib)")
    add("--json", action="store_true", help="end with one line of JSON")


def run(args):
    """Run ``minisink train backcopy``; raise ValueError for impossible options, and a NaN loss."""
    check(args, layers=1, steps=1, length=4, workers=1, seed=0)
    started = time.perf_counter()
    task = Task.random(args.seed, starts_with_bos=not args.no_bos)
    same = {name: getattr(args, name) for name in ("optimizer", "length", "rate", "seed", "workers", "device")}
    toy = Toy(task, n_layers=args.layers, kind=args.softmax, n_steps=args.steps, **same)
    first = "first" if args.no_bos else "BOS"
    history = watch(toy, args.steps, partial(picture.panel, n_steps=args.steps, first=first))
    row = history[-1][1]
    long = toy.stream()
    seconds = time.perf_counter() - started
    window, sink = (toy.above_floor(m).ravel() for m in (Window(args.length), Streaming(1, args.length - 1)))
    _explain(row, long, first, args.length, seconds, paired(window, sink))
    if args.json:
        result = {"seconds": round(seconds, 2)} | row | long
        dump({key: value for key, value in result.items() if key != "layer"})
    if args.plot is not None:
        picture.draw(history, args.plot, first)


def _explain(row, long, first, length, seconds, gap):
    idle, busy = row["bos_from_nontrigger"], row["bos_from_trigger"]
    verdict = "a sink" if idle > 0.3 else "no sink"  # the threshold of Gu et al., arXiv:2410.10781
    name = "BOS" if first == "BOS" else "the first token"
    name += f" in layer {row['layer']}" if row["layer"] else ""
    gets = f"gets a weight of {idle:.2f} from tokens with nothing to look up, {busy:.2f} from triggers"
    print("\n" + wrap(f"{verdict}: {name} {gets}"))
    print(f"texts of 1,000 tokens ({length} in training), nats per token above the floor:")
    for name, what in (
        ("dense", "every token seen"),
        ("window", f"the last {length}"),
        ("streaming", f"the first one and the last {length - 1}"),
    ):
        print(f"  {name:10} {long[name + '_nll'] - row['floor']:+.4f}   {what}")
    print(f"  window - streaming {gap} (standard error)\n{seconds:.1f} s")
