"""What ``minisink train lm`` trains: a tokenizer, a config, and initial weights.

With ``--init`` all three come from a model. Otherwise the sizes are options or come from a ``config.json``, the
tokenizer is trained or given, and the weights are random.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..hf.arrays import ARCHITECTURES
from ..hf.fields import read_json
from ..hf.folder import config_of
from ..model import load
from ..training import tokens

POSITIONS = {"learned": "gpt2", "rotary": "gpt_neox", "alibi": "mpt"}  # for three otherwise similar models
ROTATED = {"llama": (2, "channels are rotated in pairs"), "gpt_neox": (8, "a quarter of each rotates, in pairs")}
SIZES = {"architecture": "llama", "vocab_size": 1024, "width": 128, "layers": 4, "heads": 4, "d_ff": None}


def add_options(group):
    add = group.add_argument
    add("--init", metavar="MODEL", help="start from a shipped name or a folder, with its tokenizer and sizes")
    add("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json to use instead of training one")
    add("--config", type=Path, metavar="FILE", help="a config.json, instead of the sizes below")
    add("--architecture", choices=("llama", *POSITIONS.values()), help="(llama)")
    add("--positions", choices=tuple(POSITIONS), help="picks the architecture: gpt2, gpt_neox (rotates a quarter), mpt")
    add("--vocab-size", type=int, metavar="N", help=f"size of the vocabulary ({SIZES['vocab_size']})")
    add("--width", type=int, metavar="N", help=f"width of the model ({SIZES['width']})")
    add("--layers", type=int, metavar="N", help=f"({SIZES['layers']})")
    add("--heads", type=int, metavar="N", help=f"heads per layer ({SIZES['heads']})")
    add("--d-ff", type=int, metavar="N", help="width of the MLP (llama: 352 at width 128; others: 4 x the width)")
    add("--softmax", choices=("softmax", "softmax1"), help="scores to weights (softmax, or the model's)")
    add("--sink-logit", action="store_true", help="give every head a learned sink logit")
    shared = "shared: one matrix for input and output, except for <s> as an input with --sample-start bos "
    add("--embedding", choices=("shared", "untied"), default="shared", help=shared + "(%(default)s)")
    add("--dtype", choices=("float32", "float16"), default="float32", help="dtype of the saved model (%(default)s)")


def prepare(args):
    """Return (tokenizer, config, initial weights or None for random ones) according to the options."""
    _refuse_both(args, "init", ("config", "tokenizer", "positions", *SIZES))
    _refuse_both(args, "positions", ("config", "architecture"))
    if args.positions is not None:
        args.architecture = POSITIONS[args.positions]
    _refuse_both(args, "config", tuple(name for name in SIZES if name != "vocab_size"))
    begun = None if args.init is None else _load(args)
    sizes = {name: usual if getattr(args, name) is None else getattr(args, name) for name, usual in SIZES.items()}
    tokenizer = begun.tokenizer if begun else _tokenizer(args, sizes["vocab_size"])
    bos = tokenizer.token_to_id(tokens.BOS) if args.sample_start == "bos" else None
    if args.sample_start == "bos" and bos is None:
        raise ValueError(f"the tokenizer has no {tokens.BOS}, which --sample-start bos puts first")
    if args.embedding == "shared" and bos:
        raise ValueError(f"{tokens.BOS} has id {bos} in the tokenizer, and sharing needs id 0; use --embedding untied")
    tied = args.embedding == "shared" and bos is None  # with a separate vector for <s>, two matrices are saved
    sizes["vocab_size"] = tokenizer.get_vocab_size()
    if begun:
        longest = max(args.context, begun.config.max_positions)
        config = replace(begun.config, max_positions=longest, bos=bos, tied=tied)
    else:
        config = _from_sizes(args, sizes, bos, tied) if args.config is None else _from_file(args, sizes, bos, tied)
    kept = {"softmax": args.softmax or config.softmax, "sink_logit": args.sink_logit or config.sink_logit}
    return tokenizer, replace(config, **kept), begun and begun.weights


def _refuse_both(args, source, options):
    """Refuse options given with `source`, which has its own values for them."""
    for name in options if getattr(args, source) is not None else ():
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} cannot be given with --{source}, which has its own")


def _load(args):
    model = load(args.init)
    if model.tokenizer is None:
        raise ValueError(f"{args.init}: has no tokenizer.json, so text cannot be turned into tokens")
    first = int(args.sample_start == "bos")  # <s> may have a separate input vector
    if args.embedding == "shared" and not np.array_equal(model.weights.embed[first:], model.weights.head.T[first:]):
        raise ValueError(f"{args.init}: its input and output matrices differ; use --embedding untied")
    return model


def _tokenizer(args, vocab_size):
    """Return the given tokenizer, the folder's (to resume), or a new one."""
    own = args.out / "tokenizer.json"
    path = args.tokenizer or (own if args.resume and own.exists() else None)
    return tokens.train_tokenizer(args.text, vocab_size) if path is None else tokens.read_tokenizer(path)


def _from_file(args, sizes, bos, tied):
    """Return a config from a ``config.json``; vocabulary, context and ``<s>`` come from this training run."""
    raw = read_json(args.config) | {"vocab_size": sizes["vocab_size"], "bos_token_id": bos, "eos_token_id": None}
    raw |= {"max_position_embeddings": args.context, "n_positions": args.context, "tie_word_embeddings": tied}
    return config_of(raw)


def _from_sizes(args, sizes, bos, tied):
    architecture, vocab_size, width, layers, heads, d_ff = sizes.values()
    is_llama, D = architecture == "llama", width // heads if heads > 0 else 0
    if width < 1 or layers < 1 or heads < 1 or width % heads:
        raise ValueError(f"--width {width} must be a multiple of --heads {heads}, and --layers 1 or more")
    unit, why = ROTATED.get(architecture, (1, ""))
    if D % unit:
        raise ValueError(f"--width {width} must be a multiple of {unit} x {heads} heads: {why}")
    if architecture == "mpt" and d_ff not in (None, 4 * width):
        raise ValueError(f"--d-ff is {d_ff}; in an MPT it is 4 x the width, {4 * width}")
    if d_ff is None:
        d_ff = width * 352 // 128 if is_llama else 4 * width
    if d_ff < 1:
        raise ValueError(f"--d-ff is {d_ff}; it must be 1 or more")
    fields = {"d_model": width, "n_layers": layers, "n_heads": heads, "d_ff": d_ff, "vocab_size": vocab_size}
    fields |= {"max_positions": args.context, "norm_eps": 1e-5, "bos": bos, "tied": tied}
    own: dict = {"llama": {"n_kv_heads": heads, "head_dim": D}, "gpt_neox": {"rotary_dim": D // 4}}
    return ARCHITECTURES[architecture].Config(**fields, **own.get(architecture, {}))
