"""``minisink train lm``: a language model from text files."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import gpt2, llama
from ..checkpoint import read_json
from ..interrupts import interrupts_wait
from ..model import load
from . import data, tokens
from . import gpt2 as gpt2_training
from . import llama as llama_training
from .loop import Training, run
from .parameters import n_parameters, named_shapes
from .recipe import Recipe

PURPOSE = "train a Llama or GPT-2 on text files"
EXAMPLE = "minisink train lm --text novels/*.txt --out my-model --steps 500"


def add_options(parser):
    """Add the options of ``lm`` to `parser`."""
    add = parser.add_argument
    add("--text", nargs="+", type=Path, required=True, metavar="FILE", help="UTF-8 text files")
    add("--out", type=Path, required=True, metavar="FOLDER", help="Hugging Face folder to write")
    add("--valid", nargs="+", type=Path, metavar="FILE", help="held-out text (the last 1 %%)")
    add("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json to use, not train a new one")
    add("--tokens", type=Path, metavar="FILE", help=".npy file that keeps the encoded text")
    add("--init", metavar="MODEL", help="a shipped name or a folder to begin from; its tokenizer and sizes")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    _add_shape(parser.add_argument_group("the model"))
    _add_recipe(parser.add_argument_group("the training"))


def _add_shape(group):
    add = group.add_argument
    add("--config", type=Path, metavar="FILE", help="a config.json; instead of the sizes below")
    add("--architecture", choices=("llama", "gpt2"), default="llama", help="(%(default)s)")
    add("--vocab-size", type=int, default=1024, metavar="N", help="tokens to learn (%(default)s)")
    add("--width", type=int, default=128, metavar="N", help="of the model (%(default)s)")
    add("--layers", type=int, default=4, metavar="N", help="(%(default)s)")
    add("--heads", type=int, default=4, metavar="N", help="a layer (%(default)s)")
    add(
        "--d-ff",
        type=int,
        metavar="N",
        help="width of the MLP (llama: 352 for a width of 128, gpt2: 4 widths)",
    )
    add("--softmax", choices=("softmax", "softmax1"), default="softmax", help="scores to weights (%(default)s)")
    add("--sink-logit", action="store_true", help="a learned sink logit for every head")
    add(
        "--embedding", choices=("shared", "untied"), default="shared",
        help="shared: one matrix for input and output, but for the input vector of <s> with --sample-start bos "
        "(%(default)s)",
    )  # fmt: skip
    add("--dtype", choices=("float32", "float16"), default="float32", help="of the saved model (%(default)s)")


def _add_recipe(group):
    add, usual = group.add_argument, Recipe()
    add(
        "--sample-start", choices=("bos", "none"), default=usual.sample_start,
        help="samples start with <s>, or anywhere (%(default)s)",
    )  # fmt: skip
    add("--steps", type=int, default=usual.n_steps, metavar="N", help="(%(default)s)")
    add("--batch", type=int, default=usual.batch, metavar="N", help="samples a step (%(default)s)")
    add("--context", type=int, default=usual.context, metavar="N", help="tokens a sample (%(default)s)")
    add("--rate", type=float, default=usual.rate, metavar="X", help="peak learning rate (%(default)s)")
    add("--warmup", type=int, default=usual.warmup, metavar="N", help="steps up to it (%(default)s)")
    add(
        "--decay", type=float, default=usual.decay, metavar="X",
        help="share of the steps, at the end, down to 0 (%(default)s)",
    )  # fmt: skip
    add("--weight-decay", type=float, default=usual.weight_decay, metavar="X", help="of matrices (%(default)s)")
    add("--seed", type=int, default=usual.seed, metavar="N", help="of the weights and the samples (%(default)s)")
    add("--eval-every", type=int, default=50, metavar="N", help="steps between rows of the log (%(default)s)")
    add("--save-every", type=int, default=200, metavar="N", help="steps between checkpoints (%(default)s)")
    add("--workers", type=int, default=min(2, os.cpu_count() or 1), metavar="N", help="threads (%(default)s)")
    add("--device", default="cpu", help="cpu or cuda (%(default)s)")


def train(args):
    """Run ``minisink train lm``.

    Returns
    -------
    int
        0, or 130 when interrupted.

    Raises
    ------
    ValueError
        For bad input, and when the loss is no longer a number.
    """
    for name in ("eval_every", "save_every", "workers"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be 1 or more")
    recipe = _recipe(args)
    quiet = not sys.stderr.isatty()
    begun = _begun(args)
    tokenizer = begun.tokenizer if begun else _tokenizer(args)
    config = _config(args, tokenizer, begun)
    ids, valid = _text(args, tokenizer, quiet)
    if int(ids.max(initial=0)) >= config.vocab_size:
        raise ValueError(f"{args.tokens}: has token id {int(ids.max())}, but the vocabulary is {config.vocab_size}")
    arch = gpt2_training if config.model_type == "gpt2" else llama_training
    training = Training(
        arch, config, recipe, ids, valid, args.out, tokenizer,
        resume=args.resume, start=begun and begun.weights, device=args.device, workers=args.workers, dtype=args.dtype,
    )  # fmt: skip
    n = n_parameters(named_shapes(arch, config))
    print(f"{n:,} parameters, {len(ids):,} tokens of text, {recipe.n_steps} steps of {recipe.batch} x {recipe.context}")
    bar = tqdm(total=recipe.n_steps, initial=training.n_steps_done, disable=quiet, unit="step", file=sys.stderr)

    def show(last, row):
        bar.update()
        bar.set_postfix(loss=f"{last['loss']:.3f}", refresh=False)
        if row is not None:
            with tqdm.external_write_mode(sys.stdout):
                print(_line(row), flush=True)

    with bar, interrupts_wait() as noted:
        run(training, eval_every=args.eval_every, save_every=args.save_every, on_step=show, stop=lambda: bool(noted))
    if training.n_steps_done < recipe.n_steps:
        print(f"stopped at step {training.n_steps_done}; --resume goes on from {args.out}")
        return 130
    print(f"saved {args.out}")
    return 0


def _recipe(args):
    return Recipe(
        n_steps=args.steps, batch=args.batch, context=args.context, rate=args.rate, warmup=args.warmup,
        decay=args.decay, weight_decay=args.weight_decay, sample_start=args.sample_start, seed=args.seed,
        shared=args.embedding == "shared" and args.sample_start == "bos",
    )  # fmt: skip


def _begun(args):
    """The model to begin from, or None."""
    if args.init is None:
        return None
    for name in ("config", "tokenizer"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} and --init: the model to begin from brings its own {name}")
    model = load(args.init)
    if model.tokenizer is None:
        raise ValueError(f"{args.init}: has no tokenizer.json, so text cannot be turned into tokens")
    first = int(args.sample_start == "bos")  # <s> may have an input vector of its own
    if args.embedding == "shared" and not np.array_equal(model.weights.embed[first:], model.weights.head.T[first:]):
        raise ValueError(f"{args.init}: its input and output matrices differ; go on with --embedding untied")
    return model


def _tokenizer(args):
    """The tokenizer that was asked for, that the folder has (to resume), or a new one."""
    if args.tokenizer is not None:
        return tokens.read_tokenizer(args.tokenizer)
    if args.resume and (args.out / "tokenizer.json").exists():
        return tokens.read_tokenizer(args.out / "tokenizer.json")
    return tokens.train_tokenizer(args.text, args.vocab_size)


def _config(args, tokenizer, begun):
    """The model's config; vocabulary, context and ``<s>`` come from the tokenizer and the recipe."""
    V = tokenizer.get_vocab_size()
    bos = tokenizer.token_to_id(tokens.BOS) if args.sample_start == "bos" else None
    if args.sample_start == "bos" and bos is None:
        raise ValueError(f"the tokenizer has no {tokens.BOS}, which --sample-start bos puts first")
    tied = args.embedding == "shared" and bos is None  # with a vector of its own for <s>, two matrices are saved
    if args.embedding == "shared" and bos:
        raise ValueError(f"{tokens.BOS} is id {bos} of the tokenizer, but 0 for a shared one; use --embedding untied")
    bent = {"softmax": args.softmax, "sink_logit": args.sink_logit}
    if begun is not None:
        own = replace(begun.config, max_positions=args.context, bos=bos, tied=tied)
        return replace(own, **bent) if _bent(args) else own
    if args.config is not None:
        raw = read_json(args.config) | {"vocab_size": V, "bos_token_id": bos, "eos_token_id": None}
        raw |= {"max_position_embeddings": args.context, "n_positions": args.context}
        raw["tie_word_embeddings"] = tied
        model = gpt2 if raw.get("model_type") == "gpt2" else llama
        config = model.Config.from_hf(raw)
        return replace(config, **bent) if _bent(args) else config
    if args.width < 1 or args.heads < 1 or args.layers < 1 or args.width % args.heads:
        raise ValueError(f"--width {args.width} must be a multiple of --heads {args.heads}, and --layers 1 or more")
    sizes = {"d_model": args.width, "n_layers": args.layers, "n_heads": args.heads, "vocab_size": V}
    sizes |= {"max_positions": args.context, "norm_eps": 1e-5, "bos": bos, "tied": tied} | bent
    if args.architecture == "gpt2":
        return gpt2.Config(d_ff=args.d_ff or 4 * args.width, **sizes)
    if args.width // args.heads % 2:
        raise ValueError(f"heads of {args.width // args.heads} channels cannot be rotated in pairs; use an even width")
    d_ff = args.d_ff or args.width * 352 // 128
    return llama.Config(d_ff=d_ff, n_kv_heads=args.heads, head_dim=args.width // args.heads, **sizes)


def _bent(args):
    return args.softmax != "softmax" or args.sink_logit


def _text(args, tokenizer, quiet):
    """Token ids to learn from, and to look at."""

    def encode(paths):
        return tokens.encode_files(tokenizer, paths, lambda them: tqdm(them, "encode", disable=quiet, file=sys.stderr))

    ids = tokens.remembered(args.tokens, lambda: encode(args.text))
    if args.valid is None:
        return data.split(ids, args.context)
    return ids, encode(args.valid)


def _line(row):
    """A row of the log, to be read."""
    sinks = " ".join(f"{value:.2f}" for name, value in row.items() if name.startswith("sink_"))
    gap = row["window_nll"] - row["one_sink_nll"]
    return (
        f"step {row['step']:5d}  {row['seconds']:7.0f} s  loss {row['loss']:.3f}  held out {row['valid_loss']:.3f}  "
        f"weight on the first token {sinks}  window - one sink {gap:+.3f} nats"
    )
