"""Whatever runs on NumPy runs on a GPU: shown with arrays that refuse to meet a host array, as CuPy's do."""

import dataclasses
import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny
from device_array import TRAFFIC, DeviceArray, close, on_device
from tiny import public

import minisink
from minisink import gpt2, llama
from minisink.cache import Policy
from minisink.commands.parser import main
from minisink.families import falcon, gpt_neox, mpt
from minisink.fast.decoder import Decoder
from minisink.fast.ring import RingCache
from minisink.retrieval import Retrieval
from minisink.system.device import to_host


@pytest.fixture(
    params=[
        (llama, {"qkv_bias": True, "rope_scaling": tiny.LLAMA3}),
        (llama, {"softmax": "softmax1", "tied": True}),
        (gpt2, {}),
        (gpt2, {"sink_logit": True}),
        pytest.param((llama, {"qk_norm": True}), marks=pytest.mark.slow),
        pytest.param((gpt_neox, {}), marks=pytest.mark.slow),
        pytest.param((mpt, {"softmax": "softmax1"}), marks=pytest.mark.slow),
        pytest.param((falcon, {"n_norms": 2}), marks=pytest.mark.slow),
    ],
    ids=["llama", "llama-softmax1", "gpt2", "gpt2-sink-logit", "qwen3", "gpt_neox", "mpt", "falcon"],
)
def models(request):
    """One model on the host and on the device."""
    arch, changes = request.param
    model = tiny.make(arch, **changes)
    return minisink.Model(model.config, model.weights), minisink.Model(model.config, on_device(model.weights))


def test_the_stand_in_refuses_host_arrays():
    """The guard can fail: a ufunc, an operator, a function, an assignment and a silent copy each refuse to mix."""
    host, device = np.ones(3), DeviceArray(np.ones(3))
    for mix in (
        lambda: np.add(device, host),
        lambda: host * device,
        lambda: device @ host,
        lambda: np.concatenate((device, host)),
        lambda: np.where(host > 0, device, 0.0),
        lambda: device.__setitem__(0, host[:1]),
        lambda: np.asarray(device),
        lambda: np.ascontiguousarray(device),
        lambda: device.dot(np.float32(1.0) * device.astype(np.float32)),
    ):
        with pytest.raises(TypeError):
            mix()
    with pytest.raises(NotImplementedError, match="no np.maximum.reduce"):
        np.maximum.reduce(device)
    close(np.asarray(host, like=device) * 2.0 + np.float64(1.0), np.full(3, 3.0))


def test_the_stand_in_counts_what_is_waited_for():
    """Numbers and arrays fetched, arrays sent, kernels launched; a view is none of them."""
    device = DeviceArray(np.arange(6.0))
    for action, counted in (
        (lambda: float(device[0]), {"down": 1}),
        (lambda: bool(device[0]), {"down": 1}),
        (lambda: device[0].item(), {"down": 1}),
        (lambda: device.tolist(), {"down": 1}),
        (lambda: to_host(device), {"down": 1}),
        (lambda: np.asarray([1.0], like=device), {"up": 1}),
        (lambda: device[np.array([1, 2])], {"up": 1}),
        (lambda: device + device, {"kernels": 1}),
        (lambda: device.__setitem__(0, 1.0), {"kernels": 1}),
        (lambda: device.reshape(2, 3).swapaxes(0, 1)[:, 1], {}),
    ):
        TRAFFIC.clear()
        action()
        assert +TRAFFIC == Counter(counted)


def test_a_dense_pass_stays_on_the_device(models):
    """Logits without a cache, and everything a trace shows."""
    (host, device), ids = models, tiny.ids(7)
    here, there = {}, {}
    close(device.forward(ids, trace=there), host.forward(ids, trace=here))
    close(device.forward(ids, rows=slice(-1, None)), host.forward(ids)[-1:])
    close(there["x"], here["x"])
    for a, b in zip(there["layers"], here["layers"], strict=True):
        assert set(a) == set(b)
        for name in a:
            close(a[name], b[name])


@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize("method", [minisink.Dense(), minisink.Window(3), minisink.Streaming(1, 3)])
def test_a_cache_stays_on_the_device(models, method, positions):
    """Chunks across the eviction boundary, with a trace, through every policy and numbering."""
    ids = tiny.ids(9)
    caches = [minisink.new_cache(m, replace(method, positions=positions)) for m in models]
    for chunk in (ids[:3], ids[3:4], ids[4:]):
        here, there = {}, {}
        want = models[0].forward(chunk, cache=caches[0], trace=here)
        close(models[1].forward(chunk, cache=caches[1], trace=there), want)
        for a, b in zip(there["layers"], here["layers"], strict=True):
            close(a["pattern"], b["pattern"])
    for a, b in zip(caches[1].layers, caches[0].layers, strict=True):
        close(a.keys, b.keys)
        close(a.values, b.values)
    assert caches[1].nbytes == caches[0].nbytes


