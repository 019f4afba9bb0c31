"""``minisink chat``: an endless conversation, or a scripted one, with one method or several."""

from ..chat.conversation import Conversation, n_system_tokens
from ..chat.script import read_turns, shipped
from ..model import load
from ..system.files import check_folder, lock_files
from . import common
from .chat_talk import Talk

PURPOSE = "talk to a model, for as long as you like, in constant memory"
EXAMPLE = "minisink chat\n  minisink chat --compare window,streaming --turns questions"
SCRIPTS = ", ".join(shipped())


def add_options(parser):
    add = parser.add_argument
    common.add_model(parser, default="smollm2")
    add("--system", metavar="TEXT", help="what the model is told first; it leaves the cache like everything else")
    pinned = "keep all of it as sinks: it is never forgotten, every token sees it, and the window of 256 keys is "
    add("--pin-system", action="store_true", help=pinned + "shorter by as much")
    common.add_method(parser)
    add("--max-new-tokens", type=int, default=256, metavar="N", help="cut an answer at this length (%(default)s)")
    common.add_draws(parser, temperature=0.7, top_p=0.9)
    turns = "have this conversation, one turn per line; a reply after a TAB is scored instead of generated; or the one "
    add("--turns", metavar="FILE", help=f"{turns}ships: {SCRIPTS}")
    compared = "the same turns with several methods and equal numbers of keys, side by side: window,streaming"
    add("--compare", metavar="METHODS", help=compared)
    add("--state", metavar="FILE", help="continue from this file if it exists, and write it after every turn")
    common.add_json(parser, "print one JSON object per turn")


def run(args):
    """Talk, or have a scripted conversation."""
    turns = None if args.turns is None else read_turns(args.turns)
    if args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {args.max_new_tokens}; an answer needs 1 or more")
    methods = args.compare.split(",") if args.compare else [args.method]
    if len(set(methods)) < len(methods):
        raise ValueError(f"--compare {args.compare} names a method twice")
    if args.compare and (args.state or args.pin_system):
        raise ValueError(f"{'--state' if args.state else '--pin-system'} goes with one method, not with --compare")
    for method in methods:
        if method not in common.METHODS:
            raise ValueError(f"method is {method!r}; it must be one of {', '.join(common.METHODS)}")
    check_folder(args.state)
    with lock_files(args.state):
        model = load(args.model)
        talk = Talk(args, {method: _conversation(args, model, method) for method in methods})
        talk.open()
        if turns is None:
            talk.run_input()
        else:
            talk.run_script(turns)


def _conversation(args, model, name):
    """Return an empty conversation; compared methods have equal numbers of keys."""
    args = common.changed(args, method=name)
    if args.compare and args.window is not None and name not in common.WITH_SINKS:
        args.window += args.n_sinks
    if args.pin_system:
        args.n_sinks = n_system_tokens(model, args.system)
    options = {"system": args.system, "pin_system": args.pin_system, "readable": args.readable}
    return Conversation(model, common.method_of(args, model, ()), **options, **common.draws(args))
