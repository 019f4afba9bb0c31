"""The backcopy experiment as it runs: in the terminal, and as a picture."""

from ...system.plots import GREY, picture
from ...system.terminal import bar


def panel(history, *, n_steps, first="BOS"):
    """Show what is known at the last step, as lines of text.

    `history` is a list of (step, what `toy.Toy.look` saw); the loss above the floor at the first is a full bar.
    """
    step, row = history[-1]
    highest, over = (look["loss"] - look["floor"] for look in (history[0][1], row))
    bars = [
        ("loss above the floor", over / highest if highest > 0 else 0.0, f"{over:.4f} nats (floor {row['floor']:.3f})"),
        (f"weight on {first}, idle", row["bos_from_nontrigger"], f"{row['bos_from_nontrigger']:.4f}"),
        (f"weight on {first}, trigger", row["bos_from_trigger"], f"{row['bos_from_trigger']:.4f}"),
        (f"|v_{first}| / |v|", row["value_ratio"], f"{row['value_ratio']:.4f}"),
    ]
    lines = [f"step {step} of {n_steps}"] + [f"{name:24} {bar(share)} {value}" for name, share, value in bars]
    return "\n".join(lines)


def draw(history, path, first="BOS"):
    """Draw the experiment over its steps: loss against the floor, weight on the first token, size of its value."""
    steps, last = [step for step, _ in history], history[-1][1]
    title = (
        f"After {steps[-1]:,} steps {first} gets {last['bos_from_nontrigger']:.2f} of the weight of idle tokens and "
    )
    title += (
        f"{last['bos_from_trigger']:.2f} of that of triggers; its value is {last['value_ratio']:.2f} of the others'"
    )
    with picture(path, title) as figure:
        loss, weight, value = figure.subplots(1, 3)
        loss.plot(steps, [row["loss"] for _, row in history], label="model")
        loss.axhline(last["floor"], color=GREY, ls="--", label="floor")
        loss.set(title="loss (nats)")
        weight.plot(steps, [row["bos_from_nontrigger"] for _, row in history], label="from idle")
        weight.plot(steps, [row["bos_from_trigger"] for _, row in history], label="from triggers")
        shares = (-0.03, 1.03) if all(_are_shares(row) for _, row in history) else None
        weight.set(title=f"weight on {first}", ylim=shares)
        value.plot(steps, [row["value_ratio"] for _, row in history])
        value.set(title=f"value of {first} / others'", ylim=(0, None))
        for axes in (loss, weight, value):
            axes.set_xlabel("step")
        loss.legend()
        weight.legend()


def _are_shares(row):
    """Tell whether both weights are shares of one; those of ReLU need not be."""
    return max(row["bos_from_nontrigger"], row["bos_from_trigger"]) <= 1.0
