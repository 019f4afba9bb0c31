"""Turns: a person's words in, an answer out, for as long as anyone talks, in constant memory.

Each turn is read once, after what the cache has kept of earlier turns. What has left the cache is forgotten;
`Conversation.in_view` lists the turns that are still there.
"""

from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np

from ..cache import check_whole
from ..generation import Stream
from ..loss import nll_of
from ..methods import Streaming
from ..snapshot import method_from
from ..system.files import load_state, reading
from .stream import KIND, WHAT, check_model, go_on, save_stream
from .template import Template, template_of


class Conversation:
    """A chat with a model under one method, by default `Streaming` with 256 keys, or its trained length if less.

    The system message is *not* a sink: it leaves the cache like everything else. With `pin_system` all of it is kept
    as sinks, instead of the method's `n_sinks` tokens, and the window shrinks so that the cache keeps its size.
    `readable` and `draws` are as in `generation.Stream`.

    Raise ValueError for a model that cannot chat (`template.TemplateError`), or an option out of range. An example::

        conversation = Conversation(load("smollm2"), Streaming(4, 252))
        ids = list(conversation.answer("What is the capital of France?"))
    """

    def __init__(self, model, method=None, *, system=None, pin_system=False, readable=False, **draws):
        self.model, self.system = model, system
        self.template: Template = template_of(model, system=system)
        if method is None:
            method = Streaming(window=min(Streaming().capacity, model.config.max_positions) - Streaming.n_sinks)
        self.n_pinned = self.template.n_system_tokens() if pin_system else 0
        if pin_system:
            method = _pin(method, self.n_pinned)
        self.stream = Stream(model, method, readable=readable, **draws)
        self.n_turns, self.before = 0, 0  # `before`: tokens seen by streams before this one
        self.starts = deque()  # token_index of the first token of each turn in view; a turn ends at the next

    @property
    def ends(self):
        """The ids that end an answer."""
        return {*self.model.config.eos, *self.template.end_markers}

    @property
    def n_seen(self):
        """Number of tokens read in the whole conversation."""
        return self.before + self.stream.n_seen

    @property
    def in_view(self):
        """(list of int, bool): turns at least partly in the window, oldest first; whether the first is cut."""
        numbers = range(self.n_turns - len(self.starts) + 1, self.n_turns + 1)
        return list(numbers), bool(self.starts) and self.starts[0] < self.stream.oldest

    def answer(self, words, *, max_new_tokens=256):
        """Read a person's words, and return an iterator over the tokens of the answer, without the one that ends it.

        Close it to stop the answer. Raise ValueError at once for a turn without words.
        """
        prompt = self._prompt_ids(words)  # raises before there is an iterator

        def tokens():
            with self._turn():
                yield from self.stream.write(self.stream.read(prompt), max_new_tokens, self.ends)

        return tokens()

    def score(self, words, reply):
        """Read a turn and its reply; return the loss, nats, of each token of the reply and of the marker after it.

        Raise ValueError for a turn or a reply without words.
        """
        if not reply.strip():
            raise ValueError("a reply without words cannot be scored")
        prompt, template = self._prompt_ids(words), self.template
        ids, end = template.reply_ids(reply, left=prompt[-1]), template.end_ids()
        nll = []
        with self._turn():
            logits = self.stream.read(prompt)
            for i in ids:
                nll.append(nll_of(logits[None], [i]))
                logits = self.stream.read([i])
            if end:  # the marker itself is read with the next turn
                nll.append(nll_of(logits[None], end[:1]))
        return np.concatenate(nll)

    def _prompt_ids(self, words):
        """Return the ids from the conversation's end to the next answer."""
        if not words.strip():
            raise ValueError("a turn needs a word; this one is empty")
        return self.template.turn_ids(words) if self.n_turns else self.template.first_ids(words)

    @contextmanager
    def _turn(self):
        """Count a turn, and record where it starts; drop turns that are no longer in view, however it ends."""
        self.n_turns += 1
        self.starts.append(self.stream.n_seen)
        try:
            yield
        finally:
            self._drop_turns()

    def _drop_turns(self):
        while self.starts and [*self.starts, self.stream.n_seen][1] <= self.stream.oldest:
            self.starts.popleft()

    def forget(self):
        """Start over, with nothing read; the random generator continues."""
        random, self.stream = self.stream.sampler.random, self.stream.fresh()
        self.stream.sampler.random = random
        self.n_turns, self.before, self.starts = 0, 0, deque()

    def switch_method(self, method):
        """Continue with another method, which rereads what is in view into a new cache."""
        n_seen, n_dropped = self.n_seen, self.stream.n_seen - self.stream.n_held  # dropped: not reread
        self.stream = self.stream.under(method)
        self.before = n_seen - self.stream.n_seen
        self.starts = deque(start - n_dropped for start in self.starts)  # below 0 for tokens not reread
        self._drop_turns()

    def save(self, path):
        """Write everything needed to resume; see `stream.save_stream`."""
        turns = _places(self.n_turns, [*self.starts, self.stream.n_seen])
        about = {"turns": turns, "n_turns": self.n_turns, "before": self.before, "system": self.system}
        about |= {"pinned": self.n_pinned, "template": self.model.chat_template, "now": self.template.now.isoformat()}
        save_stream(self.stream, path, **about)

    def load(self, path):
        """Continue from a file that `save` wrote, bit for bit; errors as in `stream.load_stream`.

        It keeps the saved time, because a template that writes the date would write a different one tomorrow.
        """
        about, arrays = load_state(path, KIND, WHAT)
        with reading(path, WHAT):
            saved = about["more"]
            check_model(self.stream, path, about)
            if "now" not in saved:
                earlier = "a chat of an earlier version; start with another file"
                raise ValueError(f"{path}: is the state of {earlier if 'turns' in saved else 'a text, not a chat'}")
            theirs = (saved["system"], saved["template"], saved["pinned"] > 0)
            if theirs != (self.system, self.model.chat_template, self.n_pinned > 0):
                other = "a chat with another system message or template; use the same"
                raise ValueError(f"{path}: is the state of {other}")
            template = template_of(self.model, system=self.system, now=datetime.fromisoformat(saved["now"]))
            n_pinned = template.n_system_tokens() if self.n_pinned else 0
            fresh = self.stream.fresh(self._method_pinned(n_pinned, method_from(about["method"])))
            go_on(fresh, path, about, arrays)
            turns, n_turns = saved["turns"], saved["n_turns"]
            check_whole("n_turns", n_turns, len(turns))
            check_whole("before", saved["before"], 0)
            edges = sorted([*(start for _, start, _ in turns), fresh.n_seen])
            whole = all(type(number) is int for turn in turns for number in turn)
            if saved["pinned"] != n_pinned or not whole or turns != _places(n_turns, edges):
                raise ValueError("its turns do not match its tokens")
        self.stream, self.template, self.n_pinned = fresh, template, n_pinned
        self.n_turns, self.before, self.starts = n_turns, saved["before"], deque(edges[:-1])

    def _method_pinned(self, n_pinned, saved):
        """Return the method to continue with: with one sink per token of the saved system message."""
        method: Any = self.stream.method
        windows = (method.window, max(1, method.capacity - n_pinned)) if n_pinned and method.window else ()
        return saved if saved in [replace(method, n_sinks=n_pinned, window=window) for window in windows] else method


def _places(n_turns, edges):
    """List [number, first token_index, the next turn's first token_index] for each of the latest turns."""
    return [[number, *place] for number, place in enumerate(pairwise(edges), n_turns - len(edges) + 2)]


def _pin(method, n_sinks):
    """Return `method` with `n_sinks` sinks and the same capacity."""
    field = getattr(method, "__dataclass_fields__", {}).get("n_sinks")
    if field is None or not field.init:
        raise ValueError(f"{method!r}: only a method with sinks can pin a system message")
    if method.window is None:
        return replace(method, n_sinks=n_sinks)
    if n_sinks >= method.capacity:
        raise ValueError(f"{n_sinks} sinks leave no window in a cache of {method.capacity}; give a larger window")
    return replace(method, n_sinks=n_sinks, window=method.capacity - n_sinks)
