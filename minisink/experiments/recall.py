"""Whether a model recalls what a text said: the answers in a text, scored with any method.

An answer is a few tokens that follow a question in the text. Its loss shows how well the model knows it. It is
recalled exactly if each of its tokens is the likeliest given those before it, so greedy decoding would write it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..hf.tokenizer import encode
from ..loss import CHUNK, cache_of, nll_of
from ..methods import DEFAULT, Dense, Streaming, Window
from ..retrieval import Retrieval
from ..system.device import to_host
from ..system.plots import bars
from ..system.terminal import table
from .effects import by, effect, must_hold, pivot

NAMES = ("dense", "window", "streaming", "retrieval")
FETCHED = Retrieval(window=2**20)  # what retrieval fetches, and its sinks; the window depends on the cache size
OPTIONS = {  # of both experiments
    "methods": "some of " + ", ".join(NAMES),
    "fetched": {  # fields of a `Retrieval`, one option each
        "n_sinks": "first tokens kept",
        "n_blocks": "blocks that retrieval fetches",
        "block": "tokens in a block",
        "select": "how blocks are scored: best or bound",
    },
    "readable": "use cache.py: the same results, but slower",
}
MOST = 12  # the most bars that leave room for their numbers
VALUES = np.arange(10_000, 100_000)  # five digits, so that in most tokenizers all have the same number of tokens
NATS = math.log(9) + 4 * math.log(10)  # in a five-digit number


@dataclass(frozen=True)
class Asked:
    """A text that asks about its own content."""

    ids: np.ndarray  # (T,), ints
    answers: list  # each answer's first token, and the one after its last
    needles: list  # the same for the place in the text that states it

    @property
    def back(self):
        """How many tokens before each answer its statement began, as a list."""
        return [answer[0] - needle[0] for answer, needle in zip(self.answers, self.needles, strict=True)]


def ask(model, text, needles, answers, *, bos=True):
    """Return a text in tokens, as an `Asked`; its `needles` and `answers` are given in characters.

    A token belongs to one if it holds any of its characters.
    """
    ids = model.encode(text, bos=bos)
    first = len(ids) - len(model.encode(text, bos=False))
    starts, stops = np.array(encode(model.tokenizer, text, name=model.name).offsets).T  # (T,), (T,)
    tokens = []
    for start, stop in (*needles, *answers):
        inside = first + np.flatnonzero((stops > start) & (starts < stop))
        tokens.append((int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0))
        decoded = model.decode(ids[slice(*tokens[-1])])
        if text[start:stop] not in decoded:
            reads = f"its tokenizer reads {text[start:stop]!r} as {decoded!r}"
            raise ValueError(f"{model.name}: {reads}; nothing can be asked")
    return Asked(ids, tokens[len(needles) :], tokens[: len(needles)])


def under(name, cache, fetched=FETCHED):
    """Return a method by name, with a cache of this many slots ("dense" has all); the rest is as in `fetched`."""
    if name not in NAMES:
        raise ValueError(f"--methods has {name}; choose from {', '.join(NAMES)}")
    if name == "dense":
        return Dense()
    must_hold(cache, 0 if name == "window" else fetched.n_sinks)
    if name == "window":
        return Window(cache)
    window = cache - fetched.n_sinks
    return Streaming(fetched.n_sinks, window) if name == "streaming" else replace(fetched, window=window)


def score(model, asked, method=DEFAULT, *, cache=None, readable=False, chunk=CHUNK):
    """Return the loss of each answer, nats per token (A,), and whether it is recalled exactly, bool (A,)."""
    cache = cache_of(model, method, cache, readable=readable)
    ids, answer = asked.ids, np.full(len(asked.ids), -1)  # which answer each token belongs to
    for i, (start, stop) in enumerate(asked.answers):
        answer[start:stop] = i
    nll, exact = np.zeros(len(asked.answers)), np.ones(len(asked.answers), bool)
    last = max(stop for _, stop in asked.answers) - 1  # the text after it does not matter
    for start in range(0, last, chunk):
        stop = min(start + chunk, last)
        rows = np.flatnonzero(answer[start + 1 : stop + 1] >= 0)  # the tokens that predict an answer's token
        logits = to_host(model.forward(ids[start:stop], cache=cache, rows=rows))  # (len(rows), V)
        targets, which = ids[start + 1 + rows], answer[start + 1 + rows]
        np.add.at(nll, which, nll_of(logits, targets))
        np.logical_and.at(exact, which, logits.argmax(axis=-1) == targets)
    return nll / [stop - start for start, stop in asked.answers], exact


def measure(model, texts, method, *, readable=False):
    """Return the results of `score` over some texts, in one row.

    It has ``"cache"``, the slots (None: all); ``"nearest"`` and ``"farthest"``, tokens from a statement to its answer;
    ``"in_cache"``, whether all were still in the window (None: some); how many answers are ``"asked"``, and recalled
    ``"exact"``; ``"nll"``, nats per token, and ``"chance"``, the loss of guessing five digits.
    """
    scored = [score(model, text, method, readable=readable) for text in texts]
    nlls, exacts = (np.concatenate(parts) for parts in zip(*scored, strict=True))
    gaps = [tokens for text in texts for tokens in text.back]
    inside = {method.window is None or tokens <= method.window for tokens in gaps}
    length = np.mean([stop - start for text in texts for start, stop in text.answers])
    row = {"method": method.name, "cache": method.capacity, "n_sinks": method.n_sinks}
    row |= {"nearest": min(gaps), "farthest": max(gaps), "in_cache": inside.pop() if len(inside) == 1 else None}
    row |= {"asked": len(gaps), "exact": int(exacts.sum()), "nll": float(nlls.mean())}
    return row | {"chance": NATS / float(length), "nlls": nlls, "exacts": exacts}


def effects(rows):
    groups = by(rows, "method", "in_cache")
    nlls = {key: np.concatenate([row["nlls"] for row in group]) for key, group in groups.items()}
    out, retrieved = nlls.get(("streaming", False)), nlls.get(("retrieval", False), ())
    if out is None:
        return
    if (inside := nlls.get(("streaming", True))) is not None:
        what = "streaming: out of the cache - mean in it, nats per token"
        yield effect(what, out - inside.mean(), above=0, stretch=1)
    exact = np.concatenate([row["exacts"] for row in groups["streaming", False]])
    yield effect("streaming: share recalled exactly, out of the cache", exact, below=0.05, stretch=1)
    if len(out) == len(retrieved):
        yield effect("out of the cache: streaming - retrieval, nats per token", out - retrieved, above=0, stretch=1)
        chance = round(float(np.mean([row["chance"] for row in rows])), 2)
        yield effect("out of the cache: retrieval, nats per token (chance)", retrieved, below=chance, stretch=1)


def show(rows):
    """Return one table per method, with a line for each place of the answers and a column for each cache."""
    parts = ["Nats per token of the answers, and how many are recalled exactly."]
    where, keyed = [key for key in ("length", "depth", "distance") if key in rows[0]], []
    for row in rows:
        line = (*(f"{row[key]:g}" for key in where), f"{row['nearest']}-{row['farthest']}")
        slots = "all" if row["cache"] is None else f"{row['n_sinks']}+{row['cache'] - row['n_sinks']}"
        keyed.append(row | {"line": line, "slots": slots})
    for method, group in by(keyed, "method").items():
        columns, cells = pivot(group, "line", "slots", lambda row: f"{row['nll']:.2f} {row['exact']:2}/{row['asked']}")
        header = [*where, "tokens back", *columns]
        parts += ["", method, table(header, [[*line, *values] for line, values in cells.items()])]
    chance = np.mean([row["chance"] for row in rows])
    return "\n".join([*parts, f"\nChance, for a guess among numbers of five digits, is {chance:.2f}."])


def finding(rows):
    parts, groups = [], by(rows, "in_cache")
    for inside, where in ((False, "before the cache"), (True, "within the cache")):
        if inside in groups:
            some = by(groups[inside], "method").items()
            each = [f"{m} {sum(r['exact'] for r in own)} of {sum(r['asked'] for r in own)}" for m, own in some]
            parts.append(f"from {where}, {', '.join(each)}")
    return f"Recalled exactly: {'; '.join(parts) or 'nothing was wholly in the cache or before it'}"


def draw(figure, rows):
    """Draw the loss of the answers by how far back they were stated, one bar per method and cache."""
    axes, distances = figure.subplots(), sorted({row["farthest"] for row in rows})
    names, series, words = [], {}, {True: "in the cache", False: "out of it"}
    for x in distances:
        inside = {row["in_cache"] for row in rows if row["farthest"] == x}
        names.append(f"{x:,}\n{words.get(inside.pop(), '') if len(inside) == 1 else ''}")
    for (method, cache), some in by(rows, "method", "cache").items():
        nll = {x: np.mean([row["nll"] for row in own]) for x, own in by(some, "farthest").items()}
        label = method if cache is None else f"{method}, cache {cache}"
        series[label] = [nll.get(x, np.nan) for x in distances]
    bars(axes, names, series, form="%.2f" if len(series) * len(names) <= MOST else "")
    axes.axhline(np.mean([row["chance"] for row in rows]), color="black", ls=":")
    axes.margins(x=0.5 / len(names), y=0.35)  # room for the legend
    axes.set(xlabel="tokens back", ylabel="nats per token (dotted: chance)")
