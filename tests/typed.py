"""What a type checker says to a caller; `mypy` reads this file and nobody runs it.

Every line that is wrong on purpose carries an ignore, and an ignore that nothing needs is an error: so each of these
mistakes is caught, and the right lines pass.
"""

import numpy as np

import minisink


def calls() -> None:
    """Right ones first, then mistakes."""
    model = minisink.load("novels")
    ids: np.ndarray = model.encode("It was a dark night")
    cache: minisink.KVCache = minisink.new_cache(model, minisink.Streaming(1, 63))
    _: np.ndarray = model.forward(ids, cache=cache, rows=slice(-1, None))
    nll: np.ndarray = minisink.token_nll(model, [1, 2, 3], minisink.Window(64), readable=True)
    model.decode(list(minisink.generate(model, ids, max_new_tokens=None, cache=cache)))
    minisink.token_nll(model, ids, minisink.Retrieval(n_blocks=8, block=16, select="bound", store=4000))
    minisink.generate(model, ids, minisink.Retrieval(n_blocks=8, block=16), readable=True)
    repr(minisink.new_cache(model, minisink.ByLayer([minisink.Dense()])).token_index)
    minisink.save_cache(cache, "cache.safetensors")
    minisink.perplexity(nll).as_integer_ratio()
    repr(minisink.Streaming(4, 252).capacity)

    minisink.token_nll(model, ids, "window")  # type: ignore[arg-type]
    minisink.token_nll(model, ids, minisink.Streaming(1.5))  # type: ignore[arg-type]
    minisink.token_nll("novels", ids)  # type: ignore[arg-type]
    minisink.nll_blocks(model, ids, chunk="256")  # type: ignore[arg-type]
    minisink.Retrieval(n_blocks="8")  # type: ignore[arg-type]
    minisink.generate(model, ids, window=8)  # type: ignore[call-arg]
    minisink.nll_parts(model, ids, executor=2)  # type: ignore[arg-type]
    minisink.nll_stream(model, 7)  # type: ignore[arg-type]
    minisink.generate(model, ids, temperature="hot")  # type: ignore[arg-type]
    minisink.generate(model, ids, cache={})  # type: ignore[arg-type]
    minisink.new_cache(model, minisink.Streaming)  # type: ignore[arg-type]
    minisink.Window("64")  # type: ignore[arg-type]
    minisink.Policy(1, "64")  # type: ignore[arg-type]
    minisink.load(7)  # type: ignore[arg-type]
    model.forward(ids, trace=True)  # type: ignore[arg-type]
    model.encode(b"bytes")  # type: ignore[arg-type]
    model.save(1.5)  # type: ignore[arg-type]
    minisink.save_cache(model, "cache.safetensors")  # type: ignore[arg-type]
    minisink.generate(model, ids, max_token=3)  # type: ignore[call-arg]
    minisink.no_such_name  # type: ignore[attr-defined]  # noqa: B018
