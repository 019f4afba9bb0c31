"""The weights of a model for one token at a time: its own where they lie right, a copy elsewhere."""

from dataclasses import fields, replace

import numpy as np
import pytest
import tiny
from device_array import DeviceArray, on_device
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from test_ring import any_policy, close, fast, public

from minisink import gpt2, llama
from minisink.cache import Policy
from minisink.fast import fused
from minisink.fast.decoder import Decoder
from minisink.fast.fused import fuse
from minisink.hf.arrays import from_arrays, to_arrays
from minisink.hf.layout import lay_out

many = examples(500)


def laid_out(model, like=None):
    """The same model as `load` would have it."""
    arrays = to_arrays(model.config, model.weights).items()
    like = np.empty(0, model.weights.embed.dtype) if like is None else like
    arrays = lay_out(model.config, arrays, like)
    return replace(model, weights=from_arrays(model.config, arrays))


def matrices(weights):
    """Every matrix of a model that a token is multiplied with."""
    layers = [array for layer in weights.layers for array in vars(layer).values()]
    return [array for array in (*layers, weights.head) if array is not None and array.ndim == 2]


@many
@given(tiny.all_models(), st.booleans(), tiny.texts(max_size=16), any_policy, tiny.positions, st.data())
def test_the_logits_are_those_of_the_readable_path(model, lays, ids, policy, positions, data):
    """Any model, laid out or not: a prompt in blocks, then token by token."""
    policy, n_prompt = replace(policy, positions=positions), data.draw(st.integers(1, len(ids)))
    want = model.stream(ids, policy, positions)[n_prompt - 1 :]
    model = laid_out(model) if lays else model
    decoder = Decoder(public(model), policy)
    close(fast(decoder, ids, n_prompt), want)


@many
@given(tiny.all_models())
def test_what_is_laid_out_is_not_copied(model):
    """Of a model that is laid out every matrix is the readable one, joined or alone."""
    weights = laid_out(model).weights
    used = fuse(weights, model.config).matrices
    assert sum(w.nbytes for w in used) == sum(w.nbytes for w in matrices(weights))
    assert all(w.flags.c_contiguous for w in used)
    for readable in matrices(weights):
        assert sum(np.shares_memory(readable, w) for w in used) == 1


@many
@given(tiny.all_models())
def test_fusing_changes_no_weight(model):
    """The readable arrays stay what they were, and so they do when tokens go through."""
    model = laid_out(model)
    before = {name: a.copy() for name, a in to_arrays(model.config, model.weights).items()}
    decoder = Decoder(public(model), Policy(1, 3))
    decoder(tiny.ids(9))
    for name, array in to_arrays(model.config, model.weights).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@many
@given(st.data(), st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_columns_are_joined_wherever_they_lie(data, n_rows, widths):
    """Cut anywhere out of one vector, in any order: side by side they are what a copy is, and the vector only if so."""
    vector = np.arange(200.0)
    stride = data.draw(st.integers(sum(widths), 9 + sum(widths)))
    starts = np.cumsum([0, *widths])[:-1].tolist()
    places = data.draw(st.permutations(starts) | st.tuples(*[st.integers(0, stride - w) for w in widths]))
    first = data.draw(st.integers(0, 20) | st.just(200 - n_rows * stride))
    rows = vector[first : first + n_rows * stride].reshape(n_rows, stride)
    parts = [rows[:, start : start + width] for start, width in zip(places, widths, strict=True)]
    joined = fused._join_matrices(parts)
    np.testing.assert_array_equal(joined, np.concatenate(parts, axis=1))
    assert joined.flags.c_contiguous
    lies_right = list(places) == starts and (stride == sum(widths) or n_rows == 1)
    if lies_right and stride == sum(widths):
        assert np.shares_memory(joined, vector)
    if not lies_right and len(parts) > 1:
        assert not np.shares_memory(joined, vector)


@pytest.mark.parametrize(("arch", "changes"), [(llama, {"qkv_bias": True}), (llama, {"tied": True}), (gpt2, {})])
def test_on_a_device_nothing_is_copied_either(arch, changes):
    """Laid out there, used there: each matrix is the readable one, and the logits are those of the host."""
    model, ids, policy = tiny.make(arch, **changes), tiny.ids(12), Policy(2, 5)
    there = laid_out(replace(model, weights=on_device(model.weights)), DeviceArray(np.empty(0)))
    weights = fuse(there.weights, there.config)
    for readable in matrices(there.weights):
        assert sum(np.shares_memory(readable.host, w.host) for w in weights.matrices) == 1
    decoder = Decoder(public(there), policy, weights=weights)
    close(np.array([decoder.step(int(token)).get() for token in ids]), model.stream(ids, policy))


def test_every_field_is_made():
    """Biases and sinks of a model that has them all are there."""
    model = tiny.make(llama, qkv_bias=True, o_bias=True, mlp_bias=True, sink_logit=True, qk_norm=True)
    layer = fuse(model.weights, model.config).layers[0]
    assert all(getattr(layer, field.name) is not None for field in fields(layer))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("biased", [True, False])
def test_biases_of_a_narrow_model_are_its_own_or_zeros(dtype, biased):
    """Side by side in float32: those it has; in float16, where it has none, zeros, which widen the product."""
    changes = dict.fromkeys(("qkv_bias", "o_bias", "mlp_bias"), biased)
    model = tiny.make(llama, dtype=dtype, **changes)
    fused_weights = fuse(model.weights, model.config)
    for own, layer in zip(model.weights.layers, fused_weights.layers, strict=True):
        for bias, parts in ((layer.b_qkv, (own.bq, own.bk, own.bv)), (layer.b_up, (own.b_gate, own.b_up))):
            if biased:
                np.testing.assert_array_equal(bias, np.concatenate(parts))
            else:
                assert bias is None if dtype == np.float32 else not bias.any()
            assert bias is None or bias.dtype == np.float32
    assert fused_weights.b_head is None if dtype == np.float32 else fused_weights.b_head.shape == (17,)


def test_matrices_keep_their_order():
    """Queries, keys, values; gate, up: joined as they are read, laid out or not, and the vector itself if laid out."""
    for lays in (True, False):
        model = tiny.make(llama)
        model = laid_out(model) if lays else model
        for own, layer in zip(model.weights.layers, fuse(model.weights, model.config).layers, strict=True):
            np.testing.assert_array_equal(layer.w_qkv, np.concatenate((own.wq, own.wk, own.wv), axis=1))
            np.testing.assert_array_equal(layer.w_up, np.concatenate((own.w_gate, own.w_up), axis=1))
            assert np.shares_memory(layer.w_qkv, own.wv) is np.shares_memory(layer.w_up, own.w_up) is lays
