"""The file that a student starts from: a stub a task, and in its docstring what to write, as a loop."""

from .tasks import SIGNATURES, TASKS

HEAD = '''"""Attention sinks by hand: write what is missing, and run

    minisink check {name}

Lists or arrays, loops or vectors, float32 or float64: any style is right whose numbers are. Arguments come as NumPy
arrays; a file that wants lists is called with lists. Shapes: T tokens, S keys, D channels (one head), V words, N stored
keys. Python and numpy are at hand, minisink is not. Each task is checked alone: a part that you have not written yet,
or not rightly, is the checker's own meanwhile.
"""

import math

import numpy as np
'''

LOOPS = {
    "softmax": """The weights of S scores, (S,) -> (S,): they add up to one.

    A score may be 1000 or -1000 (math.exp(1000) overflows), and some, not all, may be -inf: masked, weight 0.

        for i in range(S):
            weights[i] = exp(x[i]) / (exp(x[0]) + ... + exp(x[S - 1]))
    """,
    "softmax1": """Softmax with one more term in the sum, (S,) -> (S,): weights may stay unspent.

    Scores as in softmax: 1000 and -1000 must work.

        for i in range(S):
            weights[i] = exp(x[i]) / (1 + exp(x[0]) + ... + exp(x[S - 1]))
    """,
    "attend": """Attention of one head: q (T, D), k (S, D), v (S, D), visible (T, S) of True and False -> (T, D).

    Every query sees at least one key.

        for t in range(T):
            for s in range(S):
                scores[s] = (q[t][0] * k[s][0] + ... + q[t][D - 1] * k[s][D - 1]) / sqrt(D) if visible[t][s] else -inf
            weights = softmax(scores)
            for d in range(D):
                out[t][d] = weights[0] * v[0][d] + ... + weights[S - 1] * v[S - 1][d]
    """,
    "rotate": """Rotary positions: x (T, D), positions (T,) -> (T, D); D is even.

    Channel j goes with channel j + D/2 (as Hugging Face has it, not 2j with 2j + 1).

        for t in range(T):
            for j in range(D // 2):
                angle = positions[t] * theta ** (-2 * j / D)
                a, b = x[t][j], x[t][j + D // 2]
                out[t][j] = a * cos(angle) - b * sin(angle)
                out[t][j + D // 2] = b * cos(angle) + a * sin(angle)
    """,
    "survivors": """The slots that stay, in order, when the slots 0 to n_slots - 1 are filled, the newest last.

    The first n_sinks stay, and the last window, of which the newest is one: n_sinks + window at most. However many are
    too many, all of them leave: survivors(9, 1, 3) is [0, 6, 7, 8]. window is 1 or more, n_sinks 0 or more.

        for slot in range(n_slots):
            keep slot if slot is one of the first n_sinks, or one of the last window
    """,
    "positions_of": """The position of each token that is held: token_index (S,), places in the text -> (S,).

    In StreamingLLM, position := slot. n_sinks and window are the cache's, if you want them.

        for slot in range(S):
            positions[slot] = slot              # whatever token_index[slot] is
    """,
    "step": """One token through a streaming cache: q, k, v (D,) of the new token -> (out (D,), the new state).

    state is None at the first token of a text, and then whatever you returned last. It must not grow for ever.

        append k, un-rotated, and v to what is held
        keep the survivors(how many are held, n_sinks, window)               # the new token counts
        S = how many are held now
        keys = rotate(every k that is held, [0, 1, ..., S - 1], theta)       # (S, D), each at its slot: a rotated copy
        query = rotate([q], [S - 1], theta)                                  # (1, D), at the slot of its own key
        out = attend(query, keys, every v that is held, [[True] * S])[0]     # (1, D) -> (D,)
        return out, state                                                    # the keys in it as they came

    Your own rotate and attend can be called like this, with np.array(...) around the lists if they want arrays.
    """,
    "token_nll": """The loss of each token but the first, in nats: logits (T, V), ids (T,) -> (T - 1,).

    logits[t] are the model's after reading token t, about token t + 1.

        for t in range(T - 1):
            nll[t] = log(exp(logits[t][0]) + ... + exp(logits[t][V - 1])) - logits[t][ids[t + 1]]

    A logit may be 1000, another in its row 0: take the largest of the row off before exp, and put it back after log.
    (-log(softmax(logits[t])[ids[t + 1]]) is the same on paper; but exp(-1000) is 0, and log(0) is no loss.)
    """,
    "retrieve": """The k best blocks of what was evicted: q (D,), keys (N, D), un-rotated -> their numbers, any order.

    Blocks are [0, block), [block, 2 block), ...; the last may hold fewer. If there are fewer than k, all of them.

        query = rotate([q], [window], theta)[0]             # so every stored key stands `window` places back
        for b in range(number of blocks):
            scores[b] = the largest of query . keys[i], for the keys i in block b
        return the k blocks with the largest scores
    """,
}


def template(tasks=None, name="student.py"):
    """Return the text of a file that will be called `name`, with stubs of these tasks or of all."""
    stubs = [
        f'def {SIGNATURES[task]}:\n    """{LOOPS[task]}"""\n    raise NotImplementedError  # your code here\n'
        for task in TASKS
        if tasks is None or task in tasks
    ]
    return "\n\n".join([HEAD.format(name=name), *stubs])
