"""The cases of each task, drawn from a generator: small ones first, then the hard ones."""

from itertools import product

import numpy as np

from . import reference


def _ints(rng, *shape):
    """Draw small whole numbers, which are easy to follow."""
    return rng.integers(-2, 3, size=shape).astype(np.float64)


def _reals(rng, *shape):
    return rng.normal(size=shape).round(3)


def _drawn(rng, draw, **shapes):
    return {name: draw(rng, *shape) for name, shape in shapes.items()}


def softmax(rng):
    """Draw scores: a few, some masked, and some that overflow."""
    cases = [np.array([0.0]), np.array([0.0, 0.0]), np.array([0.0, 1.0]), np.array([2.0, 0.0, -1.0])]
    cases += [_ints(rng, S) for S in range(2, 6)] + [_reals(rng, S) for S in range(2, 8)]
    for S in range(3, 6):
        row = _reals(rng, S)
        row[rng.integers(S)] = -np.inf  # a masked key
        cases.append(row)
    cases += [np.array([-3.0, -5.0]), _ints(rng, 4) - 60.0, np.array([1000.0, 1001.0]), _ints(rng, 3) + 800.0]
    return [{"x": x} for x in [*cases, np.array([-1000.0, -1002.0])]]


softmax1 = softmax


def all_see(case):
    """Whether every query sees a key."""
    return case["visible"].any(axis=1).all()


def attend(rng):
    """Draw full, partial and causal masks, and scores whose exponential overflows, or is 0."""
    cases = [{"q": np.zeros((1, 1)), "k": np.zeros((1, 1)), "v": np.ones((1, 1)), "visible": np.ones((1, 1), bool)}]
    sizes = [(1, 2, 1), (1, 2, 4), (2, 2, 4), (2, 3, 1), (1, 3, 4), (3, 3, 2), (2, 4, 4), (3, 5, 2), (3, 4, 6)]
    for (T, S, D), draw, masked in product(sizes, (_ints, _reals), (False, True)):
        visible = rng.random((T, S)) < 0.6 if masked else np.ones((T, S), bool)
        visible[np.arange(T), rng.integers(S, size=T)] = True
        cases.append(_drawn(rng, draw, q=(T, D), k=(S, D), v=(S, D)) | {"visible": visible})
    cases.append(_drawn(rng, _reals, q=(4, 2), k=(4, 2), v=(4, 2)) | {"visible": np.tril(np.ones((4, 4), bool))})
    big = np.array([[40.0, 40.0, 0.0, 0.0]])
    cases.append({"q": big, "k": np.concatenate((big, big - 1.0)), "v": np.eye(2, 4), "visible": np.ones((1, 2), bool)})
    low = np.concatenate((-big, 1.0 - big, -big))  # a score far below zero, and a hidden one next to it
    cases.append({"q": big, "k": low, "v": np.eye(3, 4), "visible": np.array([[True, True, False]])})
    return cases


def attend_heads(rng):
    """Draw several heads, (T, H, D): first with a key head each, then with fewer, which neighbouring heads share."""
    cases = []
    for T, S, H, K, D in [(2, 3, 2, 2, 4), (1, 2, 4, 2, 2), (2, 3, 4, 2, 4), (3, 5, 6, 2, 4), (2, 3, 6, 3, 4)]:
        visible = rng.random((T, S)) < 0.6
        visible[np.arange(T), rng.integers(S, size=T)] = True
        cases.append(_drawn(rng, _reals, q=(T, H, D), k=(S, K, D), v=(S, K, D)) | {"visible": visible})
    return cases


def rotate(rng):
    """Draw from one pair of channels at position 0 to several at 250."""
    cases = [{"x": np.array([[1.0, 0.0]]), "positions": np.array([p]), "theta": 100.0} for p in (0, 1, 2)]
    sizes = [(1, 4), (2, 4), (1, 6), (3, 2), (3, 4), (4, 6), (5, 8)]
    for (T, D), theta, draw in product(sizes, (100.0, 10000.0), (_ints, _reals)):
        places = rng.integers(0, 30, size=T)
        cases.append({"x": draw(rng, T, D), "positions": places, "theta": theta})
    cases.append({"x": _reals(rng, 3, 6), "positions": np.array([7, 120, 250]), "theta": 10000.0})
    return cases


def survivors(rng):
    """List every small cache in order of size, so that the first to fail is the smallest, and a few large ones."""
    small = sorted(product(range(1, 10), range(4), range(1, 5)), key=sum)
    large = rng.integers((10, 0, 1), (60, 9, 20), (12, 3)).tolist()
    return [{"n_slots": n, "n_sinks": s, "window": w} for n, s, w in [*small, *large]]


def positions_of(rng):
    """List the tokens that each of those caches holds."""
    sizes = [(case["n_sinks"], case["window"], reference.survivors(**case)) for case in survivors(rng)]
    cases = [{"token_index": np.array(index), "n_sinks": s, "window": w} for s, w, index in sizes]
    return sorted(cases, key=lambda case: len(case["token_index"]))


def can_hold(case):
    """Whether a cache of that size can hold these tokens."""
    index = case["token_index"].tolist()
    return index == reference.survivors(index[-1] + 1, case["n_sinks"], case["window"]) if index else False


