"""Eviction is not forgetting: how far a change to one token is felt.

A token that has left the cache lives on in the values of tokens that saw it, and of those that saw them: one window
further in each layer, up to layers x (window - 1) tokens later, but no further. How strongly is another question.
Weight parked on a sink is not spent on mixing tokens, so without a sink in view a change should spread more
(over-mixing: Barbero et al., arXiv:2504.02732). In float32, less than a millionth of a stream is rounding.
"""

from itertools import product

import numpy as np

from ..cache import check_whole
from ..fast.blocks import Banded
from ..loss import nll_of
from ..methods import Streaming
from ..system.plots import panels
from ..system.terminal import count
from .effects import by, effect, exactly
from .inside import after_layers, look_inside

PAPER = "Barbero et al., arXiv:2504.02732"
CLAIM = "a change is felt beyond the window, never beyond layers x (window - 1), and more without a sink in view"
OPTIONS = {"window": "last tokens seen", "n_sinks": "first tokens kept, compared with none"}
OPTIONS |= {"changed": "token_index of the first token that is changed"}
OPTIONS |= {"n_changes": "tokens that are changed, one at a time, a window apart"}
FAST = {"window": 8, "n_changes": 5}


def run(model, ids, *, window=31, n_sinks=1, changed=40, n_changes=8, seed=0, track=iter):
    """Change a token to a different random one, and measure the effect on later tokens.

    The window is the same with sinks and without. If ``changed >= window`` and no sinks are kept, no token that feels
    the change sees the first token.

    Yield a row for each number of ``"sinks"`` and for ``"what"`` changes: the residual stream after each layer,
    relative to its length, and last the loss, in nats. Each has means over tokens and changes, ``"within"`` the window
    and ``"beyond"`` it, up to the ``"bound"`` on how many tokens later a change can be felt; the largest change
    ``"past"`` that bound; and each ``"change"`` by distance, (n_changes, N).
    """
    for name, value, least in (("window", window, 2), ("n_sinks", n_sinks, 1), ("n_changes", n_changes, 1)):
        check_whole(name, value, least)
    check_whole("changed", changed, n_sinks, ": sinks are never evicted")
    L, places = model.config.n_layers, changed + window * np.arange(n_changes)
    n_felt = L * (window - 1) + window  # the changed token and later ones, some of them out of reach
    n_tokens = places[-1] + n_felt + 1  # the last is only predicted
    if len(ids) < n_tokens:
        raise ValueError(f"the text has {len(ids):,} tokens; {n_changes} changes are felt over {n_tokens:,}")
    ids = np.asarray(ids[:n_tokens])
    further = np.random.default_rng(seed).integers(1, model.config.vocab_size, n_changes)
    methods = {n: Streaming(n, window) for n in (n_sinks, 0)}
    before, changes = {n: watch(model, ids, method) for n, method in methods.items()}, {n_sinks: [], 0: []}
    for n, (place, step) in track([*product(methods, zip(places, further, strict=True))]):
        text = ids.copy()
        text[place] = (text[place] + step) % model.config.vocab_size
        moved = moves(before[n], watch(model, text, methods[n]))
        changes[n].append(moved[:, place : place + n_felt])
    for n, i in product(methods, range(L + 1)):
        change, bound = np.stack(changes[n], axis=1)[i], min(i + 1, L) * (window - 1)  # (n_changes, N)
        row = {"sinks": n, "what": f"layer {i}" if i < L else "loss, nats", "within": float(change[:, 1:window].mean())}
        row["beyond"] = float(change[:, window : bound + 1].mean()) if bound >= window else float("nan")
        row |= {"furthest": int(np.flatnonzero(change.any(axis=0))[-1]), "bound": bound}
        yield row | {"past": float(change[:, bound + 1 :].max()), "window": window, "change": change}


class Watched(Banded):
    """A window that allows a trace of the streams (not of patterns, which blocks do not have)."""

    def mix(self, *args, trace=None, **options):
        return super().mix(*args, **options)


def watch(model, ids, method):  # -> (L, T - 1, C), (T - 1,)
    """Return the stream after each layer, and the loss of the next token."""
    trace = look_inside(model, ids[:-1], Watched(model.config.n_layers, method))
    return np.stack(after_layers(trace)), nll_of(trace["logits"], ids[1:])


def moves(before, after):  # -> (L + 1, T - 1)
    """Return how far each stream moved, relative to its length, and how far the loss did."""
    (x, nll), (y, other) = before, after
    relative = np.linalg.norm(y - x, axis=-1) / np.linalg.norm(x, axis=-1)  # (L, T - 1, C) -> (L, T - 1)
    return np.concatenate((relative, abs(other - nll)[None]))


def effects(rows):
    (*_, stream, loss), (*_, without, _) = by(rows, "sinks").values()
    if loss["bound"] >= (window := loss["window"]):
        beyond = loss["change"][:, window : loss["bound"] + 1].mean(axis=1)
        yield effect("loss moved beyond the window, nats per token", beyond, above=0, stretch=1)
    yield exactly("largest change past the bound", max(row["past"] for row in rows), below=1e-12)
    more = (without["change"] - stream["change"])[:, 1 : stream["bound"] + 1].mean(axis=1)
    yield effect("change of the last stream: no sink - sink", more, above=0, stretch=1)


def finding(rows):
    (*_, stream, _), (*_, without, _) = by(rows, "sinks").values()
    bound, far = stream["bound"], stream["furthest"]
    ratio = np.divide(*(row["change"][:, 1 : bound + 1].mean() for row in (without, stream)))
    reach = f"A query sees {stream['window']} tokens; a change is felt {far} tokens later, of {bound} possible"
    return f"{reach}; without a sink it moves the last stream {ratio:.1f} times as much"


def draw(figure, rows):
    """Draw the change by distance: after some layers, with a sink; and after the last layer, with and without one."""
    with_sinks, without = by(rows, "sinks").values()
    layers, window, kept = len(with_sinks) - 1, rows[0]["window"], count(rows[0]["sinks"], "sink")
    some = {f"layer {i}": with_sinks[i] for i in sorted({0, layers // 3, 2 * layers // 3, layers - 1})}
    last = {kept: with_sinks[-2], "no sink": without[-2]}
    marks = ((window - 0.5, "--", "evicted", "left"), (layers * (window - 1), ":", "bound", "right"))
    for axes, series in panels(figure, {f"{kept}, some layers": some, f"layer {layers - 1}, with and without": last}):
        for label, row in series.items():
            change = row["change"].mean(axis=0)
            axes.plot(np.where(change > 0, change, np.nan), label=label)  # a logarithmic axis has no zero
        for x, stroke, name, side in marks:
            axes.axvline(x, color="black", ls=stroke, lw=2)
            axes.text(x, 0.99, f" {name} ", transform=axes.get_xaxis_transform(), va="top", ha=side)
        axes.set(xlabel="tokens after the changed one", yscale="log")
        axes.legend(loc="upper right", bbox_to_anchor=(0.96, 0.92))
    figure.axes[0].set_ylabel("change / length of the stream")
