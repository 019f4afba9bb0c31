"""``minisink train lm``: train a language model on text files."""

import os
import sys
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from ..system.files import check_folder, lock_files
from ..system.interrupts import defer_interrupts
from ..training import data, log, tokens
from ..training.loop import Training
from ..training.loop import run as train
from ..training.parameters import n_parameters, named_shapes
from ..training.recipe import Recipe
from ..training.state import check_writable
from . import lm_model
from .common import at_least

PURPOSE = "train a small language model on text files"
EXAMPLE = "minisink train lm --text novels/*.txt --out my-model --steps 500"
HEADER = "  step    time   loss  held out  window - one sink  weight on the first token"


def add_options(parser):
    add = parser.add_argument
    add("--text", nargs="+", type=Path, required=True, metavar="FILE", help="UTF-8 text files")
    add("--out", type=Path, required=True, metavar="FOLDER", help="Hugging Face folder to write")
    add("--valid", nargs="+", type=Path, metavar="FILE", help="held-out text (the last 1%%)")
    add("--tokens", type=Path, metavar="FILE", help=".npy file that caches the encoded text")
    add("--resume", action="store_true", help="continue from the checkpoint in --out; give the other options as before")
    lm_model.add_options(parser.add_argument_group("model"))
    parser.set_defaults(**vars(Recipe()))
    add = parser.add_argument_group("training").add_argument
    add("--sample-start", choices=("bos", "none"), help="samples start with <s>, or anywhere (%(default)s)")
    add("--steps", type=int, dest="n_steps", metavar="N", help="(%(default)s)")
    add("--batch", type=int, metavar="N", help="samples per step (%(default)s)")
    add("--context", type=int, metavar="N", help="tokens per sample (%(default)s)")
    add("--rate", type=float, metavar="X", help="peak learning rate (%(default)s)")
    add("--warmup", type=int, metavar="N", help="warm-up steps (%(default)s)")
    add("--decay", type=float, metavar="X", help="final share of the steps, while the rate falls to 0 (%(default)s)")
    add("--weight-decay", type=float, metavar="X", help="weight decay of the matrices (%(default)s)")
    add("--seed", type=int, metavar="N", help="seed of weights and samples; with --init, of samples only (%(default)s)")
    add("--eval-every", type=int, default=50, metavar="N", help="steps between rows of the log (%(default)s)")
    add("--save-every", type=int, default=200, metavar="N", help="steps between checkpoints (%(default)s)")
    add("--workers", type=int, default=min(2, os.cpu_count() or 1), metavar="N", help="threads (%(default)s)")
    add("--device", default="cpu", help="cpu or cuda (%(default)s)")


def run(args):
    """Run ``minisink train lm``; return 0, or 130 when interrupted."""
    at_least(args, eval_every=1, save_every=1, workers=1)
    args.shared = args.embedding == "shared" and args.sample_start == "bos"
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    check_writable(args.out, resume=args.resume)  # before spending minutes on the text
    check_folder(args.tokens)
    with lock_files(args.out / log.FILE):
        return _train(args, recipe)


def _train(args, recipe):
    tokenizer, config, start = lm_model.prepare(args)
    known = args.tokens is not None and args.tokens.exists()
    ids, valid = _text(args, tokenizer)
    if int(ids.max(initial=0)) >= config.vocab_size:
        source = args.tokens if known else "the tokenizer"
        raise ValueError(f"{source}: has token id {int(ids.max())}, but the vocabulary is {config.vocab_size}")
    same = {name: getattr(args, name) for name in ("resume", "device", "workers", "dtype")}
    training = Training(config, recipe, ids, valid, args.out, tokenizer, start=start, **same)
    if known:
        print(f"using the encoded text in {args.tokens} instead of --text")
    n = n_parameters(named_shapes(config))
    print(f"{n:,} parameters, {len(ids):,} tokens of text, {recipe.n_steps} steps of {recipe.batch} x {recipe.context}")
    print(f"losses in nats per token, weights layer by layer\n\n{HEADER}", flush=True)
    bar = tqdm(total=recipe.n_steps, initial=training.n_steps_done, disable=None, unit="step")

    def show(last, row):
        bar.update()
        bar.set_postfix(loss=f"{last['loss']:.3f}", refresh=False)
        if row is not None:
            with tqdm.external_write_mode(sys.stdout):
                print(_line(row), flush=True)

    with bar, defer_interrupts() as noted:
        train(training, eval_every=args.eval_every, save_every=args.save_every, on_step=show, stop=lambda: bool(noted))
    if training.n_steps_done < recipe.n_steps:
        again = "" if args.resume else " with --resume"
        print(f"stopped at step {training.n_steps_done}; the same command{again} continues from {args.out}")
        return 130
    print(f"saved {args.out}")
    return 0


def _text(args, tokenizer):
    def encode(paths):
        return tokens.encode_files(tokenizer, tqdm(paths, "encode", disable=None))

    ids = tokens.remembered(args.tokens, lambda: encode(args.text))
    return data.split(ids, args.context) if args.valid is None else (ids, encode(args.valid))


def _line(row):
    """Return a row of the log, aligned with `HEADER`."""
    sinks = " ".join(f"{value:.2f}" for name, value in row.items() if name.startswith("sink_"))
    gap = row["window_nll"] - row["one_sink_nll"]
    begin = f"{row['step']:6d} {row['seconds']:5.0f} s  {row['loss']:5.3f}"
    return f"{begin}     {row['valid_loss']:5.3f}  {gap:+17.3f}  {sinks}"
