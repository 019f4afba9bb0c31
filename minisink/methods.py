"""The methods. A method is a value that says which tokens a model looks back at, and which position each one gets.

========================  ==========================================================================
`Dense`                   every token; the cache grows with the text
`Window`                  the last `window` tokens, cached
`Recompute`               the last `window` tokens, reread from scratch for every new one
`Streaming`               the first `n_sinks` and the last `window`: StreamingLLM
`retrieval.Retrieval`     the same, plus some evicted blocks for each query
`ByLayer`                 a policy for each layer
========================  ==========================================================================

`Dense`, `Window` and `Streaming` are `cache.Policy` under their names in the paper's Figure 1. Your own policy
works wherever they do: it is a subclass that overrides `survivors` or `positions_of` (docs/your-own-cache.md).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .cache import KVCache, Policy, check_whole, numbers_to_int
from .model import Model
from .positions import kind_of
from .system.errors import warn_caller


@dataclass(frozen=True)
class Dense(Policy):
    """Dense attention: nothing is ever evicted."""

    n_sinks: int = field(default=0, init=False, repr=False)
    window: None = field(default=None, init=False, repr=False)


@dataclass(frozen=True)
class Window(Policy):
    """Window attention: the last `window` tokens stay, the current one included."""

    n_sinks: int = field(default=0, init=False, repr=False)
    window: int = 256
    instead: ClassVar[str] = "; Dense() keeps everything"


@dataclass(frozen=True)
class Streaming(Policy):
    """StreamingLLM: the first `n_sinks` tokens and the last `window` stay, numbered by their slots.

    >>> Streaming(n_sinks=4, window=252).capacity
    256
    """

    n_sinks: int = 4
    window: int = 252
    instead: ClassVar[str] = "; Dense() keeps everything"


@dataclass(frozen=True)
class Recompute:
    """The sliding window with re-computation: for every token the last `window` are reread from position 0.

    It keeps no cache. `lead` holds token ids to put in front of every window that does not start the text; they
    count towards `window`. A model trained with ``<s>`` first in every sample needs it: ``lead=(model.config.bos,)``.
    """

    window: int = 256
    lead: tuple[int, ...] = ()
    name: ClassVar[str] = "recompute"

    def __post_init__(self):
        check_whole("window", self.window, 1, ", because the current token counts")
        numbers_to_int(self)
        lead = tuple(self.lead) if isinstance(self.lead, Iterable) else (None,)
        if any(isinstance(i, bool) or not isinstance(i, (int, np.integer)) for i in lead):
            raise ValueError(f"lead is {self.lead!r}; it must be token ids, for example (model.config.bos,)")
        object.__setattr__(self, "lead", tuple(int(i) for i in lead))
        if len(self.lead) >= self.window:
            raise ValueError(f"lead has {len(self.lead)} tokens; a window of {self.window} has no room for others")

    @property
    def capacity(self) -> int:
        """The most tokens that a query can see."""
        return self.window


@dataclass(frozen=True, repr=False)
class ByLayer:
    """A policy for each layer, the first for layer 0. It always runs on the readable path."""

    policies: Sequence[Policy]
    name: ClassVar[str] = "by layer"
    window: ClassVar[None] = None
    is_plain: ClassVar[bool] = False
    kv_cache: ClassVar[Any] = None

    def __post_init__(self):
        if not isinstance(self.policies, Iterable):
            raise ValueError(f"ByLayer has {self.policies!r}; it must be a list with a policy for each layer")
        object.__setattr__(self, "policies", tuple(self.policies))
        for i, policy in enumerate(self.policies):
            if not isinstance(policy, Policy) or policy.kv_cache is not None:
                known = "Dense(), Window(...), Streaming(...) or a Policy"
                raise ValueError(f"layer {i} has {policy!r}; it must be {known}")
        if not self.policies:
            raise ValueError("ByLayer was given no policies; it needs one for each layer of the model")

    def __repr__(self):
        return f"ByLayer([{', '.join(map(repr, self.policies))}])"

    @property
    def capacity(self) -> int | None:
        """The most keys that a query can see in any layer, or None if there is no limit."""
        each = [policy.capacity for policy in self.policies]
        return None if None in each else max(c for c in each if c is not None)


Method = Policy | Recompute | ByLayer
DEFAULT = Streaming()  # in every call that takes a method; this very object means that the caller passed none


def new_cache(model: Model, method: Method = DEFAULT) -> KVCache:
    """Return an empty cache, to be passed to `Model.forward`.

    Parameters
    ----------
    model : Model
    method : Dense, Window, Streaming, Retrieval, ByLayer or your own Policy

    Returns
    -------
    KVCache
        A `retrieval.RetrievalCache` for a `Retrieval`.

    Raises
    ------
    ValueError
        If `method` is not a method, or is `Recompute`, which keeps no cache.
    """
    check_method(model, method)
    return make_cache(model, method)


def make_cache(model: Model, method: Any) -> KVCache:
    """Return a new cache for a method that has been checked."""
    if isinstance(method, Recompute):
        raise ValueError(f"{method!r} keeps no cache: it rebuilds every window from its tokens")
    config = model.config
    make = method.kv_cache or KVCache
    return make(config.n_layers, config.n_kv_heads, config.head_dim, method, like=model.weights.embed)


def check_method(model: Model, method: Any) -> None:
    """Raise ValueError unless `method` suits `model`; warn if it goes beyond the length the model was trained on."""
    if not isinstance(method, Policy | Recompute | ByLayer):
        raise ValueError(f"method is {method!r}; pass a value, such as minisink.Streaming(n_sinks=4, window=252)")
    if isinstance(method, ByLayer) and model.config.learned_positions:
        by = {policy.capacity if policy.positions == "slot" else "original" for policy in method.policies}
        if len(by) > 1 or not all(policy.is_plain for policy in method.policies):
            why = f"{model.name} adds positions once, before layer 0, so its layers cannot number tokens differently"
            raise ValueError(f'{method!r}: {why}; give every layer the same capacity, or positions="original"')
    trained, capacity = model.config.max_positions, method.capacity
    if capacity is not None and capacity > trained:
        beyond = f"a cache of {capacity} tokens is longer than the {trained} positions {model.name} was trained on"
        slopes = f"; ALiBi's slopes are extrapolated to distances of {trained} to {capacity - 1}"
        warn_caller(beyond + (slopes if kind_of(model.config) == "ALiBi" else ""))


def check_cache(model: Model, cache) -> None:
    """Raise ValueError unless a caller's cache fits the model, and counts its tokens."""
    model.path_of(cache)
    if not hasattr(cache, "n_seen"):
        raise ValueError(f"cache is {cache!r}; here it needs `n_seen` too, the number of tokens it has taken in")


def refuse_both(method, cache) -> None:
    """Raise ValueError when a method is given with a cache."""
    if cache is not None and method is not DEFAULT:
        raise ValueError(f"both {method!r} and cache= are given; a cache has its own method, so leave one out")


def warn_beyond(model: Model, policy, before: int, after: float) -> None:
    """Warn once when fetched tokens keep their places in a text longer than the trained length."""
    trained = model.config.max_positions
    if getattr(policy, "keeps_places", False) and before <= trained < after:
        farther = f"fetched tokens may be farther away than {model.name} was trained on"
        warn_caller(f"positions='original': from token {trained}, {farther}; positions='slot' keeps them in range")


def lead_of(model: Model, ids: np.ndarray, window: int) -> tuple[int, ...]:
    """Return the `lead` for a `Recompute` of these ids: ``(bos,)`` if the text begins with bos and there is room."""
    begun = len(ids) > 0 and ids[0] == model.config.bos and window > 1
    return (int(ids[0]),) if begun else ()


def cache_bytes_per_token(model: Model) -> int:
    """Return the bytes that the keys and values of one token take: ``2 L K D`` numbers."""
    config = model.config
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * model.dtype.itemsize
