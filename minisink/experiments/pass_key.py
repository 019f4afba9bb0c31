"""Pass keys: a number is told somewhere in a text about something else, and asked for at its end.

::

    ... story ...  The pass key is 48213. Remember it. 48213 is the pass key.  ... story ...
    What is the pass key? The pass key is 48213

(Mohtashami and Jaggi, arXiv:2305.16300, tell it much like this.) ``minisink reproduce pass-key`` prints how much of it
is known by length of the text and depth of the key. A key that has left the cache is forgotten by streaming; retrieval
reads it off.
"""

import numpy as np

from .recall import Asked, measure, tokens_of

LENGTHS = (500, 1000, 1500)
DEPTHS = (0.0, 0.5, 0.9)
METHODS = ("streaming", "retrieval")
CACHE = 128
DIGITS = 5

TELL = "\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
ASK = "\nWhat is the pass key? The pass key is {key}"


def make(model, filler, key, *, length, depth, bos=True):
    """A text that tells a key and asks for it.

    Parameters
    ----------
    model : Model
    filler : str
        What the rest of the text is about; as much of it as there is room for.
    key : str
    length : int
        Tokens of the whole text, the answer included, or a few more.
    depth : float
        Where the key is told: 0 at the beginning, 1 right before it is asked for.
    bos : bool
        Begin with the begin-of-text token, where there is one.

    Returns
    -------
    Asked

    Raises
    ------
    ValueError
        For a depth out of range, a length without room for more than the key, or a filler that is too short.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"depth is {depth}; it is a share of the text, 0 to 1")
    tell, ask = TELL.format(key=key), ASK.format(key=key)
    room = length - len(model.encode(tell + ask, bos=bos))
    if room < 0:
        raise ValueError(f"length is {length}; telling and asking alone take {length - room} tokens")
    story = model.encode(filler, bos=False)
    if len(story) < room:
        raise ValueError(f"the filler has {len(story)} tokens; a text of {length} needs {room}")
    ends = _ends(model, filler)  # in characters, of each of its tokens
    before, whole = (int(ends[n]) for n in (round(depth * room), room))
    text = filler[:before] + tell + filler[before:whole] + ask
    told = before + tell.rindex(key)  # the second time: the nearest
    ids, (said, answer) = tokens_of(model, text, [(told, told + len(key)), (len(text) - len(key), len(text))], bos=bos)
    return Asked(ids, [answer], [said])


def keys(seed, n):
    """So many different keys of five digits."""
    lots = np.random.default_rng([seed, 4]).choice(9 * 10 ** (DIGITS - 1), n, replace=False)
    return [str(10 ** (DIGITS - 1) + lot) for lot in lots]


def run(model, filler, *, lengths=LENGTHS, depths=DEPTHS, methods=METHODS, cache=CACHE, n_keys=1, seed=0, bos=True,
        **options):  # fmt: skip
    """How much of a key is known, by length of the text and depth of the key.

    Parameters
    ----------
    model : Model
    filler : str
    lengths : sequence of int
        Tokens.
    depths : sequence of float
    methods : sequence of str
        Those of `recall.score`.
    cache : int
        Slots that each but "dense" has, sinks included.
    n_keys : int
        Each told and asked for in a text of its own.
    seed : int
        Of the keys.
    bos : bool
    **options
        More of `recall.measure`.

    Yields
    ------
    dict
        ``"length"``, ``"depth"``, and what `recall.measure` says of them under one method.
    """
    for length in lengths:
        for depth in depths:
            texts = [make(model, filler, key, length=length, depth=depth, bos=bos) for key in keys(seed, n_keys)]
            for method in methods:
                slots = {"method": method, "cache": None if method == "dense" else cache}
                yield {"length": length, "depth": depth} | measure(model, texts, **slots, **options)


def _ends(model, text):
    """How many characters of a text its first n tokens take, for n from 0 on."""
    offsets = model.tokenizer.encode(text, add_special_tokens=False).offsets
    return np.array([0, *(stop for _, stop in offsets)])
