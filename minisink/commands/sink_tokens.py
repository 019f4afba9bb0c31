"""``minisink reproduce sink-tokens``: which tokens get the weight, and whether it is read there or parked."""

from ..experiments.sink_tokens import FIRST, strongest
from ..experiments.sink_tokens import run as measure
from ..model import load
from ..system.terminal import table
from .common import add_json, add_models, dump, progress, sample_ids

PURPOSE = "the tokens that later ones look at most, and how large their values are"
EXAMPLE = "minisink reproduce sink-tokens --model novels-vanilla"


def add_options(parser):
    """Add the options to `parser`."""
    add_models(parser)
    add_json(parser)


def run(args):
    """Print the strongest tokens of each layer, for each model."""
    found = {}
    for name in args.model:
        model = load(name)
        with progress(100, name, unit="text") as bar:
            found[name] = list(_rows(model, measure(model, sample_ids(model), on_progress=bar.update)))
    if args.json:
        dump(found)
        return
    for name, rows in found.items():
        print(f"{name}: tokens that later ones look at most, in pieces of 64 of the sample text")
        cells = [
            [str(r["layer"]), str(r["head"]), r["token"], f"{r['times']:,}", f"{r['weight']:.2f}", f"{r['value']:.2f}"]
            for r in rows
        ]
        print(table(["layer", "head", "token", "times", "weight", "|v| token/median"], cells))


def _rows(model, found):
    shared_by = model.config.n_heads // model.config.n_kv_heads
    for layer in range(model.config.n_layers):
        for token, head in strongest(found, layer):
            about = found[token]
            yield {
                "layer": layer,
                "head": head,
                "token": "the first" if token == FIRST else repr(model.decode([token])),
                "times": about["times"],
                "weight": about["weight"][layer, head],
                "value": about["value"][layer, head // shared_by],
            }
