"""The atlas of position rules: which distances each rule keeps, checked exhaustively, and what it costs to lose them.

`position_rules` has the rules and the proof. Each is measured as a policy, on the same tokens: within the trained
length and beyond it; and separately where the live window spans a wrap, so that some key in it is not as far from the
query as in the text. A GPT-2 has one position per token, the one at which it was embedded as the newest.
"""

from itertools import product

import numpy as np

from ..cache import KVCache
from ..evaluation.difference import Difference, paired
from ..loss import perplexity, token_nll
from ..system.plots import bars, name_lines
from ..system.terminal import number, table
from .effects import by, effect, exactly, must_evict, must_hold, must_learn
from .position_rules import prove, rules, seen

PAPER = "Section 3.2"
CLAIM = "positions in the cache rather than the text are crucial, so equal distances cost nothing, "
CLAIM += "and different ones something"
OPTIONS = {"n_sinks": "first tokens kept", "windows": "newest tokens kept"}
FAST = {"tokens": 400, "windows": (15,)}
TOKENS = 1200
SAME = ("ring", "shift")  # as under slots
LOST = {"original": "beyond", "modulo 2W": "wrong", "one place": "wrong", "modulo trained": "wrong"}
KEPT = ("tokens", "window", "sinks", "chunks")  # what `prove` says of the distances
PLACES = {"all": "nats per token", "beyond": "beyond the trained length", "wrong": "where the window is wrong"}


def run(model, ids, *, n_sinks=1, windows=(15, 63), track=iter):
    """Measure the loss under each rule after the first eviction, and prove which distances it keeps.

    For ``"all"`` tokens, those ``"within"`` the trained length and ``"beyond"`` it, and those with some distance in the
    window ``"wrong"`` or all ``"right"``, each row has their share, perplexity, that under slots, and nats above slots;
    also what `prove` found, and what is ``"refused"`` because a GPT-2 has no vector for it. Arrays: ``"above"``, in
    nats; ``"where"``, masks of these tokens; ``"far"`` (T, 2), a query's distances to token 0 and its window's oldest.
    """
    must_hold(n_sinks + min(windows), n_sinks)
    must_evict(len(ids), n_sinks + max(windows))
    must_learn(model, [n_sinks + max(windows)])
    trained, proofs, slots = model.config.max_positions, {}, np.zeros(0)
    for window, (name, make) in track([*product(windows, rules(trained).items())]):
        proof = proofs[name] = proofs.get(name) or prove(rules()[name])
        nll, wrong, far, refused = measure(model, ids, make(n_sinks, window))
        slots = nll if name == "slots" else slots  # the first in each window
        late, beyond = np.arange(len(nll)) >= n_sinks + window, np.arange(len(nll)) >= trained
        where = {"all": late, "within": late & ~beyond, "beyond": late & beyond}
        where |= {"wrong": late & wrong, "right": late & ~wrong}
        row = {"rule": name, "n_sinks": n_sinks, "window": window}
        for key, tokens in where.items():
            above = paired(nll[tokens], slots[tokens]) if tokens.sum() > 1 else Difference(np.nan, np.nan)
            row |= {f"{key} share": float(tokens.sum() / late.sum()), f"{key} slots": perplexity(slots[tokens])}
            row |= {key: perplexity(nll[tokens]), f"{key} above": above.mean, f"{key} error": above.error}
        row |= {f"{key} kept": "yes" if proof[key] else "no" for key in KEPT}
        row["counterexample"] = "({}, {}, {}, {}): {}, not {}".format(*proof["first"]) if proof["first"] else ""
        yield row | {"refused": refused, "above": nll - slots, "where": where, "far": far}


