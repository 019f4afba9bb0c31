"""Text out: choose a token, feed it back, for as long as anyone listens.

A `Stream` is one text under one method: the tokens that have been read, and those chosen but not read yet. `generate`
iterates over one. An endless stream runs in constant memory, because the cache holds ``n_sinks + window`` tokens
and nothing else grows (except with retrieval, which keeps what was evicted). Decoding runs at memory speed
(`fast.decoder`), or with ``readable=True`` through `cache`, as in the paper.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from .cache import KVCache
from .fast.decoder import Decoder
from .fast.ring import RingCache
from .methods import DEFAULT, Method, Recompute, check_cache, check_method, make_cache, refuse_both, warn_beyond
from .model import Model
from .paths import Path
from .sampling import Sampler
from .system.device import to_host


def generate(
    model: Model,
    ids: Sequence[int] | np.ndarray,
    method: Method = DEFAULT,
    *,
    max_new_tokens: int | None = 100,
    readable: bool = False,
    cache: KVCache | RingCache | Path | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop_tokens: Collection[int] = (),
) -> Iterator[int]:
    """Continue a text.

    Parameters
    ----------
    model : Model
    ids : sequence or ndarray of shape (T,), ints
        The prompt.
    method, readable
        As in `loss.token_nll`.
    max_new_tokens : int or None
        None never stops.
    cache : KVCache, fast.ring.RingCache or path, optional
        Your own cache, instead of a method; the prompt and the new text are added to what it already holds.
    temperature : float
        0 takes the likeliest token; otherwise logits are divided by it and a token is drawn.
    top_k : int
        Draw from the k likeliest only; 0 for all.
    top_p : float
        Draw from the smallest set of likeliest tokens that holds this much probability; 1 for all
        (Holtzman et al., arXiv:1904.09751).
    repetition_penalty : float
        Logits of tokens that have already occurred, prompt included, are divided by it if positive and
        multiplied if negative (Keskar et al., arXiv:1909.05858); 1 for no penalty.
    seed : int
        Seed of the draws; the same seed gives the same text.
    stop_tokens : collection of int
        Tokens that end the text; the stop token itself is yielded.

    Returns
    -------
    iterator of int

    Raises
    ------
    ValueError
        Immediately, for bad ids, a `method` that is not a method, or an option out of range.

    Examples
    --------
    >>> from minisink import Dense, Streaming, load
    >>> model = load("novels")
    >>> ids = model.encode("My dear")
    >>> list(generate(model, ids, Streaming(4, 60), max_new_tokens=3)) == list(
    ...     generate(model, ids, Dense(), max_new_tokens=3))
    True
    """
    ids = model.check_ids(ids)
    if max_new_tokens is not None and max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be 0 or more, or None for an endless stream")
    draws = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    stream = Stream(model, method, readable=readable, cache=cache, repetition_penalty=repetition_penalty, **draws)
    n_seen = getattr(stream.cache, "n_seen", 0)
    n_end = n_seen + len(ids) + (math.inf if max_new_tokens is None else max_new_tokens)
    warn_beyond(model, getattr(stream.cache, "policy", None), n_seen, n_end)
    return _continue(stream, ids, max_new_tokens, frozenset(stop_tokens))


def _continue(stream, ids, max_new_tokens, stop_tokens):
    if max_new_tokens == 0:
        return
    for token in stream.write(stream.read(ids), max_new_tokens):
        yield token
        if token in stop_tokens:
            return


class Stream:
    """One text under one method, with the options of `generate`; `draws` are those of `sampling.Sampler`.

    ``n_seen`` tokens have been read. Tokens that are ``pending`` belong to the text but have not been read; usually
    it is just the last one chosen. Another method can continue the text from the tokens in view, ``sink_ids`` and
    ``window_ids``. ``cache`` is None for `Recompute`, which keeps only tokens.
    """

    def __init__(self, model: Model, method: Method = DEFAULT, *, readable=False, cache: Any = None, **draws: Any):
        self.model, self.method, self.readable, self.draws = model, method, readable, draws
        self.sampler = Sampler(**draws)
        self._read, self.cache = reader(model, method, readable=readable, cache=cache)
        if cache is not None:
            self.method = method = getattr(cache, "policy", method)
        self.n_seen, self.pending = 0, []
        self.sink_ids: list[int] = []
        self.window_ids: deque[int] = deque(maxlen=method.window)

    def read(self, ids) -> np.ndarray:
        """Read what is `pending`, then `ids`; return the logits (V,) after the last. An interrupt loses no token."""
        self.pending += [int(i) for i in ids]
        logits = self._read(self.pending)
        n_sinks = getattr(self.method, "n_sinks", 0)
        n_first = max(0, n_sinks - len(self.sink_ids))
        self.sink_ids += self.pending[:n_first]
        self.window_ids.extend(self.pending[n_first:])
        self.n_seen += len(self.pending)
        self.sampler.seen.update(self.pending)
        self.pending = []
        return logits

    def write(self, logits: np.ndarray, max_new_tokens: int | None = None, stop_tokens=()) -> Iterator[int]:
        """Choose tokens and read them, starting from the logits (V,) after the last token read.

        A stop token ends the text, and is neither yielded nor read; without `max_new_tokens` nothing else ends it.
        """
        n_new = 0
        while max_new_tokens is None or n_new < max_new_tokens:
            token = self.sampler(logits)
            if token in stop_tokens:
                return
            self.pending = [token]
            n_new += 1
            yield token
            if n_new != max_new_tokens:
                logits = self.read([])

    @property
    def n_held(self) -> int:
        """How many tokens are in view when the next one arrives."""
        return len(self.sink_ids) + len(self.window_ids)

    @property
    def oldest(self) -> int:
        """The token_index of the oldest token in the window, or 0 if none has left it yet."""
        return self.n_seen - len(self.window_ids) if self.n_held < self.n_seen else 0

    def fresh(self, method: Method | None = None) -> "Stream":
        """Return an empty stream with the same options, its own random generator and, by default, the same method."""
        return Stream(self.model, method or self.method, readable=self.readable, **self.draws)

    def under(self, method: Method) -> "Stream":
        """Continue the same text under another method, which rereads the tokens in view."""
        stream = self.fresh(method)
        stream.sampler, ids = self.sampler, [*self.sink_ids, *self.window_ids]
        if ids:
            stream.read(ids)
        stream.pending = self.pending
        return stream


def reader(model: Model, method: Method = DEFAULT, *, readable=False, cache: Any = None) -> tuple[Callable, Any]:
    """Return a function from new ids to the logits (V,) after the last one, and the cache it fills.

    Parameters and errors are those of `generate`. For `Recompute`, which has no cache, the second result is None.

    >>> from minisink import Streaming, load
    >>> model = load("novels")
    >>> read, cache = reader(model, Streaming(1, 3))
    >>> read(model.encode("It was a dark night")).shape, len(cache)
    ((1024,), 4)
    """
    refuse_both(method, cache)
    if cache is None:
        check_method(model, method)
        if isinstance(method, Recompute):
            return _recompute(model, model.check_ids(method.lead) if method.lead else (), method.window), None
        if readable or not method.is_plain:
            cache = make_cache(model, method)
    if cache is None or isinstance(cache, RingCache):
        decoder = Decoder(model, getattr(cache, "policy", method), cache=cache)
        return lambda new: to_host(decoder(new) if len(new) > 1 else decoder.step(int(new[0]))), decoder.cache
    check_cache(model, cache)
    return lambda new: to_host(model.forward(new, cache=cache, rows=slice(-1, None))[0]), cache


def _recompute(model, lead, window):
    recent = deque(maxlen=window + 1)  # one more than fits, to notice that the text has outgrown the window

    def logits_of(new):
        recent.extend(int(i) for i in new)
        ids = list(recent)
        if len(ids) > window:
            ids = [*lead, *ids[len(lead) - window :]]
        return to_host(model.forward(ids, rows=slice(-1, None))[0])

    return logits_of
