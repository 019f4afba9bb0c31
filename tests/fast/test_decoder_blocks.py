"""What a decoder hands to the blocks that take in a turn: what blocks of the same text hold."""

import numpy as np
import pytest
import tiny
from device_array import DeviceArray, on_device
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

from minisink.fast.blocks import Banded
from minisink.fast.decoder import Decoder


@examples(60)
@given(tiny.all_models(), tiny.texts(max_size=20), st.integers(0, 3), st.integers(1, 6), tiny.positions)
def test_a_ring_as_blocks_is_blocks_of_its_text(model, ids, n_sinks, window, positions):
    """Sinks, and the last ``window - 1`` tokens: the next query brings itself."""
    model, policy = public(model), tiny.Policy(n_sinks, window, positions)
    decoder, want = Decoder(model, policy), Banded(model.config.n_layers, policy)
    for token in ids:
        decoder.step(token)
    model.forward(ids, cache=want)
    got = decoder._blocks(len(ids) + 1)
    assert got.n_seen == want.n_seen
    for layers in zip(got.layers, want.layers, strict=True):
        for a, b in zip(*layers, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mask_of_a_block_is_made_on_its_device_in_its_dtype(dtype):
    """So that adding it to the scores moves nothing and widens nothing."""
    model, blocks = tiny.make(dtype=dtype), Banded(3, tiny.Policy(2, 5))
    model = public(tiny.Tiny(model.arch, model.config, on_device(model.weights)))
    for chunk in np.split(tiny.ids(20), [3, 12]):
        model.forward(chunk, cache=blocks)
        for mask in blocks._masks.values():
            assert isinstance(mask, DeviceArray) and mask.dtype == dtype
