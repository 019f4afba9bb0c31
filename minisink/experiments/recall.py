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
          chunk=CHUNK, on_progress=lambda n_tokens: None, **retrieval):  # fmt: skip
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
    on_progress : callable
        Called with the number of tokens that have just been read.

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
        on_progress(stop - start)
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
        ``"method"`` and ``"cache"``; ``"back"``, the least and the most tokens from a telling to its answer;
        ``"in_cache"``, whether they all were in the window then (None: some); ``"asked"`` and ``"exact"``, how many
        answers there are and how many are recalled exactly; ``"nll"``, nats a token, and ``"chance"``, that of one who
        knows no more than that there are five digits.

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
    back = [tokens for text in texts for tokens in text.back]
    inside = {window is None or tokens <= window for tokens in back}
    lengths = [stop - start for text in texts for start, stop in text.answers]
    return {
        "method": method, "cache": cache, "back": [min(back), max(back)],
        "in_cache": inside.pop() if len(inside) == 1 else None,
        "asked": len(back), "exact": int(sum(exact.sum() for _, exact in found)),
        "nll": float(np.concatenate([nll for nll, _ in found]).mean()), "chance": NATS / float(np.mean(lengths)),
    }  # fmt: skip


def finding(rows):
    """What the rows of `measure` say together, a sentence a method.

    Parameters
    ----------
    rows : list of dict

    Returns
    -------
    list of str
    """
    said = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        parts = []
        for inside, where in ((True, "in the cache"), (False, "out of it")):
            some = [row for row in own if row["in_cache"] is inside]
            if some:
                asked, exact = (sum(row[name] for row in some) for name in ("asked", "exact"))
                nll = sum(row["nll"] * row["asked"] for row in some) / asked
                where = where if method != "dense" else "all of it in sight"
                parts.append(f"{where} {nll:.2f} nats a token, {exact} of {asked} recalled exactly")
        said.append(f"{method}: {'; '.join(parts)}." if parts else f"{method}: always half in the cache.")
    chance = np.mean([row["chance"] for row in rows])
    return [*said, f"Chance, for one who knows that there are five digits, is {chance:.2f}."]
