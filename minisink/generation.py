"""Text out: choose a token, feed it back, for as long as anyone listens.

`generate` is an iterator that yields each token as it is decoded. A stream without end runs in constant memory: the
cache holds ``n_sinks + window`` tokens and nothing else grows (but for "retrieval", which keeps what was evicted). It
decodes at memory speed (`fast.decoder`), or with
``readable=True`` through `cache` as the paper has it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count

import numpy as np

from .cache import KVCache
from .fast.decoder import Decoder
from .fast.ring import RingCache
from .methods import BLOCK, N_BLOCKS, N_SINKS, cache_for, check_cache, check_lead, policy_of, warn_beyond, window_of
from .model import Model
from .paths import Path
from .retrieval import Retrieval
from .sampling import Chooser
from .system.device import to_host

HELD = 16  # tokens that wait for the rest of a character


def generate(
    model: Model,
    ids: Sequence[int] | np.ndarray,
    *,
    max_new_tokens: int | None = 100,
    method: str = "streaming",
    n_sinks: int = N_SINKS,
    window: int | None = None,
    positions: str = "slot",
    n_blocks: int = N_BLOCKS,
    block: int = BLOCK,
    select: str = "best",
    store: int | None = None,
    lead: Sequence[int] | np.ndarray = (),
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
    max_new_tokens : int or None
        None never stops.
    method, n_sinks, window, positions, n_blocks, block, select, store, lead, readable
        As in `loss.token_nll`.
    temperature : float
        0 takes the likeliest token; otherwise logits are divided by it and a token is drawn.
    top_k : int
        Draw among the k likeliest only; 0 for all.
    top_p : float
        Draw among the fewest likeliest tokens that hold this much probability; 1 for all
        (Holtzman et al., arXiv:1904.09751).
    repetition_penalty : float
        Logits of tokens that already occurred, prompt included, are divided by it where positive and
        multiplied where negative (Keskar et al., arXiv:1909.05858); 1 for none.
    seed : int
        Of the draws: the same seed gives the same text.
    stop_tokens : collection of int
        Ends the text; the stop token itself is yielded.

    cache : KVCache, fast.ring.RingCache or path, optional
        A cache of your own, instead of a method; it takes in the prompt and the text, after what it holds already.

    Returns
    -------
    iterator of int

    Raises
    ------
    ValueError
        At once, for bad ids or an option out of range.
    MemoryError
        When the device of the model has no room left for the cache.

    Examples
    --------
    >>> from minisink import load
    >>> model = load("novels")
    >>> list(generate(model, model.encode("My dear"), max_new_tokens=3, window=60)) == list(
    ...     generate(model, model.encode("My dear"), max_new_tokens=3, window=60, method="dense"))
    True
    """
    ids = model.check_ids(ids)
    if max_new_tokens is not None and max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be 0 or more, or None for an endless stream")
    choose = Chooser(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed, seen=ids
    )
    logits_of, kept = reader(
        model, method=method, n_sinks=n_sinks, window=window, positions=positions, n_blocks=n_blocks, block=block,
        select=select, store=store, lead=lead, readable=readable, cache=cache,
    )  # fmt: skip
    n_seen = getattr(kept, "n_seen", 0)
    n_end = n_seen + len(ids) + (math.inf if max_new_tokens is None else max_new_tokens)
    warn_beyond(model, getattr(kept, "policy", None), n_seen, n_end)
    return _stream(logits_of, ids, choose, max_new_tokens, frozenset(stop_tokens))


def _stream(logits_of, ids, choose, max_new_tokens, stop_tokens):
    """Yield tokens; `logits_of` takes the new ids and gives the (V,) logits after the last."""
    new = ids
    for _ in count() if max_new_tokens is None else range(max_new_tokens):
        token = choose(logits_of(new))
        yield token
        if token in stop_tokens:
            return
        new = [token]


