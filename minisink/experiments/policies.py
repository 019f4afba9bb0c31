"""The arena: what else a cache of the same size could keep, on three tasks, and what that costs.

The entries are in `arena`; add yours with ``--own mine.py:NAME`` (docs/your-own-cache.md). The tasks: a long text;
twelve symbols that a toy trained on the spot (`training.induction`) rereads after a gap; and names mentioned early, in
the middle and late in a text, which a model that can copy must supply at the end.
"""

import time
from runpy import run_path

import numpy as np

from ..cache import Policy, check_whole
from ..evaluation.difference import Difference, paired
from ..hf.fields import CheckpointError
from ..loss import perplexity, token_nll
from ..methods import ByLayer, Recompute, check_cache, new_cache
from ..model import load
from ..system.plots import bars, panels
from ..system.terminal import human_bytes, number, table
from ..training.induction.segments import CHANCE, SEGMENT, ask
from ..training.induction.toy import Toy
from . import recall
from .arena import ENTRIES
from .effects import effect, must_evict, must_hold, must_learn

REAL = "smollm2"  # does the task with names, because the shipped models cannot copy
PAPER = "arXiv:2306.14048 and others"
CLAIM = "of the same number of keys, others serve better than the newest: "
CLAIM += "those most attended to (H2O, TOVA, SnapKV), or unlike the rest (KeyDiff)"
OPTIONS = {"entries": "which to compare with streaming", "own": "your own entries, FILE.py:NAME each"}
OPTIONS |= {"keys": "keys a query sees", "n_sinks": "first tokens kept, by entries that keep any"}
OPTIONS |= {"gaps": "symbols between the toy's two readings", "toy_keys": "keys a query of the toy sees"}
OPTIONS |= {"toy_texts": "texts the toy reads for each gap", "steps": "training steps of the toy"}
OPTIONS |= {"names": "texts in which SmolLM2 is told three names (this takes the most time)"}
FAST = {"tokens": 150, "keys": 32, "gaps": (20,), "toy_texts": 2, "steps": 200, "names": 0}
CONTROLS = ("streaming", "window", "every fourth", "random")  # the claim is about the others
FEWEST = 16  # keys, because some entries protect half of them, or eight
WHERE = ("early", "middle", "late")
WHO = ("captain", "doctor", "teacher")
NAMES = "Ada Bruno Clara David Emma Frank Grace Henry Ivan Julia Karl Laura Martin Nora Oscar Peter Rosa Simon".split()
PARTS = (50, 450, 450, 50)  # characters of the story before each name, and before the question


class Counted:
    """A path that wraps another and counts the keys that each query sees, averaged over heads."""

    def __init__(self, model, made, most):
        if made is None:
            raise ValueError("a method or a path must be returned, not None")
        self.cache = new_cache(model, made) if isinstance(made, Policy | ByLayer | Recompute) else made
        check_cache(model, self.cache)
        self.path, self.most, self.keys = model.path_of(self.cache), most, []
        self.positions = self.path.positions

    n_seen = property(lambda self: self.cache.n_seen)

    def mix(self, layer, q, k, v, rotate, *, normalise, **options):
        seen, first = [], self.n_seen

        def counting(scores):  # (H, T, S)
            seen.extend(np.isfinite(scores).sum(axis=-1).mean(axis=0).tolist())
            return normalise(scores)

        mixed = self.path.mix(layer, q, k, v, rotate, normalise=counting, **options)
        for t, n in enumerate(seen):
            if n > self.most:
                raise ValueError(f"in layer {layer} token {first + t} sees {n:g} keys; {self.most} are allowed")
        if len(seen) != len(q):
            raise ValueError("its keys cannot be counted: call `normalise` once for each token, with all heads' scores")
        self.keys.append(seen)
        return mixed


