"""The arena: what else a cache of the same size could keep, on three tasks, and what that costs.

`arena` has the entries; a class or function of your own is one more (``--own mine.py:Name``, docs/your-own-cache.md).
The keys of every query are counted, and an entry that sees more than its share is refused. Tasks: the loss of a long
text; a toy trained on the spot (`training.induction`), which reads twelve symbols again after a gap; and names told
early, in the middle and late in a text, at whose end a model that can copy is asked for them.
"""

import time
from runpy import run_path

import numpy as np

from ..cache import Policy
from ..evaluation.difference import Difference, paired
from ..hf.fields import CheckpointError
from ..loss import perplexity, token_nll
from ..methods import ByLayer, Recompute, check_cache, new_cache
from ..model import load
from ..system.plots import BLACK, bars
from ..system.terminal import human_bytes, number, table
from ..training.induction.segments import CHANCE, SEGMENT, ask
from ..training.induction.toy import Toy
from . import recall
from .arena import ENTRIES
from .effects import effect, must_evict, must_hold, must_learn

REAL = "smollm2"  # is asked for names: those that ship copy nothing
PAPER = "arXiv:2306.14048 and others"
CLAIM = "of as many keys, those that are looked at (H2O, TOVA, SnapKV), stand out (KeyDiff), or that certain heads keep"
CLAIM += " (DuoAttention), serve better than the last ones"
OPTIONS = {
    "entries": "which of them, beside streaming",
    "own": "entries of your own, FILE.py:NAME each",
    "keys": "keys a query sees",
    "n_sinks": "first tokens kept, by those that keep any",
    "gaps": "symbols between two readings, by the toy",
    "toy_keys": "keys its queries see",
    "toy_texts": "that the toy reads after each gap",
    "steps": "of the toy's training",
    "names": "texts in which SmolLM2 is told three names (it takes the most time)",
}
FAST = {"tokens": 200, "keys": 32, "gaps": (20,), "toy_texts": 2, "steps": 250, "names": 0}
BEST = ("H2O", "TOVA", "SnapKV-like", "KeyDiff", "per-head")  # of which it is claimed
FEWEST = 16  # keys: half of them, and those of eight queries that vote, are spared somewhere
WHERE = ("early", "middle", "late")
WHO = ("captain", "doctor", "teacher")
NAMES = "Ada Bruno Clara David Emma Frank Grace Henry Ivan Julia Karl Laura Martin Nora Oscar Peter Rosa Simon".split()
LENGTH = 1000  # characters around what is told, about 250 tokens


