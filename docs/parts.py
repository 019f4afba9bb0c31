"""Draw docs/parts.png: where a part of a text differs from the whole, layer by layer, and where that ends.

``python docs/parts.py`` writes it (``docs/parts.png``, or where the first argument says): the model *novels* on its
sample text, one sink and a window of eight, so that a part begins 4 layers x 7 = 28 tokens before its stretch.
"""

import sys
from pathlib import Path

import numpy as np

import minisink
from minisink.evaluation.parts import Part, begun, reach
from minisink.hf.shipped import sample_text
from minisink.system.plots import BLACK, VERMILLION, picture

METHOD, FIRST, LENGTH = minisink.Streaming(1, 8), 400, 12  # the stretch: where it begins, and its tokens


def differences():  # -> (L + 1, reach + LENGTH)
    """Return by how much of its length the residual stream differs, before layer 1 and after each, at each token."""
    model = minisink.load("novels")
    back = reach(model, METHOD)
    ids = model.encode(sample_text().read_text("utf-8"))[: FIRST + LENGTH]
    part = Part(METHOD, True, ids[:1], FIRST - back, ids[FIRST - back :], LENGTH)
    whole = _streams(model, ids, minisink.new_cache(model, METHOD))[:, part.start :]
    found = _streams(model, part.ids, begun(model, part))
    return np.linalg.norm(found - whole, axis=2) / np.linalg.norm(whole, axis=2)


def _streams(model, ids, cache):  # -> (L + 1, T, C)
    model.forward(ids, cache=cache, trace=(trace := {}))
    return np.stack([*(layer["x"] for layer in trace["layers"]), trace["x"]])


def draw(path):
    """Draw a square for each token in each layer; a line where the differences must end."""
    off = differences()
    n_layers, back = len(off) - 1, off.shape[1] - LENGTH
    step = back // n_layers
    title = f"A run-up of {n_layers} layers x {step} tokens is enough: left of the stairs a token differs by up to "
    title += f"{off.max():.0%} from the whole text, right of them by {off[:, back:].max():.0e}"
    caption = "$ python docs/parts.py: novels, one sink, a window of 8; the residual stream of a part and of the whole"
    with picture(path, title, caption) as figure:
        axes = figure.subplots()
        shades = axes.pcolormesh(
            np.arange(-back, LENGTH + 1), np.arange(n_layers + 2), np.maximum(off, 1e-8), norm="log"
        )
        shades.set(cmap="Blues", edgecolor="white", linewidth=0.5)
        figure.colorbar(shades, label="difference, of its length")
        stairs = np.repeat(np.arange(n_layers + 2), 2)[1:-1], np.repeat(np.arange(n_layers + 1), 2) * step - back
        axes.plot(stairs[1], stairs[0], color=VERMILLION, linestyle="-", lw=4)
        axes.axvline(0, color=BLACK, linestyle="--")
        names = ["embedding", *(f"after layer {i}" for i in range(1, n_layers + 1))]
        axes.set_yticks(np.arange(n_layers + 1) + 0.5, names)
        axes.set(xlabel="token, counted from the first of the stretch (dashed)")
        axes.grid(visible=False)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("parts.png"))
