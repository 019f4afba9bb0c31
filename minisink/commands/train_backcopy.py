"""``minisink train backcopy``: watch a sink form, in half a minute."""

import time

from ..evaluation.difference import paired
from ..methods import Dense, Streaming, Window
from ..system.plots import GREY, picture
from ..system.terminal import wrap
from ..training.backcopy.chain import Task
from ..training.backcopy.toy import Toy
from .classroom import add_training, check, watch
from .common import dump

PURPOSE = "watch a sink form in a one-layer model, in half a minute"
EXAMPLE = "minisink train backcopy --softmax softmax1 --plot curves.png"


def add_options(parser):
    add = parser.add_argument
    add("--softmax", choices=("softmax", "softmax1", "relu"), default="softmax", help="scores to weights (%(default)s)")
    add("--optimizer", choices=("adamw", "sgd"), default="adamw", help="(%(default)s)")
    add("--no-bos", action="store_true", help="let texts begin anywhere")
    add("--length", type=int, default=64, metavar="N", help="tokens per text in training (%(default)s)")
    seed = "the task, the weights and the texts"
    add_training(parser, seed=seed, layers=(1, ""), steps=1200, rate="0.05; relu 0.002, sgd 1")


def run(args):
    check(args, length=4)
    started = time.perf_counter()
    task = Task.random(args.seed, starts_with_bos=not args.no_bos)
    same = {name: getattr(args, name) for name in ("optimizer", "length", "rate", "seed", "workers", "device")}
    toy = Toy(task, n_layers=args.layers, kind=args.softmax, n_steps=args.steps, **same)
    first = "first" if args.no_bos else "BOS"
    history = watch(toy, args.steps, lambda start, look: _bars(start, look, first))
    row, methods = history[-1][1], (Dense(), Window(args.length), Streaming(1, args.length - 1))
    above = {method.name: toy.above_floor(method).ravel() for method in methods}
    seconds = time.perf_counter() - started
    _explain(row, above, first, args.length, seconds)
    if args.json:
        result = {"seconds": round(seconds, 2)} | {key: value for key, value in row.items() if key != "layer"}
        dump(result | {f"{name}_nll": toy.floor + float(nats.mean()) for name, nats in above.items()})
    if args.plot is not None:
        _draw(history, args.plot, first)


def _bars(start, look, first):
    """List the bars of a panel; a full bar is the loss above the floor at the start."""
    floor, idle, busy = look["floor"], look["bos_from_nontrigger"], look["bos_from_trigger"]
    highest, over = start["loss"] - floor, look["loss"] - floor
    return [
        ("loss above the floor", over / highest if highest > 0 else 0.0, f"{over:.4f} nats (floor {floor:.3f})"),
        (f"weight on {first}, idle", idle, f"{idle:.4f}"),
        (f"weight on {first}, trigger", busy, f"{busy:.4f}"),
        (f"|v_{first}| / |v|", look["value_ratio"], f"{look['value_ratio']:.4f}"),
    ]


def _explain(row, above, first, length, seconds):
    idle, busy = row["bos_from_nontrigger"], row["bos_from_trigger"]
    verdict = "a sink" if idle > 0.3 else "no sink"  # the threshold of Gu et al., arXiv:2410.10781
    name = "BOS" if first == "BOS" else "the first token"
    name += f" in layer {row['layer']}" if row["layer"] else ""
    gets = f"gets a weight of {idle:.2f} from tokens with nothing to look up, {busy:.2f} from triggers"
    print("\n" + wrap(f"{verdict}: {name} {gets}"))
    print(f"texts of 1,000 tokens ({length} in training), nats per token above the floor:")
    seen = {"dense": "every token seen", "window": f"the last {length}"}
    seen["streaming"] = f"the first one and the last {length - 1}"
    for name, what in seen.items():
        print(f"  {name:10} {above[name].mean():+.4f}   {what}")
    print(f"  window - streaming {paired(above['window'], above['streaming'])} (standard error)\n{seconds:.1f} s")


def _draw(history, path, first):
    steps, last = [step for step, _ in history], history[-1][1]
    curves = {name: [look[name] for _, look in history] for name in last}
    idle, busy = curves["bos_from_nontrigger"], curves["bos_from_trigger"]
    title = f"After {steps[-1]:,} steps {first} gets {idle[-1]:.2f} of the weight of idle tokens and {busy[-1]:.2f} of "
    title += f"that of triggers; its value is {last['value_ratio']:.2f} times as long as other values"
    with picture(path, title) as figure:
        loss, weight, value = figure.subplots(1, 3)
        loss.plot(steps, curves["loss"], label="model")
        loss.axhline(last["floor"], color=GREY, ls="--", label="floor")
        loss.set(title="loss (nats)", xlabel="step")
        weight.plot(steps, idle, label="from idle tokens")
        weight.plot(steps, busy, label="from triggers")
        are_shares = max(idle + busy) <= 1.0  # ReLU's weights need not be
        weight.set(title=f"weight on {first}", xlabel="step", ylim=(-0.03, 1.03) if are_shares else None)
        value.plot(steps, curves["value_ratio"])
        value.set(title=f"|value of {first}| / |other values|", xlabel="step", ylim=(0, None))
        loss.legend()
        weight.legend()
