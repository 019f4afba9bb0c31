"""Figure 1 and 3 of StreamingLLM in small: one text, four methods, before and after the first eviction."""

import time

import numpy as np

from ..loss import nll_blocks, perplexity, token_nll
from ..methods import PAPER, WITH_SINKS, cache_bytes_per_token, lead_of
from ..sinks import weight_on_first
from .effects import must_hold
from .inside import look_inside


def run(model, ids, *, n_sinks=4, cache=128, methods=PAPER, readable=False, on_progress=lambda method, n_tokens: None):
    """Stream a text through each method with the same number of keys in sight.

    Parameters
    ----------
    model : Model
    ids : ndarray of shape (T,), ints
        Where it begins with the model's begin-of-text token, so does each window that is re-computed.
    n_sinks : int
        Of "streaming"; its window is the rest of the cache.
    cache : int
        Keys a query sees at most ("dense" sees all, "retrieval" as many once more, see `brought_back`).
    methods : sequence of str
    readable : bool
        See `loss.token_nll`.
    on_progress : callable
        Called with a method and the number of tokens it has just done.

    Returns
    -------
    list of dict
        A row a method: ``"method"``, ``"nll"`` (T-1,), ``"before"`` and ``"after"`` (perplexity before and
        after the first eviction; NaN where nothing was measured), ``"keys"`` (that are held at the end),
        ``"cache_bytes"``, ``"tokens_per_second"``, ``"note"``.

    Raises
    ------
    ValueError
        For bad ids, or a cache with no room for a window.
    """
    ids = model.check_ids(ids)
    must_hold(cache, n_sinks)
    rows = []
    for method in methods:
        window = cache - n_sinks if method in WITH_SINKS else cache
        blocks, note = [], ""
        start = time.perf_counter()
        try:
            options = {"method": method, "n_sinks": n_sinks, "window": window, "lead": lead_of(model, ids, window)}
            options |= brought_back(cache - n_sinks) if method == "retrieval" else {}
            for nll in nll_blocks(model, ids, readable=readable, **options):
                blocks.append(nll)
                on_progress(method, len(nll))
        except ValueError as error:  # a GPT-2 ends where its learned positions end
            if method != "dense":
                raise
            note = str(error)
        seconds = time.perf_counter() - start
        nll = np.concatenate([np.empty(0, model.dtype), *blocks])
        keys = len(nll) if method in ("dense", "retrieval") else min(len(nll), cache)  # that are held
        rows.append(
            {
                "method": method,
                "nll": nll,
                "before": perplexity(nll[:cache]),
                "after": perplexity(nll[cache:]),
                "keys": keys,
                "cache_bytes": 0 if method == "recompute" else keys * cache_bytes_per_token(model),
                "tokens_per_second": len(nll) / seconds,
                "note": note,
            }
        )
    return rows


def brought_back(window):
    """What "retrieval" fetches beside a window: about as many tokens as it has, in blocks of at most 16.

    >>> brought_back(252), brought_back(15)
    ({'n_blocks': 15, 'block': 16}, {'n_blocks': 2, 'block': 7})
    """
    block = max(1, min(16, window // 2))
    return {"n_blocks": window // block, "block": block}


def induction(model, *, length=32, n_texts=2, seed=0):
    """How much less a random text costs when it is read again at once, in nats a token: what can be copied from it.

    Random tokens have no sense, so all there is to gain is looking the first reading up: an induction head (Olsson et
    al., arXiv:2209.11895). Without one there is nothing for "retrieval" to retrieve with.
    """
    length, gains = min(length, model.config.max_positions // 2 - 1), []
    random = np.random.default_rng(seed)
    for _ in range(n_texts):
        ids = random.integers(0, model.config.vocab_size, length)
        lead = [] if model.config.bos is None else [model.config.bos]
        nll = token_nll(model, np.concatenate((lead, ids, ids)).astype(np.int64), method="dense")
        nll = nll[-2 * length + 1 :]
        gains.append(float(np.mean(nll[: length - 1]) - np.mean(nll[length:])))
    return float(np.mean(gains))


def finding(rows, cache):
    """One sentence that says what was measured, also when it is nothing.

    The difference between two methods is taken token by token after the first eviction, and called a gap
    when its mean is more than two standard errors from zero.

    Parameters
    ----------
    rows : list of dict
        From `run`, with "window", "streaming" and "recompute".
    cache : int

    Returns
    -------
    str
    """
    by_method = {row["method"]: row for row in rows}
    window, streaming = (by_method[m]["nll"][cache:] for m in ("window", "streaming"))
    if not len(window):
        return f"Nothing was evicted: the text does not fill a cache of {cache} tokens, so there is nothing to compare."
    tokens = f"Over the {len(window):,} token{'s' * (len(window) > 1)} after the first eviction,"
    a, b = by_method["window"]["after"], by_method["streaming"]["after"]
    beside = f"; re-computation, which rebuilds every window, has {by_method['recompute']['after']:.2f}"
    if len(window) == 1 or not np.isfinite([a, b]).all():
        return f"{tokens} there is nothing to compare: window attention {a:.2f}, with sinks {b:.2f}{beside}."
    if not _differ(window, streaming):
        return f"{tokens} no gap was measured: window attention {a:.2f}, with sinks {b:.2f}{beside}."
    gap = f"{abs(a / b - 1):.1%} {'above' if a > b else 'below'} the {b:.2f} with sinks"
    return f"{tokens} window attention's perplexity is {a:.2f}, {gap}{beside}."


def _differ(a, b):
    """Whether two losses of the same tokens differ by more than two standard errors."""
    difference = (a - b).astype(np.float64)
    return bool(abs(difference.mean()) > 2 * difference.std(ddof=1) / np.sqrt(len(difference)))


def lean(model, ids):
    """How much the heads lean on the first token: mean weight, over all heads, from later tokens of the first 64."""
    trace = look_inside(model, ids[:64])
    return float(np.mean([weight_on_first(layer["pattern"]) for layer in trace["layers"]]))


def foreign(model, perplexity):
    """A sentence about a text that the model does not know, or an empty one.

    A perplexity of a quarter of the vocabulary is little better than guessing among all tokens.
    """
    if not perplexity > model.config.vocab_size / 4:
        return ""
    return (
        f"{model.name} does not know texts of this kind: perplexity {perplexity:,.0f}, with a vocabulary of "
        f"{model.config.vocab_size:,}. What the methods lose on it says little."
    )
