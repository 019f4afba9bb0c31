"""The induction experiment as it runs: in the terminal, and as a picture."""

from ...evaluation.plots import COLOURS, STROKES
from ...system.plots import new_figure, save_figure
from ...system.terminal import bar
from .segments import CHANCE

STYLES = {name: STROKES[name] | {"color": COLOURS[name]} for name in ("dense", "window", "streaming", "retrieval")}
STYLES |= {
    "retrieval, original": {"color": COLOURS["retrieval"], "lw": 1, "ls": "-"},
    "retrieval, random": {"color": "#ff7f0e", "lw": 1, "ls": "-."},
}


def panel(history, *, n_steps):
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
    figure = new_figure(14, 4.2)
    loss, weight, table = figure.subplots(1, 3)
    for i, history in enumerate(histories):
        steps, rows = [step for step, _ in history], [row for _, row in history]
        for axes, names in ((loss, ("first", "second")), (weight, ("previous", "induction"))):
            labels = {"first": "first reading", "second": "second reading"}
            labels |= {"previous": "the one before", "induction": "what came next"}
            for name, colour, dashes in zip(names, ("#7f7f7f", "#1f77b4"), ("--", "-"), strict=True):
                label = None if i else labels[name]
                axes.plot(steps, [row[name] for row in rows], color=colour, ls=dashes, label=label, alpha=0.8)
    loss.axhline(CHANCE, color="black", ls=":", label="chance")
    loss.set(title="Loss of a segment", xlabel="step", ylabel="nats a symbol", ylim=(0, None))
    weight.set(title="Weight of the best head on ...", xlabel="step", ylim=(-0.03, 1.03))
    places = range(len(gaps))
    for name, curve in losses.items():
        table.plot(places, curve, marker="o", label=name, **STYLES[name])
    table.axhline(CHANCE, color="black", ls=":", label="chance")
    table.set_xticks(places, [f"{gap:,}" for gap in gaps])
    table.set(title="Loss of the second reading", xlabel="symbols in between", ylabel="nats a symbol", ylim=(0, None))
    loss.legend()
    weight.legend()
    table.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside the curves, not on them
    save_figure(figure, path)
