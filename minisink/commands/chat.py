"""``minisink chat``: an endless conversation, or a scripted one, with one method or several."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from ..chat.conversation import Conversation
from ..chat.script import Line, Measured, read_turns, shipped
from ..chat.template import template_of
from ..model import load
from ..system.errors import tell
from ..system.files import check_folder, lock_files
from ..system.terminal import columns, put, side_by_side, wrap
from . import common
from .chat_report import in_words, status, summary, take

PURPOSE = "talk to a model, for as long as you like, in constant memory"
EXAMPLE = "minisink chat\n  minisink chat --compare window,streaming --turns questions"
WIDEST = 120  # characters per line, if the terminal has them
COMMANDS = {
    "/forget": "start over: nothing said so far stays in the cache",
    "/method NAME": "continue with another method (window, streaming, ...), which reads what is in view again",
    "/save FILE": "write everything needed to continue",
    "/load FILE": "continue from there, bit for bit",
    "/help": "show this list",
}


def add_options(parser):
    add = parser.add_argument
    common.add_model(parser, default="smollm2")
    add("--system", metavar="TEXT", help="system message; it is evicted from the cache like everything else")
    pinned = "keep the whole system message as sinks: every token sees it, and the window shrinks to make room"
    add("--pin-system", action="store_true", help=pinned)
    common.add_method(parser)
    add("--max-new-tokens", type=int, default=256, metavar="N", help="cut answers off at this length (%(default)s)")
    common.add_draws(parser, temperature=0.7, top_p=0.9)
    turns = "a script of turns, one per line (a reply after a TAB is scored instead of generated), or a shipped one: "
    add("--turns", metavar="FILE", help=turns + ", ".join(shipped()))
    compared = "run the same turns with several methods, side by side, with equal numbers of keys: window,streaming"
    add("--compare", metavar="METHODS", help=compared)
    add("--state", metavar="FILE", help="continue from this file if it exists, and write it after every turn")
    common.add_json(parser, "print one JSON object per turn")


def run(args):
    """Talk, or have a scripted conversation."""
    turns = None if args.turns is None else read_turns(args.turns)
    common.at_least(args, max_new_tokens=1)
    methods = args.compare.split(",") if args.compare else [args.method]
    _check_methods(*methods)
    if args.compare and (args.state or args.pin_system):
        raise ValueError(f"{'--state' if args.state else '--pin-system'} goes with one method, not with --compare")
    check_folder(args.state)
    with lock_files(args.state):
        model = load(args.model)
        talk = Talk(args, {method: _conversation(args, model, method) for method in methods})
        talk.open()
        if turns is None:
            talk.run_input()
        else:
            talk.run_script(turns)


def _check_methods(*names):
    for name in names:
        if name not in common.METHODS:
            raise ValueError(f"method is {name!r}; it must be one of {', '.join(common.METHODS)}")


def _conversation(args, model, name):
    """Return an empty conversation; compared methods have equal numbers of keys."""
    args = common.changed(args, method=name)
    if args.compare and args.window is not None and name not in common.WITH_SINKS:
        args.window += args.n_sinks
    if args.pin_system:
        args.n_sinks = template_of(model, system=args.system).n_system_tokens()
    options = {"system": args.system, "pin_system": args.pin_system, "readable": args.readable}
    return Conversation(model, common.method_of(args, model, ()), **options, **common.draws(args))


class Talk:
    """A chat on the screen: each answer as it is decoded, or with ``--compare`` one column per method."""

    def __init__(self, args, conversations):
        self.args, self.conversations = args, conversations  # by name of the method
        self.first = next(iter(conversations.values()))  # the only one without --compare
        self.measured = {name: Measured() for name in conversations}

    def open(self):
        """Continue from the state if there is one, and introduce the chat."""
        state = self.args.state if self.args.state and Path(self.args.state).exists() else None
        if state:
            self.first.load(state)
        name = self.first.model.name
        methods = "; ".join(in_words(conversation.stream.method) for conversation in self.conversations.values())
        single = f"{name}, {methods}. /help lists commands, Ctrl-D ends."
        self.say(wrap(f"{name}: {methods}." if self.args.compare else single))
        if state:
            self.say(wrap(f"Continuing from {state}: {status(self.first)}."))

    def run_script(self, turns):
        """Run the turns of a script, and summarise them."""
        for line in turns:
            self.say("\n" + wrap(f"> {line.words}"))
            self.take(line)
        self.say("\n" + summary(self.measured))

    def run_input(self):
        """Run turns from standard input until it ends."""
        is_person = sys.stdin.isatty()
        if is_person:
            with suppress(ImportError):
                readline = import_module("readline")  # gives `input` a history
                if os.environ.get("TERM", "dumb") != "dumb":
                    readline.parse_and_bind("set enable-bracketed-paste on")  # lines pasted together are one turn
        while True:
            try:
                words = input("\n> " if is_person and not self.args.json else "")
            except EOFError:
                if is_person:
                    self.say("")
                return
            except KeyboardInterrupt:
                self.say("\n" + wrap("(Ctrl-D ends the chat, /help lists commands)"))
                continue
            except UnicodeDecodeError as error:
                tell(f"this line is not UTF-8 ({error.reason})")
                continue
            try:
                if words.startswith("/"):
                    self.command(words)
                elif words.strip():
                    self.take(Line(words.strip(), None))
            except ValueError as error:  # one line; nothing is lost, and the chat continues
                tell(error)

    def say(self, text, end="\n"):
        """Print text for people, but not with --json."""
        if not self.args.json:
            put(text, end=end)

    def take(self, line):
        """Run one turn with each method, one after the other, and show the results."""
        reports, show = {}, (lambda _: None) if self.args.compare else (lambda piece: self.say(piece, end=""))
        for name, conversation in self.conversations.items():
            report = take(conversation, line, self.args.max_new_tokens, self.measured[name], show)
            reports[name] = report
            if self.args.state:
                conversation.save(self.args.state)
            if self.args.json:
                common.dump(({"method": name} if self.args.compare else {}) | report)
        scores = {name: f"{report['nll']:.2f} nats per token" for name, report in reports.items() if line.reply}
        width = columns(WIDEST - 1) if self.args.compare else None
        if line.reply:
            self.say(wrap(line.reply, width))
        if self.args.compare:
            answers = {name: report.get("answer") for name, report in reports.items()}
            self.say(side_by_side(scores or answers, width=width))
        else:
            self.say(wrap(f"[{''.join(f'{score}; ' for score in scores.values())}{status(conversation, report)}]"))

    def command(self, line):
        """Run a line that begins with a slash."""
        name, *rest = line.split(None, 1)
        value = "".join(rest).strip()
        if name == "/help":
            self.help()
        elif name not in ("/forget", "/method", "/save", "/load"):
            raise ValueError(f"{name} is not a command; /help lists them")
        elif (name == "/forget") == bool(value):
            raise ValueError(f"{name} {'takes no name' if value else 'needs a name'}; /help tells more")
        elif name == "/forget":
            for conversation in self.conversations.values():
                conversation.forget()
            self.measured = {name: Measured() for name in self.conversations}
            self.say(wrap("(forgotten, by all)" if self.args.compare else "(forgotten)"))
        elif self.args.compare:
            raise ValueError(f"{name} works with one method, but several are running side by side")
        elif name == "/method":
            self.switch_method(value)
        elif name == "/save":
            check_folder(value)
            self.first.save(value)
            self.say(wrap(f"(written to {value})"))
        else:
            self.first.load(value)
            self.say(wrap(f"(continuing from {value}: {status(self.first)})"))

    def help(self):
        """List what can be typed."""
        self.say(wrap("each line is a turn; a line that begins with / is one of these"))
        for name, what in COMMANDS.items():
            self.say(wrap(f"  {name:14}{what}", subsequent_indent=" " * min(16, columns() // 2)))
        self.say(wrap("Ctrl-C stops an answer, Ctrl-D ends the chat."))

    def switch_method(self, name):
        """Continue with another method, with the same number of keys."""
        _check_methods(name)
        capacity = self.first.stream.method.capacity or common.CAPACITY
        n_sinks = min(self.args.n_sinks, capacity - 1)
        window = capacity - n_sinks * (name in common.WITH_SINKS)
        args = common.changed(self.args, method=name, n_sinks=n_sinks, window=window)
        self.first.switch_method(common.method_of(args, self.first.model, ()))
        self.say(wrap(f"({in_words(self.first.stream.method)}, from here on)"))
