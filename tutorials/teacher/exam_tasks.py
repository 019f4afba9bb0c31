"""The functions of an exam drawn by `exam.py`, one for each version, judged by ``minisink check --tasks``.

::

    minisink check hand-ins --csv code.csv --tasks tutorials/teacher/exam_tasks.py
"""

import numpy as np

POINTS = {"thinned": 8, "heaviest": 8}  # version A, version B; each student writes one


def thinned(n, n_sinks, window, every):
    """Return the slots that stay, of n, in order.

    The first n_sinks stay, and the last window; in between, every slot whose number is divisible by `every`.
    If there are no more than n_sinks + window, all stay.
    """
    return [i for i in range(n) if i < n_sinks or i >= n - window or i % every == 0]


def thinned_cases(rng):
    """Return small cases first."""
    sizes = [(n, s, w, e) for n in (1, 2, 3, 5, 8, 13) for s in (0, 1, 3) for w in (1, 2, 4) for e in (2, 3)]
    return [dict(zip(("n", "n_sinks", "window", "every"), case, strict=True)) for case in sizes]


def _counted_from_the_sinks(n, n_sinks, window, every):
    return [i for i in range(n) if i < n_sinks or i >= n - window or (i - n_sinks) % every == 0]


thinned_turns = {
    "numbers are counted from the last sink, not from 0": _counted_from_the_sinks,
    "the newest is not one of the window": lambda n, n_sinks, window, every: thinned(n, n_sinks, window + 1, every),
    "none in between stays": lambda n, n_sinks, window, every: [i for i in range(n) if i < n_sinks or i >= n - window],
}


def heaviest(weights, n_sinks, window, k):
    """Return the slots that stay, of n = len(weights), in order.

    The first n_sinks stay, and the last window; in between, the k with the largest weight, and the earlier of two
    equal ones. If there are no more than n_sinks + window + k, all stay.
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
    "the k are chosen among all slots, including sinks and window": _among_all,
    "the lightest stay": lambda weights, n_sinks, window, k: heaviest(-weights, n_sinks, window, k),
    "the newest is not one of the window": lambda weights, n_sinks, window, k: heaviest(
        weights, n_sinks, window + 1, k
    ),
}
