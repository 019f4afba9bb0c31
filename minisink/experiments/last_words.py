"""What each method writes, long after the first eviction: a collapse that anybody can read.

A perplexity convinces no sceptic. A text does. It comes with the perplexity of its last words under the model that
wrote them: low for sense, high for nonsense; and, for models that collapse into loops, the share of repeated 4-grams.
"""

import numpy as np

from ..generation import generate
from ..loss import perplexity, token_nll
from ..methods import Dense

READ = 200  # last tokens, which are reread for their perplexity


def run(writers, prompt, *, n_tokens=1200, temperature=0.8, seed=0, bos=True, readable=False, on_progress=lambda: None):
    """Let each writer, a model and a method by name, continue a prompt; call `on_progress` after every token."""
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
        yield {"who": who, "text": model.decode(tokens), "own_perplexity": ppl, "repeated": repeated(last)}


def repeated(tokens, n=4):
    """Return the share of n-grams already seen.

    >>> repeated([1, 2, 3, 1, 2, 3, 1, 2], n=2)
    0.5714285714285714
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
