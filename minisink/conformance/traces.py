"""A trace: what a cache is given, token by token, and everything it must then hold and answer.

Letters: T tokens, L layers, H query heads, K key/value heads, D width of a head, S slots. A layer that holds fewer
tokens than S leaves its last slots empty: there `token_index` and `positions` are -1.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..attention import mix, score
from ..cache import KVCache, Policy, check_whole
from ..methods import ByLayer
from ..ops import softmax
from ..positions import Rotary, Slopes, bias_of
from ..wrong_turns.right import plain
from .policies import POLICIES, Maker, made


@dataclass(frozen=True, eq=False)
class Trace:
    """Queries, keys and values of T tokens in L layers, and what a policy makes of them."""

    name: str  # "llama", "gqa" or "gpt2" for a recorded one, "drawn" otherwise
    n_sinks: int
    window: int  # the current token counts: under StreamingLLM a query sees at most n_sinks + window keys
    theta: float | None  # base of the rotary angles; None where nothing rotates (GPT-2), or where an `encoding` does
    policy: Policy | ByLayer  # which tokens stay, and at which position each is
    q: np.ndarray  # (T, L, H, D), un-rotated, like the keys
    k: np.ndarray  # (T, L, K, D)
    v: np.ndarray  # (T, L, K, D)
    token_index: np.ndarray  # (T, L, S), ints: held when token t attends, itself included, in slot order
    positions: np.ndarray  # (T, L, S), ints, one per slot; without rotation, where its token was embedded
    out: np.ndarray  # (T, L, H, D)
    ids: np.ndarray | None = None  # (T,), the text, if a model read one
    losses: np.ndarray | None = None  # (T - 1,), nats per token, from the second token on
    encoding: Any = None  # from `positions`, if `theta` is not enough: ALiBi, rotary over a part of a head

    def __repr__(self):
        T, L, H, D = self.q.shape
        return f"<{self}: {T} tokens, {L} layers, {H}/{self.k.shape[2]} heads of {D}>"

    def __str__(self):
        parts = [self.name, f"n_sinks={self.n_sinks}", f"window={self.window}"]
        parts += [self.policy_name] * (self.policy_name != "streaming")
        return ", ".join([*parts, *[self.encoding_name] * (self.encoding is not None)])

    @cached_property
    def policy_name(self) -> str:
        """Name of the policy, such as "streaming" or "blocks:16"; its call if it has no name."""
        for name in (*POLICIES, f"blocks:{getattr(self.policy, 'block', 1)}"):
            if made(name, self.n_sinks, self.window, self.q.shape[1]) == self.policy:
                return name
        return repr(self.policy)

    @property
    def encoding_name(self) -> str:
        """Name of the encoding, such as "ALiBi" or "2 of 6 channels rotated"; `repr` for a custom one."""
        if not isinstance(self.encoding, Rotary):
            return "ALiBi" if isinstance(self.encoding, Slopes) else repr(self.encoding)
        rotated = f"{2 * len(self.encoding.frequencies)} of {self.q.shape[3]} channels rotated"
        return rotated + ", in neighbouring pairs" * self.encoding.interleaved

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of a cache: n_sinks, window and theta, and encoding if there is one."""
        sizes = {"n_sinks": self.n_sinks, "window": self.window, "theta": self.theta}
        return sizes if self.encoding is None else sizes | {"encoding": self.encoding}

    @property
    def embeds(self) -> bool:
        """Whether positions were added before layer 0 or not at all, so that no cache deals with them."""
        return self.theta is None and self.encoding is None

    @property
    def capacity(self) -> int:
        """The most keys that a query sees under StreamingLLM."""
        return self.n_sinks + self.window

    @property
    def evicts(self) -> bool:
        """Whether any layer ever evicts a token."""
        return bool((self.token_index[-1] >= 0).sum(axis=-1).min() < len(self.q))

    def held(self, t: int, layer: int = 0) -> list[int]:
        """Return the tokens that a layer holds when token t attends, in slot order."""
        index = self.token_index[t, layer]
        return index[index >= 0].tolist()

    def places(self, t: int, layer: int = 0) -> list[int]:
        """Return the positions of the tokens that `held` returns."""
        return self.positions[t, layer][self.token_index[t, layer] >= 0].tolist()

    def keys_at(self, t: int, layer: int) -> np.ndarray:
        """Return the keys (S, K, D) of the tokens held, as token t sees them: rotated to their positions."""
        return self._encoding(self.k[self.held(t, layer), layer], np.array(self.places(t, layer)))

    def scores_at(self, t: int, layer: int) -> np.ndarray:
        """Return the scores (H, S) of token t, before the softmax."""
        encoding, places = self._encoding, np.array(self.places(t, layer))
        scores = score(encoding(self.q[t : t + 1, layer], places[-1:]), self.keys_at(t, layer))
        bias = bias_of(encoding, places[-1:], places, like=scores)
        return (scores if bias is None else scores + bias)[:, 0]

    def answer_at(self, t: int, layer: int) -> np.ndarray:
        """Return the output (H, D) of token t: the values that it sees, mixed by the softmax of its scores."""
        return mix(softmax(self.scores_at(t, layer)[:, None]), self.v[self.held(t, layer), layer])[0]

    @property
    def _encoding(self):
        return plain(self.theta, self.q.shape[3]) if self.encoding is None else self.encoding