def measure(model, ids, policy):
    """Return each token's loss, whether its query sees a wrong window, two distances, and what is refused."""
    n, queries = policy.n_sinks, seen(KVCache(1, 1, 0, policy).layers[0], len(ids) - 1)
    far = [[positions[-1] - positions[slot] for slot in (0, min(n, len(positions) - 1))] for _, positions in queries]
    moved = [{p - j for j, p in zip(index[n:], positions[n:], strict=True)} for index, positions in queries]
    nll, trained, learned = np.full(len(queries), np.nan), model.config.max_positions, len(queries)
    if model.config.learned_positions:
        learned = next((t for t, (_, positions) in enumerate(queries) if positions[-1] >= trained), learned)
    nll[:learned] = token_nll(model, ids[: learned + 1], policy, readable=True)
    refused = f"from token {learned} on: {model.name} has learned {trained} positions" * (learned < len(nll))
    return nll, np.array([len(each) > 1 for each in moved]), np.array(far), refused


def effects(rows):
    for (n_sinks, window), group in by(rows, "n_sinks", "window").items():
        for row in group:
            name, where = row["rule"], LOST.get(row["rule"], "all")
            lost = row["above"][row["where"][where]]
            what = f"{n_sinks} + {window}: {name} - slots, {PLACES[where]}"
            if name in SAME:
                yield effect(what, lost, above=-0.001, below=0.001)
            elif name in LOST and len(lost) and not row["refused"]:
                yield effect(what, lost, above=0)
    wrong = [row for row in rows if row["rule"] in ("slots", *SAME) and row["counterexample"]]
    yield exactly("slots, ring and shift: distances that are not the paper's", len(wrong), below=1)


def show(rows):
    tables = []
    for (n_sinks, window), group in by(rows, "n_sinks", "window").items():
        size, split = f"{n_sinks} + {window}", []
        cells = [[row["rule"], number(row["all"]), *_cost(row, "within"), *_cost(row, "beyond")] for row in group]
        tables.append(table([size, "all", "within", "above slots", "beyond", "above slots"], cells))
        for row, key in product([row for row in group if row["wrong share"]], ("wrong", "right")):
            if share := row[f"{key} share"]:
                about = [f"{row['rule']}, {key}", f"{share:.0%}", number(row[f"{key} slots"])]
                split.append([*about, *_cost(row, key)])
        tables.append(table([f"{size}, its window", "tokens", "slots", "rule", "above slots"], split))
        tables += [f"{row['rule']} is refused {row['refused']}" for row in group if row["refused"]]
    cells = [[row["rule"], *(row[f"{key} kept"] for key in KEPT), row["counterexample"]] for row in group]
    return "\n\n".join([*tables, table(["distances kept", *KEPT, "first wrong: (n_sinks, W, t, key)"], cells)])


def _cost(row, key):
    """Return the perplexity of some tokens, and how far their loss is above that of slots."""
    above = Difference(round(row[f"{key} above"], 4) + 0.0, row[f"{key} error"])  # no -0.0000
    return number(row[key]), "" if row["rule"] == "slots" else "-" if np.isnan(above.mean) else str(above)


def largest(rows):
    """Return the rows of the largest window by rule, except ring and shift; and what each loses compared with slots."""
    last = max(row["window"] for row in rows)
    group = {row["rule"]: row for row in rows if row["window"] == last and row["rule"] not in SAME}
    return group, {name: round(np.nanmean(row["above"][row["where"]["all"]]), 2) + 0.0 for name, row in group.items()}


def finding(rows):
    group, lost = largest(rows)
    each = ", ".join(f"{name} {nats:.2f}" for name, nats in lost.items() if name != "slots")
    size = f"{group['slots']['n_sinks']}+{group['slots']['window']}"
    return f"With {size} keys, what position rules other than slots cost, in nats per token: {each}"


def draw(figure, rows):
    """Draw how far the first token and the window's oldest are from a query, by rule; and what each rule costs."""
    group, lost = largest(rows)
    panels = figure.subplot_mosaic([["first token", "cost"], ["window's oldest", "cost"]])
    for i, name in enumerate(("first token", "window's oldest")):
        for rule, row in group.items():
            panels[name].plot(row["far"][: 6 * row["window"], i], label=rule)
        panels[name].set(ylabel=f"distance to\nthe {name}", xlabel=("", "token")[i])
        name_lines(panels[name], gap=0.16)
    bars(panels["cost"], [*lost], {"": [*lost.values()]}, form="%+.2f", lying=True)
    panels["cost"].set(xlabel="nats per token above slots", xmargin=0.4)