class Counted:
    """A path that passes on to another, and counts the keys that each query sees, a mean over heads."""

    def __init__(self, model, made, most):
        self.cache = new_cache(model, made) if isinstance(made, Policy | ByLayer | Recompute) else made
        check_cache(model, self.cache)
        self.path, self.most, self.keys = model.path_of(self.cache), most, []

    n_seen = property(lambda self: self.cache.n_seen)

    def positions(self, n_tokens):
        """Return those of the path."""
        return self.path.positions(n_tokens)

    def mix(self, layer, q, k, v, rotate, *, normalise, **options):
        """Mix as the path does; raise ValueError for a query that sees too much."""
        seen, first = [], self.n_seen

        def counting(scores):  # (H, T, S)
            seen.extend(np.isfinite(scores).sum(axis=-1).mean(axis=0).tolist())
            return normalise(scores)

        mixed = self.path.mix(layer, q, k, v, rotate, normalise=counting, **options)
        for t, n in enumerate(seen[: len(q)]):
            if n > self.most:
                raise ValueError(f"in layer {layer} token {first + t} sees {n:g} keys; {self.most} are allowed")
        if len(seen) != len(q):
            once = "call `normalise` once for each token, with the scores of all heads"
            raise ValueError(f"keys can only be counted where scores are normalised: {once}")
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
    names=6,
    seed=0,
    track=iter,
):
    """Let every entry do every task.

    Each row has ``"entry"``; the ``"perplexity"`` after the first eviction, how many nats per token it is ``"above"``
    streaming, and the ``"error"`` of that; nats per token of what the toy reads again after each ``"gap N"``, and of
    names told ``"early"`` and so on, with errors (NaN: not measured, and ``"missing"`` says why); ``"keys"`` that the
    last query sees, ``"us"``, microseconds per token, and ``"bytes"`` held. Arrays: ``"nll"``; ``"tasks"``, a dict.
    """
    for option, n in (("keys", keys), ("toy-keys", toy_keys)):
        if n < FEWEST:
            raise ValueError(f"--{option} is {n}; the entries need {FEWEST} or more")
    must_evict(len(ids), keys)
    must_hold(FEWEST // 2, n_sinks)
    must_learn(model, [keys])
    makers = {name: maker(name) for name in dict.fromkeys(("streaming", *entries, *own))}
    jobs, missing = told(text, keys, names, seed)
    jobs += repeated(gaps, toy_keys, toy_texts, steps, seed)
    streaming: dict = {}
    for name in track([*makers]):
        cache, nll, us, tasks = measure(name, makers[name], model, ids, keys, n_sinks, jobs)
        streaming = streaming or {"nll": nll}
        above = paired(nll, streaming["nll"])
        row = {
            "entry": name.rpartition(":")[2],
            "perplexity": perplexity(nll),
            "above": above.mean,
            "error": above.error,
        }
        for task in [*(f"gap {gap}" for gap in gaps), *WHERE]:
            mean = paired(tasks[task], np.zeros(len(tasks[task]))) if task in tasks else None
            row |= {task: mean.mean if mean else np.nan, f"{task} error": mean.error if mean else np.nan}
        row |= {"keys": cache.keys[-1][-1], "us": us, "bytes": getattr(cache.cache, "nbytes", None)}
        yield row | {"missing": missing, "of": keys, "nll": nll, "tasks": tasks}


def maker(name):
    """Return what makes an entry's method or path of (model, n_keys, n_sinks): of ours by name, or FILE.py:NAME."""
    file, colon, own = name.rpartition(":")
    if not colon:
        if name not in ENTRIES:
            raise ValueError(f"--entries has {name}; there are {', '.join(ENTRIES)}; your own is --own FILE.py:NAME")
        return ENTRIES[name]
    try:
        names = run_path(file)
    except (Exception, SystemExit) as error:
        raise ValueError(f"--own {name}: {type(error).__name__}: {error}") from error
    if not callable(made := names.get(own)):
        raise ValueError(f"--own {name}: {file} has no class or function {own}")
    if isinstance(made, type) and issubclass(made, Policy):
        return lambda model, n_keys, n_sinks: made(n_sinks, n_keys - n_sinks)
    return lambda model, n_keys, n_sinks: made(model, n_keys)


def measure(name, make, model, ids, n_keys, n_sinks, jobs):
    """Return an entry's cache and losses after the first eviction, its time, and for each task nats by text."""
    try:
        path, began, tasks = Counted(model, make(model, n_keys, n_sinks), n_keys), time.perf_counter(), {}
        nll = token_nll(model, ids, cache=path)[n_keys:]
        us = 1e6 * (time.perf_counter() - began) / (len(ids) - 1)
        for reader, n, job in jobs:
            for task, nats in job(Counted(reader, make(reader, n, n_sinks), n)).items():
                tasks.setdefault(task, []).append(float(nats))
    except MemoryError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{name}: {kind}{error}") from error
    return path, nll, us, tasks


def repeated(gaps, n_keys, n_texts, steps, seed):
    """Train the toy; list for each text (model, keys, what reads it with a cache): nats of the second reading."""
    toy = Toy(n_steps=steps, seed=seed)
    for _ in range(steps):
        toy.step()
    model = toy.as_model("the toy")

    def read(gap, ids):
        return lambda cache: {f"gap {gap}": token_nll(model, ids, cache=cache)[1 - SEGMENT :].mean()}

    random = np.random.default_rng([seed, 3])
    return [(model, n_keys, read(gap, ids)) for gap in gaps for ids in ask(random, n_texts, gap)]


def told(text, n_keys, n_texts, seed):
    """List for each text (model, keys, what reads it with a cache): nats of the names; and why there is none."""
    try:
        model, random = load(REAL) if n_texts else None, np.random.default_rng([seed, 5])
    except CheckpointError as error:
        return [], str(error)

    def read(asked):
        return lambda cache: dict(zip(WHERE, recall.score(model, asked, cache=cache)[0], strict=True))

    asked = [tell(model, text, random) for _ in range(n_texts)]
    return [(model, n_keys, read(each)) for each in asked], "" if n_texts else "--names 0"


def tell(model, text, random):
    """Draw a text in which three names are told, and asked for at its end, the last one first: a `recall.Asked`."""
    start = int(random.integers(max(1, len(text) - LENGTH)))
    story, known, places = text[start : start + LENGTH], dict(zip(WHO, random.choice(NAMES, 3, False), strict=True)), {}
    whole = ""
    for who, part in zip(WHO, (0.05, 0.45, 0.45), strict=True):
        cut = round(part * LENGTH)
        whole, story = whole + story[:cut] + f"\nThe {who}'s name is {known[who]}.\n", story[cut:]
        places[who] = [(len(whole) - len(known[who]) - 2, len(whole) - 2)]
    whole += f"{story}\nWhat are they called?"
    for who in reversed(WHO):
        whole += f" The {who}'s name is {known[who]}."
        places[who].append((len(whole) - len(known[who]) - 1, len(whole) - 1))
    ids, tokens = recall.tokens_of(model, whole, [place for who in WHO for place in places[who]])
    return recall.Asked(ids, tokens[1::2], tokens[::2])


def effects(rows):
    """Judge what is claimed: less loss than streaming's, in the long text, after the longest gap, of early names."""
    first = rows[0]
    for row in rows[1:]:
        if row["entry"] in BEST or row["entry"] not in ENTRIES:
            yield effect(f"{row['entry']} - streaming, nats per token", row["nll"] - first["nll"], below=0)
            for task in [task for task in row["tasks"] if task not in WHERE[1:]]:
                less = np.subtract(row["tasks"][task], first["tasks"][task])
                yield effect(f"{row['entry']} - streaming, {task}", less, below=0, stretch=1)


def show(rows):
    """Return the losses with their costs, and what is remembered."""
    cells = []
    for row in rows:
        held, above = "-" if row["bytes"] is None else human_bytes(row["bytes"]), Difference(row["above"], row["error"])
        cells.append([row["entry"], number(row["perplexity"]), "" if row is rows[0] else str(above)])
        cells[-1] += [f"{row['keys']:g}", f"{row['us']:.0f}", held]
    loss = table(["entry", "perplexity", "nats above streaming", "keys", "us/token", "held"], cells)
    tasks = [*rows[0]["tasks"]]
    cells = [[row["entry"], *(f"{row[task]:.2f} ± {row[f'{task} error']:.2f}" for task in tasks)] for row in rows]
    parts = [loss, table(["nats per token", *tasks], cells) + f"\nAfter a gap chance is {CHANCE:.2f}."]
    return "\n\n".join(
        parts + [f"Names told and asked for: not measured ({rows[0]['missing']})"] * bool(rows[0]["missing"])
    )


def finding(rows):
    """Say what each entry loses compared with streaming, least first."""
    above = sorted((round(row["above"], 2) + 0.0, row["entry"]) for row in rows[1:])
    each = ", ".join(f"{entry} {nats:+.2f}" for nats, entry in above)
    return f"With {rows[0]['of']} keys in sight, nats per token lost in a long text compared with streaming: {each}"


def draw(figure, rows):
    """Draw for every entry what it loses in the long text, and of what was told; lines are standard errors."""
    tasks = [*rows[0]["tasks"]]
    groups = [["above"], [t for t in tasks if t not in WHERE], [t for t in tasks if t in WHERE]]
    titles = ("long text, above\nstreaming", "read again,\nthe toy", "names, SmolLM2")
    groups = [(group, title) for group, title in zip(groups, titles, strict=True) if group]
    for axes, (group, title) in zip(figure.subplots(1, len(groups), sharey=True), groups, strict=True):
        bars(axes, [row["entry"] for row in rows], {t: [row[t] for row in rows] for t in group}, lying=True)
        for i, task in enumerate(group):
            y = np.arange(len(rows)) + (i - (len(group) - 1) / 2) * 0.8 / len(group)
            error = [row["error" if task == "above" else f"{task} error"] for row in rows]
            axes.errorbar([row[task] for row in rows], y, xerr=error, fmt="none", ecolor=BLACK)
        axes.set(title=title, xlabel="nats per token")
