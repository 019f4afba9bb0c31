"""StreamEval: questions about lines that are so far back, along a stream.

Its authors describe it and have not released it::

    Below is a record of lines I want you to remember.
    The REGISTER_CONTENT in line 0 is <88063>
    ...
    The REGISTER_CONTENT in line 20 is <45603>
    Query: The REGISTER_CONTENT in line 0 is <88063>
    The REGISTER_CONTENT in line 21 is <29189>
    ...

Every 10 lines the line is asked for that stands 20 lines back, or any other distance. No line is asked for twice, so an
answer stands in the text once before it is asked for. Where a line has left the cache, streaming knows nothing of it,
however well it talks; "retrieval" looks it up.
"""

import numpy as np

from ..cache import check_whole
from ..methods import BLOCK, N_BLOCKS, N_SINKS
from . import recall

MODEL = "smollm2"  # those that ship copy nothing
PAPER = "Figure 8, Table 7"
CLAIM = "a line is known while it is in the cache (75 %), and not at all once it is out (0.00 %)"
OPTIONS = {
    "distances": "lines back",
    "caches": "slots, sinks included",
    "n_queries": "at each distance",
    "every": "lines between two queries",
    **recall.OPTIONS,
}
FAST = {"distances": (2, 20), "caches": (128,), "n_queries": 3}
EVERY = 10  # lines between two queries
VALUES = np.arange(10_000, 100_000)  # five digits, as many tokens for each in most tokenizers

TITLE = "Below is a record of lines I want you to remember.\n"
LINE = "The REGISTER_CONTENT in line {n} is <{value}>\n"
QUERY = "Query: " + LINE


def record(random, *, distance, n_queries, every=EVERY):
    """A stream of lines with queries among them.

    Parameters
    ----------
    random : numpy.random.Generator
        Draws the values, all different.
    distance : int
        How many lines back the line stands that is asked for: 1 for the one before the last, 0 for the last.
    n_queries : int
        1 or more.
    every : int
        Lines from one query to the next, 1 or more.

    Returns
    -------
    text : str
        It ends with the last answer.
    told, answers : list of (int, int)
        Of each query the place of the value in its line, and in the query: the first character, and the one after the
        last.

    Examples
    --------
    >>> text, told, answers = record(np.random.default_rng(0), distance=1, n_queries=2, every=2)
    >>> print(text[:-1])
    Below is a record of lines I want you to remember.
    The REGISTER_CONTENT in line 0 is <34280>
    The REGISTER_CONTENT in line 1 is <56001>
    Query: The REGISTER_CONTENT in line 0 is <34280>
    The REGISTER_CONTENT in line 2 is <86553>
    The REGISTER_CONTENT in line 3 is <67325>
    Query: The REGISTER_CONTENT in line 2 is <86553>
    >>> [text[slice(*place)] for place in told] == [text[slice(*place)] for place in answers] == ["34280", "86553"]
    True
    """
    check_whole("distance", distance, 0)
    check_whole("n_queries", n_queries, 1)
    check_whole("every", every, 1)
    n_lines = distance + 1 + every * (n_queries - 1)
    if n_lines > len(VALUES):
        raise ValueError(f"{n_lines} lines; there are {len(VALUES)} different values")
    text, told, answers, places = TITLE, [], [], []
    for n, value in enumerate(random.choice(VALUES, n_lines, replace=False)):
        text, place = _add(text, LINE, n, value)
        places.append((place, value))
        asked = n - distance
        if asked >= 0 and asked % every == 0:
            place, value = places[asked]
            told.append(place)
            text, place = _add(text, QUERY, asked, value)
            answers.append(place)
    return text, told, answers


def _add(text, form, n, value):
    """One more line, and the place of its value."""
    line = form.format(n=n, value=value)
    start = len(text) + line.index("<") + 1
    return text + line, (start, start + len(str(value)))


def make(model, *, seed=0, bos=True, **sizes):
    """A `record` in tokens.

    Parameters
    ----------
    model : Model
    seed : int
    bos : bool
        Begin with the begin-of-text token, where there is one.
    **sizes
        Of `record`.

    Returns
    -------
    recall.Asked
    """
    text, told, answers = record(np.random.default_rng([seed, 5]), **sizes)
    ids, tokens = recall.tokens_of(model, text, told + answers, bos=bos)
    return recall.Asked(ids, tokens[len(told) :], tokens[: len(told)])


def run(model, *, distances=(2, 5, 10, 20, 40), caches=(128, 256, 512), methods=("streaming", "retrieval"), n_queries=5,
        every=EVERY, n_sinks=N_SINKS, n_blocks=N_BLOCKS, block=BLOCK, select="best", readable=False, seed=0, bos=True,
        track=iter):  # fmt: skip
    """How much of a line is known, by its distance and the size of the cache.

    Parameters
    ----------
    model : Model
    distances : sequence of int
        Lines.
    caches : sequence of int
        Slots, sinks included; "dense" has no use for them, and is measured once.
    methods : sequence of str
        Those of `recall.score`.
    n_queries, every, seed : int
        Of each record.
    n_sinks : int
        Of "streaming" and "retrieval".
    n_blocks, block, select
        Of "retrieval".
    readable : bool
    bos : bool
    track : callable

    Yields
    ------
    dict
        ``"distance"``, and what `recall.measure` says of it under one method and cache.
    """
    options = {"n_sinks": n_sinks, "n_blocks": n_blocks, "block": block, "select": select, "readable": readable}
    cells = [(distance, method, cache) for distance in distances for method in methods
             for cache in (caches if method != "dense" else [None])]  # fmt: skip
    for distance, method, cache in track(cells):
        asked = make(model, seed=seed, bos=bos, distance=distance, n_queries=n_queries, every=every)
        yield {"distance": distance} | recall.measure(model, [asked], method=method, cache=cache, **options)


effects = recall.effects


def show(rows):
    """A table a method: distances by caches."""
    return recall.show(rows, row_of=_row, column_of=_slots)


def draw(figure, rows):
    """Loss of the answers against the distance of their lines."""
    recall.draw(figure, rows, at="farthest", name="tokens back")


def _row(row):
    """The names of a row, or of their columns."""
    if row is None:
        return "lines", "tokens back"
    near, far = row["nearest"], row["farthest"]
    return str(row["distance"]), f"{near}-{far}" if near < far else str(near)


def _slots(row):
    return "all" if row["cache"] is None else f"{row['n_sinks']}+{row['cache'] - row['n_sinks']}"
