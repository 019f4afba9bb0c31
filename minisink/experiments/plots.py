"""A model's attention to one text as a picture: each head's weight on the first token, and what makes that a sink."""

import numpy as np

from ..system.plots import name_lines, picture

NAMED = 12  # tokens named along an axis
CELLS = 4, 8  # heads and layers at most whose weights are written as numbers too


def draw_inspection(path, patterns, summary, *, tokens, name, several="token"):
    """Draw every head's weight on the first token, the pattern of the head with most, and norms layer by layer.

    `patterns` holds one (H, T, T) for each layer, `summary` is that of `inside.summary`; the T tokens are named.
    `several` says how many first tokens that are.
    """
    layers = summary["layers"]
    weights = np.array([[head["weight_on_first"] for head in layer["heads"]] for layer in layers])  # (L, H)
    layer, head = np.unravel_index(weights.argmax(), weights.shape)
    title = f"Heads of {name} give the first {several} {weights.mean():.0%} of their weight on average"
    title += f", and head {head} of layer {layer} {weights.max():.0%}"
    with picture(path, title) as figure:
        all_heads, pattern, norms = figure.subplots(1, 3, width_ratios=[1, 1.2, 0.8])
        shown = {"vmin": 0.0, "vmax": 1.0, "cmap": "magma", "interpolation": "nearest", "aspect": "auto"}
        all_heads.imshow(weights, **shown)
        if weights.shape[1] <= CELLS[0] and len(layers) <= CELLS[1]:
            for (i, h), weight in np.ndenumerate(weights):
                stands_out = "white" if weight < 0.6 else "black"
                all_heads.text(h, i, f"{weight:.0%}", ha="center", va="center", color=stands_out)
        all_heads.set(title="weight on the first", xlabel="head", ylabel="layer")
        every = -(-len(tokens) // NAMED)  # of a long text not every token has room for its name
        ticks, names = range(0, len(tokens), every), [token[:7].replace("$", r"\$") for token in tokens[::every]]
        image = pattern.imshow(patterns[layer][head], **shown)
        pattern.set(title=f"layer {layer}, head {head}", xlabel="key")
        pattern.set_xticks(ticks, names, rotation=90)
        pattern.set_yticks(ticks, names)
        figure.colorbar(image, ax=[all_heads, pattern], location="bottom", shrink=0.5, label="weight")
        for axes in (all_heads, pattern):
            axes.grid(visible=False)
        residual = [_ratio(row["residual_first"], row["residual_median"]) for row in layers]
        value = [np.mean([_ratio(h["value_first"], h["value_median"]) for h in row["heads"]]) for row in layers]
        norms.plot(residual, marker="o", ms=9, label="stream")
        norms.plot(value, marker="s", ms=9, label="values")
        norms.axhline(1.0, color="black", ls=":")
        norms.set(title="norm / median", xlabel="layer", yscale="log" if min(residual + value) > 0 else "linear")
        norms.yaxis.set_major_formatter("{x:g}")
        name_lines(norms)
        for axis in (all_heads.xaxis, all_heads.yaxis, norms.xaxis):
            axis.get_major_locator().set_params(integer=True)


def _ratio(first, median):
    return first / median if median else 0.0
