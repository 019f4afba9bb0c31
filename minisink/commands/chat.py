"""``minisink chat``: a conversation that never ends, or one that is written down, under one method or several."""

from ..chat.conversation import Conversation
from ..chat.script import read_turns, shipped
from ..methods import WITH_SINKS
from ..model import load
from ..system.files import alone
from .chat_talk import Chat, Compared
from .common import add_draws, add_json, add_method, add_model, check_folder, draws, retrieval_options

PURPOSE = "talk to a model, for as long as you like, in constant memory"
EXAMPLE = "minisink chat\n  minisink chat --compare window,streaming --turns questions"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add_model(parser, default="smollm2")
    add("--system", metavar="TEXT", help="what the model is told first; like all else it leaves the cache some day")
    add(
        "--pin-system", action="store_true",
        help="keep all of it as sinks: it is never forgotten, every token looks at it, and of the 256 keys so many "
        "fewer are window",
    )  # fmt: skip
    add_method(parser)
    add("--max-new-tokens", type=int, default=256, metavar="N", help="cut an answer there (%(default)s)")
    add_draws(parser, temperature=0.7, top_p=0.9)
    add(
        "--turns", metavar="FILE",
        help="have this conversation, a turn a line; a reply after a TAB is scored instead of generated; or one that "
        f"ships: {', '.join(shipped())}",
    )  # fmt: skip
    add(
        "--compare", metavar="METHODS",
        help="the same turns under several methods with as many keys, side by side: window,streaming",
    )  # fmt: skip
    add("--state", metavar="FILE", help="go on from this file if it is there, and write it after every turn")
    add_json(parser, "print one JSON object a turn")


def run(args):
    """Talk."""
    turns = None if args.turns is None else read_turns(args.turns)
    if args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {args.max_new_tokens}; an answer needs 1 or more")
    methods = args.compare.split(",") if args.compare else [args.method]
    if len(set(methods)) < len(methods):
        raise ValueError(f"--compare {args.compare} names a method twice")
    if args.compare and (args.state or args.pin_system):
        raise ValueError(f"{'--state' if args.state else '--pin-system'} goes with one method, not with --compare")
    check_folder(args.state)
    with alone(args.state):
        model = load(args.model)
        conversations = {method: _conversation(args, model, method) for method in methods}
        chat = Compared(args, conversations) if args.compare else Chat(args, conversations[methods[0]])
        chat.open()
        if turns is None:
            chat.talk()
        else:
            chat.have(turns)


def _conversation(args, model, method):
    """An empty conversation; methods that are compared have as many keys."""
    window = args.window
    if args.compare and window is not None and method not in WITH_SINKS:
        window += args.n_sinks
    return Conversation(
        model, system=args.system, pin_system=args.pin_system, method=method, n_sinks=args.n_sinks, window=window,
        positions=args.positions, readable=args.readable, retrieval=retrieval_options(args),
        **draws(args),
    )  # fmt: skip
