"""Text out: choose a token, feed it back, for as long as anyone listens.

`generate` is an iterator that yields each token as it is decoded. A stream without end runs in constant
memory: the cache holds ``n_sinks + window`` tokens and nothing else grows.
"""

from collections import deque
from itertools import count

import numpy as np

from .decoder import Decoder
from .device import to_host
from .methods import check_lead, policy_of
from .ops import softmax

HELD = 16  # tokens that wait for the rest of a character


def generate(
    model,
    ids,
    *,
    max_new_tokens=100,
    method="streaming",
    n_sinks=4,
    window=252,
    positions="slot",
    lead=(),
    temperature=0.0,
    top_k=0,
    top_p=1.0,
    repetition_penalty=1.0,
    seed=0,
    stop_tokens=(),
):
    """Continue a text.

    Parameters
    ----------
    model : Model
    ids : sequence or ndarray of shape (T,), ints
        The prompt.
    max_new_tokens : int or None
        None never stops.
    method, n_sinks, window, positions, lead
        As in `perplexity.token_nll`.
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
    policy = policy_of(model, method, n_sinks, window, positions)  # refuses bad values before the first token
    try:
        if method == "recompute":
            logits_of = _recompute(model, check_lead(model, lead, window), window)
        else:
            logits_of = _decode(Decoder(model, policy))
    except MemoryError as error:
        raise _no_memory(model, error) from error
    return _stream(model, logits_of, ids, choose, max_new_tokens, frozenset(stop_tokens))


def _stream(model, logits_of, ids, choose, max_new_tokens, stop_tokens):
    """Yield tokens; `logits_of` takes the new ids and gives the (V,) logits after the last."""
    new = ids
    for _ in count() if max_new_tokens is None else range(max_new_tokens):
        try:
            token = choose(logits_of(new))
        except MemoryError as error:
            raise _no_memory(model, error) from error
        yield token
        if token in stop_tokens:
            return
        new = [token]


def _no_memory(model, error):
    """A MemoryError that names the device and says what to do."""
    device = getattr(model.weights.embed, "device", "cpu")  # numpy 1 does not say
    advice = "use a smaller window" if device == "cpu" else "use a smaller window or load with dtype='float16'"
    return MemoryError(f"{model.name}: no memory left on {device} ({error}); {advice}")


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


class Chooser:
    """Picks the next token from logits; keeps the random generator and which tokens have occurred.

    Parameters
    ----------
    temperature, top_k, top_p, repetition_penalty, seed
        As in `generate`.
    seen : sequence of ints
        Tokens that count as having occurred.

    Raises
    ------
    ValueError
        For an option out of range.
    """

    def __init__(self, *, temperature=0.0, top_k=0, top_p=1.0, repetition_penalty=1.0, seed=0, seen=()):
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be 0 or more")
        if top_k < 0:
            raise ValueError(f"top_k is {top_k}; it must be 0 (all) or more")
        if not 0.0 < top_p <= 1.0:
            raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")
        if not 0.0 < repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty is {repetition_penalty}; it must be above 0")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.repetition_penalty = repetition_penalty
        self.seen = {int(i) for i in seen}
        try:
            self.random = np.random.default_rng(seed)
        except (TypeError, ValueError):
            raise ValueError(f"seed is {seed!r}; it must be a whole number of 0 or more") from None

    def __call__(self, logits):
        """Choose a token.

        Parameters
        ----------
        logits : numpy.ndarray of shape (V,)

        Returns
        -------
        int
        """
        logits = logits.astype(np.float64)
        if self.repetition_penalty != 1.0:
            again = np.array(sorted(self.seen), dtype=np.int64)
            heavier = logits[again] * self.repetition_penalty
            logits[again] = np.where(logits[again] > 0, logits[again] / self.repetition_penalty, heavier)
        if self.temperature == 0.0:
            token = int(logits.argmax())
        else:
            p = self.probabilities(logits)
            token = int(self.random.choice(len(p), p=p))
        if self.repetition_penalty != 1.0:
            self.seen.add(token)
        return token

    def probabilities(self, logits):
        """What a token is drawn from: temperature, then top-k, then top-p.

        Parameters
        ----------
        logits : numpy.ndarray of shape (V,), float64

        Returns
        -------
        numpy.ndarray of shape (V,)
            Sums to one.

        Examples
        --------
        >>> Chooser(temperature=1.0, top_p=0.7).probabilities(np.log([0.5, 0.3, 0.2])).round(3).tolist()
        [0.625, 0.375, 0.0]
        """
        with np.errstate(over="ignore"):  # divided by next to nothing, all but the likeliest are minus infinity
            p = softmax((logits - logits.max()) / self.temperature)
        order = np.argsort(-logits, kind="stable")  # likeliest first; of equals the earlier
        n_kept = min(self.top_k, len(p)) if self.top_k else len(p)
        if self.top_p < 1.0:
            p_kept = p[order[:n_kept]] / p[order[:n_kept]].sum()
            # a token stays while those before it hold less than top_p
            n_kept = int((np.cumsum(p_kept) - p_kept < self.top_p).sum())
        kept = np.zeros_like(p)
        kept[order[:n_kept]] = p[order[:n_kept]]
        return kept / kept.sum()


def text_stream(tokenizer, ids, *, after=()):
    """Tokens to text, whole characters at a time.

    A character may take several tokens; it comes out when its last byte is there. What the latest tokens add is
    the difference between two decodings, with and without them: alone, a token does not know whether the space
    in front of it counts. (`tokenizers.decoders.DecodeStream` raises at fallback bytes that make no character.)

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
