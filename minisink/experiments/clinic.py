"""A model's sinks on one page: where they are and why, what losing them costs, how many are enough, what heads do.

Every statement holds by three standard errors. A head has a *sink* on a token that gets more than 0.3 of its weight
(Gu et al., arXiv:2410.10781). It *retrieves* if, for more than 0.1 of the tokens in a repeated text, it looks most at
the token to be copied (Wu et al., arXiv:2404.15574; here the text is random). It *streams* (DuoAttention's word,
arXiv:2410.10819) if more than 0.95 (our number) of its weight is on the first four tokens and the text's last quarter.
"""

from dataclasses import asdict
from functools import partial
from itertools import product

import numpy as np

from ..attention import banded_mask
from ..evaluation.difference import SURE, paired
from ..evaluation.jobs import in_order
from ..loss import perplexity
from ..methods import lead_of
from ..sinks import sink_kind
from ..system.device import to_host
from ..system.plots import heat
from . import metric, sink_count, sink_parts, sink_tokens
from .effects import by, must_evict, must_hold, must_learn
from .inside import look_inside, pieces
from .new_sink import EPS, conditions

CACHES, SINKS = (64, 256), (0, 1, 2, 4, 8)
RETRIEVES, STREAMS = 0.1, 0.95
NEGLIGIBLE = 0.05  # nats per token, as in `sink_count`
PIECE, LONG, SEGMENT = 64, 256, 32  # tokens in a piece (Gu et al.), in a long piece, and in a text read twice
CAUSES = ("first", "second, first left out", "middle, the first's word")  # of `new_sink`