METHODS = [
    minisink.Dense(),
    minisink.Window(3),
    minisink.Recompute(3),
    minisink.Streaming(1, 3),
    Retrieval(1, 3, block=2),
]


@pytest.mark.sampled
@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_losses_and_text_come_back_to_the_host(models, method, positions):
    """token_nll and generate work on the device, and give host arrays and plain ints."""
    host, device = models
    method = method if method.name == "recompute" else replace(method, positions=positions)
    blocks = [list(minisink.nll_blocks(m, tiny.ids(12), method, chunk=4)) for m in (device, host)]
    np.testing.assert_allclose(np.concatenate(blocks[0]), np.concatenate(blocks[1]), rtol=1e-12)
    texts = [list(minisink.generate(m, [1, 2], method, max_new_tokens=6)) for m in (device, host)]
    assert texts[0] == texts[1]
    assert all(type(token) is int for token in texts[0])


def test_a_saved_cache_comes_back_to_the_device(models, tmp_path):
    """A cache saved from the device is restored there, and the stream goes on to the same bits."""
    device, ids = models[1], tiny.ids(9)
    cache = minisink.new_cache(device, minisink.Streaming(1, 3))
    device.forward(ids[:6], cache=cache)
    minisink.save_cache(cache, tmp_path / "cache")
    restored = minisink.load_cache(tmp_path / "cache", like=device.weights.embed)
    got, want = (device.forward(ids[6:], cache=c) for c in (restored, cache))
    assert (got.get() == want.get()).all()


POLICIES = [Policy(1, 3), Policy(0, 4), Policy(2, 70), Policy()]


@pytest.mark.sampled
@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize("policy", POLICIES)
def test_decoding_stays_on_the_device(models, policy, positions):
    """A prompt and tokens one by one, over the ring there and here, until the buffers have grown or gone round."""
    here, there = (Decoder(m, replace(policy, positions=positions)) for m in models)
    n_tokens = models[0].config.max_positions if models[0].config.learned_positions else 90
    ids = tiny.ids(n_tokens)
    close(there(ids[:7]), here(ids[:7]))
    for token in ids[7:].tolist():
        close(there.step(token), here.step(token))
    close(there.cache.keys, here.cache.keys)
    assert there.cache.nbytes == here.cache.nbytes


@pytest.mark.sampled
@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize("select", ["best", "bound"])
def test_what_was_evicted_stays_on_the_device(models, select, positions, tmp_path):
    """Kept there, searched there and fetched there; a saved ring goes back there."""
    policy, ids = Retrieval(1, 3, positions, n_blocks=2, block=2, select=select, store=9), tiny.ids(20)
    here, there = (Decoder(m, policy) for m in models)
    close(there(ids[:12]), here(ids[:12]))
    minisink.save_cache(there.cache, tmp_path / "ring")
    again = minisink.load_cache(tmp_path / "ring", like=models[1].weights.embed)
    again = Decoder(models[1], policy, cache=again)
    for token in ids[12:].tolist():
        got = there.step(token)
        close(got, here.step(token))
        assert (again.step(token).get() == got.get()).all()
    traces = [{}, {}]
    for model, trace in zip(models, traces, strict=True):
        model.forward(ids, cache=minisink.new_cache(model, policy), trace=trace)
    for a, b in zip(traces[1]["layers"], traces[0]["layers"], strict=True):
        close(a["pattern"], b["pattern"])
        assert (a["token_index"] == b["token_index"]).all() and (a["fetched"] == b["fetched"]).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_waits_for_nothing(models, policy):
    """Angles go to the device once a token, nothing comes back, and kernels a layer are few and do not grow."""
    config, kernels = models[1].config, []
    decoder = Decoder(models[1], policy)
    decoder(tiny.ids(6))
    for token in tiny.ids(8).tolist():
        TRAFFIC.clear()
        decoder.step(token)
        assert (TRAFFIC["up"] - n_erf(config), TRAFFIC["down"] - n_erf(config)) == (not config.learned_positions, 0)
        kernels.append(TRAFFIC["kernels"])
    assert max(kernels[1:]) <= 47 * config.n_layers + 25
    if policy.capacity in (4, None):
        assert len(set(kernels[1:])) == 1


