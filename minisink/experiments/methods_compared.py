"""The four methods on one text, and newlines for sinks: their loss, and what they write.

Figure 1 says what each keeps, Figure 3 when each breaks: dense attention once a text is longer than the training,
window attention the moment that the first token is evicted. Table 1 adds a control: the first tokens of the text
become line breaks, which mean nothing. If they work as sinks, the place counts and not the word. All read
the same tokens (`four_methods.run`), and then continue writing from the end of the text.
"""

from functools import partial

import numpy as np

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
PAPER = "Figures 1 and 3, Table 1"
CLAIM = "dense 5641, window 5158, re-computed 5.43, streaming 5.40, its sinks made newlines 5.60 (Llama-2-13B)"
OPTIONS = {
    "cache": "keys a query sees",
    "n_sinks": "first tokens kept",
    "methods": "which of them",
    "write": "tokens each writes after the text",
    "temperature": "of what is written",
}
FAST = {"tokens": 500, "cache": 16, "write": 40}
NOTHING = {"repeated": np.nan, "text": ""}  # is written


def run(
    model, ids, *, cache=64, n_sinks=4, methods=(*FOUR, NEWLINES), write=200, temperature=0.8, seed=0, each=in_order
):
    """Read a text by each method, then write.

    Each row has ``"method"``; perplexity ``"before"`` and ``"after"`` the first eviction; ``"keys"`` held at the end
    and their ``"cache_bytes"``; the ``"text"`` written and ``"repeated"``, the share of its 4-grams already seen;
    ``"nll"`` of shape (T-1,), nats, shorter for "dense" where learned positions end; ``"evicted"`` and ``"trained"``,
    the tokens after which eviction begins and the trained length ends.
    """
    must_evict(len(ids), cache)
    if write < 0:
        raise ValueError(f"--write is {write}; it must be 0 or more")
    for method in methods:
        if method not in (*FOUR, NEWLINES):
            raise ValueError(f"--methods has {method}; there are {', '.join((*FOUR, NEWLINES))}")
    texts = dict.fromkeys(FOUR, ids)
    texts[NEWLINES] = with_newlines(model, ids, n_sinks) if NEWLINES in methods else ids
    by_name = {method.name: method for method in four_methods.four(model, ids, cache, n_sinks)}
    by_name[NEWLINES] = by_name["streaming"]
    draws = {"max_new_tokens": write, "temperature": temperature, "seed": seed}
    settings = [(name, texts[name], by_name[name]) for name in methods]
    yield from each(partial(_row, cache, draws), model, settings)


def _row(cache, draws, model, setting):
    name, text, method = setting
    (row,) = four_methods.run(model, text, [method], cache=cache)
    tokens = list(_until_the_end(generate(model, text, method, **draws), method))
    measured = {key: row[key] for key in ("before", "after", "keys", "cache_bytes")}
    written = {"repeated": repeated(tokens), "text": model.decode(tokens)} if tokens else NOTHING
    about = {"nll": row["nll"], "evicted": cache, "trained": model.config.max_positions}
    return {"method": name} | measured | written | about


def with_newlines(model, ids, n_sinks):
    """Return the text with its sinks replaced by newlines; ValueError if a newline is not a single token."""
    newline = model.encode("\n", bos=False)
    byte = model.tokenizer.token_to_id("<0x0A>")  # a Llama's, with a space before it when it stands alone
    if len(newline) != 1 and byte is None:
        none = f"{model.name} has no token for a newline, which takes it {len(newline)}"
        raise ValueError(f"{none}; leave {NEWLINES} out: --methods {' '.join(FOUR)}")
    return np.concatenate((np.repeat(newline[:1] if len(newline) == 1 else [byte], n_sinks), ids[n_sinks:]))


def _until_the_end(tokens, method):
    """Yield the tokens; a dense GPT-2 writes until its learned positions end."""
    try:
        yield from tokens
    except ValueError:
        if not isinstance(method, Dense):
            raise


def effects(rows):
    """Yield how each method compares with streaming, after the first eviction, and beyond the trained length."""
    nll = {row["method"]: row["nll"] for row in rows}
    evicted = rows[0]["evicted"]
    beyond = max(evicted, rows[0]["trained"])

    def difference(a, b, start=evicted):
        return nll[a][start:] - nll[b][start : len(nll[a])]

    if {"window", "streaming"} <= nll.keys():
        yield effect("window - streaming, nats per token", difference("window", "streaming"), above=0)
    if {"recompute", "streaming"} <= nll.keys():
        yield effect("streaming - re-computed", difference("streaming", "recompute"), below=0.05)
    if {"dense", "streaming"} <= nll.keys() and len(nll["dense"]) > beyond:
        yield effect("dense - streaming, beyond the trained length", difference("dense", "streaming", beyond), above=0)
    if {NEWLINES, "streaming"} <= nll.keys():
        yield effect("newlines - streaming", difference(NEWLINES, "streaming"), below=0.05)
    if {NEWLINES, "window"} <= nll.keys():
        yield effect("window - newlines", difference("window", NEWLINES), above=0)


def show(rows):
    """Return the numbers, and the ends of the written texts side by side."""
    header = ["method", "before", "after the first eviction", "keys", "cache"]
    cells = []
    for row in rows:
        cache = human_bytes(row["cache_bytes"]) if row["cache_bytes"] else "none"
        cells.append([row["method"], number(row["before"]), number(row["after"]), f"{row['keys']:,}", cache])
    if not any(row["text"] for row in rows):
        return table(header, cells)
    feet = [f"repeats {row['repeated']:.0%}" if row["text"] else "" for row in rows]
    texts = side_by_side({row["method"]: row["text"] for row in rows}, rows=8, feet=feet)
    return f"{table(header, cells)}\n\nthe end of what was written after the text; 4-grams already seen\n{texts}"


def finding(rows):
    """Say how far the others are from streaming after the first eviction; without it, what each loses."""
    nll = {row["method"]: row["nll"][rows[0]["evicted"] :] for row in rows}
    if "streaming" not in nll or len(nll) == 1:
        return "After the first eviction, nats per token: " + ", ".join(f"{m} {x.mean():.2f}" for m, x in nll.items())
    above = {name: (x - nll["streaming"][: len(x)]).mean() for name, x in nll.items() if name != "streaming" and len(x)}
    each = ", ".join(f"{name} {more(x)}" for name, x in sorted(above.items(), key=lambda item: -item[1]))
    return f"Once the first token is evicted, nats per token lost compared with streaming: {each}"


def draw(figure, rows):
    """Draw the loss of each method along the text, a rolling mean; first eviction and trained length are marked."""
    marks = {"first eviction": rows[0]["evicted"], "trained length": rows[0]["trained"]}
    plot_losses(figure.subplots(), {row["method"]: row["nll"] for row in rows}, marks)
