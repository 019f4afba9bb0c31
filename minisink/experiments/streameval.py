"""StreamEval: questions about lines at a given distance, along a stream.

Its authors describe it but have not released it; `record` makes one. No line is asked about twice, so its answer
has occurred only once before. If a line has left the cache, streaming knows nothing about it; "retrieval" looks it up.
"""

from functools import partial
from itertools import product

import numpy as np

from ..cache import check_whole
from ..evaluation.jobs import in_order
from . import recall

MODEL = "smollm2"  # the shipped models cannot copy
PAPER = "Figure 8, Table 7"
CLAIM = "a line is known while it is in the cache (75 %), and not at all once it is out (0.00 %)"
OPTIONS: dict = {"distances": "lines back", "caches": "slots, sinks included", "n_queries": "queries at each distance"}
OPTIONS |= {"every": "lines between two queries"} | recall.OPTIONS
FAST = {"distances": (2, 20), "caches": (128,), "n_queries": 3}
EVERY = 10  # lines between two queries

TITLE = "Below is a record of lines I want you to remember.\n"
LINE = "The REGISTER_CONTENT in line {n} is <{value}>\n"
QUERY = "Query: " + LINE


def record(random, *, distance, n_queries, every=EVERY):
    """Return a stream of lines with queries among them, and the places of their values in the lines and the queries.

    A query is about the line `distance` lines back, 0 for the last.

    >>> text, needles, answers = record(np.random.default_rng(0), distance=1, n_queries=2, every=2)
    >>> print(text[:-1])
    Below is a record of lines I want you to remember.
    The REGISTER_CONTENT in line 0 is <34280>
    The REGISTER_CONTENT in line 1 is <56001>
    Query: The REGISTER_CONTENT in line 0 is <34280>
    The REGISTER_CONTENT in line 2 is <86553>
    The REGISTER_CONTENT in line 3 is <67325>
    Query: The REGISTER_CONTENT in line 2 is <86553>
    >>> [text[slice(*place)] for place in needles] == [text[slice(*place)] for place in answers] == ["34280", "86553"]
    True
    """
    for name, value, least in (("distance", distance, 0), ("n_queries", n_queries, 1), ("every", every, 1)):
        check_whole(name, value, least)
    n_lines = distance + 1 + every * (n_queries - 1)
    if n_lines > len(recall.VALUES):
        raise ValueError(f"{n_lines} lines are too many: there are {len(recall.VALUES)} different values")
    values = random.choice(recall.VALUES, n_lines, replace=False)
    text, places, needles, answers = TITLE, [], [], []
    for n in range(n_lines):
        text += LINE.format(n=n, value=values[n])
        places.append(_last_value(text))
        queried = n - distance
        if queried >= 0 and queried % every == 0:
            text += QUERY.format(n=queried, value=values[queried])
            needles.append(places[queried])
            answers.append(_last_value(text))
    return text, needles, answers


def _last_value(text):
    return text.rindex("<") + 1, text.rindex(">")


def make(model, *, seed=0, **sizes):
    """Return a `record` of these sizes as a `recall.Asked`."""
    return recall.ask(model, *record(np.random.default_rng([seed, 5]), **sizes))


def run(
    model,
    *,
    distances=(2, 5, 10, 20, 40),
    caches=(128, 256, 512),
    methods=("streaming", "retrieval"),
    fetched=recall.FETCHED,
    n_queries=5,
    every=EVERY,
    readable=False,
    seed=0,
    each=in_order,
):
    """Measure how well lines are recalled: rows of `recall.measure`, by ``"distance"``; "dense" once for all sizes."""
    sizes = {name: caches[:1] if name == "dense" else caches for name in methods}
    under = [recall.under(name, cache, fetched) for name in methods for cache in sizes[name]]
    about = {"seed": seed, "n_queries": n_queries, "every": every}
    yield from each(partial(_row, about, readable), model, [*product(distances, under)])


def _row(about, readable, model, setting):
    distance, method = setting
    text = make(model, distance=distance, **about)
    return {"distance": distance} | recall.measure(model, [text], method, readable=readable)


effects, show, finding, draw = recall.effects, recall.show, recall.finding, recall.draw