def run(model, ids, *, caches=None, n_texts=30, seed=0, track=iter):
    """Examine a model on a text (T,): return the page as a dict of arrays (L, H) and JSON-able values.

    `caches` are how many keys a query sees (by default 64 and 256, or the trained length if that is less); each needs
    room for 8 sinks. `track` is called four times.
    """
    trained, config = model.config.max_positions, model.config
    caches = sorted({*(caches or [min(cache, trained) for cache in CACHES])})
    must_hold(caches[0], SINKS[-1])
    must_learn(model, caches)
    must_evict(len(ids), caches[-1])
    if len(ids) < 2 * PIECE:
        raise ValueError(f"the text has {len(ids)} tokens; it takes {2 * PIECE} to tell anything from chance")
    rates: dict = {name: [] for name in (*CAUSES, "middle")}
    signs: list = []
    texts = pieces(model, ids, min(PIECE, trained), n_texts)
    by_token = sink_tokens.received(read(model, texts, rates, signs, track), at_least=10)
    long = pieces(model, ids, min(LONG, trained, len(ids) // 2), max(2, n_texts // 5))
    inside = np.array([in_sight(look_inside(model, piece)) for piece in track(long)])  # (N, L, H)
    twice = segments(model, lead_of(model, ids, 2), max(2, n_texts // 3), seed)
    again = np.array([retrieval(look_inside(model, text)) for text in track(twice)])  # (N, L, H)
    wanted = [*product(caches, SINKS)]
    rows = [*sink_count.cells(model, [ids], wanted, partial(in_order, track=track))]
    nlls = {cache: {row["n_sinks"]: row["nll"] for row in own} for cache, own in by(rows, "cache").items()}
    kind = cause(rates, begins=ids[0] == config.bos)
    n_sinks, reason = recommend(nlls, kind, learned=config.learned_positions)
    losses = []
    for cache, nll in nlls.items():
        lost = [asdict(paired(own, nll[n_sinks or SINKS[-1]])) for own in nll.values()]
        row = {"cache": cache, "n_sinks": [*nll], "perplexity": [*map(perplexity, nll.values())], "lost": lost}
        losses.append(row | {"enough": fewest([nll])[0] if n_sinks is not None else None})
    weight, value, massive = (np.array([one[key][0] for one in signs]) for key in ("alpha", "value", "massive"))
    page = {"model": model.name, "tokens": len(ids), "n_sinks": n_sinks, "reason": reason, "losses": losses}
    page |= {"cause": kind, "rates": {name: asdict(paired(x, np.zeros(len(x)))) for name, x in rates.items()}}
    page |= {"words": others(model, by_token), "weight": weight.mean(axis=0)}  # (L, H)
    page |= {"retrieve": above(again, RETRIEVES), "stream": above(inside, STREAMS)}
    page |= {"massive": massive.mean(axis=0), "spike": signs[0]["spike"]}
    return page | {"values": [asdict(paired(x, 0 * x)) | {"kind": sink_kind(x.mean())} for x in value.T]}


def read(model, texts, rates, signs, track):
    """Yield each piece with its trace; meanwhile gather its `metric.signs`, and sink rates by condition."""
    for piece in track(texts):
        middle, altered = len(piece) // 2, conditions(np.array(piece), len(piece) // 2)
        for name in CAUSES:
            text, path, token = altered[name]
            trace = look_inside(model, text, path)
            seen = metric.signs(trace, (token, middle))
            rates[name].append((seen["alpha"][0] > EPS).mean())
            if name == "first":
                rates["middle"].append((seen["alpha"][1] > EPS).mean())
                signs.append(seen | {"spike": sink_parts.spike(trace) if model.config.n_layers > 1 else (0, [])})
                yield piece, trace


def in_sight(trace):  # -> L of (H,)
    """Return how much of its weight each head gives the first four tokens and the last quarter of the text."""
    T = len(trace["x"])
    kept = banded_mask(T, T, T // 4) | (np.arange(T) < 4)
    return [(to_host(layer["pattern"]) * kept)[:, T // 4 :].sum(axis=-1).mean(axis=-1) for layer in trace["layers"]]


def segments(model, lead, n, seed):
    """Draw `n` texts of different random tokens, each of which is repeated once after the `lead`."""
    tokens, random = np.setdiff1d(np.arange(model.config.vocab_size), lead), np.random.default_rng(seed)
    length = min(SEGMENT, len(tokens), (model.config.max_positions - len(lead)) // 2)
    return [np.concatenate((lead, *2 * [random.permutation(tokens)[:length]])).astype(int) for _ in range(n)]


def retrieval(trace):  # -> L of (H,)
    """Return the share of repeated tokens, except the last, at which a head looks most at the one that came next."""
    T, n = len(trace["x"]), len(trace["x"]) // 2  # the lead is one token, or none
    query = np.arange(T - n, T - 1)
    most = [to_host(layer["pattern"])[:, query].argmax(axis=-1) for layer in trace["layers"]]
    return [(keys == query - n + 1).mean(axis=-1) for keys in most]


def above(values, bound):  # (N, L, H)
    means, margin = values.mean(axis=0), SURE * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    heads, not_told = np.argwhere(means - margin > bound), abs(means - bound) <= margin
    return {"heads": heads, "not_told": int(not_told.sum()), "means": means}


def others(model, by_token):
    sinks = {x: np.argwhere(seen["weight"] > EPS) for x, seen in by_token.items() if x != sink_tokens.FIRST}
    found = [{"word": model.decode([token]), "heads": heads} for token, heads in sinks.items() if len(heads)]
    return sorted(found, key=lambda row: -len(row["heads"]))


def cause(rates, *, begins):
    """Say what makes the first token a sink: "position", "word" or "begin-of-text", "both"; "none" if it is not one."""
    first, left_out, _, middle = rates.values()
    if not paired(first, middle).above(0):
        return "none"
    if not paired(left_out, first).below(0):
        return "position"  # the second token takes its place
    return "both" if paired(left_out, middle).above(0) else "begin-of-text" if begins else "word"


def fewest(nlls):
    """Return how many sinks are enough in all caches (more gain nothing), None if unclear; and the gain."""
    for n in SINKS[:-1]:
        more = max((paired(x[n], x[m]) for x in nlls for m in x if m > n), key=lambda x: x.mean + SURE * x.error)
        if more.below(NEGLIGIBLE):
            return n, more
    return None, more


def recommend(nlls, kind, *, learned=False):
    """Return how many sinks to keep, None if no number helps, and why."""
    n, more = fewest(nlls.values())
    gain = f"more gain {more} at most"
    if learned:
        return None, "no number makes it stream, because learned positions are in the keys it caches; re-compute"
    if n is None and more.above(0):
        return SINKS[-1], f"eight gain {more} nats per token over four, and more were not tried"
    if n is None:
        return 4, f"the paper's four, because this length does not show how many are enough (eight gain {more} more)"
    if n == 0:
        return 0, f"a plain window is enough; {gain} (nats per token)"
    lost, cache = max(((paired(x[0], x[n]), cache) for cache, x in nlls.items()), key=lambda pair: pair[0].mean)
    first = "; it is the begin-of-text token, so begin each text with that" if kind == "begin-of-text" else ""
    return n, f"without any a cache of {cache} loses {lost} nats per token; {gain}{first}"


def draw(figure, page):
    """Draw each head's weight on the first token (dot: it retrieves); and what n sinks lose, ± 3 standard errors."""
    weights, losses = figure.subplots(1, 2)
    title = "weight on the first (dot: retrieves)"
    figure.colorbar(heat(weights, page["weight"].T, title=title, xlabel="layer", ylabel="head"), ax=weights)
    weights.plot(*page["retrieve"]["heads"].T, "o", ms=10, mfc="white", mec="black")
    for row in page["losses"]:
        lost, error = ([each[key] for each in row["lost"]] for key in ("mean", "error"))
        losses.errorbar(range(len(lost)), lost, SURE * np.array(error), marker="o", ms=9, capsize=6, label=row["cache"])
    losses.set(title="lost (nats per token)", xlabel="sinks kept", xticks=range(len(SINKS)), xticklabels=SINKS)
    losses.legend(title="cache")
