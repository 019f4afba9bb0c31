"""The induction experiment as it runs: in the terminal, and as a picture."""

from ...evaluation.plots import STROKES
from ...system.plots import BLUE, GREEN, GREY, PURPLE, name_lines, picture
from ...system.terminal import bar
from .segments import CHANCE

STYLES = {name: STROKES[name] | {"lw": 2.5} for name in ("dense", "window", "streaming", "retrieval")}
STYLES |= {
    "retrieval, original": {"color": PURPLE, "lw": 1.5, "ls": "-"},
    "retrieval, random": {"color": GREEN, "lw": 1.5, "ls": "-."},
}


def panel(history, n_steps):
    """Show what is known at the last step, as lines of text; `history` is a list of (step, what `toy.Toy.look` saw)."""
    step, row = history[-1]
    bars = [
        ("loss, first reading", row["first"] / CHANCE, f"{row['first']:.2f} nats (chance {CHANCE:.2f})"),
        ("loss, second reading", row["second"] / CHANCE, f"{row['second']:.2f} nats"),
        ("weight on the one before", row["previous"], f"{row['previous']:.2f} by {_head(row['previous_head'])}"),
        ("weight on what came next", row["induction"], f"{row['induction']:.2f} by {_head(row['induction_head'])}"),
    ]
    lines = [f"step {step} of {n_steps}"] + [f"{name:24} {bar(share)} {value}" for name, share, value in bars]
    return "\n".join(lines)


def _head(where):
    return f"layer {where[0]} head {where[1]}"


def draw(path, histories, gaps, losses):
    """Draw each training over its steps (losses, weights), and what is remembered after each gap."""
    costs = ", ".join(f"{name} {curve[-1]:.2f}" for name, curve in losses.items())
    title = f"With {gaps[-1]:,} symbols between two readings, the second costs, in nats (chance {CHANCE:.2f}): {costs}"
    with picture(path, title) as figure:
        loss, weight, table = figure.subplots(1, 3)
        for i, history in enumerate(histories):
            steps = [step for step, _ in history]
            for axes, names in ((loss, ("first", "second")), (weight, ("previous", "induction"))):
                for name, colour, ls in zip(names, (GREY, BLUE), ("--", "-"), strict=True):
                    label = "_" if i else {"previous": "one before", "induction": "what came next"}.get(name, name)
                    axes.plot(steps, [row[name] for _, row in history], color=colour, ls=ls, label=label)
        loss.set(title="nats, by reading", xlabel="step", ylim=(0, None))
        weight.set(title="weight of best head", xlabel="step", ylim=(-0.03, 1.03))
        places = range(len(gaps))
        for name, curve in losses.items():
            table.plot(places, curve, marker="o", label=name, **STYLES[name])
        table.set_xticks(places, [f"{gap:,}" for gap in gaps])
        table.set(title="nats, second reading", xlabel="symbols between", ylim=(0, None))
        for axes in (loss, table):
            axes.axhline(CHANCE, color="black", ls=":")
        for axes in (loss, weight):
            axes.legend()
        name_lines(table)
