"""The trigger task: output the mean of the earlier tokens at a trigger, and nothing at any other token.

Ran-Milo, arXiv:2603.11487. Token 0 is BOS, one token j is the trigger; the answer at j is the mean of tokens 1 to j,
and zero everywhere else. With weights that sum to one, the output is zero only if they are on a token whose
value is zero, and the values of all tokens except BOS are needed at the trigger, so a head that solves the task
*must* look at BOS when idle.
"""

import numpy as np

WIDTH = 16  # channels of a token
BOS, TRIGGER, ORDINARY = 0, 1, 15  # channels that are flags; the 13 others are drawn from -1 to 1, except in BOS


def draw(random, n_samples, length, dtype=np.float32):
    """Draw texts, (B, T, C); the answers expected, (B, T, C); and where the trigger is, (B,), 2 to T - 1.

    T is 3 or more: BOS, an ordinary token, the trigger.

    >>> x, target, trigger = draw(np.random.default_rng(0), 1, 4)
    >>> int(trigger[0]), x[0, :, [BOS, TRIGGER, ORDINARY]].T.astype(int).tolist()
    (3, [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]])
    """
    if length < 3:
        raise ValueError(f"length is {length}; it must be 3 or more: BOS, an ordinary token, the trigger")
    x = random.uniform(-1.0, 1.0, (n_samples, length, WIDTH)).astype(dtype)
    trigger = random.integers(2, length, n_samples)
    rows = np.arange(n_samples)
    x[:, :, [BOS, TRIGGER, ORDINARY]] = [0.0, 0.0, 1.0]
    x[:, 0] = 0.0
    x[:, 0, BOS] = 1.0
    x[rows, trigger, TRIGGER], x[rows, trigger, ORDINARY] = 1.0, 0.0
    target = np.zeros_like(x)
    target[rows, trigger] = x[:, 1:].cumsum(axis=1)[rows, trigger - 1] / trigger[:, None]
    return x, target, trigger
