"""Figures 1 and 3 of StreamingLLM at small scale: one text, four methods, before and after the first eviction."""

import time

import numpy as np

from ..evaluation.difference import paired
from ..loss import nll_blocks, perplexity, token_nll
from ..methods import Dense, Recompute, Streaming, Window, cache_bytes_per_token, lead_of
from ..retrieval import Retrieval
from ..sinks import weight_on_first
from .effects import must_hold
from .inside import look_inside


def four(model, ids, cache, n_sinks):
    """Return the methods of Figure 1, with equally many keys except dense; rebuilt windows begin like the text."""
    must_hold(cache, n_sinks)
    recompute = Recompute(cache, lead_of(model, ids, cache))
    return [Dense(), Window(cache), recompute, Streaming(n_sinks, cache - n_sinks)]


def brought_back(cache, n_sinks):
    """Return a `Retrieval` that fetches about as many tokens as its window holds, in blocks of at most 16.

    >>> brought_back(256, 4)
    Retrieval(n_sinks=4, window=252, positions='slot', n_blocks=15, block=16, select='best', store=None)
    """
    window = cache - n_sinks
    block = max(1, min(16, window // 2))
    return Retrieval(n_sinks, window, n_blocks=window // block, block=block)


def run(model, ids, methods, *, cache, readable=False, on_progress=lambda method, n_tokens: None):
    """Stream a text through each method; after `cache` tokens, all but dense attention evict the first one.

    One row per method, with perplexity ``"before"`` and ``"after"`` the first eviction (NaN if not measured).
    `on_progress` is called with a method and the number of tokens just processed.
    """
    ids = model.check_ids(ids)
    for method in methods:
        blocks, note, start = [], "", time.perf_counter()
        try:
            for nll in nll_blocks(model, ids, method, readable=readable):
                blocks.append(nll)
                on_progress(method, len(nll))
        except ValueError as error:  # a GPT-2 cannot go beyond its learned positions
            if not isinstance(method, Dense):
                raise
            note = str(error)
        seconds = time.perf_counter() - start
        nll = np.concatenate([np.empty(0, model.dtype), *blocks])
        keys = len(nll) if isinstance(method, Dense | Retrieval) else min(len(nll), cache)  # that are held
        size = 0 if isinstance(method, Recompute) else keys * cache_bytes_per_token(model)
        row = {"method": method.name, "nll": nll, "before": perplexity(nll[:cache]), "after": perplexity(nll[cache:])}
        yield row | {"keys": keys, "cache_bytes": size, "tokens_per_second": len(nll) / seconds, "note": note}


def induction(model, *, length=32, n_texts=2, seed=0):
    """Return how much less random tokens cost when read a second time, in nats per token.

    The gain comes from induction heads (Olsson et al., arXiv:2209.11895); without them nothing can be retrieved.
    """
    length, gains = min(length, model.config.max_positions // 2 - 1), []
    lead = [] if model.config.bos is None else [model.config.bos]
    for ids in np.random.default_rng(seed).integers(0, model.config.vocab_size, (n_texts, length)):
        nll = token_nll(model, np.concatenate((lead, ids, ids)).astype(np.int64), Dense())[1 - 2 * length :]
        gains.append(float(nll[: length - 1].mean() - nll[length:].mean()))
    return float(np.mean(gains))


def finding(rows, cache):
    """State in one sentence what the sinks gain, if anything was measured, from rows of `run`."""
    late = {row["method"]: row["nll"][cache:] for row in rows}
    a, b, c = (perplexity(late[name]) for name in ("window", "streaming", "recompute"))
    window, streaming = late["window"], late["streaming"]
    if not len(window):
        return f"Nothing was evicted: the text does not fill a cache of {cache} tokens, so there is nothing to compare."
    tokens = f"Over the {len(window):,} token{'s' * (len(window) > 1)} after the first eviction,"
    both, recompute = f"window attention {a:.2f}, with sinks {b:.2f}", f"; re-computation has {c:.2f}"
    if len(window) == 1 or not np.isfinite([a, b]).all():
        return f"{tokens} there is nothing to compare: {both}{recompute}."
    gap = paired(window, streaming)
    gaps = f" ({gap} nats per token){recompute} ({paired(late['recompute'], streaming)})"
    if not (gap.above(0) or gap.below(0)):
        return f"{tokens} no gap was measured: {both}{gaps}."
    by_how_much = f"{abs(a / b - 1):.1%} {'above' if a > b else 'below'} the {b:.2f} with sinks"
    return f"{tokens} window attention's perplexity is {a:.2f}, {by_how_much}{gaps}."


def lean(model, ids):
    """Return the mean weight on the first token, over all heads, from the later ones of the first 64 tokens."""
    trace = look_inside(model, ids[:64])
    return float(np.mean([weight_on_first(layer["pattern"]) for layer in trace["layers"]]))


def foreign(model, perplexity):
    """Return a sentence if the model does not know texts of this kind, else an empty string."""
    if not perplexity > model.config.vocab_size / 4:  # little better than guessing among all tokens
        return ""
    has = f"perplexity {perplexity:,.0f}, with a vocabulary of {model.config.vocab_size:,}"
    return f"{model.name} does not know texts of this kind: {has}. What the methods lose on it says little."
