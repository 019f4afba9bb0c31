"""Is a sink needed? Two toys trained with softmax and with proposed cures for sinks.

*Trigger* (arXiv:2603.11487): at one token, output the mean of the earlier ones; at all others, nothing. A softmax head
that solves it must park its weight on BOS. *Backcopy* (arXiv:2410.13835): repeat a token after a trigger, otherwise
continue the chain. The cures: softmax1; a sink logit (gpt-oss); a gate after attention (arXiv:2505.06708); softpick, a
rectified softmax (arXiv:2504.20966); ReLU. Some merely *allow* a head to look at nothing.
"""

import numpy as np

from ..cache import check_whole
from ..system.plots import bars, panels
from ..system.terminal import number, table
from ..training.backcopy import toy as backcopy
from ..training.backcopy.chain import Task
from ..training.parameters import as_weights
from ..training.trigger.toy import ENOUGH, Toy
from ..training.trigger.weights import KINDS
from .effects import by, effect, exactly, gather

PAPER = "Ran-Milo, 2603.11487"
CLAIM = "softmax must put 1 - epsilon on BOS when idle; ReLU need not (a gate: weight on the first token .467 to .048)"
OPTIONS = {"kinds": "ways from scores to weights", "n_seeds": "training runs of each, at most two on backcopy"}
OPTIONS |= {"lengths": "trigger task: tokens per text", "head_dims": "trigger task: channels of a query"}
OPTIONS |= {"steps": "trigger task: training steps at most, of 128 texts each"}
OPTIONS |= {"backcopy_steps": "training steps, of 32 texts each; 0 leaves backcopy out"}
FAST = {"kinds": ("softmax", "softmax1", "relu"), "n_seeds": 2, "backcopy_steps": 0}
MEASURED = ("idle", "busy", "value", "spike", "error")
MUST, SINK = 0.99, 0.3  # 1 - epsilon; the weight above which Gu et al. (arXiv:2410.10781) call it a sink


def run(*, kinds=KINDS, n_seeds=3, lengths=(16,), head_dims=(16,), steps=4000, backcopy_steps=400, seed=0, track=iter):
    """Train each toy in each way (trigger until its largest error is below 5e-3) and see where its idle weight goes.

    Each row has ``"idle"`` and ``"busy"``, the mean weight on BOS from tokens with nothing to do and from triggers;
    ``"value"``, the norm of the value of BOS over the mean of the others'; ``"spike"``, that of its residual stream
    over the median (backcopy only); ``"error"``, the largest one, or for backcopy nats per token above the floor.
    """
    for name, value, least in (("n_seeds", n_seeds, 1), ("steps", steps, 1), ("backcopy_steps", backcopy_steps, 0)):
        check_whole(name, value, least)
    sizes = [(length, width) for length in lengths for width in head_dims]
    toys = [("trigger", kind, *size, seed + i) for size in sizes for kind in kinds for i in range(n_seeds)]
    if backcopy_steps:
        trainable = [kind for kind in kinds if kind in backcopy.RATES]
        toys += [("backcopy", kind, 64, 64, seed + i) for kind in trainable for i in range(min(2, n_seeds))]
    for task, kind, length, width, toy_seed in track(toys):
        if task == "trigger":
            toy = Toy(kind, length=length, head_dim=width, seed=toy_seed)
            n_steps, look = toy.train(steps), {"spike": np.nan} | toy.look()
        else:
            n_steps, look = backcopy_steps, copy_back(kind, backcopy_steps, toy_seed)
        about = {"task": task, "kind": kind, "length": length, "width": width, "seed": toy_seed, "steps": n_steps}
        yield about | {key: look[key] for key in MEASURED}


def copy_back(kind, n_steps, seed):
    """Train a backcopy toy, and return its measurements under the names of `run`."""
    toy = backcopy.Toy(Task.random(seed), kind=kind, n_steps=n_steps, seed=seed)
    for _ in range(n_steps):
        toy.step()
    look = toy.look()
    size = np.linalg.norm(as_weights(toy.config, toy.vector).embed, axis=1)  # the stream that enters the only layer
    weights = {"idle": look["bos_from_nontrigger"], "busy": look["bos_from_trigger"], "value": look["value_ratio"]}
    return weights | {"spike": float(size[0] / np.median(size)), "error": look["loss"] - look["floor"]}


def effects(rows):
    if solved := [row["error"] for row in rows if row["task"] == "trigger"]:
        yield exactly("trigger: largest error", max(solved), below=ENOUGH)
    for (task, kind), runs in by(rows, "task", "kind").items():
        side = {"above": MUST if task == "trigger" else SINK} if kind == "softmax" else {"below": SINK}
        yield effect(f"{task}, {kind}: idle weight on BOS", [row["idle"] for row in runs], stretch=1, **side)


def show(rows):
    forms, cells = {"steps": ".0f"} | dict.fromkeys(MEASURED, ".3f") | {"error": ".4f"}, []
    for about, runs in by(rows, "task", "kind", "length", "width").items():
        means = [number(np.mean([row[key] for row in runs]), form) for key, form in forms.items()]
        cells.append([*map(str, about), str(len(runs)), *means])
    return table(["task", "kind", "T", "D", "seeds", *forms], cells)


def finding(rows):
    parts = []
    for task, runs in by(rows, "task").items():
        park = [kind for kind, idle in gather(runs, "kind", "idle").items() if np.mean(idle) > SINK]
        parts.append(f"{', '.join(park) or 'none'} ({task})")
    n_kinds = len(by(rows, "kind"))
    return f"Of {n_kinds} ways from scores to weights, idle heads park on BOS under {' and '.join(parts)}"


def draw(figure, rows):
    """Draw the idle weight on BOS: one bar per kind, one dot per training run, one panel per task."""
    tasks = {f"{task} task": gather(runs, "kind", "idle") for task, runs in by(rows, "task").items()}
    for axes, idle in panels(figure, tasks, width_ratios=[*map(len, tasks.values())]):
        bars(axes, [*idle], {"idle": [*map(np.mean, idle.values())]}, kinds=[int(kind == "softmax") for kind in idle])
        for i, values in enumerate(idle.values()):
            axes.plot([i] * len(values), values, "o", color="black", ms=8, clip_on=False)
        axes.axhline(SINK, color="black", ls=":", lw=2)
        axes.tick_params(axis="x", rotation=35)
    figure.axes[0].set(ylabel="weight on BOS when idle (dotted: 0.3)", ylim=(0, 1.05))
