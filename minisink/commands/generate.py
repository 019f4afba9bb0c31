"""``minisink generate``: text out, token by token."""

import sys
from itertools import count
from operator import itemgetter

from ..generation import generate, text_stream
from ..methods import cache_bytes_per_token
from ..model import load
from ..system.terminal import human_bytes
from .common import add_method, add_model, add_no_bos, keys_in_sight, method_options, read_text

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
    add("--temperature", type=float, default=0.0, metavar="X", help="0 takes the likeliest (%(default)s)")
    add("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest; 0 for all (%(default)s)")
    add("--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest that hold P (%(default)s)")
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help="1 for none (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the draws (%(default)s)")


def run(args):
    """Write as it is decoded."""
    model = load(args.model)
    prompt = read_text(args.prompt_file) if args.prompt_file else args.prompt
    ids = model.encode(prompt, bos=not args.no_bos)
    if not len(ids):
        raise ValueError("--prompt is empty, and this model has no begin-of-text token to start from")
    if args.max_new_tokens < 0:
        raise ValueError(f"--max-new-tokens is {args.max_new_tokens}; it must be 0 (until Ctrl-C) or more")
    endless = args.max_new_tokens == 0
    options = method_options(args, model, ids)
    tokens = generate(
        model,
        ids,
        max_new_tokens=None if endless else args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop_tokens=() if endless else model.config.eos,
        **options,
    )
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


def _kept(model, n_tokens, options):
    """What there is to go on from after so many tokens, in words."""
    if options["method"] == "recompute":
        return f"no cache, each is computed from the last {options['window']:,}"
    limit = keys_in_sight(options) or n_tokens
    if options["method"] == "retrieval":  # what was evicted is kept too
        limit = n_tokens if options["store"] is None else limit + options["store"]
    n_tokens = min(n_tokens, limit)
    return f"the cache keeps {n_tokens:,} tokens in {human_bytes(n_tokens * cache_bytes_per_token(model))}"