def test_text_costs_two_copies_a_token(models):
    """Its angles there, or its bias (GPT-2 has none), its logits back."""
    tokens = minisink.generate(models[1], [1, 2, 3], minisink.Streaming(1, 3), max_new_tokens=None)
    next(tokens)
    TRAFFIC.clear()
    list(itertools.islice(tokens, 10))
    config = models[1].config
    angles, erf = not config.learned_positions, n_erf(config)
    assert (TRAFFIC["up"], TRAFFIC["down"]) == (10 * (angles + erf), 10 * (1 + erf))


def n_erf(config):
    """How often a token in float64 asks the host for erf."""
    return config.n_layers if getattr(config, "activation", None) == "gelu" else 0


@pytest.mark.parametrize("arch", [gpt_neox, mpt, falcon])
def test_single_precision_asks_the_host_for_nothing(arch):
    """Neither angles, bias nor erf come back, and kernels a layer are few."""
    model, policy = tiny.make(arch, dtype=np.float32, n_layers=2), Policy(1, 3)
    here, there = (
        Decoder(public(model), policy),
        Decoder(public(replace(model, weights=on_device(model.weights))), policy),
    )
    for token in tiny.ids(12).tolist():
        TRAFFIC.clear()
        got = there.step(token)
        assert (TRAFFIC["up"], TRAFFIC["down"]) == (1, 0) and TRAFFIC["kernels"] <= 2 * 70 + 25
        np.testing.assert_allclose(got.get(), here.step(token), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arch", [llama, gpt2, *(pytest.param(arch, marks=pytest.mark.slow) for arch in (gpt_neox, mpt, falcon))]
)
@pytest.mark.parametrize("positions", ["slot", "original"])
def test_half_precision(arch, positions):
    """With float16 weights logits are right to float16, far from where float16 squares overflow and products vanish."""
    for changes in ({}, {"softmax": "softmax1"}, {"sink_logit": True}):
        exact = tiny.make(arch, **changes)
        loud_and_faint(exact.weights, arch)
        half = on_device(as_dtype(exact.weights, np.float16))
        exact = minisink.Model(exact.config, as_dtype(as_dtype(exact.weights, np.float16), np.float64))
        here = Decoder(exact, Policy(2, 5, positions))
        there = Decoder(minisink.Model(exact.config, half), Policy(2, 5, positions))
        for token in tiny.ids(30).tolist():
            want, got = here.step(token), there.step(token)
            assert (got.dtype, there.cache.keys.dtype) == (np.float16, np.float32)
            np.testing.assert_allclose(got.get(), want, rtol=0, atol=0.01 * np.abs(want).max())


def loud_and_faint(weights, arch):
    """Embeddings whose squares float16 cannot hold, and a norm whose weights times a matrix it can barely."""
    weights.embed *= 500.0 if arch is llama else 1.0
    layer = weights.layers[0]
    (layer.attn_norm if arch is llama else layer.ln1)[:] *= 1e-4
    for w in (layer.wq, layer.wk, layer.wv) if arch is llama else (layer.w_qkv,):
        w[:] *= 1e-2


def as_dtype(value, dtype):
    """Weights with every array in another dtype."""
    if dataclasses.is_dataclass(value):
        return type(value)(**{f.name: as_dtype(getattr(value, f.name), dtype) for f in dataclasses.fields(value)})
    if isinstance(value, list):
        return [as_dtype(v, dtype) for v in value]
    return value.astype(dtype) if isinstance(value, np.ndarray) else value


def test_a_saved_ring_comes_back_to_the_device(models, tmp_path):
    """A ring saved from the device is restored there, and the stream goes on to the same bits."""
    device, ids, policy = models[1], tiny.ids(20).tolist(), Policy(1, 3)
    decoder = Decoder(device, policy)
    decoder(ids[:9])
    minisink.save_cache(decoder.cache, tmp_path / "ring")
    again = Decoder(device, policy, cache=minisink.load_cache(tmp_path / "ring", like=device.weights.embed))
    for token in ids[9:]:
        assert (again.step(token).get() == decoder.step(token).get()).all()


def full(*args, **options):
    """What CuPy raises when there is no room: a MemoryError of its own."""
    error = type("OutOfMemoryError", (MemoryError,), {})
    raise error("Out of memory allocating 512 bytes (allocated so far: 0 bytes).")


def test_no_memory_left(models, monkeypatch, capsys):
    """Wherever the device is full, CuPy's own words end the call; what was said stays said."""
    _, device = models
    tokens = minisink.generate(device, [1, 2], minisink.Streaming(4, 3))
    assert len(list(itertools.islice(tokens, 5))) == 5
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "step", full)
        with pytest.raises(MemoryError, match="Out of memory allocating 512 bytes"):
            next(tokens)
    monkeypatch.setattr(RingCache, "__init__", full)
    assert main(["generate", "--prompt", "My dear"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("minisink: error: Out of memory allocating 512 bytes")
