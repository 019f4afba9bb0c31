"""A verdict on a whole engine: at which token its losses first go wrong, and which known mistake explains it.

    python benchmarks/engines/verdict.py losses.json 4+60     # an engine's losses, and its sinks and window
    python benchmarks/engines/verdict.py --table              # where each known mistake shows first

The mistakes are those of minisink's gallery. Each is made in every layer of the model, which reads the same text.
"""

import argparse
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

import minisink
from minisink import Dense, Streaming, Window, conformance
from minisink.evaluation.policies import HalfAtOnce
from minisink.loss import nll_blocks
from minisink.wrong_turns import CHUNKS, WRONG_TURNS

MODELS = "novels", "novels-vanilla", "novels-gpt2"  # those with the softmax that the gallery has
BEYOND = 8  # a mistake is named only if it agrees on this many tokens after the first wrong one
BLOCK = 32  # tokens at once for a wrong turn that treats chunks like single tokens
TABLE = "1+15", "4+12", "4+60"  # the table says what these settings have in common
CHUNK = 7  # tokens at once in the table, for mistakes that show only then
PLACES = {  # which token can be the first wrong one, in a cache's terms; nothing predicts token 0
    "1": lambda s, window, chunk: 1,
    "2": lambda s, window, chunk: 2,
    "3": lambda s, window, chunk: 3,
    "n_sinks + 1": lambda s, window, chunk: s + 1,
    "window + 1": lambda s, window, chunk: window + 1,
    "capacity": lambda s, window, chunk: s + window,
    "capacity + 1": lambda s, window, chunk: s + window + 1,
    "1 + start of the first chunk that does not fit": lambda s, window, chunk: (s + window) // chunk * chunk + 1,
}


class InEveryLayer:
    """A path through a model in which each layer has a cache from the gallery."""

    def __init__(self, turn, config, n_sinks, window):
        sizes = {"n_sinks": n_sinks, "window": window, "theta": getattr(config, "rope_theta", None)}
        self.layers, self.capacity, self.n_seen = turn.layers(config.n_layers, [], **sizes), n_sinks + window, 0

    def positions(self, n_tokens):  # -> (T,)
        """Return the slots, as positions for a model that learned its positions."""
        return np.minimum(np.arange(self.n_seen, self.n_seen + n_tokens), self.capacity - 1)

    def mix(self, layer, q, k, v, rotate, *, normalise, trace=None):  # (T, H, D), 2 x (T, K, D) -> (T, H, D)
        """Pass the tokens to this layer's cache."""
        self.n_seen += len(q) if layer == 0 else 0
        return self.layers[layer].steps(q, k, v)


def golden_of(setting, name="novels"):
    """Return recorded losses by their setting: "dense"; "4+60", sinks and window; "4+28.half", "4+60.original"."""
    settings = {"dense": Dense()}
    for golden in conformance.losses(name):
        method = golden.method
        if type(method) in (Window, Streaming, HalfAtOnce):
            rule = "half" if isinstance(method, HalfAtOnce) else method.positions
            settings[f"{method.n_sinks}+{method.window}.{rule}".removesuffix(".slot")] = method
    if setting not in settings:
        raise ValueError(f"{name} has no recorded losses of {setting!r}; it has {', '.join(settings)}")
    return next(golden for golden in conformance.losses(name) if golden.method == settings[setting])


def sizes_of(golden):
    """Return n_sinks and window; if nothing is evicted, the window is as long as the text."""
    return golden.method.n_sinks, golden.method.window or len(golden.ids)


def first_wrong(turn, golden, model, chunk, tolerance=None):
    """Return the first token at which a wrong turn's losses differ from those of `golden`, or None."""
    cache, losses, done = InEveryLayer(turn, model.config, *sizes_of(golden)), golden.losses.copy(), 0
    chunk = chunk if turn in CHUNKS else BLOCK
    for block in nll_blocks(model, golden.ids, cache=cache, chunk=chunk):
        losses[done : done + len(block)] = block
        done += len(block)
        if (token := conformance.check_losses(losses, golden, tolerance=tolerance)) is not None:
            return token
    return None


