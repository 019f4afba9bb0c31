"""Every family by the book: the readable path, the blocks, the ring and retrieval, each on models drawn at random."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import Dense, Recompute, Retrieval, Streaming, Window, llama
from minisink import by_the_book as book
from minisink.families import falcon, gpt_neox, mpt
from minisink.fast.blocks import Banded, Windows
from minisink.fast.decoder import Decoder
from minisink.retrieval.blocks import RetrievalBlocks

pytestmark = pytest.mark.filterwarnings("ignore:a block of")  # longer than the window, as some are drawn
few = examples(30, least=4)  # the book is slow
FAMILIES = ("qwen3", "gpt_neox", "mpt", "falcon")
every_family = pytest.mark.parametrize("family", FAMILIES)
sizes = st.tuples(st.integers(0, 2), st.integers(1, 4))  # n_sinks, window
retrievals = st.builds(Retrieval, st.integers(0, 2), st.integers(1, 4), tiny.positions, n_blocks=st.integers(0, 3))
retrievals = st.builds(lambda method, block: replace(method, block=block), retrievals, st.integers(1, 3))


def models(family):
    return tiny.families().filter(lambda model: model.config.model_type == family)


def literally(model, ids, method):
    """Logits (T, V) of a method, by the book."""
    if isinstance(method, Recompute):
        return book.recompute(ids, model.weights, model.config, method.window)
    if isinstance(method, Dense):
        return book.decode(ids, model.weights, model.config)
    back = book.retrieve(method.n_blocks, method.block, method.window) if isinstance(method, Retrieval) else None
    options = {"positions": method.positions, "capacity": method.capacity, "bring_back": back}
    return book.decode(ids, model.weights, model.config, book.evict(method.n_sinks, method.window), **options)


def close(got, want):
    """Equal to 1e-9 of the scale of what is wanted."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-9 * max(1.0, np.abs(want).max()))


def in_chunks(model, ids, chunks, cache):
    stops = np.cumsum(chunks)
    return np.concatenate([model.forward(part, cache=cache) for part in np.split(np.array(ids), stops[:-1])])


SHAPES = [
    (llama, {"qk_norm": True, "model_type": "qwen3"}),
    (gpt_neox, {}),
    (gpt_neox, {"parallel": False, "bias": False, "activation": "gelu_new"}),
    (gpt_neox, {"rotary_dim": 6, "rope_theta": 50.0}),
    (mpt, {}),
    (mpt, {"n_heads": 6, "alibi_bias_max": 4.0}),
    (falcon, {"n_kv_heads": 1}),
    (falcon, {"n_norms": 2, "bias": True}),
    (falcon, {"parallel": False, "activation": "gelu_new"}),
]


@pytest.mark.parametrize(("arch", "changes"), SHAPES, ids=[f"{a.__name__[9:]} {c}" for a, c in SHAPES])
@pytest.mark.parametrize("method", [Dense(), Streaming(1, 3)], ids=repr)
def test_every_shape_of_a_family_is_the_book(arch, changes, method):
    """Attention and MLP side by side or in turn, one norm or two, biases, shared keys, any number of heads."""
    model, ids = tiny.make(arch, **changes), tiny.ids(7)
    close(model.stream(ids, method), literally(model, ids, method))


@every_family
@few
@given(st.data(), tiny.chunked_texts(12), sizes, tiny.positions)
def test_a_cache_is_the_book(family, data, text, sizes, positions):
    """Dense, a window and StreamingLLM in chunks: the readable path."""
    (ids, chunks), model = text, data.draw(models(family))
    for method in (Dense(), Window(sizes[1], positions), Streaming(*sizes, positions)):
        close(model.stream(ids, method, method.positions, chunks), literally(model, ids, method))


@every_family
@few
@given(st.data(), tiny.chunked_texts(12), sizes, tiny.positions)
def test_blocks_are_the_book(family, data, text, sizes, positions):
    """Keys rotated once under a banded mask, and windows side by side."""
    (ids, chunks), model = text, data.draw(models(family))
    method, window = Streaming(*sizes, positions), sizes[1]
    got = in_chunks(public(model), ids, chunks, Banded(model.config.n_layers, method))
    close(got, literally(model, ids, method))
    whole = ids[: len(ids) // window * window]
    if whole:
        apart = [literally(model, whole[t : t + window], Dense()) for t in range(0, len(whole), window)]
        close(public(model).forward(whole, cache=Windows(window)), np.concatenate(apart))
    nll = minisink.token_nll(public(model), [*ids, 1], Recompute(window))
    close(nll, book.losses(literally(model, [*ids, 1], Recompute(window)), [*ids, 1]))


@every_family
@few
@given(st.data(), tiny.chunked_texts(12), sizes, tiny.positions)
def test_the_ring_is_the_book(family, data, text, sizes, positions):
    """Keys that never move, a prompt in blocks and then token by token."""
    (ids, chunks), model = text, data.draw(models(family))
    for method in (Dense(), Streaming(*sizes, positions)):
        decoder, stops = Decoder(public(model), method), np.cumsum(chunks)
        got = [decoder(ids[t - n : t]) for n, t in zip(chunks, stops, strict=True)]
        close(got, literally(model, ids, method)[stops - 1])


@every_family
@few
@given(st.data(), tiny.chunked_texts(14), retrievals)
def test_retrieval_is_the_book(family, data, text, method):
    """What was evicted comes back: through the cache, in blocks and from the ring."""
    (ids, chunks), model = text, public(data.draw(models(family)))
    want = literally(model, ids, method)
    close(in_chunks(model, ids, chunks, minisink.new_cache(model, method)), want)
    close(in_chunks(model, ids, chunks, RetrievalBlocks(model.config.n_layers, method)), want)
    decoder, stops = Decoder(model, method), np.cumsum(chunks)
    close([decoder(ids[t - n : t]) for n, t in zip(chunks, stops, strict=True)], want[stops - 1])
