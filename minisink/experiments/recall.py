"""Whether a model recalls what a text told it: the answers in a text, scored under any method.

An answer is a few tokens that stand in the text where it was asked for. Its loss says how much is known of it. It is
recalled exactly when each of its tokens is the likeliest one after those before it, that is when greedy decoding
would write it.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..loss import CHUNK, empty_cache, nll_of
from ..methods import N_SINKS, policy_of
from ..system.device import to_host
from ..system.terminal import table
from .effects import effect

OPTIONS = {  # of `measure`, whatever is asked
    "methods": "of dense, window, streaming, retrieval",
    "n_sinks": "first tokens kept",
    "n_blocks": "blocks that retrieval brings back",
    "block": "tokens in a block",
    "select": "what a block is chosen by: best, bound, mean or random",
    "readable": "by way of cache.py: the same, slower",
}
NATS = math.log(9) + 4 * math.log(10)  # in a number of five digits


@dataclass(frozen=True)
class Asked:
    """A text that asks for what it told.

    Attributes
    ----------
    ids : ndarray of shape (T,), ints
    answers : list of (int, int)
        Of each answer the first token, and the one after the last.
    told : list of (int, int)
        The same of the place where it was told.
    """

    ids: np.ndarray
    answers: list
    told: list

    @property
    def back(self):
        """How many tokens before the first of an answer its telling began: a list."""
        return [answer[0] - told[0] for answer, told in zip(self.answers, self.told, strict=True)]


def tokens_of(model, text, places, *, bos=True):
    """A text in tokens, and which of them hold certain characters.

    Parameters
    ----------
    model : Model
    text : str
    places : list of (int, int)
        Of each place the first character, and the one after the last.
    bos : bool
        Begin with the begin-of-text token, where there is one.

    Returns
    -------
    ids : ndarray of shape (T,), ints
    tokens : list of (int, int)
        Of each place the first token that holds one of its characters, and the one after the last.

    Raises
    ------
    ValueError
        When the model has no tokenizer, or one that loses these characters.
    """
    ids = model.encode(text, bos=bos)
    first = len(ids) - len(model.encode(text, bos=False))
    offsets = np.array(model.tokenizer.encode(text, add_special_tokens=False).offsets)  # (T, 2)
    tokens = []
    for start, stop in places:
        inside = first + np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < stop))
        tokens.append((int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0))
        read = model.decode(ids[slice(*tokens[-1])])
        if text[start:stop] not in read:
            raise ValueError(
                f"{model.name}: its tokenizer reads {text[start:stop]!r} as {read!r}; nothing can be asked"
            )
    return ids, tokens


def score(model, asked, *, method="streaming", n_sinks=N_SINKS, window=None, positions="slot", readable=False,
          chunk=CHUNK, **retrieval):  # fmt: skip
    """The loss of each answer, and whether it is recalled exactly.

    Parameters
    ----------
    model : Model
    asked : Asked
    method : {"dense", "window", "streaming", "retrieval"}
    n_sinks, window, positions, readable, **retrieval
        As in `loss.token_nll`.
    chunk : int
        Tokens a forward pass takes. The results do not depend on it.

    Returns
    -------
    nll : ndarray of shape (A,)
        Nats a token, mean over the tokens of each of the A answers.
    exact : ndarray of shape (A,), bool
    """
    if method == "recompute":
        raise ValueError("method 'recompute' reads its text again for every token, and is not measured here")
    cache = empty_cache(model, policy_of(model, method, n_sinks, window, positions, **retrieval), readable=readable)
    ids, answer = asked.ids, np.full(len(asked.ids), -1)  # which answer each token belongs to
    for i, (start, stop) in enumerate(asked.answers):
        answer[start:stop] = i
    nll, exact = np.zeros(len(asked.answers)), np.ones(len(asked.answers), bool)
    last = max(stop for _, stop in asked.answers) - 1  # the text after it is of no interest
    for start in range(0, last, chunk):
        stop = min(start + chunk, last)
        rows = np.flatnonzero(answer[start + 1 : stop + 1] >= 0)  # the tokens after which an answer's token stands
        logits = to_host(model.forward(ids[start:stop], cache=cache, rows=rows))  # (len(rows), V)
        targets = ids[start + 1 + rows]
        np.add.at(nll, answer[start + 1 + rows], nll_of(logits, targets))
        np.logical_and.at(exact, answer[start + 1 + rows], logits.argmax(axis=-1) == targets)
    return nll / [stop - start for start, stop in asked.answers], exact


def measure(model, texts, *, method, cache, n_sinks=N_SINKS, **options):
    """What `score` finds over some texts, in one row.

    Parameters
    ----------
    model : Model
    texts : list of Asked
    method : str
    cache : int or None
        Slots, sinks included; None for "dense".
    n_sinks : int
        Of "streaming" and "retrieval".
    **options
        More of `score`.

    Returns
    -------
    dict
        ``"method"``, ``"cache"``, and ``"n_sinks"`` of it; ``"nearest"`` and ``"farthest"``, tokens from a telling to
        its answer; ``"in_cache"``, whether they all were in the window then (None: some); ``"asked"`` and ``"exact"``,
        how many answers there are and how many are recalled exactly; ``"nll"``, nats a token, and ``"chance"``, that of
        one who knows no more than that there are five digits; and of each answer ``"nlls"`` and ``"exacts"``.

    Raises
    ------
    ValueError
        For a cache without room for a window.
    """
    sinks = n_sinks if method in ("streaming", "retrieval") else 0
    if cache is not None and cache <= sinks:
        raise ValueError(f"a cache of {cache} tokens cannot hold {sinks} sinks and a window of at least 1")
    window = None if cache is None else cache - sinks
    found = [score(model, text, method=method, n_sinks=n_sinks, window=window, **options) for text in texts]
    nlls, exacts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    back = [tokens for text in texts for tokens in text.back]
    inside = {window is None or tokens <= window for tokens in back}
    lengths = [stop - start for text in texts for start, stop in text.answers]
    return {
        "method": method, "cache": cache, "n_sinks": sinks, "nearest": min(back), "farthest": max(back),
        "in_cache": inside.pop() if len(inside) == 1 else None,
        "asked": len(back), "exact": int(exacts.sum()), "nll": float(nlls.mean()),
        "chance": NATS / float(np.mean(lengths)), "nlls": nlls, "exacts": exacts,
    }  # fmt: skip


def effects(rows):
    """What the rows of `measure` say of answers told before the cache: the cliff, and what is brought back."""
    nll: dict = {}
    for row in rows:
        nll.setdefault((row["method"], row["in_cache"]), []).append(row["nlls"])
    known = {key: np.concatenate(values) for key, values in nll.items()}
    out, inside = known.get(("streaming", False)), known.get(("streaming", True))
    if out is not None and inside is not None:
        yield effect("streaming: out of the cache - mean in it, nats a token", out - inside.mean(), above=0, stretch=1)
    if out is not None:
        exact = np.concatenate([r["exacts"] for r in rows if (r["method"], r["in_cache"]) == ("streaming", False)])
        yield effect("streaming: share recalled exactly, out of the cache", exact, below=0.05, stretch=1)
    brought = known.get(("retrieval", False))
    if out is not None and brought is not None and len(out) == len(brought):
        yield effect("out of the cache: streaming - retrieval, nats a token", out - brought, above=0, stretch=1)
        chance = round(float(np.mean([row["chance"] for row in rows])), 2)
        yield effect("out of the cache: retrieval, nats a token (chance)", brought, below=chance, stretch=1)


def show(rows, *, row_of, column_of):
    """A table a method: nats a token and how many are recalled exactly.

    `row_of` and `column_of` name the place of a row of `measure` in its table.
    """
    said = ["Nats a token of the answers, and how many are recalled exactly."]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells: dict = {}
        for row in own:
            cells.setdefault(row_of(row), {})[column_of(row)] = f"{row['nll']:.2f} {row['exact']:2}/{row['asked']}"
        columns = list(dict.fromkeys(map(column_of, own)))
        lines = [[*names, *(found[c] for c in columns)] for names, found in cells.items()]
        said += ["", method, table([*row_of(None), *columns], lines)]
    chance = np.mean([row["chance"] for row in rows])
    return "\n".join([*said, f"\nChance, for one who knows that there are five digits, is {chance:.2f}."])


def draw(figure, rows, *, at, name):
    """Nats a token against a column of the rows, a panel a method, a line a cache."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for axes, method in zip(panels, methods, strict=True):
        own = [row for row in rows if row["method"] == method]
        for marker, cache in zip("osD^v" * 9, dict.fromkeys(row["cache"] for row in own), strict=False):
            some = [row for row in own if row["cache"] == cache]
            where = sorted({row[at] for row in some})
            mean = [np.mean([row["nll"] for row in some if row[at] == x]) for x in where]
            axes.plot(where, mean, marker=marker, ms=9, label="all" if cache is None else f"cache {cache}")
        axes.axhline(np.mean([row["chance"] for row in own]), color="black", lw=1, ls=":")
        axes.set_title(method)
        axes.set_xlabel(name)
        axes.legend(fontsize=13)
    panels[0].set_ylabel("loss of the answer (nats a token)\ndotted: chance")