def reader(
    model: Model,
    *,
    method: str = "streaming",
    n_sinks: int = N_SINKS,
    window: int | None = None,
    positions: str = "slot",
    n_blocks: int = N_BLOCKS,
    block: int = BLOCK,
    select: str = "best",
    store: int | None = None,
    lead: Sequence[int] | np.ndarray = (),
    readable: bool = False,
    cache: KVCache | RingCache | Path | None = None,
) -> tuple[Callable, KVCache | RingCache | Path | None]:
    """What reads a text for `generate`, piece by piece: new tokens in, logits after the last of them out.

    Parameters
    ----------
    model, method, n_sinks, window, positions, n_blocks, block, select, store, lead, readable, cache
        As in `generate`.

    Returns
    -------
    callable
        From ids, a sequence of one or more, to a numpy.ndarray of shape (V,).
    KVCache, RingCache, path or None
        All it remembers; None for "recompute", which has its tokens only.

    Raises
    ------
    ValueError, MemoryError
        As `generate`.

    Examples
    --------
    >>> from minisink import load
    >>> model = load("novels")
    >>> read, cache = reader(model, n_sinks=1, window=3)
    >>> read(model.encode("It was a dark night")).shape, len(cache)
    ((1024,), 4)
    """
    retrieval: dict = {"n_blocks": n_blocks, "block": block, "select": select, "store": store}
    if cache is not None and not isinstance(cache, RingCache):
        check_cache(model, cache, method, n_sinks, window, positions, **retrieval)
        return _patient(model, _through(model, cache)), cache
    window = window_of(method, n_sinks, window)
    # refuses bad values at once
    policy = policy_of(model, method, n_sinks, window, positions, **retrieval, stacklevel=4)
    try:
        if cache is not None:
            logits_of = _decode(Decoder(model, cache.policy, cache=cache))
        elif method == "recompute":
            logits_of = _recompute(model, check_lead(model, lead, window), window)
        elif readable or (isinstance(policy, Retrieval) and policy.is_control):
            cache = cache_for(model, policy)
            logits_of = _through(model, cache)
        else:
            decoder = Decoder(model, policy)
            cache, logits_of = decoder.cache, _decode(decoder)
    except MemoryError as error:
        raise _no_memory(model, error) from error
    return _patient(model, logits_of), cache


def _patient(model, logits_of):
    """The same, with a MemoryError that says what to do."""

    def read(new):
        try:
            return logits_of(new)
        except MemoryError as error:
            raise _no_memory(model, error) from error

    return read


def _no_memory(model, error):
    """A MemoryError that names the device and says what to do."""
    device = getattr(model.weights.embed, "device", "cpu")  # numpy 1 does not say
    advice = "use a smaller window" if device == "cpu" else "use a smaller window or load with dtype='float16'"
    return MemoryError(f"{model.name}: no memory left on {device} ({error}); {advice}")


def _through(model, cache):
    """Logits by way of `Model.forward` and a cache: the readable path."""

    def logits_of(new):
        return to_host(model.forward(new, cache=cache, rows=slice(-1, None))[0])

    return logits_of


def _decode(decoder):
    """Logits from a `Decoder`: the prompt at once, and then one token at a time."""

    def logits_of(new):
        return to_host(decoder(new) if len(new) > 1 else decoder.step(int(new[0])))

    return logits_of


def _recompute(model, lead, window):
    """Logits from the last `window` tokens, built anew each time."""
    recent = deque(maxlen=window + 1)  # one more than fits tells that the text has outgrown the window

    def logits_of(new):
        recent.extend(int(i) for i in new)
        ids = list(recent)
        if len(ids) > window:
            ids = [*lead, *ids[len(lead) - window :]]
        return to_host(model.forward(ids, rows=slice(-1, None))[0])

    return logits_of


def text_stream(tokenizer, ids, *, after=()):
    """Tokens to text, whole characters at a time.

    A character may take several tokens; it comes out when its last byte is there, or as U+FFFD when the tokens end
    before. What the latest tokens add is the difference between two decodings, with and without them: alone, a token
    does not know whether the space in front of it counts. (`tokenizers.decoders.DecodeStream` raises at fallback bytes
    that make no character.)

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    ids : iterable of int
    after : sequence of int
        Tokens that came before, whose text is out already.

    Yields
    ------
    str
    """
    recent = [int(i) for i in after]  # the latest tokens, and how many of them are out
    n_said = len(recent)
    while n_said and tokenizer.decode(recent[:n_said]).endswith("\ufffd") and len(recent) - n_said < HELD:
        n_said -= 1  # they end within a character
    for token in ids:
        recent.append(int(token))
        said, text = tokenizer.decode(recent[:n_said]), tokenizer.decode(recent)
        unfinished = len(text) <= len(said) or text.endswith("\ufffd")
        if unfinished and len(recent) - n_said < HELD:  # more bytes than any character has are no character
            continue
        if len(text) > len(said):
            yield text[len(said) :]
        recent, n_said = recent[n_said:], len(recent) - n_said
    said, text = tokenizer.decode(recent[:n_said]), tokenizer.decode(recent)
    if len(text) > len(said):  # the stream ended within a character, or with one that is U+FFFD
        yield text[len(said) :]
