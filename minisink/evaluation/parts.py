"""Measure one text in independent parts, exactly, because a loss reaches back only so far.

In one layer a token sees the sinks and W - 1 tokens back. Each of those has seen equally far back in the layer below,
and so on down: through L layers a loss depends on the sinks, on the token that predicts, on the L (W - 1) tokens before
that one, and on nothing else. With two layers, a window of three and one sink, token 9 predicts::

    token       0   1   2   3   4   5   6   7   8   9   10
    predicts                                    o         its logits
    layer 2     o                           o   o   o     keys and values that it sees
    layer 1     o                   o   o   o   o   o     that these have seen: nothing before token 5

So a part starts that far before its stretch with an empty window. The first tokens of this run-up see too little:
after layer l the first l (W - 1) differ from the whole text. That triangle ends where the stretch begins, and the
losses of the run-up are dropped. The keys and values of the sinks come from reading the head of the text alone,
because a sink has seen only sinks. With a run-up one token shorter, the first loss is wrong.

Matrices of different shapes round differently, by 1e-5 nats or so. So parts longer than a chunk, and run-ups, begin
where a chunk of the whole text does; then, on one machine, not even a bit differs.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from copy import copy
from typing import NamedTuple

import numpy as np

from ..cache import by_layer, check_whole
from ..fast.blocks import Banded
from ..loss import CHUNK, recomputed
from ..methods import DEFAULT, ByLayer, Method, Recompute, check_method, make_cache
from ..model import Model
from .jobs import cores, in_order
from .stream import in_blocks, nll_stream

LONGEST = 32768  # tokens per part, unless its run-up is more than an eighth of that


def nll_parts(
    model: Model,
    ids: Sequence[int] | np.ndarray | Iterable[Sequence[int] | np.ndarray],
    method: Method = DEFAULT,
    *,
    executor: Executor | None = None,
    parts: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield losses like `loss.nll_blocks`, each block computed independently, on other processes or machines.

    Parameters
    ----------
    model : Model
        Sent once to each worker.
    ids : sequence or ndarray of shape (T,), ints, or an iterable of such
        A text, or its pieces, which are read as they are needed.
    method : Window, Streaming, Recompute or ByLayer of such
        What a query sees. Other methods reach back to the start of a text.
    executor : concurrent.futures.Executor, optional
        For example ``ProcessPoolExecutor(2)``, or ``Client.get_executor()`` of Dask; this process by default.
    parts : int, optional
        The largest number of equal parts for a text given as a whole. By default one per core, and more if they would
        be longer than 32,768 tokens or eight times their run-up.

    Returns
    -------
    iterator of ndarray
        Together (T-1,) nats, in order, in the dtype of the model, equal to `loss.token_nll` except for rounding. An
        exception raised by the pieces is raised after the losses of all tokens before it.

    Raises
    ------
    ValueError
        As in `loss.nll_blocks`, and for a method whose losses depend on all of the text before them.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from minisink import Streaming, load, token_nll
    >>> model, method = load("novels"), Streaming(1, 3)
    >>> ids = model.encode("It was a dark night, and the wind blew about the old house by the sea.")
    >>> with ThreadPoolExecutor(2) as executor:
    ...     nll = np.concatenate([*nll_parts(model, ids, method, executor=executor, parts=3)])
    >>> bool(np.allclose(nll, token_nll(model, ids, method), atol=2e-5))
    True
    """
    past = Past(model, method)
    length = past.longest
    if hasattr(ids, "shape") or (isinstance(ids, Sequence) and np.ndim(ids[:1]) < 2):
        ids = model.check_ids(ids)  # type: ignore[arg-type]
        if parts is None:
            parts = min(cores(), -(-len(ids) // max(1, past.reach)))  # a part is no shorter than its run-up
            parts = max(parts, -(-len(ids) // length))
        check_whole("parts", parts, 1)
        ids, length = [ids], max(1, -(-(len(ids) - 1) // parts))
        if length < past.chunk:
            past = Past(model, method, chunk=1)
    elif parts is not None:
        raise ValueError(f"parts is {parts!r}, but the length of a text in pieces is not known")
    return measured(model, ids, past, past.in_chunks(length), executor)


def reach(model: Model, method: Method, chunk: int = 1) -> int:
    """Return how many tokens before the predicting one a loss depends on, besides the sinks.

    Each layer adds a multiple of `chunk`. A `Recompute` has one token more, which the first window of a part only
    predicts. Raise ValueError for a method whose losses depend on all earlier tokens.
    """
    if isinstance(method, Recompute):
        return method.window
    policies, why = by_layer(method, model.config.n_layers), ""
    if method.kv_cache is not None:
        why = "it fetches tokens from anywhere earlier"
    elif not all(policy.is_plain for policy in policies):
        why = "a custom policy may keep any token"
    elif any(policy.window is None for policy in policies):
        why = "it keeps every token before"
    if why:
        raise ValueError(f"{method!r} cannot be measured in parts: {why}; a window can, with sinks or without")
    return sum(-(-(policy.window - 1) // chunk) * chunk for policy in policies)


class Part(NamedTuple):
    """The job of a worker: the losses of the last `n` of `ids`, the first of which is token `start`."""

    method: Method
    readable: bool
    head: np.ndarray  # ids that begin the text, the sinks among them
    start: int
    ids: np.ndarray
    n: int

    @property
    def name(self):
        """The tokens measured, for a message."""
        stop = self.start + len(self.ids)
        return f"tokens {stop - self.n:,} to {stop - 1:,}"


class Past:
    """What the next part needs of the text before it: the number of tokens, the first ids, and the last ones."""

    def __init__(self, model, method, *, readable=False, chunk=CHUNK):
        check_method(model, method)
        self.method, self.readable, self.chunk = method, readable, 1 if isinstance(method, Recompute) else chunk
        self.reach = reach(model, method, self.chunk)
        policies = by_layer(method, model.config.n_layers)
        self.n_head = self.in_chunks(max(1, *(getattr(policy, "n_sinks", 0) for policy in policies)))
        self.head = self.recent = np.empty(0, np.int64)
        self.n_seen = 0
        # tokens per part: so many that its run-up hardly matters, but not so many that it takes long
        self.longest = max(LONGEST, 8 * self.reach)
        if isinstance(method, Recompute):  # each token costs a window
            self.longest = max(8, LONGEST // self.reach)

    def in_chunks(self, n_tokens):
        """Round a number of tokens up to whole chunks."""
        return -(-n_tokens // self.chunk) * self.chunk

    def state(self):
        """Return everything needed to resume, arrays by name."""
        return {"head": self.head, "recent": self.recent}

    def restore(self, n_seen, arrays):
        """Restore from the result of `state` after `n_seen` tokens; ValueError if no text leaves such arrays."""
        self.n_seen, self.head, self.recent = n_seen, arrays["head"], arrays["recent"]
        kept = min(n_seen, self.n_head), min(n_seen, self.reach)
        shapes, kinds = (self.head.shape, self.recent.shape), {array.dtype.kind for array in arrays.values()}
        if shapes != ((kept[0],), (kept[1],)) or kinds != {"i"}:
            raise ValueError(f"it has {len(self.head)} and {len(self.recent)} ids of {n_seen}, not {kept}")

    def take(self, ids):
        """Move on past the next ids of the text."""
        self.head = np.concatenate((self.head, ids[: self.n_head - len(self.head)]))
        self.recent = np.concatenate((self.recent, ids))
        self.recent = self.recent[max(0, len(self.recent) - self.reach) :]
        self.n_seen += len(ids)

    def part(self, ids):
        """Return the part that predicts all of the next `ids` but the first."""
        start, run_up = self.n_seen - len(self.recent), self.recent
        if start <= self.n_head:
            start, run_up = 0, np.concatenate((self.head[:start], run_up))
        return Part(self.method, self.readable, self.head, start, np.concatenate((run_up, ids)), len(ids) - 1)


def measured(model, pieces, past, length, executor=None):
    """Yield the losses of the text after `past`, `length` tokens at a time, and move `past` on."""
    taken, failure = deque(), []

    def parts():
        ahead = None
        try:
            for ids in in_blocks(model, pieces, length):
                ahead = ahead or copy(past)  # not before: reading the first pieces may move it
                taken.append(ids[:-1])
                yield ahead.part(ids)
                ahead.take(ids[:-1])
        except Exception as error:  # from the text: the losses before it come first
            failure.append(error)

    for nll in in_order(part_nll, model, parts(), executor):
        past.take(taken.popleft())
        yield nll
    if failure:
        raise failure[0]


def part_nll(model, part):
    """Return the losses (part.n,) for a part."""
    if isinstance(part.method, Recompute):
        nll = recomputed(model, part.ids, part.method, CHUNK, readable=part.readable)
    else:
        nll = nll_stream(model, [part.ids], cache=begun(model, part))  # in the chunks of a run without parts
    return np.concatenate([*nll])[-part.n :]


def begun(model, part):
    """Return a cache that takes token `start` next; empty at the start of the text, otherwise with the sinks."""
    slow = part.readable or isinstance(part.method, ByLayer)
    cache = make_cache(model, part.method) if slow else Banded(model.config.n_layers, part.method)
    if part.start == 0:
        return cache
    for first in range(0, len(part.head), CHUNK):
        model.forward(part.head[first : first + CHUNK], cache=cache, rows=slice(1))
    arrays, about = cache.state()
    n_sinks = [layer.policy.n_sinks for layer in cache.layers] if slow else [0] * len(cache.layers)
    for name, array in arrays.items():
        if not name.startswith("sink"):  # a `Banded` has the sinks in other arrays, a `KVCache` in front
            arrays[name] = array[: n_sinks[int(name.split(".")[1])]]
    return type(cache).from_state(part.method, arrays, about | {"n_seen": part.start})
