"""Pass keys: a text about something else mentions a number somewhere, and asks for it at the end.

Mohtashami and Jaggi (arXiv:2305.16300) word it much like `TELL`. Streaming forgets a key that has left the cache;
"retrieval" looks it up.
"""

from functools import partial
from itertools import product

import numpy as np

from ..cache import check_whole
from ..evaluation.jobs import in_order
from ..hf.tokenizer import encode
from . import recall

MODEL = "smollm2"  # the shipped models cannot copy
PAPER = "Section 4.3, and arXiv:2305.16300"
CLAIM = "what was evicted is forgotten; what is fetched back is remembered"
OPTIONS: dict = {"lengths": "tokens of a text", "depths": "where the key is stated, as a share of the text"}
OPTIONS |= {"cache": "slots, sinks included", "n_keys": "keys, each in a separate text"} | recall.OPTIONS
FAST = {"lengths": (300,), "depths": (0.0,), "n_keys": 3}

TELL = "\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
ASK = "\nWhat is the pass key? The pass key is {key}"


def make(model, filler, key, *, length, depth, bos=True):
    """Return an `Asked`: `filler`, cut to make `length` tokens or a few more, that states a key and asks for it.

    A `depth` of 0 states it at the beginning, 1 right before the question.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"depth is {depth}; it must be a share of the text, from 0 to 1")
    tell, ask = TELL.format(key=key), ASK.format(key=key)
    room = length - len(model.encode(tell + ask, bos=bos))
    if room < 0:
        raise ValueError(f"length is {length}; statement and question alone take {length - room} tokens")
    ends = [0, *(stop for _, stop in encode(model.tokenizer, filler, name=model.name).offsets)]  # in characters
    if len(ends) <= room:
        raise ValueError(f"the filler has {len(ends) - 1} tokens; a text of {length} needs {room}")
    before, after = ends[round(depth * room)], ends[room]
    text = filler[:before] + tell + filler[before:after] + ask
    second = before + tell.rindex(key)  # the nearest of the two statements
    return recall.ask(model, text, [(second, second + len(key))], [(len(text) - len(key), len(text))], bos=bos)


def keys(seed, n):
    """Draw `n` different five-digit keys."""
    return [str(key) for key in np.random.default_rng([seed, 4]).choice(recall.VALUES, n, replace=False)]


def run(
    model,
    text,
    *,
    lengths=(500, 1000, 1500),
    depths=(0.0, 0.5, 0.9),
    cache=128,
    n_keys=1,
    methods=("streaming", "retrieval"),
    fetched=recall.FETCHED,
    readable=False,
    seed=0,
    each=in_order,
):
    """Measure how well a key is recalled: rows of `recall.measure`, by ``"length"`` of the text and ``"depth"``."""
    check_whole("n_keys", n_keys, 1)
    under = [recall.under(name, cache, fetched) for name in methods]
    yield from each(partial(_row, text, keys(seed, n_keys), readable), model, [*product(lengths, depths, under)])


def _row(text, drawn, readable, model, setting):
    length, depth, method = setting
    texts = [make(model, text, key, length=length, depth=depth) for key in drawn]
    return {"length": length, "depth": depth} | recall.measure(model, texts, method, readable=readable)


effects, show, finding, draw = recall.effects, recall.show, recall.finding, recall.draw
