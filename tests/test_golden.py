"""Logits that transformers recorded (`golden/make.py`) for two tiny folders without a tokenizer."""

from pathlib import Path

import numpy as np
import pytest

import minisink

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=["llama", "gpt2"])
def case(request):
    """(model, ids, logits)."""
    with np.load(GOLDEN / f"{request.param}.npz") as record:
        return minisink.load(GOLDEN / request.param), record["ids"], record["logits"]


def test_logits_are_those_of_transformers(case):
    model, ids, logits = case
    ours = model.forward(ids)
    assert ours.shape == logits.shape and ours.dtype == np.float32
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_in_float64_too(name):
    """Our own rounding left out, which differs from one processor to another."""
    with np.load(GOLDEN / f"{name}.npz") as record:
        ours = minisink.load(GOLDEN / name, dtype="float64").forward(record["ids"])
        np.testing.assert_allclose(ours, record["logits"], rtol=0, atol=1e-5)


def test_cached_logits_are_too(case):
    model, ids, logits = case
    cache = minisink.new_cache(model, minisink.Dense())
    ours = np.concatenate([model.forward(chunk, cache=cache) for chunk in np.split(ids, [1, 2, 9, 30])])
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-5)


def test_a_folder_without_a_tokenizer_loads(case):
    model, _, _ = case
    assert model.tokenizer is None


def test_the_logits_are_no_trifle(case):
    """Else the tolerance above would prove nothing."""
    _, ids, logits = case
    assert len(set(ids.tolist())) > 20
    assert logits.std(axis=0).min() > 0.1
