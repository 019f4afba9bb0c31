"""The figures of a lesson."""

import numpy as np

from ..system.plots import look

# Okabe and Ito's colours: distinguishable with any colour vision, and by lightness in greyscale
SINK, WINDOW, QUERY, LOOKS, IDLE = "#E69F00", "#56B4E9", "#D55E00", "#F0E442", "#E6E6E6"
SIZE = (9.7, 5.8)  # inches; a figure takes two thirds of a slide's height, so 16-point letters take 2.6 % of it
STREAM = 2.3  # where the residual stream runs


def for_a_lesson():
    """Return ``matplotlib.pyplot``, set up for a projector; without it, raise ValueError naming the extra."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ValueError("figures of a lesson need matplotlib: pip install 'minisink[tutorials,gguf,chat]'") from None
    pyplot.rcParams.update(look() | {"figure.figsize": (11, 5), "figure.constrained_layout.use": True})
    return pyplot


def sheet(title):
    """Return the axes of an empty drawing with a title, 11 by 5.95 with the origin at the lower left."""
    _, axes = for_a_lesson().subplots(figsize=SIZE)
    axes.set(title=title, xlim=(0, 11), ylim=(0, 5.95), aspect="equal")
    axes.axis("off")
    return axes


def box(axes, x, y, text, *, width=2.4, height=0.8, colour="white"):
    """Draw a box centred on (x, y) with text in it."""
    place = x - width / 2, y - height / 2
    axes.add_patch(for_a_lesson().Rectangle(place, width, height, facecolor=colour, edgecolor="black", lw=1.5))
    axes.text(x, y, text, ha="center", va="center")


def arrow(axes, start, end, **style):
    """Draw an arrow from one place to another."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "lw": 2.5, "color": "black", "shrinkA": 0, **style})


def transformer(model):
    """Draw how a token goes through a model, from its id to logits, with the model's own sizes."""
    config = model.config
    axes = sheet("Every layer reads the residual stream and adds to it")
    Rectangle, Circle = for_a_lesson().Rectangle, for_a_lesson().Circle
    axes.add_patch(Rectangle((3.7, 1.3), 7.25, 3.5, facecolor="#F4F4F4", edgecolor="0.5", ls="--"))
    axes.text(10.85, 4.55, f"one of {config.n_layers} layers", ha="right", va="center")
    arrow(axes, (STREAM, 1.05), (STREAM, 5.0))
    axes.text(STREAM - 0.35, 3.15, "residual\nstream", ha="right", va="center")
    box(axes, STREAM, 0.6, f"embedding: {config.vocab_size}\nrows of {config.d_model} numbers", width=3.7, height=0.9)
    axes.text(4.8, 0.6, "one row per token in the vocabulary:\nat first it only says which token it is", va="center")
    box(axes, STREAM, 5.45, f"norm, matrix:\n{config.vocab_size} logits", width=3.7, height=0.9)
    axes.text(4.8, 5.45, "how likely each token is to come next", va="center")
    looks = f"{config.n_heads} heads look at\nother tokens"
    for y, name, colour, does in ((2.1, "attention", LOOKS, looks), (3.75, "MLP", IDLE, "each token\non its own")):
        arrow(axes, (STREAM, y - 0.4), (4.1, y - 0.4))
        box(axes, 4.7, y - 0.4, "norm", width=1.2, height=0.6)
        arrow(axes, (5.3, y - 0.4), (5.9, y - 0.4))
        box(axes, 7.0, y, name, width=2.2, height=1.3, colour=colour)
        axes.text(8.3, y, does, va="center")
        arrow(axes, (5.9, y + 0.4), (STREAM + 0.25, y + 0.4))
        axes.add_patch(Circle((STREAM, y + 0.4), 0.25, facecolor="white", edgecolor="black", lw=1.5, zorder=3))
        axes.text(STREAM, y + 0.38, "+", ha="center", va="center", zorder=4)


def kept_over_time(method, n_tokens):
    """Draw which tokens a cache holds after each new one, one row per step, with each token's position in its cell."""
    _, axes = for_a_lesson().subplots(figsize=SIZE)
    held = np.zeros(0, int)
    for now in range(n_tokens):
        held = np.append(held, now)
        held = held[method.survivors(held)]
        for token in range(now + 1):
            colour = IDLE if token not in held else SINK if token < method.n_sinks else WINDOW
            cell = (token - 0.5, now - 0.5), 1, 1
            axes.add_patch(for_a_lesson().Rectangle(*cell, facecolor=colour, edgecolor="white", lw=2))
        for token, position in zip(held, method.positions_of(held), strict=True):
            axes.text(token, now, position, ha="center", va="center", fontsize=17)
    axes.set(title="The sinks stay, the window moves, and positions are slots")
    axes.set(xlabel="token: its place in the text", ylabel="the newest token (time runs downwards)")
    axes.set(xlim=(-0.5, n_tokens - 0.5), ylim=(n_tokens - 0.5, -0.5), xticks=range(n_tokens), yticks=range(n_tokens))
    axes.grid(visible=False)
    for colour, name in ((SINK, "sink"), (WINDOW, "window"), (IDLE, "evicted")):
        axes.bar(0, 0, color=colour, label=name)
    axes.legend(loc="upper right", title="number in a cell: position")


def ring(method, newest):
    """Draw the keys of a full ring cache, and the two copies of the query that score them."""
    from matplotlib.patches import Wedge

    n_sinks, window, middle = method.n_sinks, method.window, {"ha": "center", "va": "center"}
    axes, turn = sheet("The keys never move, and the query is rotated twice"), 360 / window
    for token in range(newest - window + 1, newest + 1):
        start = 90 - turn * ((token - n_sinks) % window)  # clockwise, from the top
        wedge = Wedge((8.7, 2.55), 1.9, start - turn, start, width=0.95, facecolor=WINDOW, edgecolor="white", lw=3)
        axes.add_patch(wedge)
        angle = np.deg2rad(start - turn / 2)
        axes.text(8.7 + 1.42 * np.cos(angle), 2.55 + 1.42 * np.sin(angle), token, size=24, **middle)
    axes.text(8.7, 2.55, "window:\na ring", **middle)
    for token in range(n_sinks):
        box(axes, 1.2 + token, 2.55, token, width=0.95, height=0.95, colour=SINK)
    axes.text(0.7 + n_sinks / 2, 1.75, "sinks", **middle)
    box(axes, 4.6, 5.45, f"query of token {newest}", width=3.4)
    arrow(axes, (3.7, 5.05), (1.0 + n_sinks / 2, 3.2), color=QUERY)
    arrow(axes, (5.5, 5.05), (7.1, 3.9), color=QUERY)
    axes.text(2.4, 4.4, f"rotated to {n_sinks + window - 1},\nits slot", ha="right", va="center")
    axes.text(6.55, 4.8, f"rotated to {newest}, its place in the text", ha="left", va="center")
    axes.text(0.2, 0.3, f"Token {newest + 1} will overwrite token {newest - window + 1}.", va="center")
