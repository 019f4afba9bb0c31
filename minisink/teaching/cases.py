"""The cases of each task, drawn from a generator: small ones first, then the hard ones."""

import numpy as np

from . import reference


def _ints(rng, *shape):
    """Small whole numbers: what a reader can follow."""
    return rng.integers(-2, 3, size=shape).astype(np.float64)


def _reals(rng, *shape):
    return rng.normal(size=shape).round(3)


def softmax(rng):
    """Scores: a few, some masked, and some that overflow."""
    cases = [np.array([0.0]), np.array([0.0, 0.0]), np.array([0.0, 1.0]), np.array([2.0, 0.0, -1.0])]
    cases += [_ints(rng, S) for S in range(2, 6)] + [_reals(rng, S) for S in range(2, 8)]
    for S in range(3, 6):  # a key that is masked
        row = _reals(rng, S)
        row[rng.integers(S)] = -np.inf
        cases.append(row)
    cases += [np.array([-3.0, -5.0]), _ints(rng, 4) - 60.0, np.array([1000.0, 1001.0]), _ints(rng, 3) + 800.0]
    cases += [np.array([-1000.0, -1002.0])]
    return [{"x": x} for x in cases]


softmax1 = softmax


def all_see(case):
    """Whether every query sees a key."""
    return case["visible"].any(axis=1).all()


def attend(rng):
    """Everything visible, something hidden, a causal mask, and scores whose exponential overflows, or is 0."""
    cases = [{"q": np.zeros((1, 1)), "k": np.zeros((1, 1)), "v": np.ones((1, 1)), "visible": np.ones((1, 1), bool)}]
    for T, S, D in [(1, 2, 1), (1, 2, 4), (2, 2, 4), (2, 3, 1), (1, 3, 4), (3, 3, 2), (2, 4, 4), (3, 5, 2), (3, 4, 6)]:
        for draw in (_ints, _reals):
            for masked in (False, True):
                visible = rng.random((T, S)) < 0.6 if masked else np.ones((T, S), bool)
                visible[np.arange(T), rng.integers(S, size=T)] = True
                cases.append({"q": draw(rng, T, D), "k": draw(rng, S, D), "v": draw(rng, S, D), "visible": visible})
    causal = np.tril(np.ones((4, 4), bool))
    cases.append({"q": _reals(rng, 4, 2), "k": _reals(rng, 4, 2), "v": _reals(rng, 4, 2), "visible": causal})
    big = np.array([[40.0, 40.0, 0.0, 0.0]])
    cases.append({"q": big, "k": np.concatenate((big, big - 1.0)), "v": np.eye(2, 4), "visible": np.ones((1, 2), bool)})
    low = np.concatenate((-big, 1.0 - big, -big))  # a score far below zero, and a hidden one beside it
    cases.append({"q": big, "k": low, "v": np.eye(3, 4), "visible": np.array([[True, True, False]])})
    return cases


def attend_heads(rng):
    """Several heads, (T, H, D): as many of keys first; then fewer, which neighbours share."""
    cases = []
    for T, S, H, K, D in [(2, 3, 2, 2, 4), (1, 2, 4, 2, 2), (2, 3, 4, 2, 4), (3, 5, 6, 2, 4), (2, 3, 6, 3, 4)]:
        visible = rng.random((T, S)) < 0.6
        visible[np.arange(T), rng.integers(S, size=T)] = True
        cases.append({"q": _reals(rng, T, H, D), "k": _reals(rng, S, K, D), "v": _reals(rng, S, K, D)})
        cases[-1]["visible"] = visible
    return cases


def rotate(rng):
    """From one pair at position 0 to four, at 250."""
    cases = [{"x": np.array([[1.0, 0.0]]), "positions": np.array([p]), "theta": 100.0} for p in (0, 1, 2)]
    for T, D in [(1, 4), (2, 4), (1, 6), (3, 2), (3, 4), (4, 6), (5, 8)]:
        for theta in (100.0, 10000.0):
            for draw in (_ints, _reals):
                positions = rng.integers(0, 30, size=T)
                cases.append({"x": draw(rng, T, D), "positions": positions, "theta": theta})
    cases.append({"x": _reals(rng, 3, 6), "positions": np.array([7, 120, 250]), "theta": 10000.0})
    return cases


def survivors(rng):
    """Every small cache, and a few large ones."""
    small = [
        {"n_slots": n, "n_sinks": s, "window": w} for n in range(1, 10) for s in range(4) for w in range(1, 5)
    ]  # all of them: the first that fails is the smallest
    large = [dict(zip(small[0], map(int, x), strict=True)) for x in rng.integers((10, 0, 1), (60, 9, 20), (12, 3))]
    return sorted(small, key=lambda case: sum(case.values())) + large


def positions_of(rng):
    """List what each of those caches holds."""
    cases = []
    for case in survivors(rng):
        token_index = np.array(reference.survivors(**case))
        cases.append({"token_index": token_index, "n_sinks": case["n_sinks"], "window": case["window"]})
    return sorted(cases, key=lambda case: len(case["token_index"]))


def can_hold(case):
    """Whether a cache of that size can hold these tokens."""
    index = case["token_index"].tolist()
    return index == reference.survivors(index[-1] + 1, case["n_sinks"], case["window"]) if index else False


