"""Eviction is not forgetting: one token changed, and how far that is felt.

A token that has left the cache lives on in the values of tokens that saw it, and of those that saw them: one window
further in each layer, up to layers x (window - 1) tokens on, and not one further. How strongly is another question.
Weight parked on a sink is not spent on mixing tokens; so without a sink in view a change should spread more
(over-mixing: Barbero et al., arXiv:2504.02732, who perturb a token in whole models with and without the first).

In float32 distant effects are accumulated rounding: a change of a millionth of a stream or less means nothing.
"""

import numpy as np

from ..fast.blocks import Banded
from ..loss import nll_of
from ..methods import Streaming
from ..system.terminal import count
from .effects import effect, exactly
from .inside import after_layers

PAPER = "Barbero et al., arXiv:2504.02732"
CLAIM = "a change is felt beyond the window, never beyond layers x (window - 1), and more without a sink in view"
OPTIONS = {
    "window": "last tokens seen",
    "n_sinks": "first tokens kept, compared with none",
    "changed": "token_index of the first token that is changed",
    "n_changes": "tokens that are changed, one at a time, a window apart",
}
FAST = {"window": 8, "n_changes": 5}
LOSS = "loss, nats"


def run(model, ids, *, window=31, n_sinks=1, changed=40, n_changes=8, seed=0, track=iter):
    """Change a token to a random other, and measure its effect on later tokens.

    The text is read as far as the last change can be felt, and a window further; the window is the same with sinks and
    without. From ``changed = window`` on, no token that feels the change sees the first one, where none is kept.

    A row for each number of ``"sinks"`` and for ``"what"`` changes: the residual stream after each layer, as a part of
    its length, and last the loss, in nats. Means over tokens and changes: ``"within"`` the window and ``"beyond"`` it
    up to the ``"bound"``, which is how many tokens on a change can be felt; ``"furthest"``, how many on it is felt at
    all; ``"past"`` the bound the largest. ``"change"``: (n_changes, N), by distance.
    """
    L, bound = model.config.n_layers, model.config.n_layers * (window - 1)
    places = changed + window * np.arange(n_changes)
    n_felt = bound + window  # tokens from the changed one on, some of them out of reach
    check(len(ids), window, n_sinks, changed, n_changes, needed=changed + window * (n_changes - 1) + n_felt + 1)
    ids = np.asarray(ids[: places[-1] + n_felt + 1])  # the last is only predicted
    further = np.random.default_rng(seed).integers(1, model.config.vocab_size, n_changes)
    replacements = (ids[places] + further) % model.config.vocab_size
    methods = {n: Streaming(n, window) for n in (n_sinks, 0)}
    before = {n: watch(model, ids, method) for n, method in methods.items()}
    changes: dict = {n: [] for n in before}
    for n, place, replacement in track([(n, *one) for n in before for one in zip(places, replacements, strict=True)]):
        text = ids.copy()
        text[place] = replacement
        changes[n].append(moved(before[n], watch(model, text, methods[n]))[:, place : place + n_felt])
    for n, change in changes.items():
        for i, by_distance in enumerate(np.stack(change, axis=1)):  # (n_changes, N)
            name, bound = f"layer {i}" if i < L else LOSS, min(i + 1, L) * (window - 1)
            yield {"sinks": n, "what": name} | sizes(by_distance, window, bound) | {"change": by_distance}


def sizes(change, window, bound):  # (n_changes, N)
    """Return the means of some changes by distance, within the window and beyond it, and how far they reach."""
    beyond = change[:, window : bound + 1].mean() if bound >= window else float("nan")
    row = {"within": float(change[:, 1:window].mean()), "beyond": float(beyond)}
    row |= {"furthest": int(np.flatnonzero(change.any(axis=0))[-1]), "bound": bound}
    return row | {"past": float(change[:, bound + 1 :].max()), "window": window}


