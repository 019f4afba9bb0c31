"""``minisink reproduce sink-strength``: the sink rate of Gu et al., and the three signs of a sink."""

from ..experiments.sink_strength import run as measure
from ..model import load
from ..system.terminal import table
from .common import add_json, add_models, dump, progress, sample_ids

PURPOSE = "how strong the sink of a model is (Gu et al., arXiv:2410.10781)"
EXAMPLE = "minisink reproduce sink-strength --model novels novels-vanilla"
COLUMNS = ("weight", "residual", "value", "massive")


def add_options(parser):
    """Add the options to `parser`."""
    add_models(parser)
    add_json(parser)


def run(args):
    """Print a row a layer, for each model."""
    found = {}
    for name in args.model:
        model = load(name)
        with progress(100, name, unit="text") as bar:
            found[name] = measure(model, sample_ids(model), on_progress=bar.update)
    if args.json:
        dump(found)
        return
    for name, about in found.items():
        rate, n_texts = about["sink_rate"], about["n_texts"]
        print(f"{name}: sink rate {rate:.1%} over {n_texts} pieces of 64 tokens of the sample text")
        columns = (about[key] for key in COLUMNS)
        rows = [
            [str(i), f"{weight:.2f}", f"{x:.1f}", f"{v:.2f}", f"{most:.0f}"]
            for i, (weight, x, v, most) in enumerate(zip(*columns, strict=True))
        ]
        header = ["layer", "weight on first", "|x| first/median", "|v| first/median", "largest/median x"]
        print(table(header, rows))
