"""A chat on the screen: turns from a person or a script, one conversation or several beside each other."""

import shutil
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from ..chat.script import Line, Measured
from ..methods import METHODS, WITH_SINKS, window_of
from ..system.terminal import side_by_side, wrap
from .chat_report import method_in_words, status, summary
from .chat_report import take as take_turn
from .common import check_folder, dump

WIDEST = 120  # characters of a line, where the terminal has as many
HELP = """a line is a turn; a line that begins with / is one of these
  /forget       begin anew: nothing of what was said is in the cache
  /method NAME  go on under another method (window, streaming, ...), which reads
                anew what is in view
  /save FILE    write all there is to go on from
  /load FILE    go on from there, to the same bits
  /help         this
Ctrl-C stops an answer, Ctrl-D ends the chat."""


class Talk(ABC):
    """What one chat and several have in common: where the turns come from."""

    def __init__(self, args):
        self.args = args

    def have(self, turns):
        """The turns of a script, and what they come to."""
        for line in turns:
            self.say(f"\n> {line.words}")
            self.take(line)
        self.close()

    def talk(self):
        """Turns from standard input, until it ends."""
        is_person = sys.stdin.isatty()
        with suppress(ImportError):
            import_module("readline")  # gives `input` a history
        while True:
            try:
                words = input("\n> " if is_person and not self.args.json else "")
            except EOFError:
                self.say("" if is_person else None)
                return
            except KeyboardInterrupt:
                self.say("\n(Ctrl-D ends the chat, /help tells more)")
                continue
            except UnicodeDecodeError as error:
                self.complain(f"this line is not UTF-8 ({error.reason})")
                continue
            try:
                if words.startswith("/"):
                    self.command(*words.split(None, 1))
                elif words.strip():
                    self.take(Line(words.strip(), None))
            except ValueError as error:  # one line; nothing is lost, and the chat goes on
                self.complain(error)

    def say(self, text):
        """For people; JSON has no room for it."""
        if text is not None and not self.args.json:
            print(text, flush=True)

    def complain(self, what):
        """One line about what is wrong."""
        print(f"minisink: {' '.join(str(what).split())}", file=sys.stderr, flush=True)

    def command(self, name, rest=""):
        """A line that begins with a slash."""
        words = [rest.strip()] if rest.strip() else []
        if name == "/help":
            self.say(HELP)
        elif name == "/forget" and not words:
            self.forget()
        elif name in ("/method", "/save", "/load") and words:
            self.one_only(name, *words)
        elif name in ("/forget", "/method", "/save", "/load"):
            raise ValueError(f"{name} {'stands alone' if words else 'needs a name after it'}; /help tells more")
        else:
            raise ValueError(f"{name} is no command; /help tells which there are")

    @abstractmethod
    def take(self, line):
        """One turn."""

    @abstractmethod
    def close(self):
        """What a script came to."""

    @abstractmethod
    def forget(self):
        """``/forget``."""

    @abstractmethod
    def one_only(self, name, rest):
        """A command that goes with one conversation only."""


class Chat(Talk):
    """One conversation, written as it is decoded."""

    def __init__(self, args, conversation):
        super().__init__(args)
        self.conversation, self.measured, self.state = conversation, Measured(), args.state

    def open(self):
        """Go on from the state, if there is one, and say what this is."""
        stream = self.conversation.stream
        resumed = self.state is not None and Path(self.state).exists()
        if resumed:
            self.conversation.load(self.state)
        self.say(wrap(f"{self.conversation.model.name}, {method_in_words(stream)}. /help tells more, Ctrl-D ends."))
        if resumed:
            self.say(wrap(f"Going on from {self.state}: {status(self.conversation)}."))

    def take(self, line):
        """One turn: its answer as it comes, or the score of its reply; and where the cache stands."""
        report = take_turn(self.conversation, line, self.args, self.measured, lambda piece: self._show(piece))
        if self.state:
            self.conversation.save(self.state)
        if self.args.json:
            dump(report)
            return
        said = "" if line.reply is None else f"{wrap(line.reply)}\n"
        surprise = f"{report['nll']:.2f} nats a token; " if "nll" in report else ""
        self.say(said + wrap(f"[{surprise}{status(self.conversation, report)}]"))

    def _show(self, piece):
        if not self.args.json:
            print(piece, end="", flush=True)

    def close(self):
        """What the script came to."""
        self.say("\n" + summary({self.conversation.stream.method: self.measured}))

    def forget(self):
        """``/forget``."""
        self.conversation.forget()
        self.measured = Measured()
        self.say("(forgotten)")

    def one_only(self, name, rest):
        """``/method NAME``, ``/save FILE``, ``/load FILE``."""
        {"/method": self.method, "/save": self.save, "/load": self.load}[name](rest)

    def method(self, name):
        """``/method NAME``."""
        if name not in METHODS:
            raise ValueError(f"/method {name}: choose one of {', '.join(METHODS)}")
        stream = self.conversation.stream
        capacity = stream.n_sinks + stream.window if stream.window else window_of("window", 0, None)
        n_sinks = min(self.args.n_sinks, capacity - 1)
        window = capacity - n_sinks * (name in WITH_SINKS)
        self.conversation.go_on_with(name, n_sinks=n_sinks, window=window)
        self.say(wrap(f"({method_in_words(self.conversation.stream)}, from here on)"))

    def save(self, path):
        """``/save FILE``."""
        check_folder(path)
        self.conversation.save(path)
        self.say(f"(written to {path})")

    def load(self, path):
        """``/load FILE``."""
        self.conversation.load(path)
        self.say(wrap(f"(going on from {path}: {status(self.conversation)})"))


class Compared(Talk):
    """The same turns under several methods, a column each."""

    def __init__(self, args, conversations):
        super().__init__(args)
        self.conversations, self.measured = conversations, {method: Measured() for method in conversations}

    def open(self):
        """Say what this is."""
        model = next(iter(self.conversations.values())).model
        methods = "; ".join(method_in_words(conversation.stream) for conversation in self.conversations.values())
        self.say(wrap(f"{model.name}: {methods}."))

    def take(self, line):
        """One turn under every method, one after the other, and then all of them."""
        reports = {}
        for method, conversation in self.conversations.items():
            reports[method] = take_turn(conversation, line, self.args, self.measured[method])
            if self.args.json:
                dump({"method": method} | reports[method])
        width = min(WIDEST, shutil.get_terminal_size().columns) - 1
        if line.reply is None:
            texts = {method: report["answer"] for method, report in reports.items()}
        else:  # the same words for all
            self.say(wrap(line.reply, width))
            texts = {method: f"{report['nll']:.2f} nats a token" for method, report in reports.items()}
        self.say(side_by_side(texts, width=width))

    def close(self):
        """What the script came to."""
        self.say("\n" + summary(self.measured))

    def forget(self):
        """``/forget``."""
        for conversation in self.conversations.values():
            conversation.forget()
        self.measured = {method: Measured() for method in self.conversations}
        self.say("(forgotten, by all)")

    def one_only(self, name, rest):
        """Refused."""
        raise ValueError(f"{name} goes with one method; here are several, side by side")
