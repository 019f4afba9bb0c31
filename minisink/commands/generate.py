"""``minisink generate``: text out, token by token; with ``--state`` it continues tomorrow, bit for bit."""

import math
from pathlib import Path

from ..chat.stream import load_stream, n_bytes, n_kept, save_stream
from ..generation import Stream
from ..hf.tokenizer import HELD, text_stream
from ..methods import warn_beyond
from ..model import load
from ..system.errors import tell
from ..system.files import check_folder, lock_files, read_text
from ..system.interrupts import defer_interrupts
from ..system.terminal import human_bytes, put
from .common import add_draws, add_method, add_model, add_no_bos, at_least, draws, method_of

PURPOSE = "continue a text"
EXAMPLE = 'minisink generate --prompt "It was a dark night" --temperature 0.8'


def add_options(parser):
    add = parser.add_argument
    add_model(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", default="", metavar="TEXT", help="what to continue")
    source.add_argument("--prompt-file", metavar="FILE", help="a UTF-8 text to continue")
    add_no_bos(parser)
    add_method(parser)
    add("--max-new-tokens", type=int, default=200, metavar="N", help="0 streams until Ctrl-C (%(default)s)")
    add_draws(parser)
    add("--state", metavar="FILE", help="continue from this file if it exists, and write it at the end or at Ctrl-C")


def run(args):
    """Write text as it is decoded."""
    check_folder(args.state)
    at_least(args, max_new_tokens=0)
    with lock_files(args.state):
        model = load(args.model)
        prompt = read_text(args.prompt_file) if args.prompt_file else args.prompt
        stream, ids = _open(args, model, prompt)
        put(prompt, end="")
        _write(args, stream, ids)


def _open(args, model, prompt):
    """Return a stream, new or from its state, and the ids of the prompt to read."""
    resumed = args.state is not None and Path(args.state).exists()
    ids = model.encode(prompt, bos=not args.no_bos and not resumed) if prompt or not resumed else []
    stream = Stream(model, method_of(args, model, ids), readable=args.readable, **draws(args))
    if resumed:
        load_stream(stream, args.state)
    if not len(ids) and not stream.pending:
        if resumed:
            raise ValueError(f"{args.state}: its text has ended; --prompt continues it")
        raise ValueError("--prompt is empty, and this model has no begin-of-text token to start from")
    return stream, ids


def _write(args, stream, ids):
    """Write until the text ends, or until Ctrl-C."""
    model, before = stream.model, [*[*stream.window_ids][-HELD:], *stream.pending, *ids]
    n_known = stream.n_seen + len(stream.pending) + len(ids)
    warn_beyond(model, stream.method, stream.n_seen, n_known + (args.max_new_tokens or math.inf))
    with defer_interrupts() as stop:
        for piece in text_stream(model.tokenizer, _tokens(args, stream, ids, stop), after=before, name=model.name):
            put(piece, end="")
        print(flush=True)
        if args.state is not None:
            save_stream(stream, args.state)
    if stop and args.state is not None:
        tell(f"stopped; {args.state} holds {stream.n_seen:,} tokens read")
    elif stop:
        n_new = stream.n_seen + len(stream.pending) - n_known
        kept = f"{n_kept(stream):,} tokens in {human_bytes(n_bytes(stream))}"
        tell(f"stopped after {n_new:,} new tokens; the cache keeps {kept}")


def _tokens(args, stream, ids, stop):
    """Yield the tokens that follow `ids`, until `stop` is no longer empty."""
    ends = stream.model.config.eos if args.max_new_tokens else ()  # with 0 only Ctrl-C ends it
    for token in stream.write(stream.read(ids), args.max_new_tokens or None, ends):
        yield token
        if stop:
            return
