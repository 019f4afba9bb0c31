"""A step of a cache as a JSON object, ``minisink-step/1`` (docs/live.md); steps.mjs makes the same on the page."""

from dataclasses import asdict

import numpy as np

from ..experiments.inside import norms
from ..methods import new_cache
from ..ops import log_softmax

SCHEMA = "minisink-step/1"


def steps(model, ids, method):
    """Yield a step for each token, read one at a time through the readable path."""
    cache, log_p = new_cache(model, method), None
    about = {"schema": SCHEMA, "model": model.name, "method": method.name, **asdict(method)}
    for t, token in enumerate(int(i) for i in ids):
        trace, held = {}, set(cache.token_index.tolist())
        nll = None if log_p is None else -_short(log_p[token])
        log_p = log_softmax(model.forward([token], cache, trace=trace)[0].astype(float))  # (V,)
        kept = cache.token_index.tolist()
        pattern, fetched = zip(*(_of_layer(layer, method, len(kept)) for layer in trace["layers"]), strict=True)
        yield about | {
            "t": t,
            "id": token,
            "text": text_of(model, token),
            "nll": nll,
            "slots": [
                {"token": i, "position": n, "role": "newest" if i == t else "sink" if i < method.n_sinks else "window"}
                for i, n in zip(kept, cache.positions.tolist(), strict=True)
            ],
            "evicted": sorted(held - set(kept)),
            "pattern": pattern,
            "norms": {name: _short(norm[:, 0]) for name, norm in norms(trace).items()},
            "fetched": None if fetched[0] is None else fetched,
            "top": [
                {"id": int(i), "text": text_of(model, i), "p": _short(np.exp(log_p[i]))}
                for i in np.argsort(-log_p, kind="stable")[:5]
            ],
        }


def text_of(model, token):
    """Return the text of a token, or the name of a special one."""
    return model.decode([token]) or model.tokenizer.id_to_token(int(token))


def _of_layer(layer, method, n_slots):
    """Return pattern (H, S) of the slots, and for retrieval what each head fetched, one list per head."""
    pattern = layer["pattern"][:, 0]  # (H, 1, S + F) -> (H, S + F): the sinks, what was fetched, the window
    if "fetched" not in layer:
        return _short(pattern), None
    far = slice(method.n_sinks, method.n_sinks + pattern.shape[1] - n_slots)
    pairs = zip(layer["token_index"][:, 0, far], pattern[:, far], strict=True)
    heads = [[{"token": int(i), "weight": _short(w)} for i, w in zip(*pair, strict=True) if i >= 0] for pair in pairs]
    return _short(np.delete(pattern, far, axis=1)), heads


def _short(x):
    """Return Python numbers rounded to seven decimals."""
    return np.round(np.asarray(x, float), 7).tolist()
