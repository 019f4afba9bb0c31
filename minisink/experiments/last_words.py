"""What each method writes, long after the first eviction: the collapse as anybody can read it.

A perplexity convinces no sceptic. A text does. Each writer goes on from the same words for many times its cache; beside
its text stands one number that a machine can take, the perplexity of its last words to the writer itself, who reads
them again with all of them in view: low for sense, high for nonsense. A larger model collapses into
loops instead, which are no surprise to it: so the share of repeated 4-grams stands beside it.
"""

import numpy as np

from ..generation import generate
from ..loss import perplexity, token_nll
from ..methods import Dense

READ = 200  # last words that are read again


def run(writers, prompt, *, n_tokens=1200, temperature=0.8, seed=0, bos=True, readable=False, on_progress=lambda: None):
    """Let each of the writers, a model and a method by name, go on from a prompt; `on_progress` after every token.

    One row per writer: ``"who"``, ``"text"``; and of its last tokens ``"own_perplexity"``, to itself, and
    ``"repeated"``, the share of their 4-grams that were there before.
    """
    rows = []
    for who, (model, method) in writers.items():
        ids = model.encode(prompt, bos=bos)
        tokens = []
        draws = {"max_new_tokens": n_tokens, "temperature": temperature, "seed": seed}
        for token in generate(model, ids, method, readable=readable, **draws):
            tokens.append(token)
            on_progress()
        lead = ids[:1] if ids[0] == model.config.bos else ids[:0]
        last = tokens[-min(READ, model.config.max_positions - 1) :]
        ppl = perplexity(token_nll(model, np.concatenate((lead, last)), Dense()))
        rows.append({"who": who, "text": model.decode(tokens), "own_perplexity": ppl, "repeated": repeated(last)})
    return rows


def repeated(tokens, n=4):
    """Return the share of n-grams that were there before.

    >>> repeated([1, 2, 3, 1, 2, 3, 1, 2], n=2)
    0.5714285714285714
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
