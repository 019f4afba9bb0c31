"""The backcopy experiment as it runs: in the terminal, and as a picture."""

from ...system.plots import GREY, picture
from ...system.terminal import bar


def panel(history, *, n_steps, first="BOS"):
    """Show the state at the last step, as lines of text.

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
    at_end = f"{last['bos_from_nontrigger']:.2f} of the weight of idle tokens and {last['bos_from_trigger']:.2f}"
    title = f"After {steps[-1]:,} steps {first} gets {at_end} of that of "
    title += f"triggers; its value is {last['value_ratio']:.2f} of the others'"
    with picture(path, title) as figure:
        loss, weight, value = figure.subplots(1, 3)
        loss.plot(steps, [row["loss"] for _, row in history], label="model")
        loss.axhline(last["floor"], color=GREY, ls="--", label="floor")
        loss.set(title="loss (nats)", xlabel="step")
        idle, busy = ([row[f"bos_from_{kind}"] for _, row in history] for kind in ("nontrigger", "trigger"))
        weight.plot(steps, idle, label="from idle")
        weight.plot(steps, busy, label="from triggers")
        are_shares = max(idle + busy) <= 1.0  # those of ReLU need not be
        weight.set(title=f"weight on {first}", xlabel="step", ylim=(-0.03, 1.03) if are_shares else None)
        value.plot(steps, [row["value_ratio"] for _, row in history])
        value.set(title=f"value of {first} / others'", xlabel="step", ylim=(0, None))
        loss.legend()
        weight.legend()
