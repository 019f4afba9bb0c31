"""Save a `generation.Stream` to a file and load it: a text that continues tomorrow, bit for bit."""

import hashlib
from collections import deque

from ..cache import check_whole
from ..generation import Stream, reader
from ..hf.arrays import to_arrays
from ..methods import Recompute, cache_bytes_per_token
from ..retrieval import Retrieval
from ..snapshot import cache_from, cache_state, method_from, method_state
from ..system.device import to_host
from ..system.files import load_state, reading, save_state
from ..training.state import random_from

KIND, WHAT = "minisink_stream", "a saved state of a chat or a generated text"


def n_kept(stream: Stream) -> int:
    """Return how many tokens' keys and values are kept: those in view, and those that retrieval can bring back."""
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
    """Write everything needed to resume, and `more` (JSON-able), whole or, with a ValueError, not at all."""
    cache, arrays = (None, {}) if stream.cache is None else cache_state(stream.cache)
    about = {name: getattr(stream, name) for name in ("readable", "n_seen", "pending", "sink_ids")}
    about |= {"model": stream.model.name, "weights": _digest(stream.model), "method": method_state(stream.method)}
    about |= {"cache": cache, "window_ids": list(stream.window_ids), "seen": sorted(stream.sampler.seen)}
    save_state(path, KIND, about | {"random": stream.sampler.random.bit_generator.state, "more": more}, arrays)


def load_stream(stream: Stream, path) -> dict:
    """Continue from a file that `save_stream` wrote, and return its `more`.

    Raise ValueError, and change nothing, for any other file, or for the state of another model or method.
    """
    about, arrays = load_state(path, KIND, WHAT)
    with reading(path, WHAT):
        return go_on(stream, path, about, arrays)


def go_on(stream: Stream, path, about: dict, arrays: dict) -> dict:
    """Do what `load_stream` does, given what `load_state` read; errors as within `system.files.reading`."""
    check_model(stream, path, about)
    model, method, n_seen = stream.model, method_from(about["method"]), about["n_seen"]
    ours, cache = stream.method, None
    if isinstance(method, Recompute) and isinstance(ours, Recompute):
        ours = Recompute(ours.window, method.lead)  # keep the saved text's lead
    if method != ours:
        raise ValueError(f"{path}: was made with {method!r}, but this is {ours!r}")
    if (saved := about["readable"]) != stream.readable:
        raise ValueError(f"{path}: was made with readable={saved!r}, but this is readable={stream.readable}")
    if not isinstance(method, Recompute):
        cache = cache_from(about["cache"], arrays, model.weights.embed, model.config)
        if type(cache) is not type(stream.cache) or cache.policy != method or cache.n_seen < n_seen:
            raise ValueError(f"it has {cache!r} for {n_seen} tokens under {method!r}")
    ids = {name: about[name] for name in ("pending", "sink_ids", "window_ids", "seen")}
    ids = {name: known if known == [] else model.check_ids(known).tolist() for name, known in ids.items()}
    check_whole("n_seen", n_seen, 0)
    n_sinks = min(n_seen, getattr(method, "n_sinks", 0))
    n_window = n_seen - n_sinks if method.window is None else min(n_seen - n_sinks, method.window)
    if (len(ids["sink_ids"]), len(ids["window_ids"])) != (n_sinks, n_window):
        raise ValueError(f"its ids do not match the tokens that {method!r} keeps of {n_seen}")
    random = random_from(about["random"])
    read, cache = reader(model, method, readable=stream.readable) if cache is None else reader(model, cache=cache)
    if cache is None and ids["window_ids"]:
        read(ids["window_ids"])  # re-computation keeps only its tokens
    stream._read, stream.cache, stream.method = read, cache, method
    stream.n_seen, stream.pending, stream.sink_ids = n_seen, ids["pending"], ids["sink_ids"]
    stream.window_ids = deque(ids["window_ids"], maxlen=method.window)
    stream.sampler.seen, stream.sampler.random = set(ids["seen"]), random
    return about["more"]


def check_model(stream, path, about):
    """Raise ValueError for a state of another model."""
    if about["weights"] != _digest(stream.model):
        raise ValueError(f"{path}: is a state of another model ({about['model']}), not of {stream.model.name}")


def _digest(model):
    """Return a hash that identifies a model, made from its config and the first row of every array."""
    digest = hashlib.sha256(f"{model.config} {model.dtype}".encode())
    for name, array in sorted(to_arrays(model.config, model.weights).items()):
        digest.update(name.encode() + to_host(array[:1]).tobytes())
    return digest.hexdigest()
