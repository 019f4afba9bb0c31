"""A `generation.Stream` to a file and back: a text that goes on tomorrow, to the same bits.

What is written is the cache, the random generator, and the tokens that have not been read yet.
"""

import hashlib
from collections import deque
from typing import Any

from ..generation import Stream, reader
from ..hf.arrays import to_arrays
from ..methods import Recompute, cache_bytes_per_token
from ..retrieval import Retrieval
from ..snapshot import cache_from, cache_state, method_from, method_state
from ..system.device import to_host
from ..system.files import load_state, save_state

KIND = "minisink_stream"


def n_kept(stream: Stream) -> int:
    """Return how many tokens' keys and values are kept: those in view, and with retrieval those that may come back."""
    if stream.cache is None:
        return 0
    if not isinstance(stream.method, Retrieval):
        return stream.n_held
    n_evicted, store = stream.n_seen - stream.n_held, stream.method.store
    return stream.n_held + (n_evicted if store is None else min(n_evicted, store))


def n_bytes(stream: Stream) -> int:
    """Return the bytes that these keys and values take; 0 for re-computation, which keeps none."""
    return n_kept(stream) * cache_bytes_per_token(stream.model)


def save_stream(stream: Stream, path, **more) -> None:
    """Write everything needed to resume, whole or not at all, and `more` (what JSON can hold) beside it.

    Raises ValueError when the file cannot be written, or the method is a class of your own.
    """
    stream_cache: Any = stream.cache
    cache, arrays = (None, {}) if stream_cache is None else cache_state(stream_cache)
    about = _identity(stream) | {
        "cache": cache,
        "n_seen": stream.n_seen,
        "pending": stream.pending,
        "sink_ids": stream.sink_ids,
        "window_ids": list(stream.window_ids),
        "seen": sorted(stream.sampler.seen),
        "random": stream.sampler.random.bit_generator.state,
        "more": more,
    }
    save_state(path, KIND, about, arrays)


def load_stream(stream: Stream, path) -> dict:
    """Go on from a file that `save_stream` wrote, and return its `more`.

    Raises ValueError for any other file, and for a state of another model or method; nothing has changed then.
    """
    about, arrays = load_state(path, KIND, "a state that a chat or a generated text goes on from")
    _check_identity(stream, path, about)
    method = method_from(about["method"])
    cache: Any = None if about["cache"] is None else cache_from(about["cache"], arrays, stream.model.weights.embed)
    if cache is None:
        read, cache = reader(stream.model, method, readable=stream.readable)
    else:
        read, cache = reader(stream.model, cache=cache)
    if cache is None and about["window_ids"]:
        read(about["window_ids"])  # re-computation has its tokens only
    stream._read, stream.cache, stream.method = read, cache, method
    stream.n_seen, stream.pending, stream.sink_ids = about["n_seen"], about["pending"], about["sink_ids"]
    stream.window_ids = deque(about["window_ids"], maxlen=method.window)
    stream.sampler.seen = set(about["seen"])
    stream.sampler.random.bit_generator.state = about["random"]
    return about["more"]


def _identity(stream):
    """Return what a saved state and the resuming stream must share."""
    return {
        "model": stream.model.name,
        "weights": _digest(stream.model),
        "method": method_state(stream.method),
        "readable": stream.readable,
    }


def _check_identity(stream, path, about):
    """Raise ValueError for a state of other weights or another method; the `lead` of a `Recompute` may differ."""
    identity = _identity(stream)
    if about.get("weights") != identity["weights"]:
        raise ValueError(f"{path}: is a state of another model ({about.get('model')}), not of {stream.model.name}")
    saved_method, method = method_from(about["method"]), stream.method
    if isinstance(saved_method, Recompute) and isinstance(method, Recompute):
        method = Recompute(method.window, saved_method.lead)
    if saved_method != method:
        raise ValueError(f"{path}: was made with {saved_method!r}, and this is {method!r}")
    if about["readable"] != identity["readable"]:
        raise ValueError(f"{path}: was made with readable={about['readable']}, and this is readable={stream.readable}")


def _digest(model):
    """Return digits that tell one model from another: of its config, and the first row of every array."""
    digest = hashlib.sha256(f"{model.config} {model.dtype}".encode())
    for name, array in sorted(to_arrays(model.config, model.weights).items()):
        digest.update(name.encode() + to_host(array[:1]).tobytes())
    return digest.hexdigest()
