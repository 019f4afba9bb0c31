"""The functions in an exam drawn by `exam.py`, one for each version, which ``minisink check --tasks`` judges.

::

    minisink check hand-ins --csv code.csv --tasks tutorials/teacher/exam_tasks.py
"""

import numpy as np

POINTS = {"thinned": 8, "heaviest": 8}  # version A, version B; each student writes one


def thinned(n, n_sinks, window, every):
    """Return, in order, which of n slots stay.

    The first n_sinks and the last window slots stay. In between, every slot whose number is divisible by `every` stays.
    If there are no more than n_sinks + window slots, all of them stay.
    """
    return [i for i in range(n) if i < n_sinks or i >= n - window or i % every == 0]


def thinned_cases(rng):
    """Return small cases first."""
    sizes = [(n, s, w, e) for n in (1, 2, 3, 5, 8, 13) for s in (0, 1, 3) for w in (1, 2, 4) for e in (2, 3)]
    return [dict(zip(("n", "n_sinks", "window", "every"), case, strict=True)) for case in sizes]


def _counted_from_the_sinks(n, n_sinks, window, every):
    return [i for i in range(n) if i < n_sinks or i >= n - window or (i - n_sinks) % every == 0]


thinned_turns = {
    "slots are numbered from the last sink, not from 0": _counted_from_the_sinks,
    "the window does not count the newest": lambda n, n_sinks, window, every: thinned(n, n_sinks, window + 1, every),
    "none stays in between": lambda n, n_sinks, window, every: [i for i in range(n) if i < n_sinks or i >= n - window],
}


def heaviest(weights, n_sinks, window, k):
    """Return, in order, which of n = len(weights) slots stay.

    The first n_sinks and the last window slots stay. In between, the k slots with the largest weights stay; of two with
    equal weights, the earlier counts as larger. If there are no more than n_sinks + window + k slots, all of them stay.
    """
    n = len(weights)
    between = range(n_sinks, max(n_sinks, n - window))
    best = sorted(between, key=lambda i: -weights[i])[:k]
    return [i for i in range(n) if i < n_sinks or i >= n - window or i in best]


def heaviest_cases(rng):
    """Return small cases first; no two slots weigh the same."""
    sizes = [(n, s, w, k) for n in (1, 2, 3, 5, 8, 13) for s in (0, 1, 3) for w in (1, 2, 4) for k in (0, 1, 2)]
    return [{"weights": rng.permutation(n) / n, "n_sinks": s, "window": w, "k": k} for n, s, w, k in sizes]


def _among_all(weights, n_sinks, window, k):
    best, n = np.argsort(-weights)[:k], len(weights)
    return [i for i in range(n) if i < n_sinks or i >= n - window or i in best]


heaviest_turns = {
    "the k are chosen from all slots, including sinks and window": _among_all,
    "the smallest weights stay": lambda weights, n_sinks, window, k: heaviest(-weights, n_sinks, window, k),
    "the window does not count the newest": lambda weights, n_sinks, window, k: heaviest(
        weights, n_sinks, window + 1, k
    ),
}