def step(rng):
    """Texts whose values name their tokens, without and with positions; then any; then a long one."""
    cases = []
    for n_sinks, window in [(0, 1), (1, 1), (0, 2), (1, 2), (2, 1), (0, 3), (2, 3), (1, 4), (3, 2)]:
        T = min(n_sinks + window + 3, 8)  # values that name their token, and nothing else: who is kept?
        zeros = np.zeros((T, 8))
        cases.append(_text(zeros, zeros, np.eye(T, 8), n_sinks, window, 100.0))
    for n_sinks, window in [(0, 2), (1, 2), (0, 3), (1, 3), (2, 2), (2, 3), (3, 3)]:
        T = min(n_sinks + window + 3, 8)  # and with queries and keys: where do they stand?
        cases.append(_text(_ints(rng, T, 8), _ints(rng, T, 8), np.eye(T, 8), n_sinks, window, 100.0))
    for n_sinks, window, D, T in [(0, 4, 4, 9), (1, 3, 4, 12), (2, 4, 6, 14), (4, 5, 4, 16), (3, 1, 2, 9)]:
        theta = float(rng.choice([100.0, 10000.0]))
        cases.append(_text(_reals(rng, T, D), _reals(rng, T, D), _reals(rng, T, D), n_sinks, window, theta))
    cases.append(_text(_reals(rng, 48, 4), _reals(rng, 48, 4), _reals(rng, 48, 4), 1, 3, 100.0))  # does memory grow?
    return cases


def step_heads(rng):
    """Several heads, (T, H, D): as many of keys first; then fewer, which neighbours share."""
    sizes = [(2, 2), (4, 2), (6, 2), (6, 3)]
    return [_text(_reals(rng, 5, H, 4), _reals(rng, 5, K, 4), _reals(rng, 5, K, 4), 1, 2, 100.0) for H, K in sizes]


def _text(q, k, v, n_sinks, window, theta):
    return {"q": q, "k": k, "v": v, "n_sinks": n_sinks, "window": window, "theta": theta}


def token_nll(rng):
    """Draw a few tokens and words, logits that overflow, and tokens whose probability is too small for a number."""
    cases = []
    for T, V in [(2, 2), (3, 2), (2, 3), (3, 3), (4, 3), (5, 4), (7, 5)]:
        for draw in (_ints, _reals):
            cases.append({"logits": draw(rng, T, V), "ids": rng.integers(V, size=T)})
    cases.append({"logits": _reals(rng, 4, 3), "ids": np.array([1, 2, 0, 1])})
    cases.append({"logits": _ints(rng, 4, 3) + 1000.0, "ids": np.array([0, 2, 1, 1])})
    cases.append({"logits": _ints(rng, 3, 4) - 1000.0, "ids": np.array([3, 2, 0])})
    cases.append({"logits": _ints(rng, 4, 3) + [1000.0, 0.0, 0.0], "ids": np.array([0, 1, 2, 1])})
    return cases


def retrieve(rng):
    """Blocks full and not, apart enough for rounding to decide nothing; then many, to tell small turns apart."""
    cases = []
    small = [(2, 1, 1, 2), (3, 1, 1, 2), (4, 2, 1, 2), (3, 2, 1, 2), (4, 2, 2, 4), (6, 2, 1, 4)]
    large = [(6, 3, 2, 4), (7, 2, 2, 2), (9, 4, 2, 4), (12, 3, 2, 6), (12, 4, 1, 4), (10, 3, 3, 4)]
    for sizes in small + large:
        cases += [_search(rng, *sizes, window, float(rng.choice([100.0, 10000.0]))) for window in (1, 3, 8)]
    for sizes in [(14, 1, 4, 6), (17, 2, 3, 4)]:
        cases += [_search(rng, *sizes, window, 100.0) for window in (5, 20, 40, 60)]
    return cases + [_one_good_key(rng, D) for D in (2, 4)] + [_the_newest_key(rng)]


def _one_good_key(rng, D):
    """One block has the best key, another is better on the whole, a third has nothing."""
    case = {"q": _reals(rng, D), "block": 3, "k": 1, "window": 5, "theta": 100.0}
    query = reference.rotate(case["q"], case["window"], case["theta"])
    scores = rng.permutation([[0.0, 1.0, -0.5], [0.8, 0.7, 0.8], [-0.9, -0.9, -0.8]]).reshape(-1, 1)
    return case | {"keys": (scores * query / (query @ query)).round(3)}


def _the_newest_key(rng):
    """Put the best key into the last block, which is not full."""
    case = {"q": np.array([1.0, 2.0, 0.0, -1.0]), "block": 2, "k": 1, "window": 3, "theta": 100.0}
    query = reference.rotate(case["q"], case["window"], case["theta"])
    return case | {"keys": np.concatenate((_reals(rng, 4, 4) / 10, query[None])).round(3)}


def _search(rng, N, block, k, D, window, theta):
    while True:
        case = {"q": _reals(rng, D), "keys": _reals(rng, N, D), "block": block, "k": k}
        case |= {"window": window, "theta": theta}
        if clear(case):
            return case


def clear(case):
    """Whether the k-th block and the next are far enough apart for rounding to decide nothing."""
    arguments = {name: case[name] for name in ("q", "keys", "block", "window", "theta")}
    best = sorted(reference.block_scores(**arguments), reverse=True)
    return len(best) <= case["k"] or best[case["k"] - 1] - best[case["k"]] > 0.05