def trace_of(
    q: Any,
    k: Any,
    v: Any,
    *,
    n_sinks: int,
    window: int,
    theta: float | None,
    encoding: Any = None,
    policy: str | Maker | None = None,
    name: str = "drawn",
    ids: Any = None,
    losses: Any = None,
) -> Trace:
    """Run the readable path over your arrays, and return what a cache must hold and answer at every token.

    `q` (T, L, H, D), `k` and `v` (T, L, K, D) are un-rotated. `encoding`, with a `theta` of None, is one from
    `positions`, such as a model's ``config.encoding``. `policy` is a name in `POLICIES`, or makes a policy from
    `n_sinks` and `window`; the default is StreamingLLM. ValueError for arrays that do not fit, or a size out of range.
    """
    q, k, v = (np.asarray(array, np.float64) for array in (q, k, v))
    _check(q, k, v, theta, encoding)
    check_whole("n_sinks", n_sinks, 0)
    check_whole("window", window, 1, ", for the current token counts")
    unset: Any = None
    trace = Trace(name, n_sinks, window, theta, unset, q, k, v, unset, unset, unset, ids, encoding=encoding)
    return replace(answered(under(trace, policy)), losses=losses)


def under(trace, policy):
    """Return a trace of the same queries, keys and values under another policy; its outputs are still NaN."""
    T, L, _, _ = trace.q.shape
    value = made(policy, trace.n_sinks, trace.window, L)
    if value == trace.policy:
        return trace
    token_index, positions = _slots_of(value, T)
    if trace.embeds:  # a token is embedded once, before layer 0, at the position that the last layer first gives it
        embedded = positions[np.arange(T), -1, (token_index[:, -1] >= 0).sum(axis=-1) - 1]
        positions = np.where(token_index < 0, -1, embedded[token_index])
    shape = T, L, token_index.shape[2]  # one row for all layers where they are alike
    held = {"token_index": np.broadcast_to(token_index, shape), "positions": np.broadcast_to(positions, shape)}
    return replace(trace, policy=value, **held, out=np.broadcast_to(np.nan, trace.q.shape), losses=None)


def answered(trace):
    """Return a trace with the outputs that its policy gives, or the trace itself if it already has them."""
    if not np.isnan(trace.out).any():
        return trace
    out = np.empty_like(trace.q)
    for t, i in np.ndindex(out.shape[:2]):
        out[t, i] = trace.answer_at(t, i)
    return replace(trace, out=out)


def _slots_of(policy, n_tokens):  # -> 2 x (T, L, S)
    """Return the tokens that each layer holds when token t attends, and their positions; -1 in an empty slot."""
    n_layers, token, held = len(getattr(policy, "policies", [policy])), np.zeros((1, 1, 1)), {}
    cache = KVCache(n_layers, 1, 1, policy)
    for t, i in np.ndindex(n_tokens, n_layers):
        cache.layers[i].append(token, token)
        held[t, i] = cache.layers[i].token_index, cache.layers[i].positions
    slots = np.full((2, n_tokens, n_layers, max(len(tokens) for tokens, _ in held.values())), -1)
    for (t, i), columns in held.items():
        slots[:, t, i, : len(columns[0])] = columns
    return slots


def _check(q, k, v, theta, encoding):
    shapes = f"q has shape {q.shape}, k {k.shape}, v {v.shape}"
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or k.shape[:2] + k.shape[3:] != q.shape[:2] + q.shape[3:]:
        raise ValueError(f"{shapes}; they must be (T, L, H, D), (T, L, K, D) and (T, L, K, D)")
    if 0 in q.shape or 0 in k.shape:
        raise ValueError(f"{shapes}; there is no token, layer or head")
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"n_heads is {q.shape[2]}; it must be a multiple of n_kv_heads, {k.shape[2]}")
    if theta is not None and q.shape[3] % 2:
        raise ValueError(f"head_dim is {q.shape[3]}; channels rotate in pairs, so it must be even, or theta None")
    if theta is not None and encoding is not None:
        raise ValueError(f"theta is {theta}, and there is an encoding too; one of them must be None")
    if isinstance(encoding, Slopes) and len(encoding.slopes) != q.shape[2]:
        raise ValueError(f"the encoding has {len(encoding.slopes)} slopes; n_heads is {q.shape[2]}")
    if isinstance(encoding, Rotary) and 2 * len(encoding.frequencies) > q.shape[3]:
        raise ValueError(f"the encoding rotates {2 * len(encoding.frequencies)} channels; head_dim is {q.shape[3]}")


def drawn(
    seed: int = 0,
    *,
    n_sinks: int = 1,
    window: int = 4,
    n_tokens: int = 24,
    n_layers: int = 1,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int = 6,
    theta: float | None = 10000.0,
    encoding: Any = None,
    policy: str | Maker | None = None,
) -> Trace:
    """Draw a trace of normally distributed random numbers, of any size; ValueError for a size out of range.

    The current token counts toward `window`; H is a multiple of K, and D is even if keys rotate, which they do unless
    `theta` is None. `policy` and `encoding`, which takes the place of `theta`, are as in `trace_of`.

    >>> trace = drawn(n_sinks=2, window=3, n_tokens=7)
    >>> trace.held(6), trace.places(6)
    ([0, 1, 4, 5, 6], [0, 1, 2, 3, 4])
    """
    sizes = {"n_tokens": n_tokens, "n_layers": n_layers, "n_heads": n_heads}
    for name, value in (sizes | {"n_kv_heads": n_kv_heads, "head_dim": head_dim}).items():
        check_whole(name, value, 1)
    random = np.random.default_rng(seed)
    q = random.normal(size=(n_tokens, n_layers, n_heads, head_dim))
    k, v = random.normal(size=(2, n_tokens, n_layers, n_kv_heads, head_dim))
    theta = theta if encoding is None else None
    return trace_of(q, k, v, n_sinks=n_sinks, window=window, theta=theta, encoding=encoding, policy=policy)
