"""``minisink info``: a model's config and sizes."""

from ..hf.package import PACKAGES
from ..methods import cache_bytes_per_token
from ..model import load
from ..positions import kind_of
from ..system.terminal import human_bytes, put
from .common import add_json, add_model, dump

PURPOSE = "show a model's config, its size, and its bytes of cache per token"
EXAMPLE = "minisink info --model ./my-folder"
# Name of a row -> field of `Config`
SIZES = {"layers": "n_layers", "heads": "n_heads", "key/value heads": "n_kv_heads", "head width": "head_dim"}
SIZES |= {"model width": "d_model", "MLP width": "d_ff", "vocabulary": "vocab_size"}


def add_options(parser):
    add_model(parser)
    add_json(parser)


def positions(config):
    """Say how a model encodes positions, and which part of a head is rotated if not all of it."""
    kind, n_rotated = kind_of(config), 2 * len(getattr(config.encoding, "frequencies", ()))
    part = f", {n_rotated} of the {config.head_dim} channels of a head"
    return kind + (part if 0 < n_rotated < config.head_dim else "")


def run(args):
    """Print config, size, and bytes of cache per token."""
    model = load(args.model)
    config = model.config
    about = {"model": model.name, "model_type": config.model_type}
    about |= {name: getattr(config, field) for name, field in SIZES.items()}
    about |= {"positions": positions(config), "trained length": config.max_positions, "parameters": model.n_parameters}
    about |= {"bytes": model.n_parameters * model.dtype.itemsize, "cache bytes per token": cache_bytes_per_token(model)}
    about["ignored tensors"] = model.ignored
    if args.model in PACKAGES:
        package = PACKAGES[args.model]
        about["source"] = f"{package.file} of {package.maker}, in the package {package.name}"
        about["licence"] = package.licence
    if args.json:
        return dump(about)
    shown = about | {
        "parameters": f"{model.n_parameters:,}",
        "bytes": f"{about['bytes']:,} ({human_bytes(about['bytes'])} as {model.dtype})",
        "cache bytes per token": f"{about['cache bytes per token']:,}",
        "ignored tensors": ", ".join(model.ignored) or "none",
    }
    width = max(map(len, shown))
    for key, value in shown.items():
        put(f"{key.ljust(width)}  {value}")