def run(
    model,
    ids,
    text,
    *,
    entries=tuple(ENTRIES),
    own=(),
    keys=64,
    n_sinks=1,
    gaps=(8, 100),
    toy_keys=16,
    toy_texts=8,
    steps=600,
    names=4,
    seed=0,
    track=iter,
):
    """Try every entry on every task.

    Each row has the ``"perplexity"`` after the first eviction, how many nats per token it is ``"above"`` streaming, and
    the ``"error"`` of that; nats per token of what the toy rereads after each ``"gap N"``, and of names mentioned
    ``"early"`` etc. (NaN: not measured, ``"missing"`` says why); how many ``"keys"`` the last query sees, of those
    ``"allowed"``; ``"us"``, processor microseconds per token; ``"bytes"`` held; ``"tasks"``, the nats for each text.
    """
    for name, n in (("--keys", keys), ("--toy-keys", toy_keys)):
        check_whole(name, n, FEWEST)
    must_evict(len(ids), keys)
    must_hold(FEWEST // 2, n_sinks)
    must_learn(model, [keys])
    makers = {name: maker(name) for name in dict.fromkeys(("streaming", *entries, *own))}
    asked, missing = names_told(text, names, keys, seed)
    jobs = repeated(gaps, toy_texts, steps, toy_keys, seed) + asked
    streaming = None
    for name in track([*makers]):
        nll, tasks, costs = measure(name, makers[name], model, ids, keys, n_sinks, jobs)
        streaming = nll if streaming is None else streaming
        above, row = paired(nll, streaming), {"entry": name.rpartition(":")[2], "perplexity": perplexity(nll)}
        row |= {"above": above.mean, "error": above.error}
        for task in (*(f"gap {gap}" for gap in gaps), *WHERE):
            nats = tasks.get(task, [np.nan, np.nan])
            mean = paired(nats, np.zeros(len(nats)))
            row |= {task: mean.mean, f"{task} error": mean.error}
        yield row | costs | {"allowed": keys, "missing": missing, "nll": nll, "tasks": tasks}


def maker(name):
    """Return a function from (model, n_keys, n_sinks) to a method or path: one of ours by name, or FILE.py:NAME."""
    file, colon, own = name.rpartition(":")
    if not colon:
        if name not in ENTRIES:
            raise ValueError(f"{name} is not an entry; choose from {', '.join(ENTRIES)}, or use --own FILE.py:NAME")
        return ENTRIES[name]
    try:
        made = run_path(file).get(own)
    except (Exception, SystemExit) as error:
        raise ValueError(f"--own {name}: {type(error).__name__}: {error}") from error
    if not callable(made):
        raise ValueError(f"--own {name}: there is no class or function {own} in {file}")
    is_policy = isinstance(made, type) and issubclass(made, Policy)
    return lambda model, n_keys, n_sinks: made(n_sinks, n_keys - n_sinks) if is_policy else made(model, n_keys)


def measure(name, make, model, ids, n_keys, n_sinks, jobs):
    """Return an entry's losses after the first eviction, nats by task and text, and what it costs."""
    try:
        path, began, tasks = Counted(model, make(model, n_keys, n_sinks), n_keys), time.process_time(), {}
        nll = token_nll(model, ids, cache=path)[n_keys:]
        us = 1e6 * (time.process_time() - began) / (len(ids) - 1)
        for reader, n, names, asked in jobs:
            nats, _ = recall.score(reader, asked, cache=Counted(reader, make(reader, n, n_sinks), n))
            for task, x in zip(names, nats.tolist(), strict=True):
                tasks.setdefault(task, []).append(x)
    except MemoryError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{name}: {kind}{error}") from error
    return nll, tasks, {"keys": path.keys[-1][-1], "us": us, "bytes": getattr(path.cache, "nbytes", None)}


def repeated(gaps, n_texts, steps, n_keys, seed):
    """Train the toy; for each text it is to read twice, return the model, keys seen, tasks, and a `recall.Asked`."""
    toy, random = Toy(n_steps=steps, seed=seed), np.random.default_rng([seed, 3])
    for _ in range(steps):
        toy.step()
    model, told = toy.as_model("the toy"), [(2, 1 + SEGMENT)]  # the first symbol cannot be predicted
    texts = [(gap, ids) for gap in gaps for ids in ask(random, n_texts, gap)]
    places = {gap: [(gap + SEGMENT + 2, gap + 2 * SEGMENT + 1)] for gap in gaps}
    return [(model, n_keys, [f"gap {gap}"], recall.Asked(ids, places[gap], told)) for gap, ids in texts]


def names_told(text, n_texts, n_keys, seed):
    """Return the same for texts that mention names and ask for them; and, if there are none, why."""
    try:
        model, random = load(REAL) if n_texts else None, np.random.default_rng([seed, 5])
    except CheckpointError as error:
        return [], str(error)
    texts = [tell(model, text, random) for _ in range(n_texts)]
    return [(model, n_keys, WHERE, asked) for asked in texts], "" if n_texts else "--names 0"


def tell(model, text, random):
    """Draw a text that mentions three names and asks for them at the end, the last one first: a `recall.Asked`."""
    at, names = int(random.integers(max(1, len(text) - sum(PARTS)))), random.choice(NAMES, len(WHO), replace=False)
    answers = [f"The {who}'s name is {name}" for who, name in zip(WHO, names, strict=True)]
    whole = ""
    for answer, part in zip(answers, PARTS, strict=False):
        whole += f"{text[at : at + part]}\n{answer}.\n"
        at += part
    whole += f"{text[at : at + PARTS[-1]]}\nWhat are they called? {'. '.join(answers[::-1])}."
    ends = [find(answer) + len(answer) for find in (whole.index, whole.rindex) for answer in answers]
    places = [(end - len(name), end) for name, end in zip([*names] * 2, ends, strict=True)]
    return recall.ask(model, whole, places[: len(WHO)], places[len(WHO) :])


def effects(rows):
    for row in rows[1:]:
        if row["entry"] not in CONTROLS:
            yield effect(f"{row['entry']} - streaming, nats per token", row["nll"] - rows[0]["nll"], below=0)
            for task in [task for task in row["tasks"] if task not in WHERE[1:]]:
                less = np.subtract(row["tasks"][task], rows[0]["tasks"][task])
                yield effect(f"{row['entry']} - streaming, {task}", less, below=0, stretch=1)


def show(rows):
    losses, cells, tasks, missing = [], [], [*rows[0]["tasks"]], rows[0]["missing"]
    for row in rows:
        above = str(Difference(row["above"], row["error"])) if losses else ""
        held = "-" if row["bytes"] is None else human_bytes(row["bytes"])
        losses.append([row["entry"], number(row["perplexity"]), above, f"{row['keys']:g}", f"{row['us']:.0f}", held])
        cells.append([row["entry"], *(f"{row[task]:.2f} ±{row[f'{task} error']:.2f}" for task in tasks)])
    parts = [table(["long text", "perplexity", "nats above streaming", "keys", "us/token", "held"], losses)]
    parts += [table(["nats", *tasks], cells) + f"\nAfter a gap, chance is {CHANCE:.2f}."]
    return "\n\n".join(parts + [f"Names told and asked for: not measured ({missing})."] * bool(missing))


def finding(rows):
    above = {row["entry"]: Difference(row["above"], row["error"]) for row in rows[1:]}
    alike = [entry for entry, lost in above.items() if not (lost.above(0) or lost.below(0))]
    sure = sorted({*above} - {*alike}, key=lambda entry: above[entry].mean)
    parts = [", ".join(f"{entry} {above[entry].mean:+.2f}" for entry in sure)] if sure else []
    each = "; ".join(parts + ["not told apart: " + ", ".join(alike)] * bool(alike))
    return f"With {rows[0]['allowed']} visible keys, nats per token lost in a long text compared with streaming: {each}"


def draw(figure, rows):
    """Draw how much each policy loses on a long text, and on recalling what it was told, with standard errors."""
    tasks = [*rows[0]["tasks"]]
    groups = {"long text,\nabove streaming": ["above"]}
    groups |= {"read again after\na gap, by the toy": [task for task in tasks if task not in WHERE]}
    groups |= {"names told to\nSmolLM2": list(WHERE)} if WHERE[0] in tasks else {}
    for axes, group in panels(figure, groups):
        nats = {task: [row[task] for row in rows] for task in group}
        errors = {task: [row["error" if task == "above" else f"{task} error"] for row in rows] for task in group}
        bars(axes, [row["entry"] for row in rows], nats, lying=True, errors=errors)
        axes.set_xlabel("nats per token")
        if len(group) > 1:  # below, where it hides nothing
            tight = {"handlelength": 0.8, "handletextpad": 0.3, "columnspacing": 0.6, "frameon": False}
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=len(group), **tight)
