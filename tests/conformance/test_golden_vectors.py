"""The golden vectors are what their script makes of the readable path, and what the book says."""

import json

import make
import numpy as np
import pytest

import minisink
from minisink import by_the_book as book
from minisink import conformance
from minisink.conformance import golden


@pytest.mark.parametrize("name", conformance.NAMES)
def test_the_script_makes_them_anew(name):
    """Array by array; integers to the bit, numbers to 1e-12 of the largest: BLAS kernels differ in the last bits."""
    recorded, made = golden.read(name), make.build(name)
    assert set(recorded) == set(made) and len(made) > 40
    for each, array in made.items():
        stored = recorded[each]
        assert (stored.dtype, stored.shape) == (array.dtype, array.shape)
        if array.dtype != np.float64:
            assert array.dtype in (np.int64, np.float16) or each == "about"
            np.testing.assert_array_equal(stored, array)
        else:
            finite = np.isfinite(array)
            np.testing.assert_array_equal(finite, np.isfinite(stored))
            assert np.abs(stored[finite] - array[finite]).max() <= 1e-12 * np.abs(array[finite]).max(), each


def test_the_script_writes_a_file_for_each_model(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "build", lambda name: {"ids": np.array([conformance.NAMES.index(name)])})
    make.main(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["gpt2.npz", "gqa.npz", "llama.npz"]
    for i, name in enumerate(conformance.NAMES):
        with np.load(tmp_path / f"{name}.npz", allow_pickle=False) as file:
            assert file["ids"].tolist() == [i]


@pytest.mark.parametrize("name", conformance.NAMES)
def test_the_book_says_the_same(name):
    """Tokens, positions, keys, scores and outputs of every step, and the losses of a whole model, as plain loops."""
    model = conformance.model(name)
    rates = None if name == "gpt2" else book.frequencies(model.config.head_dim, model.config.rope_theta)
    for trace in conformance.load(name):
        T, L, H, D = trace.q.shape
        K, leave, kept = trace.k.shape[2], book.evict(trace.n_sinks, trace.window), []
        sizes = {"before": leave, "capacity": trace.capacity}
        logits = book.decode(trace.ids, model.weights, model.config, **sizes)
        np.testing.assert_allclose(book.losses(logits, trace.ids), trace.losses, rtol=1e-11)
        for t in range(T):
            kept.append(t)
            leave(kept)
            n = len(kept)
            assert trace.held(t) == kept and (trace.token_index[t, :, n:] == -1).all()
            places = list(range(n)) if rates else [min(token, trace.capacity - 1) for token in kept]
            assert trace.places(t) == places and (trace.positions[t, :, n:] == -1).all()
            for i in range(L):
                q, keys, values = trace.q[t, i], trace.k[kept, i], trace.v[kept, i]
                if rates:
                    q = np.array([book.rotate(head, n - 1, rates) for head in q])
                    keys = np.array(
                        [[book.rotate(head, p, rates) for head in key] for p, key in zip(places, keys, strict=True)]
                    )
                mixed, _ = book.attend(q[None], keys, values, np.ones((1, n), bool))
                scores = [[book.dot(q[h], key[h // (H // K)]) / D**0.5 for key in keys] for h in range(H)]
                for got, wanted in (
                    (trace.keys_at(t, i), keys),
                    (trace.scores_at(t, i), scores),
                    (trace.out[t, i], mixed[0]),
                ):
                    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", conformance.NAMES)
def test_recorded_scores_are_those_that_are_computed_when_asked(name):
    """Of every token, layer and head; -inf in a slot that is empty still."""
    file = golden.read(name)
    for trace in conformance.load(name):
        recorded = file[f"{trace.n_sinks}+{trace.window}.scores"]
        T, L, _, S = recorded.shape
        assert trace.token_index.shape == (T, L, S)
        for t in range(T):
            for i in range(L):
                n = len(trace.held(t, i))
                np.testing.assert_allclose(recorded[t, i, :, :n], trace.scores_at(t, i), rtol=1e-12, atol=1e-12)
                assert np.isneginf(recorded[t, i, :, n:]).all()


def test_they_are_small_plain_and_long_enough():
    """Under four megabytes in all, read without pickle, and every ring goes round several times."""
    files = sorted(golden.FOLDER.glob("*.npz"))
    assert [file.stem for file in files] == sorted(conformance.NAMES)
    assert sum(file.stat().st_size for file in files) < 4_000_000
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            assert not any(array.dtype.hasobject for array in dict(arrays).values())
    traces = [trace for name in conformance.NAMES for trace in conformance.load(name)]
    assert {0, 1} < {trace.n_sinks for trace in traces}
    assert all(len(trace.q) >= trace.n_sinks + 4 * trace.window for trace in traces)
    heads = {trace.name: trace.q.shape[2] // trace.k.shape[2] for trace in traces}
    assert heads == {"llama": 1, "gqa": 2, "gpt2": 1}


@pytest.mark.parametrize("name", conformance.NAMES)
def test_their_model_has_these_losses_also_from_a_folder(name, tmp_path):
    """As another engine would: from the Hugging Face folder that `save` writes, in single precision."""
    conformance.model(name).save(tmp_path / name)
    for model in (conformance.model(name), minisink.load(tmp_path / name)):
        for trace in conformance.load(name):
            losses = minisink.token_nll(model, trace.ids, minisink.Streaming(trace.n_sinks, trace.window))
            assert conformance.check_losses(losses, trace) is None
            if trace.n_sinks:
                window = minisink.token_nll(model, trace.ids, minisink.Window(trace.capacity))
                # token `capacity` is the first that reads without its sink; what it says is heard a token later
                assert conformance.check_losses(window, trace) == trace.capacity + 1


def test_losses_are_compared_as_single_precision_allows():
    trace = conformance.load("gqa")[1]
    assert conformance.check_losses(trace.losses, trace) is None
    assert conformance.check_losses(trace.losses.astype(np.float32), trace) is None
    for t in (1, 9, 23):
        losses = trace.losses.copy()
        losses[t - 1 :] += 1e-5  # an engine that rotates in single precision is as far off, in double precision too
        assert conformance.check_losses(losses, trace) is None
        assert conformance.check_losses(losses, trace, tolerance=1e-9) == t
        losses[t - 1 :] += 1e-3
        assert conformance.check_losses(losses.astype(np.float32), trace) == t
        losses[t - 1] = np.nan
        assert conformance.check_losses(losses, trace, tolerance=1.0) == t
    with pytest.raises(ValueError, match=r"losses have shape \(24,\).*has \(23,\): one per token except the first"):
        conformance.check_losses(np.zeros(24), trace)
    with pytest.raises(ValueError, match="no losses; take one from conformance.load"):
        conformance.check_losses(np.zeros(23), conformance.drawn())


def test_an_unknown_name_is_answered_with_the_known_ones():
    for use in (conformance.load, conformance.model, lambda name: conformance.check(conformance.Cache, name)):
        with pytest.raises(ValueError, match="'mistral'; there are golden vectors of llama, gqa, gpt2"):
            use("mistral")


def test_the_config_is_readable_without_minisink():
    about = json.loads(str(golden.read("gqa")["about"]))
    assert about["config"]["n_kv_heads"] == 2 and about["sizes"] == [list(sizes) for sizes in make.SIZES]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_sinks": -1}, "n_sinks is -1"),
        ({"window": 0}, "window is 0"),
        ({"n_tokens": 0}, "n_tokens is 0"),
        ({"n_heads": 3}, "n_heads is 3; it must be a multiple of n_kv_heads, 2"),
        ({"head_dim": 5}, "head_dim is 5; channels rotate in pairs"),
    ],
)
def test_a_trace_of_no_size_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        conformance.drawn(**sizes)
