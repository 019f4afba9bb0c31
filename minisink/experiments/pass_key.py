"""Pass keys: a number is told somewhere in a text about something else, and asked for at its end.

::

    ... story ...  The pass key is 48213. Remember it. 48213 is the pass key.  ... story ...
    What is the pass key? The pass key is 48213

(Mohtashami and Jaggi, arXiv:2305.16300, tell it much like this.) A key that has left the cache is forgotten by
streaming; "retrieval" reads it off.
"""

import numpy as np

from ..cache import check_whole
from ..methods import BLOCK, N_BLOCKS, N_SINKS
from . import recall
from .recall import Asked, tokens_of

MODEL = "smollm2"  # those that ship copy nothing
PAPER = "Section 4.3, and arXiv:2305.16300"
CLAIM = "what has left the cache is forgotten; what is fetched again is known"
OPTIONS = {
    "lengths": "tokens of a text",
    "depths": "where the key is told, a share of the text",
    "cache": "slots, sinks included",
    "n_keys": "keys, each in a text of its own",
    **recall.OPTIONS,
}
FAST = {"lengths": (300,), "depths": (0.0,), "n_keys": 3}
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


def run(model, text, *, lengths=(500, 1000, 1500), depths=(0.0, 0.5, 0.9), cache=128, n_keys=1,
        methods=("streaming", "retrieval"), n_sinks=N_SINKS, n_blocks=N_BLOCKS, block=BLOCK, select="best",
        readable=False, seed=0, bos=True, track=iter):  # fmt: skip
    """How much of a key is known, by length of the text and depth of the key.

    Parameters
    ----------
    model : Model
    text : str
        What the rest is about.
    lengths : sequence of int
        Tokens.
    depths : sequence of float
    cache : int
        Slots that each but "dense" has, sinks included.
    n_keys : int
        Each told and asked for in a text of its own.
    methods : sequence of str
        Those of `recall.score`.
    n_sinks : int
        Of "streaming" and "retrieval".
    n_blocks, block, select
        Of "retrieval".
    readable : bool
    seed : int
        Of the keys.
    bos : bool
    track : callable

    Yields
    ------
    dict
        ``"length"``, ``"depth"``, and what `recall.measure` says of them under one method.
    """
    check_whole("n_keys", n_keys, 1)
    options = {"n_sinks": n_sinks, "n_blocks": n_blocks, "block": block, "select": select, "readable": readable}
    cells = [(length, depth, method) for length in lengths for depth in depths for method in methods]
    for length, depth, method in track(cells):
        asked = [make(model, text, key, length=length, depth=depth, bos=bos) for key in keys(seed, n_keys)]
        slots = None if method == "dense" else cache
        yield {"length": length, "depth": depth} | recall.measure(model, asked, method=method, cache=slots, **options)


effects = recall.effects


def show(rows):
    """A table a method: depths by lengths."""

    def row_of(row):
        return ("depth",) if row is None else (f"{row['depth']:g}",)

    return recall.show(rows, row_of=row_of, column_of=lambda row: f"{row['length']:,} tokens")


def draw(figure, rows):
    """Loss of the answers against how far back the key was told."""
    recall.draw(figure, rows, at="farthest", name="tokens back")


def _ends(model, text):
    """How many characters of a text its first n tokens take, for n from 0 on."""
    offsets = model.tokenizer.encode(text, add_special_tokens=False).offsets
    return np.array([0, *(stop for _, stop in offsets)])