def verdict(losses, golden, chunk=1, tolerance=None):
    """Return in a few lines whether an engine is right, and if not, where it goes wrong and what that looks like.

    `golden` must come from a model with the plain softmax; `chunk` is how many tokens the engine read at once.
    """
    first, n = conformance.check_losses(losses, golden, tolerance=tolerance), len(golden.ids)
    losses = np.asarray(losses, float)
    off = np.abs(losses - golden.losses) / golden.losses.max()
    if first is None:
        return f"{golden}: right, {n} tokens, off by at most {off.max():.0e} of the largest loss"
    known = place([first], [sizes_of(golden)], chunk)
    known = "" if known in ("elsewhere", str(first)) else f" ({known})"
    lines = [f"{golden}: first wrong token {first}{known} of {n}, off by {off[first - 1]:.0e} of the largest loss"]
    model, theirs = minisink.load(golden.name, dtype="float64"), replace(golden, losses=losses)
    for method in neighbours(golden):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a cache longer than the trained length
            try:
                nll = minisink.token_nll(model, golden.ids, method)
            except ValueError:  # a GPT-2 has no position so far
                continue
        if conformance.check_losses(nll, theirs, tolerance=tolerance) is None:
            lines.append(f"  these are the losses of {method!r}")
    agrees = {turn: first_wrong(turn, theirs, model, chunk, tolerance) or n for turn in WRONG_TURNS}
    longest = max(agrees.values())
    for turn in {turn.name: turn for turn, token in agrees.items() if token == longest > first + BEYOND}.values():
        until = "" if longest == n else f" up to token {longest - 1}"
        lines.append(f"  it looks like {turn.name!r}{until}: {turn.diagnosis()}")
    return "\n".join(lines if lines[1:] else [*lines, "  it looks like no mistake of the gallery"])


def neighbours(golden):
    """Return what an engine may have mistaken the two numbers for, and other policies that engines use."""
    s, w = sizes_of(golden)
    if golden.method.window is None:
        return []
    sizes = [(s + more, w + longer) for more in (0, -1, 1) for longer in (0, -1, 1, -s, s)]
    sizes = [each for each in sizes if each != (s, w) and each[0] >= 0 and each[1] > 0]
    methods = [Streaming(*each) if each[0] else Window(each[1]) for each in sizes]
    methods = [Dense(), *dict.fromkeys(methods), Streaming(s, w), HalfAtOnce(s, w), Streaming(s, w, "original")]
    return [method for method in methods if method != golden.method]


def place(tokens, settings, chunk):
    """Say in the settings' own terms which tokens these are, one for each setting."""
    for name, token_of in PLACES.items():
        if all(token == token_of(*setting, chunk) for token, setting in zip(tokens, settings, strict=True)):
            return name
    return "nowhere: these losses cannot tell" if set(tokens) == {None} else "elsewhere"


def table():
    """Return the gallery's mistakes by the first token that each makes wrong, as rows of a Markdown table."""
    goldens, rows = [golden_of(setting) for setting in TABLE], {name: [] for name in PLACES}
    model, settings = minisink.load("novels", dtype="float64"), [sizes_of(golden) for golden in goldens]
    for turn in WRONG_TURNS:
        tokens = [first_wrong(turn, golden, model, CHUNK) for golden in goldens]
        names = rows.setdefault(place(tokens, settings, CHUNK), [])
        names += [turn.name] if turn.name not in names else []
    lines = [f"| {name} | {', '.join(names)} |" for name, names in rows.items() if names]
    return "\n".join(("| first wrong token | known mistakes |", "|---|---|", *lines))


def main():
    """Print the verdict on a file of losses, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", nargs="?", help="a file with a JSON list: the nats of every token but the first")
    parser.add_argument("setting", nargs="?", help="sinks and window, such as 4+60")
    parser.add_argument("--model", default=MODELS[0], choices=MODELS, help="the model that read the text (%(default)s)")
    parser.add_argument("--chunk", type=int, default=1, help="how many tokens were read at once (%(default)s)")
    parser.add_argument("--tolerance", type=float, help="share of the largest loss; 0.03 for keys in float16")
    parser.add_argument("--table", action="store_true", help="print where each known mistake shows first")
    asked = parser.parse_args()
    if asked.table:
        print(table())
        return
    if not asked.setting:
        parser.error("give a file of losses and a setting, or --table")
    try:
        golden, losses = golden_of(asked.setting, asked.model), json.loads(Path(asked.losses).read_text("utf-8"))
        said = verdict(losses, golden, asked.chunk, asked.tolerance)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(said)
    sys.exit(": right" not in said)


if __name__ == "__main__":
    main()
