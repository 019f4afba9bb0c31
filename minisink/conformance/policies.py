"""Policies by name: functions that make one from a trace's `n_sinks` and `window`.

A maker is any function ``policy(n_sinks, window)`` that returns a `Policy` or a `ByLayer`, such as a subclass of
`Policy`. The last policy of a `ByLayer` applies to all further layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..cache import Policy
from ..evaluation.policies import Blockwise, HalfAtOnce
from ..methods import ByLayer, Dense, Streaming

Maker = Callable[[int, int], Any]
POLICIES: dict[str, Maker] = {
    "streaming": Streaming,
    "blocks:16": partial(Blockwise, block=16),  # and any other number
    "half": HalfAtOnce,
    "original": partial(Streaming, positions="original"),
    "first-dense": lambda n_sinks, window: ByLayer([Dense(), Streaming(n_sinks, window)]),
}
MEANS = {
    "streaming": "StreamingLLM",
    "blocks": "a block of tokens is evicted once all of it has left the window, as in paged caches",
    "half": "half of the window is evicted at once, as in llama.cpp's context shift",
    "original": "StreamingLLM with positions in the text, as in MLX's keep",
    "first-dense": "layer 0 keeps everything",
}


def named(policy: str | Maker | None) -> Maker:
    """Return the maker of this name, or the maker itself; None means StreamingLLM, anything else is a ValueError.

    >>> named("blocks:4")(1, 6)
    Blockwise(n_sinks=1, window=6, positions='slot', block=4)
    """
    if callable(policy):
        return policy
    name = "streaming" if policy is None else str(policy)
    if name in POLICIES:
        return POLICIES[name]
    kind, _, block = name.partition(":")
    if kind == "blocks" and block.isdecimal() and int(block):
        return partial(Blockwise, block=int(block))
    names = ", ".join(POLICIES).replace("16", "16 (or another number)")
    raise ValueError(f"policy is {policy!r}; known are {names}, or give what makes a Policy from n_sinks and window")


def made(policy: str | Maker | None, n_sinks: int, window: int, n_layers: int) -> Policy | ByLayer:
    """Return the policy of this size for this many layers; ValueError if the maker returns something else."""
    value = named(policy)(n_sinks, window)
    if isinstance(value, ByLayer):
        return ByLayer([*value.policies, *[value.policies[-1]] * n_layers][:n_layers])
    if not isinstance(value, Policy) or value.kv_cache is not None:
        sizes = f"n_sinks={n_sinks}, window={window}"
        raise ValueError(f"policy made {value!r} from {sizes}; it must make a Policy or a ByLayer")
    return value
