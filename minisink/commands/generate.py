"""``minisink generate``: text out, token by token."""

import sys
from itertools import count
from operator import itemgetter
from pathlib import Path

from ..chat.stream import Stream
from ..generation import generate
from ..hf.tokenizer import HELD, text_stream
from ..methods import cache_bytes_per_token
from ..model import load
from ..system.files import alone, read_text
from ..system.interrupts import interrupts_wait, until
from ..system.terminal import human_bytes
from .common import (
    add_draws,
    add_method,
    add_model,
    add_no_bos,
    check_folder,
    draws,
    keys_in_sight,
    method_options,
    retrieval_options,
)

PURPOSE = "continue a text"
EXAMPLE = 'minisink generate --prompt "It was a dark night" --temperature 0.8'


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add_model(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", default="", metavar="TEXT", help="what to continue")
    source.add_argument("--prompt-file", metavar="FILE", help="a UTF-8 text to continue")
    add_no_bos(parser)
    add_method(parser)
    add("--max-new-tokens", type=int, default=200, metavar="N", help="0 streams until Ctrl-C (%(default)s)")
    add_draws(parser)
    add("--state", metavar="FILE", help="go on from this file if it is there, and write it at the end or at Ctrl-C")


def run(args):
    """Write as it is decoded."""
    check_folder(args.state)
    if args.max_new_tokens < 0:
        raise ValueError(f"--max-new-tokens is {args.max_new_tokens}; it must be 0 (until Ctrl-C) or more")
    with alone(args.state):
        model = load(args.model)
        prompt = read_text(args.prompt_file) if args.prompt_file else args.prompt
        if args.state is not None:
            _go_on(args, model, prompt)
            return
        ids = model.encode(prompt, bos=not args.no_bos)
        if not len(ids):
            raise ValueError("--prompt is empty, and this model has no begin-of-text token to start from")
        options = method_options(args, model, ids)
        ends = {"max_new_tokens": args.max_new_tokens or None, "stop_tokens": _ends(args, model)}
        tokens = generate(model, ids, **ends, **draws(args), **options)
        written = count()  # a number a token; in C, so that a debugger need not step through it
        tokens = map(itemgetter(0), zip(tokens, written, strict=False))
        print(prompt, end="", flush=True)
        try:
            for piece in text_stream(model.tokenizer, tokens, after=ids):
                print(piece, end="", flush=True)
            print()
        except KeyboardInterrupt:  # how an endless stream ends
            print(flush=True)
            n_written = next(written)
            kept = _kept(model, len(ids) + n_written, options)
            print(f"minisink: stopped after {n_written:,} new tokens; {kept}", file=sys.stderr)


def _go_on(args, model, prompt):
    """The same with a state: what was written before goes on, to the same bits as if it had never stopped."""
    resumed = Path(args.state).exists()
    ids = model.encode(prompt, bos=not args.no_bos and not resumed) if prompt or not resumed else []
    options, retrieval = method_options(args, model, ids), retrieval_options(args)
    options = {name: value for name, value in options.items() if name not in retrieval}
    stream = Stream(model, retrieval=retrieval, **options, **draws(args))
    if resumed:
        stream.load(args.state)
    if not len(ids) and not stream.unread:
        what = "has come to its end; --prompt goes on" if resumed else "is new, and there is no --prompt to begin with"
        raise ValueError(f"{args.state}: {what}")
    before = [*stream.recent][-HELD:] + stream.unread
    print(prompt, end="", flush=True)
    with interrupts_wait() as stop:
        tokens = stream.write(stream.read(ids), args.max_new_tokens or None, _ends(args, model))
        for piece in text_stream(model.tokenizer, until(stop, tokens), after=[*before, *ids]):
            print(piece, end="", flush=True)
        print()
        stream.save(args.state)
    if stop:
        print(f"minisink: stopped; {args.state} holds {stream.n_seen:,} tokens read", file=sys.stderr)


def _ends(args, model):
    """What ends the text: nothing does, if it is to go on until Ctrl-C."""
    return model.config.eos if args.max_new_tokens else ()


def _kept(model, n_tokens, options):
    """What there is to go on from after so many tokens, in words."""
    if options["method"] == "recompute":
        return f"no cache, each is computed from the last {options['window']:,}"
    limit = keys_in_sight(options) or n_tokens
    if options["method"] == "retrieval":  # what was evicted is kept too
        limit = n_tokens if options["store"] is None else limit + options["store"]
    n_tokens = min(n_tokens, limit)
    return f"the cache keeps {n_tokens:,} tokens in {human_bytes(n_tokens * cache_bytes_per_token(model))}"