def check(n_tokens, window, n_sinks, changed, n_changes, *, needed):
    """Refuse sizes that would show nothing."""
    for name, value, least in (("window", window, 2), ("n_sinks", n_sinks, 1), ("n_changes", n_changes, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be {least} or more")
    if changed < n_sinks:
        raise ValueError(f"token {changed} is one of {n_sinks} sinks, which are never evicted; change a later one")
    if n_tokens < needed:
        felt = f"the text has {n_tokens:,} tokens; {n_changes} changes are felt over {needed:,}"
        raise ValueError(f"{felt}: take a smaller window, or fewer of them")


class Watched(Banded):
    """A window that allows a trace: of the streams, not of patterns, which blocks do not have."""

    def mix(self, *args, trace=None, **options):
        """Mix as `Banded.mix` does."""
        return super().mix(*args, **options)


def watch(model, ids, method):
    """Return the stream after each layer (L, T - 1, C), and the loss of the next token (T - 1,)."""
    trace: dict = {}
    logits = model.forward(ids[:-1], Watched(model.config.n_layers, method), trace=trace)
    return np.stack(after_layers(trace)), nll_of(logits, ids[1:])


def moved(before, after):
    """Return how much each token changes: (L + 1, T - 1), streams relative to their length, and the loss."""
    (x, nll), (y, other) = before, after
    relative = np.linalg.norm(y - x, axis=-1) / np.linalg.norm(x, axis=-1)  # (L, T - 1, C) -> (L, T - 1)
    return np.concatenate((relative, abs(other - nll)[None]))


def effects(rows):
    """Judge losses beyond the window, with a sink; anything past the bound; and whether there is more without one."""
    with_sinks, without = ([row for row in rows if bool(row["sinks"]) == has_sinks] for has_sinks in (True, False))
    stream, loss, window = with_sinks[-2], with_sinks[-1], rows[0]["window"]
    if loss["bound"] >= window:
        beyond = loss["change"][:, window : loss["bound"] + 1].mean(axis=1)
        yield effect("loss moved beyond the window, nats per token", beyond, above=0, stretch=1)
    yield exactly("largest change past the bound", max(row["past"] for row in rows), below=1e-12)
    more = (without[-2]["change"] - stream["change"])[:, 1 : stream["bound"] + 1].mean(axis=1)
    yield effect("change of the last stream: no sink - sink", more, above=0, stretch=1)


def finding(rows):
    """Say how far a change is felt, how far it can be, and how much larger it is without a sink."""
    with_sinks, without = ([row for row in rows if bool(row["sinks"]) == has] for has in (True, False))
    far, bound = with_sinks[-2]["furthest"], with_sinks[-2]["bound"]
    ratio = np.divide(*(side[-2]["change"][:, 1 : bound + 1].mean() for side in (without, with_sinks)))
    reach = f"A query sees {rows[0]['window']} tokens; a change is felt {far} tokens later, of {bound} possible"
    return f"{reach}; without a sink it moves the last stream {ratio:.1f} times as much"


def draw(figure, rows):
    """Draw the change by distance: with a sink after some layers, and after the last layer with and without one."""
    with_sinks = [row for row in rows if row["sinks"]]
    layers, window = len(with_sinks) - 1, rows[0]["window"]
    left, right = figure.subplots(1, 2, sharey=True)
    for i in sorted({0, layers // 3, 2 * layers // 3, layers - 1}):
        left.plot(positive(with_sinks[i]["change"]), label=f"layer {i}")
    left.set_title(f"{count(with_sinks[0]['sinks'], 'sink')}, some layers")
    for row in (row for row in rows if row["what"] == f"layer {layers - 1}"):
        right.plot(positive(row["change"]), label=count(row["sinks"], "sink") if row["sinks"] else "no sink")
    right.set_title(f"layer {layers - 1}, with and without")
    for axes in (left, right):
        axes.axvline(window - 0.5, color="black", ls="--", lw=1.5)
        axes.axvline(layers * (window - 1), color="black", ls=":", lw=2.5)
        axes.set_xlabel("tokens after the changed one")
        axes.legend(loc="upper right", bbox_to_anchor=(0.96, 0.92))
        for x, name in ((window - 0.5, "evicted"), (layers * (window - 1), "bound")):
            place = {"va": "top", "ha": "left" if name == "evicted" else "right"}
            axes.text(x, 0.99, f" {name} ", transform=axes.get_xaxis_transform(), **place)
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_ylabel("change / length of the stream")


def positive(change):
    """Return the mean change by distance, without zeros, which a logarithmic axis cannot show."""
    change = change.mean(axis=0)
    return np.where(change > 0, change, np.nan)
