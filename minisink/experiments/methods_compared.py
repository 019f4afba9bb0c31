"""The four methods on one text, and newlines as sinks: their loss, and what they write.

Dense attention breaks once a text exceeds the trained length, window attention the moment the first token is evicted.
As a control, the first tokens become line breaks. If these work as sinks, what matters is the place, not the word.
"""

from functools import partial

import numpy as np

from ..cache import check_whole
from ..evaluation.jobs import in_order
from ..evaluation.plots import more, plot_losses
from ..generation import generate
from ..methods import Dense
from ..system.terminal import human_bytes, number, side_by_side, table
from . import four_methods
from .effects import effect, must_evict
from .last_words import repeated

FOUR = ("dense", "window", "recompute", "streaming")
NEWLINES = "newlines"  # streaming, its sinks replaced
METHODS = (*FOUR, NEWLINES)
PAPER = "Figures 1 and 3, Table 1"
CLAIM = "dense 5641, window 5158, re-computed 5.43, streaming 5.40, with newlines as sinks 5.60 (Llama-2-13B)"
OPTIONS = {"cache": "keys a query sees", "n_sinks": "first tokens kept", "methods": "which methods to compare"}
OPTIONS |= {"write": "tokens each method writes after the text", "temperature": "temperature of the written text"}
FAST = {"tokens": 500, "cache": 16, "write": 40}


def run(model, ids, *, cache=64, n_sinks=4, methods=METHODS, write=200, temperature=0.8, seed=0, each=in_order):
    """Read a text with each method (`four_methods.run`), then continue it.

    Each row has the ``"text"`` written and ``"repeated"``, the share of its 4-grams already seen; ``"nll"`` (T-1,),
    shorter for "dense" where learned positions end; ``"evicted"`` and ``"trained"``, how many tokens it takes to
    start evicting and to reach the trained length.
    """
    must_evict(len(ids), cache)
    check_whole("--write", write, 0)
    if unknown := {*methods} - {*METHODS}:
        raise ValueError(f"--methods has {' '.join(unknown)}; choose from {', '.join(METHODS)}")
    by_name = {method.name: (ids, method) for method in four_methods.four(model, ids, cache, n_sinks)}
    if NEWLINES in methods:
        by_name[NEWLINES] = with_newlines(model, ids, n_sinks), by_name["streaming"][1]
    draws = {"max_new_tokens": write, "temperature": temperature, "seed": seed}
    yield from each(partial(_row, cache, draws), model, [(name, *by_name[name]) for name in methods])


def _row(cache, draws, model, setting):
    name, text, method = setting
    (row,) = four_methods.run(model, text, [method], cache=cache)
    tokens = []
    try:
        tokens.extend(generate(model, text, method, **draws))
    except ValueError:  # a dense GPT-2 writes until its learned positions run out
        if not isinstance(method, Dense):
            raise
    measured = {key: row[key] for key in ("before", "after", "keys", "cache_bytes")}
    written = {"repeated": repeated(tokens) if tokens else np.nan, "text": model.decode(tokens) if tokens else ""}
    about = {"nll": row["nll"], "evicted": cache, "trained": model.config.max_positions}
    return {"method": name} | measured | written | about


def with_newlines(model, ids, n_sinks):
    """Return the text with its sinks replaced by newlines; raise ValueError if a newline is not a single token."""
    newline = model.encode("\n", bos=False)
    if len(newline) != 1:
        byte = model.tokenizer.token_to_id("<0x0A>")  # a Llama's; encoded alone, it has a space before it
        if byte is None:
            raise ValueError(f"{model.name} has no token for a newline: leave it out, --methods {' '.join(FOUR)}")
        newline = [byte]
    return np.concatenate((np.repeat(newline, n_sinks), ids[n_sinks:]))


def effects(rows):
    nll, evicted = {row["method"]: row["nll"] for row in rows}, rows[0]["evicted"]
    beyond = max(evicted, rows[0]["trained"])
    claims: list = [
        ("window - streaming, nats per token", "window", "streaming", evicted, {"above": 0}),
        ("streaming - re-computed", "streaming", "recompute", evicted, {"below": 0.05}),
        ("dense - streaming, beyond the trained length", "dense", "streaming", beyond, {"above": 0}),
        ("newlines - streaming", NEWLINES, "streaming", evicted, {"below": 0.05}),
        ("window - newlines", "window", NEWLINES, evicted, {"above": 0}),
    ]
    for what, a, b, start, bounds in claims:
        if {a, b} <= nll.keys() and len(nll[a]) > start:
            yield effect(what, nll[a][start:] - nll[b][start : len(nll[a])], **bounds)


def show(rows):
    cells = []
    for row in rows:
        cache = human_bytes(row["cache_bytes"]) if row["cache_bytes"] else "none"
        cells.append([row["method"], number(row["before"]), number(row["after"]), f"{row['keys']:,}", cache])
    numbers = table(["method", "before", "after the first eviction", "keys", "cache"], cells)
    if not any(row["text"] for row in rows):
        return numbers
    feet = [f"repeats {row['repeated']:.0%}" if row["text"] else "" for row in rows]
    texts = side_by_side({row["method"]: row["text"] for row in rows}, rows=8, feet=feet)
    return f"{numbers}\n\nthe end of what was written after the text; 4-grams already seen\n{texts}"


def finding(rows):
    nll = {row["method"]: row["nll"][rows[0]["evicted"] :] for row in rows}
    if "streaming" not in nll or len(nll) == 1:
        return "After the first eviction, nats per token: " + ", ".join(f"{m} {x.mean():.2f}" for m, x in nll.items())
    above = {name: (x - nll["streaming"][: len(x)]).mean() for name, x in nll.items() if name != "streaming" and len(x)}
    each = ", ".join(f"{name} {more(x)}" for name, x in sorted(above.items(), key=lambda item: -item[1]))
    return f"Once the first token is evicted, nats per token lost compared with streaming: {each}"


def draw(figure, rows):
    """Draw each method's loss along the text, as a rolling mean; first eviction and trained length are marked."""
    marks = {"first eviction": rows[0]["evicted"], "trained length": rows[0]["trained"]}
    plot_losses(figure.subplots(), {row["method"]: row["nll"] for row in rows}, marks)