def step(rng):
    """Draw texts whose values name their tokens, without and with positions; then random texts, one of them long."""
    cases = []
    for n_sinks, window in [(0, 1), (1, 1), (0, 2), (1, 2), (2, 1), (0, 3), (2, 3), (1, 4), (3, 2)]:
        T = min(n_sinks + window + 3, 8)  # values that name their token, and nothing else: which are kept?
        cases.append(_sized(n_sinks, window, q=np.zeros((T, 8)), k=np.zeros((T, 8)), v=np.eye(T, 8)))
    for n_sinks, window in [(0, 2), (1, 2), (0, 3), (1, 3), (2, 2), (2, 3), (3, 3)]:
        T = min(n_sinks + window + 3, 8)  # with queries and keys too: which positions do they get?
        cases.append(_sized(n_sinks, window, **_drawn(rng, _ints, q=(T, 8), k=(T, 8)), v=np.eye(T, 8)))
    for n_sinks, window, D, T in [(0, 4, 4, 9), (1, 3, 4, 12), (2, 4, 6, 14), (4, 5, 4, 16), (3, 1, 2, 9)]:
        theta = float(rng.choice([100.0, 10000.0]))
        cases.append(_sized(n_sinks, window, theta, **_drawn(rng, _reals, q=(T, D), k=(T, D), v=(T, D))))
    return [*cases, _sized(1, 3, **_drawn(rng, _reals, q=(48, 4), k=(48, 4), v=(48, 4)))]  # does memory grow?


def step_heads(rng):
    """Draw several heads, (T, H, D): first with a key head each, then with fewer, which neighbouring heads share."""
    sizes = [(2, 2), (4, 2), (6, 2), (6, 3)]
    return [_sized(1, 2, **_drawn(rng, _reals, q=(5, H, 4), k=(5, K, 4), v=(5, K, 4))) for H, K in sizes]


def _sized(n_sinks, window, theta=100.0, **text):
    return text | {"n_sinks": n_sinks, "window": window, "theta": theta}


def token_nll(rng):
    """Draw a few tokens and words, logits that overflow, and tokens whose probability is too small for a float."""
    sizes = product([(2, 2), (3, 2), (2, 3), (3, 3), (4, 3), (5, 4), (7, 5)], (_ints, _reals))
    cases = [{"logits": draw(rng, T, V), "ids": rng.integers(V, size=T)} for (T, V), draw in sizes]
    cases.append({"logits": _reals(rng, 4, 3), "ids": np.array([1, 2, 0, 1])})
    cases.append({"logits": _ints(rng, 4, 3) + 1000.0, "ids": np.array([0, 2, 1, 1])})
    cases.append({"logits": _ints(rng, 3, 4) - 1000.0, "ids": np.array([3, 2, 0])})
    cases.append({"logits": _ints(rng, 4, 3) + [1000.0, 0.0, 0.0], "ids": np.array([0, 1, 2, 1])})
    return cases


def retrieve(rng):
    """Draw full and partial blocks, scored too far apart for rounding to matter; many, to detect small rotations."""
    sizes = [(2, 1, 1, 2), (3, 1, 1, 2), (4, 2, 1, 2), (3, 2, 1, 2), (4, 2, 2, 4), (6, 2, 1, 4)]
    sizes += [(6, 3, 2, 4), (7, 2, 2, 2), (9, 4, 2, 4), (12, 3, 2, 6), (12, 4, 1, 4), (10, 3, 3, 4)]
    cases = [_search(rng, *each, window, float(rng.choice([100.0, 1e4]))) for each, window in product(sizes, (1, 3, 8))]
    many = product([(14, 1, 4, 6), (17, 2, 3, 4)], (5, 20, 40, 60))
    cases += [_search(rng, *each, window, 100.0) for each, window in many]
    return cases + [_one_good_key(rng, D) for D in (2, 4)] + [_the_newest_key(rng)]


def _one_good_key(rng, D):
    """Return a case in which one block has the best key, another is better on average, and a third is poor."""
    case = {"q": _reals(rng, D), "block": 3, "k": 1, "window": 5, "theta": 100.0}
    query = reference.rotate(case["q"], case["window"], case["theta"])
    scores = rng.permutation([[0.0, 1.0, -0.5], [0.8, 0.7, 0.8], [-0.9, -0.9, -0.8]]).reshape(-1, 1)
    return case | {"keys": (scores * query / (query @ query)).round(3)}


def _the_newest_key(rng):
    """Return a case with the best key in the last block, which is not full."""
    case = {"q": np.array([1.0, 2.0, 0.0, -1.0]), "block": 2, "k": 1, "window": 3, "theta": 100.0}
    query = reference.rotate(case["q"], case["window"], case["theta"])
    return case | {"keys": np.concatenate((_reals(rng, 4, 4) / 10, query[None])).round(3)}


def _search(rng, N, block, k, D, window, theta):
    while True:
        case = _drawn(rng, _reals, q=(D,), keys=(N, D))
        case |= {"block": block, "k": k, "window": window, "theta": theta}
        if clear(case):
            return case


def clear(case):
    """Whether the scores of the k-th block and the next are too far apart for rounding to matter."""
    args = (case[name] for name in ("q", "keys", "block", "window", "theta"))
    best = sorted(reference.block_scores(*args), reverse=True)
    return len(best) <= case["k"] or best[case["k"] - 1] - best[case["k"]] > 0.05
