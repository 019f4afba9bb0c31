"""Pictures of commands: attention patterns with what makes a sink, and the cost of a token."""

from ..evaluation.plots import COLOURS, STROKES
from ..system.plots import new_figure, save_figure

NAMED = 20  # tokens named along an axis


def draw_inspection(path, patterns, summary, *, tokens, title):
    """Draw the attention patterns of every head, and beside them what makes a sink: residual and value norms.

    `patterns` holds one (H, T, T) for each layer, `summary` is that of `inside.summary`; the T tokens are named.
    """
    n_layers, n_heads = len(patterns), len(patterns[0])
    figure = new_figure(2.2 * n_heads + 4.5, 2.2 * n_layers + 1.8)
    every = -(-len(tokens) // NAMED)  # of a long text not every token has room for its name
    ticks, names = range(0, len(tokens), every), [name[:9] for name in tokens[::every]]
    grid = figure.subplots(n_layers, n_heads + 1, squeeze=False, width_ratios=[1] * n_heads + [1.3])
    for i, (pattern, row) in enumerate(zip(patterns, summary["layers"], strict=True)):
        for head, axes in enumerate(grid[i, :n_heads]):
            image = axes.imshow(pattern[head], vmin=0.0, vmax=1.0, cmap="magma", interpolation="nearest", aspect="auto")
            axes.set_title(f"layer {i} head {head}: {row['heads'][head]['weight_on_first']:.0%}", fontsize=10)
            axes.set_xticks(ticks, names if i == n_layers - 1 else [], rotation=90, fontsize=8)
            axes.set_yticks(ticks, [] if head else names, fontsize=8)
        grid[i, 0].set_ylabel("query", fontsize=10)
        bars = grid[i, n_heads]
        ratios = {"residual": _ratio(row["residual_first"], row["residual_median"])}
        for h, head in reversed(list(enumerate(row["heads"]))):
            ratios[f"value {h}"] = _ratio(head["value_first"], head["value_median"])
        bars.barh(list(ratios), list(ratios.values()), color=["#ff7f0e", *["#1f77b4"] * n_heads])
        bars.axvline(1.0, color="black", ls=":")
        bars.set_title("norm of first token / median", fontsize=10)
    figure.colorbar(image, ax=grid[:, :n_heads], location="bottom", shrink=0.5, label="weight on a key")
    figure.suptitle(title, fontsize=13)
    save_figure(figure, path)


def _ratio(first, median):
    return first / median if median else 0.0


def draw_speed(path, rows, *, title):
    """Draw milliseconds per token, re-computing and streaming, by the size of the cache (Figure 10 of StreamingLLM).

    `rows` are those of `speed.compare`.
    """
    figure = new_figure(9, 5)
    axes = figure.subplots()
    plot_speed(axes, rows)
    axes.set_title(title, fontsize=14)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_speed(axes, rows, *, size=13):
    """Draw the same on given axes, in letters of a size."""
    caches = [row["cache"] for row in rows]
    again = "sliding window with re-computation (times StreamingLLM)"
    for method, label in (("recompute", again), ("streaming", "StreamingLLM")):
        ms = [row[f"{method}_ms"] for row in rows]
        axes.plot(caches, ms, marker="o", lw=2, ls=STROKES[method]["ls"], color=COLOURS[method], label=label)
    for row in rows:
        point = row["cache"], row["recompute_ms"]
        axes.annotate(
            f"{row['ratio']:.0f}x", point, xytext=(0, 8), textcoords="offset points", ha="center", fontsize=size - 1
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(y=0.15)  # room for the numbers above the curve
    axes.set_xticks(caches, [str(cache) for cache in caches])
    axes.set_xlabel("cache (tokens)", fontsize=size)
    axes.set_ylabel("milliseconds per token", fontsize=size)
    axes.legend(fontsize=size)
