"""A text that goes on for ever, today and tomorrow: what has been read, what has been chosen and not been read yet.

`generation.generate` ends, and what it knew is gone. A `Stream` keeps it: the cache, the random generator, and the
tokens that still wait. It can be written to a file, and goes on from there to the same bits.
"""

import hashlib
from collections import deque
from functools import cached_property
from typing import Any

from ..generation import reader
from ..methods import N_SINKS, WITH_SINKS, cache_bytes_per_token, window_of
from ..sampling import Chooser
from ..snapshot import restored
from ..system.device import to_host
from ..system.files import load_state, save_state

KIND = "minisink_stream"


class Stream:
    """One text under one method.

    Parameters
    ----------
    model : Model
    method, n_sinks, window, positions, readable, lead
        As in `generation.generate`.
    retrieval : dict, optional
        What is its own: n_blocks, block, select, store.
    **draws
        As in `sampling.Chooser`: temperature, top_k, top_p, repetition_penalty, seed.

    Attributes
    ----------
    n_seen : int
        Tokens read.
    unread : list of int
        Tokens that belong to the text and have not been read: the last one chosen, mostly.
    """

    def __init__(
        self, model, *, method="streaming", n_sinks=N_SINKS, window=None, positions="slot", readable=False, lead=(),
        retrieval=None, **draws,
    ):  # fmt: skip
        self.model, self.readable, self.lead = model, readable, [int(i) for i in lead]
        self.method, self.n_sinks = method, n_sinks if method in WITH_SINKS else 0
        self.window = None if method == "dense" else window_of(method, n_sinks, window)
        self.positions, self.draws = positions, draws
        self.retrieval = retrieval or {}
        self.choose = Chooser(**draws)
        self.cache: Any
        self._open(n_sinks, window)
        self.n_seen, self.unread = 0, []
        self.first: list[int] = []  # the ids of what is in view, to be read again by another method
        self.recent: deque[int] = deque(maxlen=self.window)

    def _open(self, n_sinks, window, cache=None):
        """Make what reads, over an empty cache or this one."""
        self._read, self.cache = reader(
            self.model, method=self.method, n_sinks=n_sinks, window=window, positions=self.positions,
            readable=self.readable, lead=self.lead, cache=cache, **self.retrieval,
        )  # fmt: skip

    @property
    def n_held(self):
        """Tokens that the next one will find in view."""
        return len(self.first) + len(self.recent)

    @property
    def n_kept(self):
        """Tokens whose keys and values are kept: those in view, and with retrieval those that may come back."""
        if self.cache is None:
            return 0
        if self.method != "retrieval":
            return self.n_held
        n_evicted, store = self.n_seen - self.n_held, self.retrieval.get("store")
        return self.n_held + (n_evicted if store is None else min(n_evicted, store))

    @property
    def n_bytes(self):
        """Bytes that these keys and values take; none for re-computation, which keeps none."""
        return self.n_kept * cache_bytes_per_token(self.model)

    @property
    def oldest(self):
        """The token_index of the oldest token in the window, 0 while nothing has left it."""
        return self.n_seen - len(self.recent) if self.n_held < self.n_seen else 0

    def read(self, ids):
        """Read what is `unread`, and then `ids`; they wait, if this is interrupted.

        Parameters
        ----------
        ids : sequence of int

        Returns
        -------
        numpy.ndarray of shape (V,)
            Logits after the last.
        """
        self.unread += [int(i) for i in ids]
        logits = self._read(self.unread)
        n_first = min(max(0, self.n_sinks - len(self.first)), len(self.unread))
        self.first += self.unread[:n_first]
        self.recent.extend(self.unread[n_first:])
        self.n_seen += len(self.unread)
        self.choose.seen.update(self.unread)
        self.unread = []
        return logits

    def write(self, logits, max_new_tokens=None, stop_tokens=()):
        """Choose tokens, and read them, from the logits of the last token that was read.

        Parameters
        ----------
        logits : numpy.ndarray of shape (V,)
        max_new_tokens : int or None
            None never stops.
        stop_tokens : collection of int
            End the text; the stop token itself is neither yielded nor read.

        Yields
        ------
        int
        """
        n_new = 0
        while max_new_tokens is None or n_new < max_new_tokens:
            token = self.choose(logits)
            if token in stop_tokens:
                return
            self.unread = [token]
            n_new += 1
            yield token
            if n_new != max_new_tokens:
                logits = self.read([])

    def fresh(self):
        """An empty stream of the same kind, with a random generator of its own."""
        return self._of(self.method, self.n_sinks, self.window)

    def under(self, method, *, n_sinks=N_SINKS, window=None):
        """The same text under another method, which reads anew the tokens that are in view.

        Returns
        -------
        Stream
        """
        stream = self._of(method, n_sinks, window)
        stream.choose, ids = self.choose, [*self.first, *self.recent]
        if ids:
            stream.read(ids)
        stream.unread = self.unread
        return stream

    def _of(self, method, n_sinks, window):
        return Stream(
            self.model, method=method, n_sinks=n_sinks, window=window, positions=self.positions,
            readable=self.readable, lead=self.lead, retrieval=self.retrieval, **self.draws,
        )  # fmt: skip

    # To a file and back -----------------------------------------------------------------------------

    def save(self, path, **more):
        """Write all there is to go on from, whole or not at all.

        Parameters
        ----------
        path : str or path
        **more
            What JSON can hold, to come back from `load`.

        Raises
        ------
        ValueError
            When the file cannot be written.
        """
        arrays, about = ({}, {}) if self.cache is None else self.cache.state()
        cache = about | {"kind": self.cache.kind if self.cache is not None else None}
        about = self._made_with() | {
            "cache": cache,
            "n_seen": self.n_seen,
            "unread": self.unread,
            "first": self.first,
            "lead": self.lead,
            "recent": list(self.recent),
            "seen": sorted(self.choose.seen),
            "random": self.choose.random.bit_generator.state,
            "more": more,
        }
        save_state(path, KIND, about, {name: to_host(array) for name, array in arrays.items()})

    def load(self, path):
        """Go on from a file that `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        dict
            What `save` was given besides.

        Raises
        ------
        ValueError
            For any other file, and for a state of another model or method; nothing has changed then.
        """
        about, arrays = load_state(path, KIND, "a state that a chat or a generated text goes on from")
        for name, made_with in self._made_with().items():
            if about.get(name) != made_with:
                if name == "weights":
                    raise ValueError(
                        f"{path}: is a state of another model ({about.get('model')}), not of {self.model.name}"
                    )
                if name != "model":
                    raise ValueError(f"{path}: was made with {name} {about.get(name)!r}, and this is {made_with!r}")
        self.lead = about["lead"]
        cache = None if self.cache is None else restored(about["cache"], arrays, self.model.weights.embed)
        self._open(self.n_sinks, self.window, cache)
        if cache is None and about["recent"]:
            self._read(about["recent"])  # re-computation has its tokens only
        self.n_seen, self.unread, self.first = about["n_seen"], about["unread"], about["first"]
        self.recent = deque(about["recent"], maxlen=self.window)
        self.choose.seen = set(about["seen"])
        self.choose.random.bit_generator.state = about["random"]
        return about["more"]

    def _made_with(self):
        """What a state must agree in with whoever goes on from it."""
        return {
            "model": self.model.name,
            "weights": self._digest,
            "method": self.method,
            "n_sinks": self.n_sinks,
            "window": self.window,
            "positions": self.positions,
            "readable": self.readable,
            "retrieval": self.retrieval if self.method == "retrieval" else None,
        }

    @cached_property
    def _digest(self):
        """Digits that tell one model from another: its config, and the first row of every array."""
        model = self.model
        digest = hashlib.sha256(f"{model.config} {model.dtype}".encode())
        for name, array in sorted(model.architecture.to_arrays(model.config, model.weights).items()):
            digest.update(name.encode() + to_host(array[:1]).tobytes())
        return digest.hexdigest()
